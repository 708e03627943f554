"""Ordinary prompts (COCO-30k): does the picture still fit its prompt (CLIP score), do the pictures look alike (FID)?"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gazetteer.attribution.evaluation.distances import frechet_distance
from gazetteer.attribution.protocols.pictures import read_picture
from gazetteer.data.core.digests import digest_file, digest_json
from gazetteer.data.core.errors import InputError, first_line
from gazetteer.data.core.files.atomic import replace_file


class ClipScore:
    """100 · max(0, cosine) of CLIP's embeddings of picture and prompt; P2 uses ViT-B/32."""

    def __init__(self, path: str = "openai/clip-vit-base-patch32") -> None:
        """path: a folder or hub id that transformers reads; raises InputError if it cannot."""
        from transformers import CLIPModel, CLIPProcessor

        try:
            self.model: Any = CLIPModel.from_pretrained(path, use_safetensors=True).eval()
            self.processor: Any = CLIPProcessor.from_pretrained(path)
        except Exception as error:  # whatever the library may throw at files that are not what it expects
            raise InputError(f"The CLIP model {path} cannot be read: {first_line(error)}") from error

    @torch.inference_mode()
    def scores(self, paths: Sequence[Path], prompts: Sequence[str], batch: int = 16) -> list[float]:
        """One score 0..100 per picture with its prompt; longer prompts are cut as CLIP cuts them."""
        scores: list[float] = []
        for start in range(0, len(paths), batch):
            part = slice(start, start + batch)
            given = self.processor(
                text=list(prompts[part]), images=[read_picture(path) for path in paths[part]], return_tensors="pt",
                padding=True, truncation=True, max_length=self.model.config.text_config.max_position_embeddings,
            )  # fmt: skip
            out = self.model(**given)
            cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds, dim=1)
            scores += (100 * cosine.clamp_min(0)).tolist()
        return scores


class Inception:
    """The pool features [pictures, 2048] that FID is defined on, by pytorch-fid (extra ``protocols``)."""

    def __init__(self) -> None:
        """Raises InputError where the package or its weights (downloaded by it) cannot be had."""
        try:
            from pytorch_fid.inception import InceptionV3
        except ImportError as error:
            raise InputError("FID needs the package pytorch-fid: pip install 'gazetteer[protocols]'.") from error
        try:
            self.model: Any = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
        except OSError as error:
            raise InputError(f"The weights of pytorch-fid's network cannot be downloaded: {error}.") from error

    @torch.inference_mode()
    def features(self, paths: Sequence[Path]) -> NDArray[np.float64]:
        """Features of every picture."""
        features = []
        for path in paths:  # photographs differ in size, so one by one
            picture = torch.tensor(read_picture(path)).permute(2, 0, 1).unsqueeze(0) / 255
            features.append(self.model(picture)[0].flatten().double().numpy())
        return np.stack(features)


class Fid:
    """Fréchet distance to all pictures of a folder (COCO's photographs, or the intact model's pictures)."""

    def __init__(self, reference: str | Path) -> None:
        """Look, before anything is painted, whether there is something to compare with, and a network to read it.

        Raises:
            InputError: fewer than 2 pictures in the folder, or no network.
        """
        suffixes = (".png", ".jpg", ".jpeg")
        self.others = sorted(path for path in Path(reference).rglob("*") if path.suffix.lower() in suffixes)
        if len(self.others) < 2:
            raise InputError(f"{reference} holds fewer than 2 pictures to compare with.")
        self.network = Inception()

    def distance(self, paths: Sequence[Path], kept: Path) -> float:
        """Of these pictures to those of the folder; InputError for fewer than 2, or a file that is no picture.

        kept: a folder that keeps the features of both, so that a call that was stopped goes on.
        """
        first, second = (kept_features(self.network.features, many, kept) for many in (paths, self.others))
        return frechet_distance(first, second)


def kept_features(
    read: Callable[[Sequence[Path]], NDArray[np.float64]], paths: Sequence[Path], folder: Path, block: int = 256
) -> NDArray[np.float64]:
    """What `read` gives of pictures, `block` by `block`, each kept under what is in its files: 30,000 take hours."""
    parts = []
    for start in range(0, len(paths), block):
        part = paths[start : start + block]
        file = folder / f"{digest_json([digest_file(path) for path in part])[:32]}.npy"
        features = _kept(file, len(part))
        if features is None:
            features, content = read(part), io.BytesIO()
            np.save(content, features.astype(np.float32))  # as the network gives them
            replace_file(file, content.getvalue())
        parts.append(features.astype(np.float64))
    return np.concatenate(parts)


def _kept(file: Path, pictures: int) -> NDArray[Any] | None:
    """Features of so many pictures; None where there are none, or a damaged file."""
    try:
        features = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return features if features.ndim == 2 and len(features) == pictures else None
