"""The run configuration: YAML plus `--set`, validated once, here, into frozen data classes."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompt_pool import PromptConfig
from gazetteer.diffusion.generate import GenerationConfig
from gazetteer.diffusion.load import ModelConfig
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig, check_pools
from gazetteer.labeling.detect.protocol import DetectorConfig
from gazetteer.labeling.evidence.counts import EvidenceConfig
from gazetteer.labeling.interventions.causal_config import CausalConfig
from gazetteer.labeling.interventions.evaluation.cases import SteerConfig
from gazetteer.labeling.pipeline.sae_check import SaeCheckConfig
from gazetteer.labeling.pipeline.stages import STAGES, StageConfig
from gazetteer.labeling.rules.coverage import CoverageConfig
from gazetteer.labeling.rules.labels import LabelConfig
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.vocabulary.concepts import VocabularyConfig
from gazetteer.sae.training.config import TrainConfig

C = TypeVar("C")

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "data" / "scenes" / "config.yaml"
"""The configuration used when none is named: the world that ships with the project."""

PRESETS = Path(__file__).resolve().parent / "presets"
"""Configurations that ship with the project, chosen by name: ``--config paper-sd14``."""


@dataclass(frozen=True)
class SaeConfig:
    """How `gazetteer sae train` makes the sparse autoencoders.

    Attributes:
        prompts: prompts to capture activations on, disjoint from those of the labelling job.
        images: pictures to sample.
        train: the training of each site.
        stream: train all sites while the pictures are sampled, with no activation on disk; every picture is then
            seen once, and `train.steps`, if given, may not need more pictures than there are.
        buffer: vectors a site holds back for the shuffle of a stream, in float16.
        recover: held-out pictures on which the noise-prediction error with the reconstruction in place of the update
            is measured (loss recovered); 0 leaves it out.
        device: to train on, e.g. ``cuda``.
        tensorboard: also write the curves for TensorBoard, into ``OUT/tensorboard``; needs the package.
    """

    prompts: PromptConfig
    images: int = 1000
    train: TrainConfig = TrainConfig()
    stream: bool = False
    buffer: int = 65536
    recover: int = 16
    device: str = "cpu"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("buffer", 1), ("recover", 0)):
            if getattr(self, name) < least:
                raise InputError(f"sae.{name} must be at least {least}, not {getattr(self, name)}.")


@dataclass(frozen=True)
class AttributeConfig:
    """What `gazetteer attribute evaluate` is judged by, beside the detector.

    Attributes:
        classifier: ``module:function`` that gives a `labeling.interventions.evaluation.trials.Judge` whose labels are
            the vocabulary's concepts, each with a probability of its own; empty: the detector is the only witness.
    """

    classifier: str = ""


@dataclass(frozen=True)
class RunConfig:
    """One labelling run. Paths are relative to the configuration file where such a path exists there.

    Attributes:
        name: the model's name in the tables.
        images: pictures to generate.
        seed: base seed; each picture's own seed derives from it, its prompt and how often that was used.
        heldout: share of prompts kept out of choosing labels.
        shard_size: pictures per shard, the unit of work, retry and commit.
        max_failed_share: the run fails when more than this share of the pictures could not be processed.
        executor: ``serial`` (in this process) or ``ray``.
        workers: worker processes of the ray executor, each doing all stages; 0: as many as the cluster has room for.
        pools: instead of `workers`: workers that do some stages each, and what they need.
        limits: when something that does not work is given up.
        threads: CPU threads per worker.
        batch_size: pictures processed together.
        ray_address: a cluster to join by name, or ``job`` in a Ray job: the one it runs on; empty starts a private Ray
            on this machine.
    """

    name: str
    prompts: PromptConfig
    model: ModelConfig
    saes: str
    vocabulary: VocabularyConfig
    detector: DetectorConfig
    segmenter: SegmenterConfig
    generation: GenerationConfig = GenerationConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    labels: LabelConfig = LabelConfig()
    coverage: CoverageConfig = CoverageConfig()
    sae: SaeConfig | None = None
    sae_check: SaeCheckConfig = SaeCheckConfig()
    steer: SteerConfig = SteerConfig()
    attribute: AttributeConfig = AttributeConfig()
    causal: CausalConfig = CausalConfig()
    images: int = 400
    seed: int = 0
    heldout: float = 0.3
    shard_size: int = 16
    max_failed_share: float = 0.05
    executor: str = "ray"
    workers: int = 2
    pools: tuple[PoolConfig, ...] = ()
    limits: LimitConfig = LimitConfig()
    threads: int = 1
    batch_size: int = 8
    ray_address: str = ""
    base: str = field(default="", metadata={"internal": True})

    def __post_init__(self) -> None:
        for name in ("images", "shard_size", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.workers < 0:
            raise InputError(f"workers must be 0 (what the cluster has room for) or more, not {self.workers}.")
        check_pools(self.pools, STAGES)
        if self.threads < 0:
            raise InputError(f"threads must be 0 (torch's choice) or more, not {self.threads}.")
        if not 0.0 <= self.heldout < 1.0:
            raise InputError(f"heldout must lie in [0, 1), not {self.heldout}.")
        for earlier, later in combinations(self.generation.t, 2):
            if f"{earlier:.2f}" == f"{later:.2f}":
                raise InputError(
                    f"generation.t holds {earlier} and {later}, both of which are called t{later:.2f}; "
                    "sites are told apart by two decimals."
                )
        if self.executor not in ("serial", "ray"):
            raise InputError(f"executor is {self.executor!r}; accepted: serial, ray.")
        if self.sae and self.sae.prompts.side and self.sae.prompts.side == self.prompts.side:
            raise InputError(f"prompts.side and sae.prompts.side are both {self.prompts.side}; give each its own.")
        if self.sae and self.sae.prompts.side and self.prompts.side and self.sae.prompts.shares != self.prompts.shares:
            raise InputError("prompts.shares and sae.prompts.shares differ: the sides of one then overlap the other's.")

    @property
    def all_pools(self) -> tuple[PoolConfig, ...]:
        """The pools of the ray executor: those named, or one that does everything."""
        return self.pools or (PoolConfig(stages=STAGES, workers=self.workers),)

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
            heldout=self.heldout,
            batch_size=self.batch_size,
            threads=self.threads,
        )


OPERATIONAL = frozenset(
    {"executor", "workers", "pools", "limits", "threads", "batch_size", "ray_address", "max_failed_share", "base"}
    | {"sae", "sae_check", "steer", "attribute", "causal", "model.device", "model.device_map", "model.offload"}
    | {"detector.device", "detector.batch_size", "segmenter.device", "segmenter.batch_size"}
)
"""Keys that change how a run is carried out but not what it must come to."""

PATHS = frozenset({"path", "saes", "config", "text_encoder"})
"""Keys whose text may name a file or folder: resolved beside the configuration, digested in the fingerprint."""


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file or a preset (None: the default configuration), apply ``key=value`` overrides, validate.

    Raises:
        InputError: unreadable file, unknown key, wrong type or value.
    """
    file = _find(path) if path else DEFAULT_CONFIG
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The configuration {file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration {file} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(raw, dict):
        raise InputError(f"The configuration {file} must be a mapping of keys, not {type(raw).__name__}.")
    for override in overrides:
        _apply(raw, override)
    raw["base"] = ""
    return _resolve_paths(build(RunConfig, raw, ""), file.resolve().parent)


def presets() -> list[str]:
    """The names of the configurations that ship with the project."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def _find(path: str | Path) -> Path:
    """The file at `path`; where there is none, the preset of that name."""
    if str(path) in presets() and not Path(path).exists():
        return PRESETS / f"{path}.yaml"
    if not Path(path).exists():
        raise InputError(
            f"There is no configuration {path}; accepted: a YAML file, or a preset ({', '.join(presets())})."
        )
    return Path(path)


def build(cls: type[C], raw: Mapping[str, Any], prefix: str) -> C:
    """A frozen data class from plain values; names the key in every complaint.

    Raises:
        InputError: unknown or missing key, wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(fields))
    if unknown:
        known = ", ".join(n for n, f in fields.items() if not f.metadata.get("internal"))
        raise InputError(f"Unknown configuration key {prefix}{unknown[0]}; accepted: {known}.")
    missing = [
        n
        for n, f in fields.items()
        if n not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"The configuration key {prefix}{missing[0]} is missing.")
    return cls(**{name: _convert(hints[name], value, f"{prefix}{name}") for name, value in raw.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _convert(next(a for a in typing.get_args(hint) if a is not type(None)), value, key)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"{key} is {value!r}; accepted: {', '.join(map(str, typing.get_args(hint)))}.")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise InputError(f"{key} must be a mapping of keys, not {value!r}.")
        return build(hint, value, f"{key}.")
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise InputError(f"{key} must be a mapping of names, not {value!r}.")
        return dict(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{key} must be a list, not {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], one, f"{key}[{i}]") for i, one in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise InputError(f"{key} must be {_TYPE_NAMES.get(hint, hint.__name__)}, not {value!r}.")
    if isinstance(value, float) and value != value:
        raise InputError(f"{key} is not a number.")
    return value


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set takes key=value, not {override!r}.")
    *parents, last = key.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise InputError(f"--set {key}: {parent} is not a group of keys.")
    try:
        raw[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: {text!r} is not a valid value.") from error


def _resolve_paths(config: Any, folder: Path) -> Any:
    """Replace relative paths that exist beside the configuration file; others stay (hub ids, cwd paths)."""
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            changes[f.name] = _resolve_paths(value, folder)
        elif f.name in PATHS and value and isinstance(value, str) and (folder / value).exists():
            changes[f.name] = str(folder / value)
    return dataclasses.replace(config, **changes)
