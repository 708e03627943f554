"""Which words of a prompt stand where in the text stream: CLIP's tokenizers and T5's, ends and padding told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import Flux2Pipeline

from gazetteer.data.core.errors import InputError
from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.denoisers.words import NOTHING, PromptTokens, padding, tokens_of
from gazetteer.diffusion.draw import tokens_cut
from gazetteer.diffusion.generate import Generator
from tests.sae.model.test_autoencoder import random_sae
from tests.support.models.dits import tiny_dit
from tests.support.models.tokenizers import CONVERSATION, mistral_processor, t5_tokenizer

PROMPT = "a red house, two boats"


def test_t5_knows_words_and_pieces_its_end_and_its_padding() -> None:
    found = tokens_of(t5_tokenizer(), "a boats, red", 10)
    words = ["a boats, red"[start:end].strip() for start, end in found.spans]
    assert words == ["a", "boat", "s", ",", "red", "", "", "", "", ""]
    assert found.read == (True,) * 6 + (False,) * 4 and found.spans[5] == NOTHING


def test_what_does_not_fit_is_not_read() -> None:
    found = tokens_of(t5_tokenizer(), "a boats, red", 4)
    assert found.read == (True,) * 4 and found.spans[-1] == NOTHING  # the end takes the last place
    assert padding(2) + found == padding(2) + tokens_of(t5_tokenizer(), "a boats, red", 4)


@pytest.mark.parametrize("family", ["sd3", "flux", "chroma"])
def test_a_familys_text_stream_is_as_long_as_its_encoders_make_it(family: str) -> None:
    pipe = tiny_dit(family)
    found = adapter_of(pipe).tokens(pipe, PROMPT)
    assert len(found.spans) == len(found.read) == adapter_of(pipe).words({})
    spans = [span for span, read in zip(found.spans, found.read, strict=True) if read]
    heard = {place for start, end in spans for place in range(start, end)}
    assert heard >= {place for place, letter in enumerate(PROMPT) if letter != " "}
    assert sorted(found.read, reverse=True) == list(found.read) and 7 <= sum(found.read) < 25


def test_sd3_with_t5_holds_every_word_twice() -> None:
    pipe = tiny_dit("sd3")
    alone = adapter_of(pipe).tokens(pipe, PROMPT)
    pipe.text_encoder_3, pipe.tokenizer_3 = object(), t5_tokenizer()
    both = adapter_of(pipe).tokens(pipe, PROMPT)
    assert both.spans[:77] == alone.spans[:77] and not any(alone.read[77:]) and any(both.read[77:])
    reds = [place for place, span in enumerate(both.spans) if PROMPT[slice(*span)].strip() == "red"]
    assert [place >= 77 for place in reds][-1] and len(reds) >= 1


class Slow:
    """A tokenizer that knows no characters."""

    is_fast = False


INSTRUCTED = ["qwen_image", "lumina2", "flux2_klein", "flux2"]


def said(pipe: Any, before: str, after: str = "") -> None:
    """Have the pipeline's template say this around a prompt, where it has one."""
    content = "m['content'][0]['text']" if isinstance(pipe, Flux2Pipeline) else "m['content']"
    one = f"{{% if m['role'] == 'user' %}}{{{{ {content} }}}}{{% endif %}}"
    pipe.tokenizer.chat_template = f"{before}{{% for m in messages %}}{one}{{% endfor %}}{after}"


@pytest.mark.parametrize("family", INSTRUCTED)
def test_a_prompt_is_told_from_the_instructions_around_it(family: str) -> None:
    pipe = tiny_dit(family)
    said(pipe, "user: ", " user: a red house")
    found = adapter_of(pipe).tokens(pipe, "a red house")
    heard = ["a red house"[slice(*span)] for span, read in zip(found.spans, found.read, strict=True) if read]
    assert "".join(heard) == "a red house"  # a token a letter, each once, though the instructions have the same words
    assert sum(found.read) == len(heard) < len(found.read) and found.cut == (family in ("qwen_image", "lumina2"))
    assert not any(adapter_of(pipe).tokens(pipe, "").read)


@pytest.mark.parametrize("family", INSTRUCTED)
def test_places_of_a_prompt_are_those_that_the_pipeline_encodes(family: str) -> None:
    """Another letter in the prompt changes what its encoder makes of that place, and of none before."""
    pipe = tiny_dit(family)
    if family == "qwen_image":
        pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx = "look: {} end", 4
    one, other = (_encoded(pipe, prompt) for prompt in ("a red house", "a rod house"))
    places = adapter_of(pipe).tokens(pipe, "a red house").spans
    changed = [place for place in range(min(len(one), len(other))) if not torch.equal(one[place], other[place])]
    assert places[changed[0]] == (3, 4)


