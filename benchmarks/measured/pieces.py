"""The pieces of `benchmarks.measure`: which public commands they are, at each size, of which models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenes.adopt import FURTHER
from gazetteer.jobs.config.schema import DEFAULT_CONFIG

MODELS = DEFAULT_CONFIG.parent / "models"
SIZES = ("full", "quick", "rehearsal")
"""How much is measured. The figures of a rehearsal mean nothing: it shows that every piece works, and is kept."""

_OF_SIZE: dict[str, tuple[str, ...]] = {
    "full": (), "quick": ("images=64",),
    "rehearsal": ("images=20", "shard_size=5", "generation.steps=4", "labels.min_images=2", "labels.permutations=50",
                  "labels.refine=100", "labels.max_q=1.0", "labels.min_specificity=0.0", "coverage.wanted=4"),
}  # fmt: skip

OF_CONFIG = {"": ("text_to_image", "saes"), "scenes-dit": FURTHER}
"""By preset the folders of the text-to-image model and of its autoencoders."""


@dataclass(frozen=True)
class Setting:
    """Where what lies, and how much is measured.

    Attributes:
        out: receives everything.
        models: of the world: ``text_to_image``, ``saes``, ``detector``, ``segmenter`` and the two classifiers.
        prompts: of a world whose prompts are its own, or None.
        size: one of SIZES.
        overrides: further settings of the configuration.
        config: the preset of another text-to-image model of the world than the shipped one, or "".
    """

    out: Path
    models: Path
    prompts: Path | None
    size: str
    overrides: tuple[str, ...]
    config: str = ""

    @property
    def run(self) -> str:
        """The labelling run that everything else reads."""
        return str(self.out / "run")

    @property
    def configuration(self) -> list[str]:
        """Settings that point the configuration at these models."""
        model, saes = OF_CONFIG[self.config]
        paths = {"model.path": model, "saes": saes, "detector.path": "detector", "segmenter.path": "segmenter"}
        settings = [f"{key}={self.models / name}" for key, name in paths.items()] if self.models != MODELS else []
        settings += [f"prompts.path={self.prompts / 'prompts.txt'}"] if self.prompts else []
        return [*settings, "executor=serial", *_OF_SIZE[self.size], *self.overrides]

    @property
    def preset(self) -> list[str]:
        """Words that name the configuration."""
        return ["--config", self.config] if self.config else []


@dataclass(frozen=True)
class Piece:
    """One measurement: a command after ``python -m``, and the pieces whose results it reads.

    `of_unet`: of blocks that the U-Net alone has.
    """

    name: str
    needs: tuple[str, ...]
    command: Callable[[Setting], list[str]]
    of_unet: bool = False


def _on_run(*words: str, **sized: Sequence[str]) -> Callable[[Setting], list[str]]:
    """A verb on the run; RUN and OUT in its words are where they lie. `sized`: further words of a size."""

    def command(setting: Setting) -> list[str]:
        said = [*words, *sized.get(setting.size, ()), "--json"]
        places = {"RUN": setting.run, "OUT": str(setting.out)}
        return ["gazetteer", *(_placed(word, places) for word in said)]

    return command


def _placed(word: str, places: dict[str, str]) -> str:
    head, slash, rest = word.partition("/")
    return places.get(head, head) + slash + rest


def _label(setting: Setting) -> list[str]:
    return ["gazetteer", "label", setting.run, *setting.preset, "--set", *setting.configuration, "--json"]


def _exact(setting: Setting) -> list[str]:
    count = {"full": "200", "quick": "24", "rehearsal": "4"}[setting.size]
    return ["gazetteer.data.scenes.truth", "--out", str(setting.out / "exact"), "--images", count]


def _attribution(parts: Sequence[str], methods: Sequence[str] = ()) -> Callable[[Setting], list[str]]:
    """Parts of the evaluation of weights; all of them keep their results in one place and take them from there.

    `methods`: of the full size.
    """

    def command(setting: Setting) -> list[str]:
        size = {
            "full": ["--methods", *methods] if methods else [],
            "quick": ["--quick"],
            "rehearsal": ["--quick", "--concepts", "sky", "--methods", "cad"],
        }[setting.size]  # fmt: skip
        attacks = ["--attacks", "paraphrase"] if setting.size == "rehearsal" and "attacks" in parts else []
        wanted = [part for part in parts if setting.size == "full" or part not in ("styles", "areas")]
        if setting.size == "rehearsal":
            wanted = [part for part in wanted if part in ("erase", "attacks", "heldout")]
        if setting.size == "rehearsal" and not {"erase", "attacks"} & set(wanted):  # whose methods these are
            size = [word for word in size if word not in ("--methods", "cad")]
        words = ["gazetteer", "attribute", "evaluate", *setting.preset, *size, "--parts", *wanted, *attacks]
        return [*words, "--out", str(setting.out / "attribution"), "--set", *setting.configuration, "--json"]

    return command


def _placing(setting: Setting) -> list[str]:
    fewer = ["--things", "sun", "--seeds", "300"] if setting.size == "rehearsal" else []
    return ["benchmarks.scenes.steering_defaults", setting.run, *fewer, "--json"]


def _nulls(setting: Setting) -> list[str]:
    return ["benchmarks.label_null", *(["--only", "company"] if setting.size == "rehearsal" else []), "--json"]


def _steer(name: str, *settings: str) -> Piece:
    """Steering with other settings than the configuration's, its trials apart."""
    words = ["steer", "evaluate", "RUN", "--out", f"OUT/{name}"]
    changed = ["--set", *settings] if settings else []
    # Every concept in every quadrant four times, every style twenty times; beside it twice, with fewer choices.
    size = ["steer.cases=160", "steer.global_cases=120"]
    size = size if not settings else ["steer.cases=80", "steer.choices=[contrast]", "steer.tuning=20", *settings]
    tiny = [*settings, "steer.cases=2", "steer.global_cases=2", "steer.tuning=2", "steer.strengths=[1.0]",
            "steer.choices=[labels]", "steer.ts=[0.5]", "steer.paper_strengths=[1.0]", "steer.words=[]",
            "steer.direction_images=4"]  # fmt: skip
    command = _on_run(*words, full=["--set", *size], quick=["--quick", *changed], rehearsal=["--set", *tiny])
    return Piece(name, ("label",), command, of_unet=name == "steering_mid")


