"""Write the prompt files of the labelling job and of SAE training, disjoint: `python -m benchmarks.scenes.prompts`."""

from __future__ import annotations

from pathlib import Path

from gazetteer.data.scenes.prompts import prompt_pool

FOLDER = Path(__file__).resolve().parents[2] / "data" / "scenes"
LABEL_PROMPTS, SAE_PROMPTS = 3000, 2000


def main() -> None:
    """Write ``prompts.txt`` and ``prompts_sae.txt``, one prompt a line, none in both."""
    label = list(dict.fromkeys(prompt_pool(2 * LABEL_PROMPTS, seed=1)))[:LABEL_PROMPTS]
    taken = set(label)
    sae = [p for p in dict.fromkeys(prompt_pool(2 * SAE_PROMPTS, seed=2)) if p not in taken][:SAE_PROMPTS]
    (FOLDER / "prompts.txt").write_text("\n".join(label) + "\n", encoding="utf-8")
    (FOLDER / "prompts_sae.txt").write_text("\n".join(sae) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
