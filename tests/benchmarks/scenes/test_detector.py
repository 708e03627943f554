"""Training of the Scenes detector and segmenter: targets, losses, starts and exports, checked by hand."""

import numpy as np
import pytest
import torch

from benchmarks.scenes.detector.augment import boxes_of
from benchmarks.scenes.detector.backbone import cell_fractions
from benchmarks.scenes.detector.data import Batch, DetectorBatches, Target, encode, sample_words
from benchmarks.scenes.detector.deformable import dense_deformable_attention, use_dense_attention
from benchmarks.scenes.detector.evaluate import count_hits
from benchmarks.scenes.detector.forward import denoising_start, training_loss
from benchmarks.scenes.detector.loss import assigned_loss, class_targets, corners, generalised_iou, match
from benchmarks.scenes.detector.model import build_model, build_tokenizer, export
from benchmarks.scenes.segmenter.data import SegmentBatches, dense_cells, jitter_boxes
from benchmarks.scenes.segmenter.model import DenseHead
from benchmarks.scenes.segmenter.model import build_model as build_segmenter
from benchmarks.scenes.segmenter.train import mask_losses
from benchmarks.scenes.segmenter.train import training_loss as segmenter_loss
from benchmarks.scenes.training.scene_cache import read, write

WORDS = ("sky", "sea", "sun", "hot air balloon", "dog")


@pytest.fixture(scope="module")
def vocabulary():
    return build_tokenizer(WORDS).get_vocab()


def make_target(words, asked, boxes, vocabulary, length):
    _, positions = encode(words, vocabulary)
    tokens = torch.zeros(len(words), length, dtype=torch.bool)
    for phrase, places in enumerate(positions):
        tokens[phrase, places] = True
    phrases = torch.tensor([words.index(word) for word in asked], dtype=torch.long)
    return Target(torch.tensor(boxes).reshape(-1, 4), phrases, tokens)


def three_samples(vocabulary):
    """Captions of three, one and two phrases: offsets into a joined table would differ from sample to sample.

    Tokens: "[CLS] sky . sea . hot air balloon . [SEP]", "[CLS] dog . [SEP]", "[CLS] sun . dog . [SEP]".
    """
    balloon, everything = [0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0]
    low_left, high_right = [0.3, 0.8, 0.2, 0.2], [0.8, 0.1, 0.1, 0.1]
    asked = [
        (["sky", "sea", "hot air balloon"], ["hot air balloon", "sky"], [balloon, everything]),
        (["dog"], ["dog"], [[0.7, 0.7, 0.2, 0.2]]),
        (["sun", "dog"], ["dog", "sun"], [low_left, high_right]),
    ]
    return [make_target(words, found, boxes, vocabulary, 10) for words, found, boxes in asked]


def test_special_tokens_keep_the_ids_that_grounding_dino_expects(vocabulary):
    assert [vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "?")] == [
        0,
        100,
        101,
        102,
        1012,
        1029,
    ]
    assert sorted(vocabulary.values()) == list(range(1030))


def test_a_caption_and_the_places_of_its_words(vocabulary):
    ids, positions = encode(["sky", "hot air balloon", ""], vocabulary)
    assert positions == [[1], [3, 4, 5], [7]]
    assert ids == build_tokenizer(WORDS)("sky. hot air balloon. xyz.")["input_ids"]


def test_every_sample_learns_the_tokens_of_its_own_caption(vocabulary):
    """The case the library gets wrong: more than two samples, captions of unequal length."""
    targets = three_samples(vocabulary)
    matches = [
        (torch.tensor([3, 0]), torch.tensor([0, 1])),
        (torch.tensor([2]), torch.tensor([0])),
        (torch.tensor([1, 2]), torch.tensor([0, 1])),
    ]
    wanted = class_targets(torch.Size([3, 4, 10]), targets, matches)
    expected = torch.zeros(3, 4, 10)
    expected[0, 3, [5, 6, 7]] = 1  # hot air balloon
    expected[0, 0, 1] = 1  # sky
    expected[1, 2, 1] = 1  # dog, first word of the second caption
    expected[2, 1, 3] = 1  # dog, second word of the third caption
    expected[2, 2, 1] = 1  # sun
    assert torch.equal(wanted, expected)


def test_queries_are_matched_by_word_and_place(vocabulary):
    target = three_samples(vocabulary)[2]  # a dog low on the left, a sun high on the right
    logits = torch.full((4, 10), -4.0)
    boxes = torch.tensor([[0.5, 0.5, 0.9, 0.9], [0.8, 0.1, 0.1, 0.1], [0.3, 0.8, 0.2, 0.2], [0.3, 0.8, 0.2, 0.2]])
    logits[3, 3] = 4.0  # of two queries in the dog's place this one says dog
    queries, chosen = match(logits, boxes, target)
    assert dict(zip(chosen.tolist(), queries.tolist(), strict=True)) == {0: 3, 1: 1}