def _encoded(pipe: Any, prompt: str) -> Any:
    """What stands at the places of the text stream, [places, channels], padding apart where the network drops it."""
    given = pipe.encode_prompt(prompt) if not hasattr(pipe, "system_prompt") else pipe.encode_prompt(prompt, False)
    return given[0][0]


@pytest.mark.parametrize("family", INSTRUCTED)
def test_instructions_take_room_from_the_prompt_and_it_is_said(family: str) -> None:
    pipe = tiny_dit(family)
    said(pipe, "user: ")
    room = sum(adapter_of(pipe).tokens(pipe, "a" * 600).read)
    assert 0 < room < 512 and tokens_cut(pipe, ["a" * room, "a" * (room + 1), "a" * (room + 9)]) == [0, 1, 9]


def test_an_instruction_that_changes_the_prompt_is_refused() -> None:
    pipe = tiny_dit("flux2_klein")
    pipe.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(InputError, match="Which words the tokens of 'a red house' stand for is not known"):
        adapter_of(pipe).tokens(pipe, "a red house")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("prompt", ["a red café, two boats", "b" * 400, ""])
def test_flux2_reads_the_prompt_after_the_systems_message(prompt: str, alone: bool, begins: bool, side: str) -> None:
    """By the tokens that its encoder is given, a letter each but for é, which takes two."""
    pipe = tiny_dit("flux2")
    template = CONVERSATION if begins else CONVERSATION.removeprefix("{{ bos_token }}")
    pipe.tokenizer = mistral_processor(side, template)
    tokenizer = pipe.tokenizer.tokenizer
    if alone:
        tokenizer.chat_template, pipe.tokenizer = template, tokenizer
    given: list[Any] = []
    pipe.text_encoder.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs), with_kwargs=True)
    pipe.encode_prompt(prompt)
    ids, mask = given[0]["input_ids"][0].tolist(), given[0]["attention_mask"][0].tolist()
    begun = begins or not alone  # the processor puts the mark where the template does not
    before = ("<s>" if begun else "") + f"[SYSTEM_PROMPT]{pipe.system_message}[/SYSTEM_PROMPT][INST]"
    first = mask.index(1) + begun + 3 + len(pipe.system_message)
    last = min(first + len(prompt.encode()), 512)
    assert tokenizer.decode(ids[mask.index(1) : first]) == before
    found = adapter_of(pipe).tokens(pipe, prompt)
    assert found.read == tuple(first <= place < last for place in range(512)) and not found.cut
    letters = [place for place, letter in enumerate(prompt) for _ in letter.encode()]
    assert list(found.spans[first:last]) == [(place, place + 1) for place in letters[: last - first]]
    assert tokens_cut(pipe, [prompt]) == [len(letters) - (last - first)] == [59 + begun if last == 512 else 0]


def test_a_prompt_that_flux2_changes_is_refused() -> None:
    """Its pipeline takes marks of pictures out of prompts."""
    pipe = tiny_dit("flux2")
    with pytest.raises(InputError, match=r"Which words the tokens of 'a \[IMG\] b' stand for is not known"):
        adapter_of(pipe).tokens(pipe, "a [IMG] b")
    assert tokens_cut(pipe, ["a [IMG] b", "[IMG]" + "b" * 400]) == [0, 60]


def test_a_tokenizer_without_places_is_refused() -> None:
    slow: Any = Slow()
    with pytest.raises(InputError, match="The model's Slow does not say which words its tokens belong to"):
        tokens_of(slow, PROMPT, 8)


def test_a_stream_with_places_beside_the_prompt_is_refused() -> None:
    text = padding(5)
    assert text.read_of(5) == (False,) * 5
    for held in (4, 6):
        with pytest.raises(InputError, match=f"holds {held} places where the encoders fill 5"):
            text.read_of(held)


def test_a_stream_may_end_with_its_longest_prompt_and_no_sooner() -> None:
    text = PromptTokens((NOTHING, (0, 3), NOTHING, NOTHING), (False, True, False, False), cut=True)
    assert text.read_of(3) == (False, True, False) and text.read_of(2) == (False, True)
    for held in (1, 5):
        with pytest.raises(InputError, match=f"holds {held} places"):
            text.read_of(held)


def test_a_prompt_is_tokenised_once_for_its_codes_and_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, prompts, asked = tiny_dit("sd3"), [PROMPT, "a dog"], []
    config = GenerationConfig(
        height=32, width=32, steps=2, blocks=("transformer_blocks.0",), streams=("text",), branches=("cond",), t=(1.0,)
    )
    made = Generator(pipe, config)
    known = made.tokens
    monkeypatch.setattr(made, "tokens", lambda prompt: asked.append(prompt) or known(prompt))
    pictures = made.pictures(prompts, [1, 2], {site: random_sae(16, 48, 4) for site in config.sites})
    assert asked == prompts and [picture.tokens for picture in pictures] == [known(prompt) for prompt in prompts]
