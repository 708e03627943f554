"""Tokenizers of language models with a token a letter or so, in the place of large vocabularies."""

from __future__ import annotations

import string

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
MARKS = ["<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
PICTURE_MARKS = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
CONVERSATION = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "[SYSTEM_PROMPT]{{ m['content'][0]['text'] }}[/SYSTEM_PROMPT]{% else %}[INST]"
    "{% for block in m['content'] %}{% if block['type'] == 'text' %}{{ block['text'] }}{% else %}[IMG]{% endif %}"
    "{% endfor %}[/INST]{% endif %}{% endfor %}"
)
"""As Mistral's: what the system says, then what the user does, of text and pictures."""


def bytes_tokenizer() -> Qwen2Tokenizer:
    """One token a byte, in the place of every large vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)} | {"<|endoftext|>": len(alphabet)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=512)
    tokenizer.chat_template = CHAT
    return tokenizer


def mistral_processor(side: str = "left", template: str = CONVERSATION) -> PixtralProcessor:
    """A token a byte and one a mark, the first of which is put before texts unless that is asked not to be."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    every = {sign: number for number, sign in enumerate([*MARKS, *PICTURE_MARKS, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=every, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", every["<s>"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side=side,
        extra_special_tokens=[*MARKS[3:], *PICTURE_MARKS], model_max_length=10_000,
    )  # fmt: skip
    return PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=template)


def t5_tokenizer() -> T5Tokenizer:
    """As T5's, with a few whole words, a few pieces and every letter."""
    scores = {"▁": -4.0, "▁a": -1.0, "▁red": -1.0, "▁house": -1.0, "▁boat": -1.0, "▁on": -1.0, "▁the": -1.0, "s": -3.0}
    signs = dict.fromkeys(sorted({*string.ascii_letters, *string.digits, *",.'-"} - {"s"}), -9.0)
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(vocab=[*special, *scores.items(), *signs.items()], extra_ids=0, model_max_length=512)
