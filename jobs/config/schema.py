"""The run configuration: YAML plus `--set`, validated once, here, into frozen data classes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from gazetteer.data.core.complaints import dotted
from gazetteer.data.core.errors import InputError
from gazetteer.data.core.files.regular import read_regular
from gazetteer.data.core.plain_yaml import place_of, read_yaml
from gazetteer.data.core.settings import (
    About,
    Count,
    Effect,
    Natural,
    NonNegative,
    OneOf,
    Seed,
    SettingError,
    fields,
    from_json,
    setting,
    settings,
)  # fmt: skip
from gazetteer.data.inputs.given.config import PicturesConfig, given_setting
from gazetteer.data.inputs.prompt_pool import PromptConfig
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.load import ModelConfig
from gazetteer.jobs.config.groups import AttributeConfig, SaeConfig
from gazetteer.jobs.config.overrides import apply_override
from gazetteer.jobs.config.paths import is_there
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig, check_pools, with_devices
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.evidence.config import EvidenceConfig
from gazetteer.labeling.interventions.causal_config import CausalConfig
from gazetteer.labeling.interventions.evaluation.cases import SteerConfig
from gazetteer.labeling.pipeline.config import STAGES, SaeCheckConfig, StageConfig
from gazetteer.labeling.quality.accuracy_config import AccuracyConfig
from gazetteer.labeling.rules.config import LabelConfig
from gazetteer.labeling.rules.coverage import CoverageConfig
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.vocabulary.concepts import VocabularyConfig
from gazetteer.sae.model.patterns import SaeSetting

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "data" / "scenes" / "config.yaml"
"""The configuration used when none is named: the world that ships with the project."""

PRESETS = Path(__file__).resolve().parent / "presets"
"""Configurations that ship with the project, chosen by name: ``--config paper-sd14``."""


UNUSED = {"prompts": {"path": ""}, "vocabulary": {"ask": "prompt", "nouns": "hanta"}, "detector": {"path": ""}}
"""Groups that a run on given pictures has no use for, as they are where it leaves them out."""


def shard_size_of(images: int) -> int:
    """Pictures per shard of a run of so many, where nothing is said of it: at most some 600 shards, or 64 a shard.

    Small shards lose little when a worker dies and share out evenly; a hundred thousand files of a large run, five a
    shard, are slow to list and read.
    """
    return 16 if images <= 10_000 else 32 if images <= 20_000 else 64


@settings("")
class RunConfig:
    """One labelling run. Paths in a file are relative to it where such a path exists there, typed ones to here."""

    name: str = setting(Effect.LABELS, "The model's name in the tables.")
    prompts: PromptConfig
    model: ModelConfig
    saes: SaeSetting = setting(
        Effect.CODES,
        "A folder of sparse autoencoders, one sub-folder a site, as `gazetteer sae train` writes them; or a mapping of "
        'patterns of sites to autoencoders (`{"*": FOLDER}` for one at every site).',
        path=True,
    )
    vocabulary: VocabularyConfig
    detector: DetectorConfig
    segmenter: SegmenterConfig = SegmenterConfig()
    generation: GenerationConfig = GenerationConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    labels: LabelConfig = LabelConfig()
    coverage: CoverageConfig = CoverageConfig()
    sae: SaeConfig | None = setting(Effect.TRAINING, default=None)
    sae_check: SaeCheckConfig = SaeCheckConfig()
    steer: SteerConfig = SteerConfig()
    attribute: AttributeConfig = AttributeConfig()
    causal: CausalConfig = CausalConfig()
    accuracy: AccuracyConfig = AccuracyConfig()
    pictures: PicturesConfig = PicturesConfig()
    images: Count = setting(
        Effect.SELECTION, "Pictures to generate; of given ones (`pictures`) at most so many are taken.", default=400
    )
    seed: Seed = setting(
        Effect.SELECTION,
        "Base seed; each picture's own seed derives from it, its prompt and how often that was used.",
        default=0,
    )
    heldout: Annotated[float, Ge(0), Lt(1)] = setting(
        Effect.LABELS, "Share of prompts kept out of choosing labels.", default=0.3
    )
    shard_size: Natural = setting(
        Effect.SELECTION,
        "Pictures per shard, the unit of work, retry and commit; 0: 16 up to 10,000 pictures, 32 up to 20,000, 64 "
        "beyond, so that a larger run has larger files instead of more of them.",
        default=0,
    )
    max_failed_fraction: NonNegative = setting(
        Effect.NOTHING, "The run fails when more than this share of the pictures could not be processed.", default=0.05
    )
    executor: Annotated[str, OneOf(("serial", "ray"))] = setting(
        Effect.NOTHING, "``serial`` (in this process) or ``ray``.", default="ray"
    )
    workers: Natural = setting(
        Effect.NOTHING,
        "Worker processes of the ray executor, each doing all stages; 0: as many as the cluster has room for.",
        default=2,
    )
    pools: tuple[PoolConfig, ...] = setting(
        Effect.NOTHING, "Instead of `workers`: workers that do some stages each, and what they need.", default=()
    )
    limits: LimitConfig = LimitConfig()
    threads: Natural = setting(
        Effect.PICTURES,
        "CPU threads of a worker; 0 leaves torch's choice, and then tables depend on the machine in their last bits.",
        default=1,
        late=True,
        last_bits=True,
    )
    helpers: Natural = setting(
        Effect.NOTHING,
        "Threads of a worker beside its models, which prepare the next pictures for them and write the last ones as "
        "PNG and run lengths; no byte depends on them. 0: all in turn.",
        default=2,
    )
    batch_size: Count = setting(
        Effect.NOTHING,
        "Pictures that go through the stages together; while `generation.exact` is true no result depends on it. Where "
        "so many do not fit into a device's memory, a worker goes on with half of them and says so.",
        default=8,
    )
    ray_address: str = setting(
        Effect.NOTHING,
        "A cluster to join by name, or ``job`` in a Ray job: the one it runs on; empty starts a private Ray "
        "on this machine.",
        default="",
    )

    def __post_init__(self) -> None:
        if not self.shard_size:
            object.__setattr__(self, "shard_size", shard_size_of(self.images))
        check_pools(self.pools, STAGES)
        if self.executor == "ray":
            _ = self.all_pools  # refuses what is on a GPU and asks for none
        for earlier, later in combinations(self.generation.t, 2):
            if f"{earlier:.2f}" == f"{later:.2f}":
                raise InputError(
                    f"generation.t holds {earlier} and {later}, both of which are called t{later:.2f}; "
                    "sites are told apart by two decimals."
                )
        if self.sae and self.sae.prompts.side and self.sae.prompts.side == self.prompts.side:
            raise InputError(f"prompts.side and sae.prompts.side are both {self.prompts.side}; give each its own.")
        if self.sae and self.sae.prompts.side and self.prompts.side and self.sae.prompts.shares != self.prompts.shares:
            raise InputError("prompts.shares and sae.prompts.shares differ: the sides of one then overlap the other's.")

    @property
    def all_pools(self) -> tuple[PoolConfig, ...]:
        """The pools of the ray executor: those named, or one for everything; a model on ``cuda`` implies a GPU."""
        pools = self.pools or (PoolConfig(stages=STAGES, workers=self.workers),)
        devices = {
            "generate": self.model.device, "detect": self.detector.device, "segment": self.segmenter.device,
        }  # fmt: skip
        return tuple(with_devices(pool, devices) for pool in pools)

    @property
    def stages(self) -> StageConfig:
        """What a worker needs."""
        return StageConfig(
            model=self.model,
            generation=self.generation,
            saes=self.saes,
            vocabulary=self.vocabulary,
            detector=self.detector,
            segmenter=self.segmenter,
            evidence=self.evidence,
            sae_check=self.sae_check,
            pictures=self.pictures,
            seed=self.seed,
            heldout=self.heldout,
            batch_size=self.batch_size,
            threads=self.threads,
            helpers=self.helpers,
        )


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file or a preset (None: the default configuration), apply ``key=value`` overrides, validate.

    Raises:
        InputError: unreadable file, unknown key, wrong type or value.
    """
    file = _find(path) if path else DEFAULT_CONFIG
    what = f"The configuration {file}"
    try:
        text = read_regular(file).decode("utf-8")
        raw = read_yaml(text, what)
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not text in UTF-8: {error.reason} at byte {error.start}.") from error
    if not isinstance(raw, dict):
        content = "is empty" if raw is None else f"is a {type(raw).__name__}"
        raise InputError(f"{what} must be a mapping of keys, and {content}.")
    raw = json.loads(json.dumps(raw))  # what an alias stands for twice is changed once
    for override in overrides:
        apply_override(raw, override, RunConfig)
    pictures = raw.get("pictures")
    if isinstance(pictures, dict) and given_setting({f"pictures.{key}": value for key, value in pictures.items()}):
        raw = {**UNUSED, **raw}
    try:
        config = from_json(RunConfig, json.dumps(raw))
    except SettingError as error:
        key = dotted(error.loc)
        if any(key.startswith(override.partition("=")[0]) for override in overrides):
            raise  # not what the file says
        raise InputError(f"{file}, {place_of(text, error.loc)}: {error}") from None
    return _resolve_paths(config, file.resolve().parent, [override.partition("=")[0] for override in overrides])


