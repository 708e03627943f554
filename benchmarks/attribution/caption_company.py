"""How much a concept's score depends on what shares its caption: all concepts together, some, each alone."""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np

from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.diffusion.generate import Generator
from gazetteer.diffusion.load import load_pipeline
from gazetteer.jobs.config.schema import load_config
from gazetteer.labeling.detect.captions import detect_in_captions
from gazetteer.labeling.detect.load import load_detector
from gazetteer.labeling.vocabulary.concepts import Vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="run configuration (default: the embedded world)")
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--per-caption", type=int, nargs="+", default=[8, 4, 1], help="concepts in one caption")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    generator = Generator(load_pipeline(config.model), config.generation)
    pictures = []
    for seed, prompt in enumerate(read_prompts(config.prompts)[: arguments.pictures]):
        sampled = generator.sample([prompt], [seed], lambda *_: None)
        assert sampled is not None, "decoded unless told otherwise"
        pictures.append(sampled[0])
    detector = load_detector(dataclasses.replace(config.detector, box_threshold=0.0))

    def best(per_caption: int) -> np.ndarray:
        """The best score [pictures, concepts] of every concept, 0 where it is no box's best phrase."""
        vocabulary = Vocabulary(dataclasses.replace(config.vocabulary, per_caption=per_caption))
        captions = [vocabulary.captions(vocabulary.base)] * len(pictures)
        scores = np.zeros((len(pictures), len(vocabulary.base)))
        for row, detections in enumerate(detect_in_captions(detector, pictures, captions)):
            for detection in detections:
                column = vocabulary.base.index(detection.concept)
                scores[row, column] = max(scores[row, column], detection.score)
        return scores

    together = best(0)
    present = together >= config.detector.box_threshold
    result = {"pictures": len(pictures), "concepts": together.shape[1], "found_together": int(present.sum())}
    for size in arguments.per_caption:
        other = best(size)
        change, flipped = np.abs(other - together), present != (other >= config.detector.box_threshold)
        result[f"per_caption_{size}"] = {
            "mean": round(float(change.mean()), 4), "most": round(float(change.max()), 4),
            "found": int((other >= config.detector.box_threshold).sum()), "found_or_lost": int(flipped.sum()),
        }  # fmt: skip
        print(f"{size} a caption: best scores change by {change.mean():.3f}, at most {change.max():.3f}; ", end="")
        print(f"{flipped.sum()} of {flipped.size} concepts found or lost")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
