"""Tokens of a prompt that find no place: counted by hand, and by what the encoders are given as pipelines call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import PixArtAlphaPipeline, SanaPipeline
from diffusers.pipelines.flux2.pipeline_flux2 import SYSTEM_MESSAGE

from gazetteer.diffusion.config.generation import GenerationConfig
from gazetteer.diffusion.denoisers.registry import adapter_of
from gazetteer.diffusion.denoisers.usual import default_of
from gazetteer.diffusion.draw import tokens_cut
from tests.support.models.dits import FAMILIES, small_t5, tiny_dit
from tests.support.models.tiny_pipeline import tiny_pipeline
from tests.support.models.tokenizers import t5_tokenizer

SAID = "user: {% for m in messages %}{{ m['content'] }}{% endfor %} go on"
"""Six tokens before a prompt and six after it, which give way first; a token is a letter."""


@dataclass(frozen=True)
class Case:
    """A family, what is done to its tiny pipeline, which encoder decides, and the tokens that it has room for."""

    family: str
    room: int
    encoder: str = "text_encoder"
    change: Callable[[Any], Any] = lambda pipe: pipe


def with_t5(pipe: Any) -> Any:
    pipe.text_encoder_3, pipe.tokenizer_3 = small_t5(), t5_tokenizer()
    return pipe


def talking(pipe: Any) -> Any:
    pipe.tokenizer.chat_template = SAID
    return pipe


def of_qwen(pipe: Any) -> Any:
    pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx = "look at: {} go on", 4
    return pipe


def plain(pipe: Any) -> Any:
    """A model of Sana's kind whose prompts have no instructions before them."""

    class Plain(SanaPipeline):
        def __call__(self, *args: Any, complex_human_instruction: Any = None, **kwargs: Any) -> Any:
            return super().__call__(*args, complex_human_instruction=complex_human_instruction, **kwargs)

    return Plain(**pipe.components)


CASES = {
    "sd3": Case("sd3", 256 - 2, "text_encoder_3", with_t5),  # T5's end, and the space that it begins words with
    "flux": Case("flux", 512 - 2, "text_encoder_2"),
    "chroma": Case("chroma", 512),
    "flux2": Case("flux2", 512 - 4 - len(SYSTEM_MESSAGE)),  # <s>[SYSTEM_PROMPT]...[/SYSTEM_PROMPT][INST]
    "flux2_klein": Case("flux2_klein", 512 - 6, change=talking),
    "qwen_image": Case("qwen_image", 512 + 4 - 9, change=of_qwen),
    "pixart_sigma": Case("pixart_sigma", 300),
    "pixart_alpha": Case("pixart_sigma", 120, change=lambda pipe: PixArtAlphaPipeline(**pipe.components)),
    "sana": Case("sana", 298),
    "sana plain": Case("sana", 300, change=plain),
    "lumina2": Case("lumina2", 256 - len(" <Prompt Start> ") - 150),
    "z_image": Case("z_image", 512 - 6, change=talking),
    "hunyuan": Case("hunyuan", 256, "text_encoder_2"),
}


def given(pipe: Any, family: str, encoder: str, prompt: str) -> torch.Tensor:
    """The tokens that stand where the denoiser is told of the prompt, of a picture drawn as the project draws it."""
    calls: list[torch.Tensor] = []

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((kwargs["input_ids"] if "input_ids" in kwargs else args[0])[0])

    handle = getattr(pipe, encoder).register_forward_pre_hook(keep, with_kwargs=True)
    side = {"lumina2": 128, "hunyuan": 128}.get(family, 32)
    told = adapter_of(pipe).arguments(pipe, [prompt], GenerationConfig(guidance=1.0, branches=("cond",)))
    pipe(**told, height=side, width=side, num_inference_steps=2, output_type="latent")
    handle.remove()
    if family == "qwen_image":  # reads further than it tells
        return calls[0][pipe.prompt_template_encode_start_idx :][:512]
    return calls[0]


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_counted_is_what_the_encoder_is_not_given(name: str) -> None:
    case = CASES[name]
    pipe = case.change(tiny_dit(case.family))
    pipe.set_progress_bar_config(disable=True)
    if case.family == "lumina2":
        pipe.system_prompt = "s" * 150
    sevens = ["7" * (case.room + more) for more in (-1, 0, 1, 9)]
    assert tokens_cut(pipe, sevens) == [0, 0, 1, 9]
    tokenizer = getattr(pipe, case.encoder.replace("text_encoder", "tokenizer"))
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    ids = given(pipe, case.family, case.encoder, sevens[-1])
    assert int((ids == tokenizer.convert_tokens_to_ids("7")).sum()) == case.room