def presets() -> list[str]:
    """The names of the configurations that ship with the project."""
    return sorted(_presets())


def _presets() -> dict[str, Path]:
    """By name: those of published models, and of the embedded world beside its default."""
    files = [*PRESETS.glob("*.yaml"), *DEFAULT_CONFIG.parent.glob("*.yaml")]
    return {file.stem: file for file in files if file != DEFAULT_CONFIG}


def _find(path: str | Path) -> Path:
    """The file at `path`; where there is none, or a folder, the preset of that name."""
    if str(path) in presets() and (Path(path).is_dir() or not Path(path).exists()):
        return _presets()[str(path)]
    if not Path(path).exists():
        raise InputError(
            f"There is no configuration {path}; accepted: a YAML file, or a preset ({', '.join(presets())})."
        )
    return Path(path)


def _resolve_paths(config: Any, folder: Path, typed: Sequence[str] = (), prefix: str = "") -> Any:
    """Replace relative paths that exist beside the configuration file; others stay (hub ids, cwd paths).

    What was typed is meant from where one is, not from where the file lies: those keys stay, too.
    """
    changes: dict[str, Any] = {}
    for known in fields(type(config)):
        key, value = f"{prefix}{known.name}", getattr(config, known.name)
        if dataclasses.is_dataclass(value):
            changes[known.name] = _resolve_paths(value, folder, typed, f"{key}.")
        elif not known.about.path or any(_says(given, key) for given in typed):
            continue
        elif isinstance(value, dict):
            changes[known.name] = {name: _beside(known.about, path, folder) for name, path in value.items()}
        else:
            changes[known.name] = _beside(known.about, value, folder)
    return dataclasses.replace(config, **changes)


def _says(given: str, key: str) -> bool:
    """Whether an override of one key says what another is: the same one, a group that holds it, or an entry of it."""
    return f"{key}.".startswith(f"{given}.") or f"{given}.".startswith(f"{key}.")


def _beside(about: About, path: str, folder: Path) -> str:
    return str(folder / path) if is_there(about, path, folder) else path
