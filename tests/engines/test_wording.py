"""Responses made of tokens, held against those of the engine that uses the transformers library."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from optmerge.engines import Generate, LogLikelihood, Message
from optmerge.engines.transformers import Options, TransformersEngine, build
from optmerge.engines.wording import Wording, comparison
from optmerge.errors import OptmergeError

PROMPTS = ("hello", "a", "merge", "xyz", "evolution", "no", "tasks", "vector", "q")


@pytest.fixture(scope="module")
def wording(babbler: Path) -> Wording:
    return Wording(babbler)


@pytest.fixture(scope="module")
def engine(babbler: Path) -> TransformersEngine:
    return build(Options(device="cpu", threads=1), babbler, "float32")


def generated(folder: Path, prompt: list[int], number: int) -> list[int]:
    """What the library's model adds to a prompt, its end and all."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=number, do_sample=False)
    added: list[int] = output[0, len(prompt) :].tolist()
    return added


@pytest.mark.parametrize("stop", [(), ("e",), ("no", "t")])
@pytest.mark.parametrize("stop_loops", [False, True])
def test_responses_are_those_of_the_engine_with_the_transformers_library(
    babbler: Path, wording: Wording, engine: TransformersEngine, stop: tuple[str, ...], stop_loops: bool
) -> None:
    asked = [Generate(prompt, 60, stop, stop_loops) for prompt in PROMPTS]
    found = [
        wording.response(generated(babbler, wording.prompt(text), 60), r)
        for text, r in zip(PROMPTS, asked, strict=True)
    ]
    wanted = engine.run(asked)
    assert [(r.text, r.finish) for r in found] == [(r.text, r.finish) for r in wanted]


def test_a_response_ends_where_it_was_first_seen_to_repeat_itself(wording: Wording) -> None:
    tokens = [7, 8, 9] + [5, 6] * 60
    response = wording.response(tokens, Generate("", 200, stop_loops=True))
    assert (response.tokens, response.finish) == (48, "loop")


def test_a_continuation_is_cut_into_tokens_with_its_prompt(wording: Wording) -> None:
    assert wording.row("ab", "cd") == (wording.prompt("abcd"), 2)


def test_white_space_before_a_continuation_is_scored_with_it(wording: Wording) -> None:
    assert wording.row("ab ", "cd") == (wording.prompt("ab cd"), 3)


def test_what_nothing_comes_before_follows_from_the_start(wording: Wording) -> None:
    assert wording.row("", "ab") == ([1, *wording.prompt("ab")], 2)
    assert wording.prompt("") == [1]


def test_the_likeliest_continuation_is_the_text_of_a_comparison() -> None:
    response = comparison(LogLikelihood("a", ("b", "cd")), [1, 2], [-3.0, -2.5])
    assert (response.text, response.tokens, response.log_likelihoods) == ("cd", 3, (-3.0, -2.5))


def test_messages_need_a_chat_template(wording: Wording) -> None:
    with pytest.raises(OptmergeError, match="the tokenizer has no chat template"):
        wording.prompt((Message("user", "hello"),))