@pytest.mark.parametrize("family", ["sd3", "flux", "chroma", "pixart_sigma", "hunyuan"])
def test_how_far_a_tokenizer_says_its_model_reads_is_not_asked_beside_the_pipelines_own_limit(family: str) -> None:
    case = CASES[family]
    pipe = case.change(tiny_dit(family))
    tokenizer = getattr(pipe, case.encoder.replace("text_encoder", "tokenizer"))
    for said in (50, 10_000):
        tokenizer.model_max_length = said
        assert tokens_cut(pipe, ["7" * case.room, "7" * (case.room + 7)]) == [0, 7]
        assert int((given(pipe, family, case.encoder, "7" * 600) == tokenizer.convert_tokens_to_ids("7")).sum()) == (
            case.room
        )


def test_a_tokenizer_whose_encoder_is_left_out_counts_nothing() -> None:
    """SD 3 without T5: CLIP reads 77, two of which are its ends."""
    pipe = tiny_dit("sd3")
    prompts = [" ".join(["house"] * words) for words in (75, 76, 200)]
    assert tokens_cut(pipe, prompts) == [0, 1, 125]
    pipe.tokenizer_3 = t5_tokenizer()
    assert tokens_cut(pipe, prompts) == [0, 1, 125]
    pipe.text_encoder_3 = small_t5()
    assert tokens_cut(pipe, prompts) == [0, 0, 0]


@pytest.mark.parametrize(("family", "most"), [("pixart_sigma", 300), ("sana", 298)])
def test_prompts_that_are_read_in_small_letters_are_counted_so(family: str, most: int) -> None:
    """This tokenizer has a word for red and none for RED, which takes three tokens and a space."""
    pipe = tiny_dit(family)
    pipe.tokenizer, ends = t5_tokenizer(), 1
    prompts = ["  " + " ".join(["RED"] * words) + "  " for words in (most - ends, most - ends + 5)]
    assert tokens_cut(pipe, prompts) == ([0, 5] if family == "pixart_sigma" else [0, 4])


@pytest.mark.parametrize("family", ["z_image", "flux2_klein", "qwen_image", "lumina2", "sana"])
def test_a_tokenizer_without_places_counts_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[family]
    pipe = case.change(tiny_dit(family))
    prompts = ["7" * length for length in (1, 100, 290, 300, 511, 600)]
    known = tokens_cut(pipe, prompts)
    monkeypatch.setattr(type(pipe.tokenizer), "is_fast", False)
    assert tokens_cut(pipe, prompts) == known and known[-1] > 80


def test_a_template_that_changes_the_prompt_is_counted_as_it_makes_it() -> None:
    """Two letters for one: 506 places hold 253 of them."""
    pipe = tiny_dit("z_image")
    doubled = "{{ m['content'] | replace('7', '77') }}"
    pipe.tokenizer.chat_template = SAID.replace("{{ m['content'] }}", doubled)
    assert tokens_cut(pipe, ["7" * 253, "7" * 254, ""]) == [0, 2, 0]


def test_instructions_that_leave_no_room_leave_out_the_whole_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_dit("z_image")
    pipe.tokenizer.chat_template = "a" * 512 + SAID
    assert tokens_cut(pipe, ["7" * 5, ""]) == [5, 0]
    monkeypatch.setattr(type(pipe.tokenizer), "is_fast", False)
    assert tokens_cut(pipe, ["7" * 5, ""]) == [5, 0]


def test_new_words_of_several_tokens_are_counted_as_they_are_read() -> None:
    """A word that textual inversion taught as three vectors takes three of a U-Net's 30 places."""
    pipe = tiny_pipeline()
    pipe.load_textual_inversion({"<cat>": torch.zeros(3, pipe.text_encoder.config.hidden_size)}, token="<cat>")
    assert tokens_cut(pipe, ["dog " * 27 + "<cat>", "dog " * 28 + "<cat>"]) == [0, 1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_words_that_a_plan_counts_are_those_that_a_pipeline_takes(family: str) -> None:
    pipe = tiny_dit(family)
    words = adapter_of(pipe).words({"_class_name": type(pipe).__name__})
    assert words == {"sd3": 77 + 256, "hunyuan": 77 + 256}.get(family, default_of(pipe, "max_sequence_length"))
