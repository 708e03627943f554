"""YAML without its surprises: what people mean by it, or one sentence with line and column."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.plain_yaml import read_yaml

SCALARS = {
    "1": 1, "+5": 5, "-3": -3, "1_000": 1000, "0x1F": 31, "1.5": 1.5, "1.": 1.0, "-.5": -0.5, "1e-4": 1e-4,
    "1.0e-05": 1e-5, "2E3": 2000.0, ".inf": math.inf, "true": True, "False": False, "~": None, "null": None, "": None,
    # YAML 1.1 makes of these: 8, 90, an exception, an exception, False, True, a date, 0
    "010": "010", "1:30": "1:30", "0x_": "0x_", "2001-99-99": "2001-99-99", "no": "no", "on": "on",
    "2001-01-01": "2001-01-01", "0_": "0_", "!!str 5": "5", "'1'": "1", "猫": "猫",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_scalars(text: str, value: Any) -> None:
    found = read_yaml(f"key: {text}\n", "it")["key"]
    assert (found, type(found)) == (value, type(value))


def test_nothing_and_not_a_number() -> None:
    assert read_yaml("", "it") is None
    assert math.isnan(read_yaml(".nan", "it"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: [1,\n  2: }", r"expected the node content, but found '}' \(line 3, column 6\)"),
        ("a: 1\nb: 2\na: 3", r"the key a stands there twice \(line 3, column 1\)"),
        ("1: x", r"a key must be text \(line 1, column 1\)"),
        ("a:\n  [1]: x", r"a key must be text \(line 2, column 3\)"),
        ("a: &x [1, *x]", r"an alias stands for what it is in \(line 1, column 4\)"),
        ("a: !!python/object:os.system {}", r"is not accepted; plain values are \(line 1, column 4\)"),
        ("a: !!set {b}", "is not accepted"),
        ("a: !!timestamp 2001-99-99", "is not accepted"),
        ("a: !!int '0x_'", r"'0x_' is no int \(line 1, column 4\)"),
        (f"a: {'9' * 5000}", "is no int"),
        ('a: "\\ud800"', r"half a character \(line 1, column 4\)"),
        ("a: 1\nb: x\x00", r"a character that no text has, number 0 \(line 2, column 5\)"),
        ("--- 1\n--- 2", r"line 2, column 1"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_wrong_has_a_place(text: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^The file x.*{says}"):
        read_yaml(text, "The file x")


def test_aliases_that_explode_are_counted_before_they_are_made() -> None:
    bomb = ["a0: &a0 [" + ", ".join("x" * 9) + "]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(InputError, match=r"its aliases stand for \d{12} values"):
        read_yaml("\n".join(bomb), "it")


def test_merged_keys_give_way_to_own_ones() -> None:
    text = "one: &one {k: 1, l: 2}\nother:\n  <<: *one\n  l: 3\n  m: 4\n"
    assert read_yaml(text, "it") == {"one": {"k": 1, "l": 2}, "other": {"k": 1, "l": 3, "m": 4}}


LEAVES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.text("abc", min_size=1, max_size=3)
VALUES = st.recursive(
    LEAVES | st.text("ab:1_.é-# 😀", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_json_writes_is_read_as_it_was(value: Any) -> None:
    assert read_yaml(json.dumps(value), "it") == value


@given(st.dictionaries(KEYS, st.floats(allow_nan=False, allow_infinity=False) | st.booleans(), max_size=3))
def test_what_other_programs_write_is_read_as_they_read_it(value: dict[str, Any]) -> None:
    assert read_yaml(yaml.safe_dump(value), "it") == value
