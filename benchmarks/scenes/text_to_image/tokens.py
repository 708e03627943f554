"""The tokenizer of the Scenes captions: byte-pair encoding in CLIP's own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from gazetteer.data.scenes.captions import write_caption
from gazetteer.data.scenes.layout import sample_layout
from gazetteer.data.scenes.world import TRAIN_SEEDS

MAX_LENGTH = 32
_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """Learn merges until every word of the captions is one token; other text falls to bytes."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=4096, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    # Every byte alone and at the end of a word, so that no text is unknown.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    words += [left + right for left, right in merges]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    for special in (_START, _END):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def scenes_tokenizer(captions: int = 4000, views: Sequence[str] = ()) -> CLIPTokenizer:
    """The tokenizer of the Scenes world, learned from captions of training scenes seen from `views`."""
    layouts = [sample_layout(seed, views) for seed in TRAIN_SEEDS[:captions]]
    return build_tokenizer([write_caption(layout, layout.items) for layout in layouts])


def encode(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> list[list[int]]:
    """Token ids [N, MAX_LENGTH], padded as the pipeline pads them."""
    ids: list[list[int]] = tokenizer(list(captions), padding="max_length", truncation=True, max_length=MAX_LENGTH)[
        "input_ids"
    ]
    return ids


def save_legacy(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save in folder format with vocab.json and merges.txt beside tokenizer.json."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
