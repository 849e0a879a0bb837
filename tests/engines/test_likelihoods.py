"""Log-likelihoods, conversations, repetitions and logits that are no numbers, against the library called by hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from optmerge.engines import Generate, LogLikelihood, Message, Response
from optmerge.engines.loops import repeats_itself
from optmerge.engines.transformers import Options, TransformersEngine, build
from optmerge.errors import OptmergeError

ASKED = [
    LogLikelihood("abc", ("def", "xyz", "q")),
    LogLikelihood("", ("hello",)),
    LogLikelihood("a long prompt that others are padded to", ("z", "yy")),
    LogLikelihood("ends in space ", ("word",)),
]


def loaded(folder: Path, **options: Any) -> TransformersEngine:
    return build(Options(device="cpu", threads=1, **options), folder, "float32")


def by_hand(folder: Path, prompt: str, continuation: str) -> float:
    """Sum of the log-probabilities of the continuation's letters: the babbler has a token for each letter."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    scored = len(continuation) + len(prompt) - len(prompt.rstrip())
    ids = tokenizer(prompt + continuation)["input_ids"]
    ids = ids if prompt else [tokenizer.bos_token_id, *ids]
    with torch.inference_mode():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logs[i - 1, ids[i]]) for i in range(len(ids) - scored, len(ids)))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_likelihoods_are_those_of_the_library_in_any_batch(babbler: Path, batch_size: int) -> None:
    responses = loaded(babbler, batch_size=batch_size).run(ASKED)
    for asked, response in zip(ASKED, responses, strict=True):
        expected = [by_hand(babbler, asked.prompt, text) for text in asked.continuations]
        assert response.log_likelihoods == pytest.approx(expected, abs=1e-4)
        assert response.text == asked.continuations[expected.index(max(expected))]
    assert responses[0].tokens == 3 + 3 + 1


def test_likelihoods_of_all_that_may_follow_add_up_to_one(babbler: Path) -> None:
    letters = tuple("abcdefghijklmnopqrstuvwxyz")
    (response,) = loaded(babbler).run([LogLikelihood("the", letters)])
    tokenizer: Any = AutoTokenizer.from_pretrained(babbler)
    rest = [token for token in tokenizer.get_vocab() if token not in letters]
    total = sum(2.718281828459045**log for log in response.log_likelihoods)
    assert len(rest) == 4
    assert 0.5 < total < 1.0 + 1e-6


def test_requests_of_both_kinds_may_be_mixed(babbler: Path) -> None:
    engine = loaded(babbler)
    written = Generate("abc", 5)
    first, text, last = engine.run([ASKED[0], written, ASKED[2]])
    assert text == engine.run([written])[0]
    for found, asked in ((first, ASKED[0]), (last, ASKED[2])):
        assert found.log_likelihoods == pytest.approx(engine.run([asked])[0].log_likelihoods, abs=1e-4)


# Conversations


def with_template(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
    return copy


def test_messages_are_put_in_the_models_template(babbler: Path, tmp_path: Path) -> None:
    engine = loaded(with_template(babbler, tmp_path / "chat"))
    turns = (Message("system", "xy"), Message("user", "bc"), Message("assistant", "d"), Message("user", "e"))
    assert engine.run([Generate(turns, 8)]) == engine.run([Generate("sxyubcadu" + "e" + "a", 8)])


def test_a_model_without_a_template_cannot_be_talked_to(babbler: Path) -> None:
    with pytest.raises(OptmergeError, match=r"no chat template; set task\.chat=false"):
        loaded(babbler).run([Generate((Message("user", "abc"),), 4)])


# Repetitions


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([1] * 32, True),
        ([1] * 31, False),
        ([5, 6, 7, *([1, 2, 3] * 11)], True),
        ([5, 6, 7, *([1, 2, 3] * 10)], False),
        (list(range(50)) * 4, True),
        (list(range(50)) * 3, False),
        (list(range(65)) * 4, False),
        ([*([1, 2] * 30), 9], False),
        ([], False),
    ],
)
def test_a_response_repeats_itself_four_times_and_32_tokens_long(tokens: list[int], loops: bool) -> None:
    assert repeats_itself(tokens) is loops


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(4, 10), st.lists(st.integers(0, 9)))
def test_what_comes_before_a_loop_does_not_hide_it(period: list[int], times: int, before: list[int]) -> None:
    if len(period) * times >= 32:
        assert repeats_itself([*before, *period * times])


def test_responses_that_repeat_themselves_are_stopped_where_that_is_asked_for(babbler: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(babbler, tmp_path / "stuck")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():  # it says "k" whatever was said
        model.model.norm.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(model.lm_head.weight)))
    model.save_pretrained(folder)
    engine = loaded(folder)
    letters = engine._wording.tokenizer.get_vocab()
    head = engine._model.lm_head
    head.register_forward_hook(lambda module, given, logits: logits + 5.0 * torch.eye(logits.shape[-1])[letters["k"]])
    cut, stopped = engine.run([Generate("abc", 100), Generate("abc", 100, stop_loops=True)])
    assert cut == Response("k" * 100, 100, "length")
    assert stopped == Response("k" * 32, 32, "loop")


# Failures


def test_logits_that_are_no_numbers_fail_the_candidate_with_a_reason(babbler: Path, tmp_path: Path) -> None:
    engine = loaded(babbler)
    with torch.no_grad():
        engine._model.lm_head.weight[3, 3] = float("nan")
    for asked in (Generate("abc", 4), LogLikelihood("abc", ("d",))):
        with pytest.raises(OptmergeError, match=r"logits are not numbers \(NaN\)"):
            engine.run([asked])


def test_tokens_beyond_the_tokenizers_say_nothing(babbler: Path) -> None:
    engine = loaded(babbler)
    known = len(engine._wording.tokenizer)
    engine._model.resize_token_embeddings(known + 8)
    with torch.no_grad():
        engine._model.lm_head.weight[known:] *= 0
        engine._model.model.embed_tokens.weight[known:] *= 0
    boost = torch.zeros(known + 8)
    boost[known + 3] = 1e4
    engine._model.lm_head.register_forward_hook(lambda module, given, logits: logits + boost)
    (response,) = engine.run([Generate("abc", 6)])
    assert response == Response("", 6, "length")
