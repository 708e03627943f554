"""What an evaluation is asked for, held against what its prompts name, before anything is painted."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gazetteer.attribution.edits.method_names import PARTS
from gazetteer.attribution.evaluation.cases import CHOOSE, REPORT
from gazetteer.attribution.evaluation.evaluate import EditEvaluation
from gazetteer.data.core.errors import InputError


def check_named(evaluation: EditEvaluation, concepts: Sequence[str]) -> None:
    """Raise InputError, before anything is painted, for a concept that no prompt of a half that is needed names."""
    config = evaluation.config
    several = any(len(config.points(m, goal)) > 1 for goal in ("erase", "amplify") for m in getattr(config, goal))
    for half in (REPORT, CHOOSE) if several else (REPORT,):
        if unnamed := [c for c in concepts if c not in evaluation.pairs.named(half)]:
            which = "doses are chosen on" if half == CHOOSE else "is reported on"
            raise InputError(
                f"No prompt of the half that {which} names {unnamed[0]!r}; give more prompts or other concepts."
            )


def check_parts(parts: Collection[str]) -> None:
    """Raise InputError for an unknown part of an evaluation."""
    if wrong := sorted(set(parts) - set(PARTS)):
        raise InputError(f"Unknown part {wrong[0]!r}; accepted: {', '.join(PARTS)}.")


def check_heard(
    parts: Collection[str], concepts: Sequence[str] = (), methods: Sequence[str] = (), attacks: Sequence[str] = ()
) -> None:
    """Raise InputError for what was asked for by name, and no part that is measured hears."""
    chosen = [part for part in PARTS if part not in ("styles", "areas")]  # those are, by what the model shows
    edited = [part for part in PARTS if part not in ("faithfulness", "heldout")]
    for name, given, heard in (
        ("attacks", attacks, ["attacks"]),
        ("methods", methods, edited),
        ("concepts", concepts, chosen),
    ):
        if given and not set(heard) & set(parts):
            shown = [part for part in parts if part in ("styles", "areas")] if name == "concepts" else []
            why = f" ({' and '.join(shown)} are of all that the model shows, as one set)" if shown else ""
            raise InputError(
                f"--{name} says something to {', '.join(heard)} alone, and --parts leaves "
                f"{'that' if len(heard) == 1 else 'those'} out{why}; leave --{name} out, or name such a part."
            )
