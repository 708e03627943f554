"""SAM through `segment-anything`: the same weights give what they give through transformers."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from gazetteer.data.core.errors import InputError
from gazetteer.labeling.segment.load import load_segmenter
from gazetteer.labeling.segment.protocol import SegmenterConfig
from gazetteer.labeling.segment.sam import scale_boxes
from gazetteer.labeling.segment.segment_anything_original import PUBLISHED, OriginalSamSegmenter, build_sam, read_sizes
from gazetteer.labeling.weights.checkpoints import fill
from tests.support.models.original_models import EMBEDDED, original_weights, pictures, random_segmenter
from tests.support.models.sam_keys import SAM

BOXES = [
    [(4.0, 4.0, 60.0, 80.0), (10.5, 20.25, 60.0, 64.0), (0.0, 0.0, 128.0, 128.0)],
    [(0.0, 10.0, 48.0, 70.0)],
    [],
    [(5.0, 5.0, 50.0, 30.0), (40.0, 2.0, 96.0, 32.0)],
]
FOLDERS = ["random", *(["embedded"] if (EMBEDDED / "segmenter" / "model.safetensors").exists() else [])]


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request, tmp_path_factory) -> Path:
    if request.param == "embedded":
        return EMBEDDED / "segmenter"
    return random_segmenter(tmp_path_factory.mktemp("transformers"))


def original(folder: Path, **changes) -> OriginalSamSegmenter:
    weights = original_weights(folder, SAM)
    # the small decoder has four heads, which the weights do not tell
    model = build_sam(dataclasses.replace(read_sizes(weights), decoder_heads=4))
    fill("segmenter", model, weights, re.compile("(?!)"))
    # the one number that the libraries set differently: 1e-6 in transformers, torch's 1e-5 in the original
    for layer in model.mask_decoder.transformer.layers:
        for norm in (layer.norm1, layer.norm2, layer.norm3, layer.norm4):
            norm.eps = 1e-6
    return OriginalSamSegmenter(model.requires_grad_(False), SegmenterConfig(path="", **changes))


@pytest.fixture(scope="module")
def pair(folder):
    return load_segmenter(SegmenterConfig(path=str(folder))), original(folder)


@pytest.mark.parametrize("size", [(96, 128), (900, 1100), (61, 40)])
def test_pictures_are_scaled_as_the_authors_scale_them(pair, size):
    transformers, theirs = pair
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    side = transformers.model.config.vision_config.image_size
    scaled = ResizeLongestSide(side).apply_image(picture)
    wanted = theirs.model.preprocess(torch.from_numpy(scaled).permute(2, 0, 1)[None].float())
    mine = transformers.images(images=[picture], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=0)


def test_both_libraries_give_the_same_embeddings_logits_and_scores(pair):
    transformers, theirs = pair
    with torch.inference_mode():
        pixels, originals, resized = transformers._pixels(pictures(2))
        given, *sizes = theirs._pixels(pictures(2))
        mine, other = transformers._embed(pixels), theirs._embed(given)
        assert sizes == [originals, resized]
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
        boxes = scale_boxes(BOXES[0], originals[0], resized[0])
        out = transformers.model(image_embeddings=mine[:1], input_boxes=boxes[None], multimask_output=False)
        sparse, dense = theirs.model.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, scores = theirs.model.mask_decoder(
            image_embeddings=other[:1], image_pe=theirs.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=False,
        )  # fmt: skip
    torch.testing.assert_close(out.pred_masks[0], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.iou_scores[0], scores, atol=1e-4, rtol=1e-4)
    assert logits.std() > 1e-2


def test_masks_agree(pair):
    images = [*pictures(2), *pictures(1), *pictures(1, height=64)]
    left, right = (segmenter.segment(images, BOXES) for segmenter in pair)
    assert [len(masks) for masks in right] == [3, 1, 0, 2]
    for image, mine, theirs in zip(images, left, right, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert b.mask.shape == image.shape[:2]
            assert np.mean(a.mask != b.mask) < 1e-3
            assert abs(a.predicted_iou - b.predicted_iou) < 2e-4


def test_masks_do_not_depend_on_the_batch(pair):
    theirs, images = pair[1], [*pictures(2), *pictures(1), *pictures(1, height=64)]
    together = theirs.segment(images, BOXES)
    for image, boxes, masks in zip(images, BOXES, together, strict=True):
        (alone,) = theirs.segment([image], [boxes])
        assert [m.predicted_iou for m in alone] == [m.predicted_iou for m in masks]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(alone, masks, strict=True))


def test_encoding_in_batches_agrees_up_to_rounding(folder):
    images, boxes = pictures(3), [BOXES[0]] * 3
    single = original(folder).segment(images, boxes)
    batched = original(folder, exact=False, boxes_per_call=2).segment(images, boxes)
    for left, right in zip(single, batched, strict=True):
        for a, b in zip(left, right, strict=True):
            assert np.mean(a.mask != b.mask) < 1e-3
            assert abs(a.predicted_iou - b.predicted_iou) < 2e-4


@pytest.mark.parametrize("model_type", sorted(PUBLISHED))
def test_the_sizes_of_published_models_are_read_off_their_weights(model_type):
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        model = sam_model_registry[model_type]()
    sizes = read_sizes(model.state_dict())
    assert (sizes.width, sizes.depth) == PUBLISHED[model_type]
    assert (sizes.heads, sizes.patch, sizes.image, sizes.window) == (
        sizes.width // (80 if sizes.depth == 32 else 64),
        16,
        1024,
        14,
    )
    quarter = sizes.depth // 4
    assert sizes.whole == tuple(quarter * (i + 1) - 1 for i in range(4))
    assert (sizes.decoder_mlp, sizes.decoder_depth, sizes.decoder_downsample, sizes.decoder_heads) == (2048, 2, 2, 8)
    with torch.device("meta"):
        rebuilt = build_sam(sizes)
    assert {n: t.shape for n, t in rebuilt.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_a_checkpoint_loads_by_its_path(tmp_path):
    sizes = read_sizes(original_weights(random_segmenter(tmp_path), SAM))
    torch.manual_seed(1)
    model = build_sam(sizes)
    torch.save(model.state_dict(), tmp_path / "sam.pth")
    config = SegmenterConfig(path=str(tmp_path / "sam.pth"), library="segment_anything")
    (masks,) = load_segmenter(config).segment(pictures(1), BOXES[:1])
    (direct,) = OriginalSamSegmenter(model, config).segment(pictures(1), BOXES[:1])
    assert [m.predicted_iou for m in masks] == [m.predicted_iou for m in direct]
    with pytest.raises(InputError, match=r"model_type is vit_b, but .* width 128 and depth 4"):
        load_segmenter(dataclasses.replace(config, model_type="vit_b"))


def test_what_is_no_sam_gets_a_sentence(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    for changes, said in [
        ({"path": str(tmp_path / "other.pth")}, "is no SAM in its authors' format"),
        ({"path": str(tmp_path / "nowhere.pth")}, "does not exist"),
    ]:
        with pytest.raises(InputError, match=said):
            load_segmenter(SegmenterConfig(library="segment_anything", **changes))
    with pytest.raises(InputError, match=r"segmenter\.model_type"):
        SegmenterConfig(path="x", model_type="vit_t")