def test_padded_tokens_with_infinite_logits_do_not_disturb_the_match(vocabulary):
    target = three_samples(vocabulary)[1]
    logits = torch.full((3, 10), -4.0)
    logits[:, 4:] = -torch.inf
    logits[1, 1] = 5.0
    queries, _ = match(logits, torch.full((3, 4), 0.5), target)
    assert queries.tolist() == [1]


def test_a_sample_without_boxes_has_nothing_to_match(vocabulary):
    target = make_target(["sky"], [], [], vocabulary, 5)
    queries, chosen = match(torch.zeros(3, 5), torch.full((3, 4), 0.5), target)
    assert len(queries) == len(chosen) == 0


def test_generalised_iou_by_hand():
    first = torch.tensor([0.0, 0.0, 2.0, 2.0])
    overlapping, apart = torch.tensor([1.0, 0.0, 3.0, 2.0]), torch.tensor([4.0, 0.0, 6.0, 2.0])
    assert generalised_iou(first, overlapping).item() == pytest.approx(2 / 6)
    assert generalised_iou(first, apart).item() == pytest.approx(-(12 - 8) / 12)
    assert corners(torch.tensor([0.5, 0.4, 0.2, 0.4])).tolist() == pytest.approx([0.4, 0.2, 0.6, 0.6])


def test_the_loss_is_small_for_right_answers_and_large_for_swapped_words(vocabulary):
    targets = three_samples(vocabulary)
    mask = torch.tensor([[1] * 10, [1] * 4 + [0] * 6, [1] * 6 + [0] * 4])
    boxes = torch.full((3, 4, 4), 0.5)
    matches = []
    for sample, target in enumerate(targets):
        boxes[sample, : len(target.boxes)] = target.boxes
        matches.append((torch.arange(len(target.boxes)), torch.arange(len(target.boxes))))
    right = 20 * class_targets(torch.Size([3, 4, 10]), targets, matches) - 10
    good = assigned_loss(right, boxes, mask, targets, matches)
    assert all(float(term) < 1e-3 for term in good.values())
    swapped = right[[1, 2, 0]]
    assert float(assigned_loss(swapped, boxes, mask, targets, matches)["class"]) > 5
    padding = right.masked_fill(mask[:, None] == 0, torch.inf)
    assert float(assigned_loss(padding, boxes, mask, targets, matches)["class"]) < 1e-3


def make_batch(vocabulary):
    captions = (["sky", "sea", "hot air balloon"], ["dog"], ["sun", "dog"])
    encoded = [encode(words, vocabulary)[0] for words in captions]
    ids = torch.tensor([row + [0] * (10 - len(row)) for row in encoded])
    pixels = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    return Batch(pixels, ids, (ids != 0).long(), three_samples(vocabulary))


def test_training_starts_near_the_prior_and_a_gradient_reaches_the_words(vocabulary):
    torch.manual_seed(0)
    model = build_model()
    use_dense_attention(model)
    batch = make_batch(vocabulary)
    loss, parts = training_loss(model, batch, torch.Generator().manual_seed(0))
    assert float(loss.detach()) < 60  # the library's own start gives several hundred
    assert parts["decoder1.class"] < 8
    loss.backward()
    words = model.model.text_backbone.embeddings.word_embeddings.weight.grad
    for word in ("sky", "dog", "sun", "balloon"):
        assert words[vocabulary[word]].abs().sum() > 0
    assert words[vocabulary["[unused5]"]].abs().sum() == 0


def test_denoising_groups_hold_every_box_once_and_do_not_see_each_other(vocabulary):
    targets = three_samples(vocabulary)
    references, mask, matches = denoising_start(targets, 6, torch.Generator().manual_seed(0))
    slots, chosen = matches[0]
    assert slots.tolist() == [0, 1, 2, 3, 4, 5]
    assert chosen.tolist() == [0, 1, 0, 1, 0, 1]
    visible = mask[0, 0] == 0
    assert visible[0].tolist() == [True, True, False, False, False, False]
    assert visible[5].tolist() == [False, False, False, False, True, True]
    assert ((references > 0) & (references < 1)).all()
    moved = (references[0, :, :2] - targets[0].boxes[chosen][:, :2]).abs()
    assert (moved <= 0.4 * targets[0].boxes[chosen][:, 2:] + 1e-6).all()


def test_dense_deformable_attention_equals_the_library():
    from transformers.models.grounding_dino.modeling_grounding_dino import MultiScaleDeformableAttention

    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 6), (2, 3)]
    value = torch.randn(2, 30, 4, 8, generator=generator)
    locations = torch.rand(2, 5, 4, 2, 3, 2, generator=generator) * 1.6 - 0.3  # some outside of the picture
    weights = torch.rand(2, 5, 4, 2, 3, generator=generator)
    dense = dense_deformable_attention(value, shapes, locations, weights)
    library = MultiScaleDeformableAttention()(
        value, torch.tensor(shapes), shapes, torch.tensor([0, 24]), locations, weights, 64
    )
    torch.testing.assert_close(dense, library, atol=1e-5, rtol=1e-5)


def test_boxes_are_tight_and_specks_are_left_out():
    owners = np.zeros((16, 16), np.uint8)
    owners[2:6, 3:10] = 1
    owners[12, 12] = 2
    boxes, keep = boxes_of(owners, 3)
    assert boxes[0].tolist() == [3, 2, 10, 6]
    assert keep.tolist() == [True, False, False]


