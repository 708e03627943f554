"""Whether the autoencoders fit the model they are asked to explain, seen on the first pictures of a run.

An autoencoder of the right width still may belong to another block, another model or another scaling of the
activations; its codes then look like codes and mean nothing. What gives it away is how little it reconstructs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.labeling.pipeline.config import SaeCheckConfig
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.maps import CodeTooLarge
from gazetteer.sae.training.metrics import MetricSums


class SaeCheck:
    """Measures every site's autoencoder on the first pictures that pass by, once."""

    def __init__(self, saes: Mapping[Site, SparseAutoencoder], config: SaeCheckConfig) -> None:
        self.config = config
        # What a transcoder reconstructs is not what it reads.
        judged = {site: sae for site, sae in saes.items() if not sae.config.transcoder}
        self.saes = judged if config.pictures else {}
        self._sums: dict[Site, MetricSums] = {}
        self._pictures: dict[Site, int] = {}
        self._encoded, self._too_large = False, ""

    @property
    def open(self) -> bool:
        """Whether there still is something to measure."""
        return bool(self.saes)

    def watch(self, site: Site, x: Tensor, height: int, width: int) -> None:
        """Count in a site's activations [pictures, cells, channels]."""
        if site not in self.saes:
            return
        seen = self._pictures.get(site, 0)
        x = x[: self.config.pictures - seen]
        if len(x):
            self._sums.setdefault(site, MetricSums(self.saes[site])).add(x.flatten(0, 1))
            self._pictures[site] = seen + len(x)

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Remember, where the pictures that are encoded meanwhile have codes that tables cannot hold, that it is so."""
        try:
            yield
        except CodeTooLarge as error:
            self._too_large = str(error)
            raise

    def verdict(self, pictures: int) -> dict[str, float]:
        """`close`, after a batch of which so many pictures were encoded; nothing where the check is done already.

        Raises:
            InputError: as `close`; or none of the first pictures has codes that tables hold, for which one picture
                among others would only be left out.
        """
        seen = pictures > 0 or bool(self._too_large)
        explained = self.close() if self.open and seen else {}
        if self._too_large and not (pictures or self._encoded):
            raise InputError(
                f"On the first pictures {self._too_large}. Or name an SAE that was made for vectors of this length: of "
                "a block's update instead of its output, or one that normalises what it reads."
            )
        self._encoded, self._too_large = self._encoded or pictures > 0, ""
        return explained

    def close(self) -> dict[str, float]:
        """The explained variance of every site by its slug, rounded to 4 decimals; the check is done then.

        Raises:
            InputError: an autoencoder explains less than `config.least`.
        """
        explained = {
            site.slug: round(sums.metrics().explained_total_variance, 4) for site, sums in sorted(self._sums.items())
        }
        self.saes, self._sums = {}, {}
        poor = sorted((value, slug) for slug, value in explained.items() if not value >= self.config.least)
        if poor:
            value, slug = poor[0]
            more = f" ({len(poor)} of {len(explained)} sites are below)" if len(poor) > 1 else ""
            raise InputError(
                f"The SAE of {slug} explains {value:.2f} of the variance on the first pictures, less than "
                f"sae_check.least={self.config.least:g}{more}: it was trained on another block, model, step or "
                "scaling of the activations; sae_check.pictures=0 labels it all the same."
            )
        return explained


def report(explained: Mapping[str, float]) -> str:
    """One line for the log: the span of the explained variances and the worst site."""
    worst = min(explained, key=lambda slug: explained[slug])
    return (
        f"the SAEs explain {explained[worst]:.0%} ({worst}) to {max(explained.values()):.0%} "
        "of the variance on the first pictures"
    )