_LAYOUT = ["--exact", "OUT/exact", "--plots", "OUT/plots"]
_LAYOUT_TINY = ["--quick", "--train-images", "8", "--heldout-images", "4", "--exact", "OUT/exact"]
_ERASING = ("steps_random", "cad", "cad_random", "repaired", "published", "uce", "steps_all", "random", "sae_ablate",
            "sae_negative", "sae_replace")  # fmt: skip
_ERASING_LOOKS = ("steps_random", "cad", "random", "repaired", "uce", "sae_ablate", "sae_negative", "sae_replace")
_ATTACKED = ("steps_random", "cad", "repaired", "uce", "sae_ablate")
_CAUSAL = ["causal", "RUN", "--set", "causal.pick=sample", "causal.unlabelled=0"]

PIECES = (
    Piece("label", (), _label),
    Piece("attribution", (), _attribution(("erase", "amplify", "located"), _ERASING)),
    Piece("looks", ("attribution",), _attribution(("erase", "styles", "areas"), _ERASING_LOOKS)),
    Piece("quality", ("label",), _on_run(
        "quality", "RUN", quick=["--no-shuffle"], rehearsal=["--set", "accuracy.images=6"])),
    Piece("exact", (), _exact),
    Piece("layout", ("label", "exact"), _on_run(
        "layout", "evaluate", "RUN", full=_LAYOUT, quick=["--stored"], rehearsal=_LAYOUT_TINY)),
    _steer("steering"),
    Piece("causal", ("label",), _on_run(
        *_CAUSAL, full=["--features=2"], quick=["--features=1", "--images=4"],
        rehearsal=["--features=1", "--images=2", "--sites=up_blocks.1.attentions.0-cond-t0.50"])),
    Piece("examine", ("causal",), _on_run(
        "examine", "RUN", full=["--fresh", "4"], quick=["--fresh", "1"],
        rehearsal=["--fresh", "1", "--set", "accuracy.images=6"])),
    _steer("steering_mid", "steer.blocks=[mid_block.attentions.0]", 'steer.classifier=""'),
    _steer("steering_both", "steer.branches=[both]", 'steer.classifier=""'),
    _steer("steering_windows", "steer.windows=[early and middle]", 'steer.classifier=""'),
    Piece("placing", ("label",), _placing),
    Piece("attacks", ("attribution",), _attribution(("attacks",), _ATTACKED)),
    Piece("faithfulness", (), _attribution(("faithfulness", "heldout"))),
    Piece("nulls", (), _nulls),
)  # fmt: skip
"""All pieces in their order; the mid block alone is the only site of arXiv 2504.15473, "both" edits both branches.

The longest comes first, beside which all others find a place (`--jobs`)."""
