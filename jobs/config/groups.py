"""Groups of a configuration whose subject has no room that could hold them: how autoencoders are made, what judges."""

from __future__ import annotations

from gazetteer.data.core.settings import Count, Effect, Natural, NonNegative, device_setting, setting, settings
from gazetteer.data.inputs.prompt_pool import PromptConfig
from gazetteer.jobs.config.pools import PoolConfig, with_devices
from gazetteer.sae.training.config import TrainConfig


@settings("sae")
class SaeConfig:
    """How `gazetteer sae train` makes the sparse autoencoders."""

    prompts: PromptConfig = setting(
        Effect.TRAINING, "Prompts to capture activations on, disjoint from those of the labelling job."
    )
    images: Count = setting(Effect.TRAINING, "Pictures to sample.", default=1000)
    train: TrainConfig = setting(Effect.TRAINING, "The training of each site.", default=TrainConfig())
    stream: bool = setting(
        Effect.TRAINING,
        "Train all sites while the pictures are sampled, with no activation on disk; every picture is then "
        "seen once, and `train.steps`, if given, may not need more pictures than there are.",
        default=False,
    )
    buffer: Count = setting(
        Effect.TRAINING, "Vectors a site holds back for the shuffle of a stream, in float16.", default=65536
    )
    recover: Natural = setting(
        Effect.TRAINING,
        "Held-out pictures on which the denoiser's error with the reconstruction in place of the update or output "
        "is measured (loss recovered; not of text and inputs); 0 leaves it out.",
        default=16,
    )
    device: str = device_setting(Effect.TRAINING, "To train on, e.g. ``cuda``.", default="cpu", late=False)
    workers: Natural = setting(
        Effect.NOTHING,
        "Processes that train several sites at once under the ray executor, beside those that sample; 0: one for a "
        "stream, else as many as there is room for.",
        default=0,
    )
    gpus: NonNegative | None = setting(
        Effect.NOTHING,
        "GPUs of each of them, fractions allowed. Left out: one where `sae.device` is ``cuda``, else none.",
        default=None,
    )
    tensorboard: bool = setting(
        Effect.NOTHING,
        "Also write the curves for TensorBoard, into ``OUT/tensorboard``; needs the package.",
        default=False,
    )

    def pool(self, threads: int, workers: int) -> PoolConfig:
        """So many processes that train with `threads` threads each; raises InputError on ``cuda`` with no GPU."""
        pool = PoolConfig(stages=("train",), workers=workers, cpus=float(max(1, threads)), gpus=self.gpus)
        return with_devices(pool, {"train": self.device})


@settings("attribute")
class AttributeConfig:
    """What `gazetteer attribute evaluate` is judged by, beside the detector."""

    classifier: str = setting(
        Effect.MEASUREMENTS,
        "``module:function`` that gives a `labeling.interventions.evaluation.trials.Classifier` whose labels are "
        "the vocabulary's concepts, each with a probability of its own; empty: the detector is the only "
        "witness.",
        default="",
    )
