"""What a configuration names is imported, or a sentence says why not."""

import sys

import pytest

from gazetteer.data.core.digests import digest_path
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.importing import import_named, with_source, with_state
from gazetteer.data.scenes.weights import MODELS


def test_functions_and_what_classes_hold_are_found():
    import math
    import pathlib

    assert import_named("math:sqrt", "x") is math.sqrt
    assert import_named("pathlib:Path.cwd", "x") == pathlib.Path.cwd


@pytest.mark.parametrize(
    "name", ["", "math", "math:", ":sqrt", "math:sqrt:x", "../math:sqrt", ".math:sqrt", "math:sqrt()", "a b:c", "m\0:x"]
)
def test_other_spellings_are_refused(name):
    with pytest.raises(InputError, match=r"^vocabulary.tagger .* cannot be imported; accepted: package"):
        import_named(name, "vocabulary.tagger")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("no_such_module:f", "No module named"), ("math:none", "no attribute"), ("math:pi", "is not callable")],
)
def test_what_is_not_there_or_no_function_gets_a_sentence(name, reason):
    with pytest.raises(InputError, match=reason):
        import_named(name, "steer.classifier")


@pytest.mark.parametrize("text", ["def f(:", "1 / 0", "raise SystemExit(3)", "import no_such_thing"])
def test_a_module_that_fails_gets_a_sentence(tmp_path, monkeypatch, text):
    (tmp_path / "failing_module_of_a_user.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"^key 'failing_module_of_a_user:f' cannot be imported as module:function: "):
        import_named("failing_module_of_a_user:f", "key")
    assert "failing_module_of_a_user" not in sys.modules


def test_the_state_of_a_judge_is_its_source_and_what_its_module_says_of_weights(tmp_path, monkeypatch):
    module, weights = tmp_path / "judge_of_a_user.py", tmp_path / "weights"
    module.write_text("from pathlib import Path\ndef make():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert with_state("", "key") == ""
    assert with_state("judge_of_a_user:make", "key") == with_source("judge_of_a_user:make")
    del sys.modules["judge_of_a_user"]
    with module.open("a") as file:
        file.write(f"def digest():\n    return Path({str(weights)!r}).read_text()\n")
    weights.write_text("first")
    first = with_state("judge_of_a_user:make", "key")
    weights.write_text("second")
    assert (first.split()[-1], with_state("judge_of_a_user:make", "key").split()[-1]) == ("first", "second")
    sys.modules["judge_of_a_user"].digest = lambda: 3
    with pytest.raises(InputError, match="gives 3; it must give a text"):
        with_state("judge_of_a_user:make", "key")


@pytest.mark.parametrize("kind", ["style", "concept"])
def test_the_embedded_judges_name_their_weights(kind):
    name = f"gazetteer.data.scenes.{kind}_classifier:load"
    weights = digest_path(str(MODELS / f"{kind}_classifier"))
    assert with_state(name, "key") == f"{with_source(name)} {weights}"
