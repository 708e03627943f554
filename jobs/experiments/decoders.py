"""The decoder vectors of a run's autoencoders, for pages that say which features are alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.kept import RECORD
from gazetteer.sae.model.sources import SaeSource


def decoders_of(
    run: RunFolder, saes: str | Mapping[str, str] | None, signal: str = ""
) -> Callable[[Site], NDArray[Any]] | None:
    """What gives a site's vectors, float32 [features, d], read when they are asked for.

    Args:
        saes: the run's autoencoders, as its configuration names them, or the folder that they lie in; None: the
            embedded ones, where the run was made with them.
        signal: as `gazetteer.sae.model.checkpoint.load_site_saes`; empty: as the run's configuration says.

    Returns:
        None where `saes` is None and the run was made with others than the embedded ones.

    Raises:
        InputError: a folder of other autoencoders than the run's.
    """
    from gazetteer.jobs.config.schema import load_config
    from gazetteer.sae.model.checkpoint import load_site_saes
    from gazetteer.sae.model.digests import as_recorded, digest_saes

    given = load_config().saes if saes is None else saes
    recorded = (run.read_json("run.json") or {}).get("saes")
    if isinstance(given, str):
        source: SaeSource | None = as_recorded(given, recorded)
    else:
        source = given if digest_saes(given) == recorded else None
    if source is None and saes is not None:
        several = f" (several: {', '.join(recorded)})" if isinstance(recorded, Mapping) and len(recorded) > 1 else ""
        raise InputError(f"{saes} holds other autoencoders than those {run.path} was made with{several}.")
    if source is None:
        return None
    check = (run.read_json(RECORD) or {}).get("sae_check")
    signal = signal or (check.get("signal") or "" if isinstance(check, dict) else "")

    def decoder(site: Site) -> NDArray[Any]:
        vectors: NDArray[Any] = load_site_saes(source, [site], signal=signal)[site].decoder.detach().float().numpy()
        return vectors

    return decoder