def test_cell_shares_sum_to_one():
    owners = torch.zeros(8, 8, dtype=torch.uint8)
    owners[:, :4] = 1
    fractions = cell_fractions(owners, torch.tensor([5], dtype=torch.int8), 2)
    assert fractions[:, 0, 0].tolist() == [0.0] * 6 + [1.0] + [0.0] * 10
    assert fractions[0, 0, 1] == 1.0
    assert torch.allclose(fractions.sum(0), torch.ones(2, 2))


def test_hits_are_one_to_one():
    true = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    found = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 12], [50, 50, 60, 60]], np.float32)
    assert count_hits(found, true) == 2
    assert count_hits(found[:0], true) == 0


def test_captions_mix_present_and_absent_words():
    generator = np.random.default_rng(0)
    everything = sample_words(["sky"], generator, all_words=True)
    assert {"sky", "dog", "road"} <= set(everything)
    some = [sample_words(["sky", "dog"], generator, all_words=False) for _ in range(50)]
    assert 25 < sum("sky" in words for words in some) < 50
    assert any("sun" in words for words in some)
    assert all(len(words) == len(set(words)) and words for words in some)


def test_batches_are_repeatable_and_hold_true_boxes(tmp_path, vocabulary):
    write(tmp_path / "scenes", 0, 6)
    cache = read(tmp_path / "scenes")
    first, second = (DetectorBatches(cache, vocabulary, 4, seed=3)() for _ in range(2))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.ids, second.ids)
    for target in first.targets:
        box = corners(target.boxes)
        assert (box >= -1e-6).all()
        assert (box <= 1 + 1e-6).all()
        assert len(target.phrases) == len(target.boxes)


def test_an_exported_detector_is_read_by_the_product(tmp_path):
    from gazetteer.labeling.detect.load import load_detector
    from gazetteer.labeling.detect.protocol import DetectorConfig

    torch.manual_seed(0)
    size = export(build_model().eval(), build_tokenizer(WORDS), tmp_path)
    assert size < 11.5e6
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    found = load_detector(DetectorConfig(str(tmp_path), box_threshold=0.001)).detect(
        [image], [["sky", "hot air balloon"]]
    )
    assert {detection.concept for detection in found[0]} <= {"sky", "hot air balloon"}
    assert found[0]


def test_a_perfect_mask_costs_nothing_and_knows_its_iou():
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, 2:6, 2:6] = 1
    masks[0, 1, :, :4] = 1
    logits = torch.stack([40 * masks - 20, 20 - 40 * masks], 2)  # candidate 0 is right, candidate 1 inverted
    loss, iou, error = mask_losses(logits, torch.full((1, 2, 2), 0.5), masks)
    assert loss.shape == iou.shape == error.shape == (1, 2, 2)
    assert (loss[..., 0] < 1e-3).all()
    assert (loss[..., 1] > 5).all()
    assert iou[..., 0].tolist() == [[1.0, 1.0]]
    assert iou[..., 1].tolist() == [[0.0, 0.0]]
    assert error.flatten().tolist() == [0.25] * 4


def test_cells_say_what_covers_them_and_where_instances_meet():
    owners = torch.zeros(8, 8, dtype=torch.uint8)
    owners[:, :3] = 1
    cells = dense_cells(owners, torch.tensor([5, -1], dtype=torch.int8))
    assert cells.shape == (18, 4, 4)
    assert cells[6, 0].tolist() == [1.0, 0.5, 0.0, 0.0]
    assert cells[0, 0].tolist() == [0.0, 0.5, 1.0, 1.0]
    assert cells[17, 0].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_the_segmenter_learns_from_cells_alone_and_from_masks(tmp_path):
    write(tmp_path / "scenes", 0, 3)
    batch = SegmentBatches(read(tmp_path / "scenes"), 2, 2, seed=0)()
    torch.manual_seed(0)
    model, head = build_segmenter(), DenseHead()
    loss, _ = segmenter_loss(model, head, batch, several=False, masks=False)
    loss.backward()
    assert model.vision_encoder.patch_embed.projection.weight.grad.abs().sum() > 0
    assert model.mask_decoder.mask_tokens.weight.grad is None
    loss, iou = segmenter_loss(model, head, batch, several=True)
    loss.backward()
    assert 0 <= iou <= 1
    assert model.mask_decoder.mask_tokens.weight.grad.abs().sum() > 0
    assert model.prompt_encoder.point_embed[2].weight.grad.abs().sum() > 0


def test_jittered_boxes_stay_close_and_inside():
    boxes = np.tile(np.array([[0, 20, 50, 128]], np.float32), (200, 1))
    moved = jitter_boxes(boxes, 128, np.random.default_rng(0))
    assert moved.min() >= 0
    assert moved.max() <= 128
    assert np.abs(moved - boxes).max() <= 0.08 * 108 + 1e-4
    assert np.abs(moved - boxes)[:, 2].max() > 1
