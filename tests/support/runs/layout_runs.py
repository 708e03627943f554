"""Finished runs made by hand for the tests of layout prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from gazetteer.data.runs.folder import RunFolder
from gazetteer.data.tables.codes import codes_table
from gazetteer.data.tables.images import encode_image
from gazetteer.data.tables.masks import mask_to_struct
from gazetteer.data.tables.schemas import FAILURES, FINAL_TABLES, IMAGES, SEGMENTS
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.generate import Generator
from gazetteer.labeling.evidence.counts import ImageEvidenceInput, build_evidence
from gazetteer.sae.model.autoencoder import SAEConfig, SparseAutoencoder
from tests.support.models.tiny_pipeline import BLOCKS
from tests.support.runs.small_world import World

PROVENANCE = {"schema_version": 1, "fingerprint": {}, "config": {}, "packages": {}}


def write_run(path: Path, tables: dict[str, pa.Table], made: dict | None = None) -> RunFolder:
    run = RunFolder(path).open_or_create(made or {})
    provenance = {**PROVENANCE, "fingerprint": made or {}}
    run.commit_shard("s0", {"failures": FAILURES.empty_table(), **tables}, {}, provenance)
    for name, schema in FINAL_TABLES.items():
        run.write_final(name, schema.empty_table(), provenance)
    run.finish({"shards": ["s0"]})
    return run


def world_run(path: Path, world: World, prompt: str, made: dict | None = None) -> RunFolder:
    """The run of a hand-made world whose prompts are all `prompt`, with a number each."""
    at = IMAGES.get_field_index("prompt")
    prompts = [f"{prompt}, {number}" for number in range(world.images.num_rows)]
    images = world.images.set_column(at, IMAGES.field("prompt"), [prompts])
    tables = {"images": images, "codes": world.codes, "segments": world.segments, "evidence": world.evidence}
    return write_run(path, tables, made)


GENERATION = GenerationConfig(steps=3, guidance=3.0, blocks=BLOCKS, t=(1.0, 0.0), exact=False)
CONCEPTS = ("boat", "dog", "house")


def random_saes(generation: GenerationConfig = GENERATION, seed: int = 0) -> dict:
    """An untrained autoencoder of 48 features for every site."""
    return {
        site: SparseAutoencoder(SAEConfig(d=32, n=48, k=4)).initialise(seed + number).eval()
        for number, site in enumerate(generation.sites)
    }


def pipeline_run(
    path: Path, pipe, saes: dict, images: int = 12, made: dict | None = None, generation: GenerationConfig = GENERATION
) -> RunFolder:
    """Pictures of a random pipeline with random boxes for masks; every third picture is held out."""
    generator, rng = Generator(pipe, generation), np.random.default_rng(0)
    size = generator.picture_size
    prompts = [f"a red {CONCEPTS[i % 3]}, two boats, {i}" for i in range(images)]
    pictures = generator.pictures(prompts, list(range(images)), saes)
    inputs, rows, segments = [], [], []
    for number, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        name, split = f"i{number:03d}", "heldout" if number % 3 == 0 else "discovery"
        masks = []
        for concept in sorted({"boat", CONCEPTS[number % 3]}):
            y, x = rng.integers(0, 9, 2)
            mask = np.zeros(size, bool)
            mask[y : y + 7, x : x + 7] = True
            masks.append((concept, mask))
        inputs.append(ImageEvidenceInput(name, split, size, CONCEPTS, masks, picture.codes))
        rows.append(
            {
                "image_id": name, "prompt": prompt, "seed": number, "split": split, "width": size[1], "height": size[0],
                "image": {"bytes": encode_image(picture.image), "path": ""}, "asked": list(CONCEPTS),
            }
        )  # fmt: skip
        segments += [
            {
                "image_id": name, "concept": concept, "score": 1.0, "box": [0.0] * 4, "area": int(mask.sum()),
                "predicted_iou": 1.0, "mask": mask_to_struct(mask),
            }
            for concept, mask in masks
        ]  # fmt: skip
    ids = [row["image_id"] for row in rows]
    tables = {
        "images": pa.Table.from_pylist(rows, schema=IMAGES),
        "segments": pa.Table.from_pylist(segments, schema=SEGMENTS),
        "codes": codes_table(ids, [one.codes for one in pictures], generator.moments),
        "evidence": build_evidence(inputs, CONCEPTS),
    }
    return write_run(path, tables, made)


def hooks_of(module: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
