"""What a setting affects stands on it, once; fingerprints, names and what may be reused follow from that."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gazetteer.data.core.settings import Effect, OneOf, Setting, group_of
from gazetteer.jobs.config.fingerprint import (
    REUSABLE,
    SETTINGS,
    TABLES,
    differing,
    fingerprint_of,
    keys_of,
    picture_digest,
)  # fmt: skip
from gazetteer.jobs.config.schema import RunConfig, load_config

BASE = load_config(None)
BASES = {"generation.streams": load_config(None, ["generation.branches=[cond]"])}  # words are not heard with uncond
OTHER = {
    "prompts.path": "elsewhere.txt", "prompts.matching": "a", "prompts.side": "dictionary", "prompts.limit": 7,
    "prompts.shares": (0.5, 0.25, 0.25), "generation.blocks": ("down_blocks.0.attentions.0",), "generation.t": (0.25,),
    "generation.branches": ("uncond",), "generation.streams": ("text",), "generation.signals": ("output",),
    "vocabulary.concepts": ("dog",), "vocabulary.ask": "prompt",
    "model.dtype": "float16", "model.scheduler": "ddim", "model.device": "cuda", "detector.library": "groundingdino",
    "detector.dtype": "float16", "detector.device": "cuda:1", "segmenter.library": "segment_anything",
    "segmenter.dtype": "float16", "segmenter.device": "mps", "segmenter.model_type": "vit_b", "executor": "serial",
    "model.device_map": "balanced", "model.offload": "model", "labels.top_shares": (0.5,),
    "causal.windows": ("early",), "causal.strengths": (0.5,), "causal.places": ("cells",),
}  # fmt: skip
ILL = {
    "model.config",
    "vocabulary.nouns",
    "vocabulary.tagger",
}  # belong to settings of another kind, which would change too


def another(one: Setting, now: Any) -> Any:
    """A value that is not the one it has."""
    if one.key in OTHER:
        return OTHER[one.key]
    for constraint in getattr(one.hint, "__metadata__", ()):
        if isinstance(constraint, OneOf):
            return next(value for value in constraint.accepted if value != now)
    if isinstance(now, bool):
        return not now
    if isinstance(now, float):
        return now * 0.9 if now else 0.05
    return now + 1 if isinstance(now, int) else f"{now}x" if isinstance(now, str) else ("word",)


def changed(config: Any, names: list[str], value: Any) -> Any:
    """The configuration with one setting changed."""
    if len(names) > 1:
        value = changed(getattr(config, names[0]), names[1:], value)
    return dataclasses.replace(config, **{names[0]: value})


def plain() -> Iterator[Setting]:
    """The settings that the tests below change."""
    for one in SETTINGS.values():
        if one.key not in ILL and not one.key.startswith(("sae.", "steer.")) and one.key not in ("pools", "limits"):
            yield one


def value_of(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("one", plain(), ids=lambda one: one.key)
def test_a_setting_counts_in_what_its_effect_says_and_nowhere_else(one: Setting) -> None:
    base = BASES.get(one.key, BASE)
    other = changed(base, one.key.split("."), another(one, value_of(base, one.key)))
    fingerprint, effect = fingerprint_of(base), one.about.effect
    differs = {key for key, value in fingerprint_of(other).items() if fingerprint.get(key, "none") != value}
    assert differs == ({one.key} if effect in TABLES else set())
    assert bool(differing(fingerprint, fingerprint_of(other), REUSABLE)) == (
        effect in (Effect.PICTURES, Effect.SEGMENTS)
    )
    named = picture_digest(fingerprint) != picture_digest(fingerprint_of(other))
    assert named == (effect is Effect.PICTURES and not one.about.last_bits)


def test_every_setting_says_what_it_is() -> None:
    silent = [one.key for one in SETTINGS.values() if one.about.effect is None or not one.about.meaning.endswith(".")]
    assert silent == []


def test_groups_that_make_no_table_of_a_run_state_so_once() -> None:
    for group, effects in {
        "sae": {Effect.TRAINING, Effect.NOTHING}, "steer": {Effect.MEASUREMENTS}, "causal": {Effect.MEASUREMENTS},
        "attribute": {Effect.MEASUREMENTS}, "sae_check": {Effect.NOTHING}, "limits": {Effect.NOTHING},
    }.items():  # fmt: skip
        assert {one.about.effect for key, one in SETTINGS.items() if key.startswith(f"{group}.")} == effects


def test_threads_and_the_kind_of_device_change_tables_and_no_names() -> None:
    """Sums differ in the last bits with the number of threads: 16 of 23 files of a small run between 1 and 2."""
    fingerprint = fingerprint_of(BASE)
    for override in ("threads=2", "model.device=cuda:1", "detector.device=cuda", "generation.exact=false"):
        other = fingerprint_of(load_config(None, [override, "model.dtype=float32"]))
        assert other != fingerprint
        assert picture_digest(other) == picture_digest(fingerprint)
    on_one, on_another = (fingerprint_of(load_config(None, [f"model.device=cuda:{n}"])) for n in (0, 1))
    assert on_one == on_another and on_one["model.device"] == "cuda"


def test_which_keys_have_which_effect() -> None:
    assert {"threads", "generation.exact", "model.device"} < keys_of({Effect.PICTURES})
    generation = {f"generation.{name}" for name in ("blocks", "streams", "signals", "branches", "t")}
    assert keys_of({Effect.CODES}) == {"saes", *generation}
    assert keys_of({Effect.SELECTION}) >= {"images", "seed", "shard_size", "prompts.path", "coverage.first"}
    assert "heldout" in keys_of({Effect.LABELS}), "who reuses pictures splits them anew"


def test_every_group_is_checked_as_the_configuration_is() -> None:
    """A plain data class inside would take anything."""
    hints = typing.get_type_hints(RunConfig)
    groups = [found for hint in hints.values() if (found := group_of(hint)) is not None]
    assert len(groups) > 10
    assert all(hasattr(group, "__pydantic_config__") for group in groups)


def test_a_changed_function_is_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vocabulary.tagger names code of the user's: the same name over other code finds other things."""
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "tags_of_mine.py"
    config = load_config(None, ["vocabulary.ask=both", "vocabulary.tagger=tags_of_mine:tags"])
    assert fingerprint_of(config)["vocabulary.tagger"] == "tags_of_mine:tags", (
        "who imports it says that it is not there"
    )
    found = []
    for body in ("return ['dog']", "return ['cat']  # other"):
        source.write_text(f"def tags(picture):\n    {body}\n")
        importlib.invalidate_caches()
        found.append(fingerprint_of(config)["vocabulary.tagger"])
    assert all(one.startswith("tags_of_mine:tags sha256:") for one in found)
    assert found[0] != found[1]
    config = load_config(None, ["vocabulary.nouns=hanta", "vocabulary.ask=both"])
    assert fingerprint_of(config)["vocabulary.nouns"] == "hanta"
