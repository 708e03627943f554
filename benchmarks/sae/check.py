"""What the check on the first pictures sees: the right autoencoders, and those of other blocks, steps and scalings."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable

from gazetteer.data.core.sites import Site
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.pipeline.config import SaeCheckConfig
from gazetteer.labeling.pipeline.sae_check import SaeCheck
from gazetteer.sae.model.autoencoder import SparseAutoencoder
from gazetteer.sae.model.checkpoint import load_site_saes


def scaled(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The autoencoder of activations ten times smaller, as one trained on normalised activations would be."""
    sae.bias.mul_(0.1)
    sae.encoder.mul_(10)
    return sae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="run configuration (default: the embedded world)")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    generator = Generator(load_pipeline(config.model), config.generation)
    saes = load_site_saes(config.saes, config.generation.sites, signal=config.sae_check.signal)
    prompts = read_prompts(config.prompts)[: arguments.pictures]

    def others(places: Callable[[Site], list[Site]]) -> dict[Site, SparseAutoencoder]:
        """Every site with the autoencoder of the first other place that has one of the same width."""
        fitting = {a: [b for b in places(a) if b != a and saes[b].config.d == saes[a].config.d] for a in saes}
        return {site: saes[names[0]] for site, names in fitting.items() if names}

    kinds = {
        "right": saes,
        "another block": others(lambda s: [dataclasses.replace(s, block=b) for b in config.generation.blocks]),
        "another t": others(lambda s: [dataclasses.replace(s, t=1.0 - s.t)]),
        "the other branch": others(lambda s: [dataclasses.replace(s, branch=b) for b in config.generation.branches]),
        "inputs ten times too large": saes,
    }
    result: dict[str, dict[str, float]] = {}
    for name, chosen in kinds.items():
        if name.startswith("inputs"):
            chosen = {site: scaled(sae) for site, sae in saes.items()}
        check = SaeCheck(chosen, SaeCheckConfig(arguments.pictures, least=-1e9))

        def watch(site: Site, x: object, height: int, width: int, check: SaeCheck = check) -> None:
            if site in check.saes:
                check.watch(site, x, height, width)  # type: ignore[arg-type]

        for seed, prompt in enumerate(prompts):
            generator.sample([prompt], [seed], watch, decode=False)
        explained = check.close()
        result[name] = {"sites": len(explained), "least": min(explained.values()), "most": max(explained.values())}
        print(f"{name:<28}{len(explained):>4} sites  explained variance {min(explained.values()):.2f} to ", end="")
        print(f"{max(explained.values()):.2f}")
    if arguments.json:
        print(json.dumps({"pictures": len(prompts), **result}))


if __name__ == "__main__":
    main()
