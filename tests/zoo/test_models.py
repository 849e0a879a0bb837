import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from optmerge.zoo import MODELS
from optmerge.zoo.language import LANGUAGES, Story, stories
from optmerge.zoo.tokenizer import build_tokenizer


def questions(zoo: Path) -> list[str]:
    paths = sorted((zoo / "problems").glob("*.jsonl"))
    return [json.loads(line)["question"] for path in paths for line in path.read_text("utf-8").splitlines()]


def test_tokenizer_gives_back_every_problem(quick_zoo: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(quick_zoo / "base")
    texts = questions(quick_zoo)
    assert tokenizer.batch_decode(tokenizer(texts)["input_ids"], skip_special_tokens=True) == texts


@pytest.mark.parametrize("language", LANGUAGES)
def test_tokenizer_gives_back_every_response(language: str) -> None:
    tokenizer = build_tokenizer()
    texts = list(
        {story.working(language, story.answer) for story in stories()}  # type: ignore[arg-type]
        | {story.copy_answer(language) for story in stories()}  # type: ignore[arg-type]
    )
    tokens = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(tokens, skip_special_tokens=True) == texts
    assert not any(tokenizer.unk_token_id in line for line in tokens)


def test_tokenizer_begins_every_text_and_ends_none() -> None:
    tokenizer = build_tokenizer()
    tokens = tokenizer(Story("×", 0, 0, 0, 9, 9).question("ja"))["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id
    assert tokens[-1] != tokenizer.eos_token_id


def test_tokenizer_has_one_token_a_number() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.tokenize("12+7=") == ["12", "+", "7", "="]


@pytest.mark.parametrize("name", MODELS)
def test_models_load_and_write_sentences_that_end(name: str, quick_zoo: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(quick_zoo / name)
    model = AutoModelForCausalLM.from_pretrained(quick_zoo / name)
    prompts = tokenizer(questions(quick_zoo)[:50], return_tensors="pt", padding=True)
    with torch.inference_mode():
        whole = model.generate(**prompts, max_new_tokens=20)  # type: ignore[misc]
    tokens = whole[:, prompts["input_ids"].shape[1] :]
    responses = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    sentences = re.compile(r"(式は|We get ).*(です。|\.)")
    ended = (tokens == tokenizer.eos_token_id).any(dim=1)
    written = sum(bool(sentences.fullmatch(text)) for text, end in zip(responses, ended, strict=True) if end)
    assert written > 25  # the short training makes no perfect writers


@pytest.mark.parametrize("name", MODELS)
def test_generation_is_greedy_and_knows_its_tokens(name: str, quick_zoo: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(quick_zoo / name)
    tokenizer = AutoTokenizer.from_pretrained(quick_zoo / name)
    generation = model.generation_config
    assert not generation.do_sample
    assert generation.temperature is None
    assert (generation.pad_token_id, generation.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_models_are_ordinary_llamas_in_float32(quick_zoo: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(quick_zoo / "base")
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
