"""Prompts that are computed once for all their continuations, held against every text computed whole by the library."""

import random
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from flow.conftest import FAMILIES, make
from transformers import AutoModelForCausalLM

from optmerge.engines import Generate, LogLikelihood
from optmerge.engines.likelihoods import Row, Score, scores, shared
from optmerge.engines.transformers import Options, TransformersEngine, build


def asked() -> list[LogLikelihood]:
    """Prompts of different lengths, some longer than the sliding windows, and of some the continuations longer."""
    rng = random.Random(0)

    def text(least: int, most: int) -> str:
        return "".join(rng.choices(string.ascii_letters, k=rng.randint(least, most)))

    return [LogLikelihood(text(n, n), tuple(text(1, 6) for _ in range(n % 5 + 1))) for n in (31, 24, 18, 9, 3, 14, 1)]


def by_hand(engine: TransformersEngine, request: LogLikelihood, text: str) -> Score:
    tokens, scored = engine._wording.row(request.prompt, text)
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        logits = engine._model(ids, use_cache=False).logits[0, -scored - 1 : -1]
    logs = logits.log_softmax(-1).gather(-1, ids[0, -scored:, None])
    return Score(float(logs.double().sum()), bool((logits.argmax(-1) == ids[0, -scored:]).all()))


def check(engine: TransformersEngine, requests: list[LogLikelihood]) -> None:
    for request, response in zip(requests, engine.run(requests), strict=True):
        wanted = [by_hand(engine, request, text) for text in request.continuations]
        assert response.log_likelihoods == pytest.approx([score.log_likelihood for score in wanted], rel=1e-5, abs=1e-5)
        assert response.greedy == tuple(score.greedy for score in wanted)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_whole_texts(family: str, batch_size: int, tmp_path: Path) -> None:
    make(tmp_path / "model", family, seed=0)
    engine = build(Options(device="cpu", threads=1, batch_size=batch_size), tmp_path / "model", "float32")
    check(engine, asked())


def test_what_a_model_writes_is_greedy_and_nothing_else(babbler: Path) -> None:
    engine = build(Options(device="cpu", threads=1), babbler, "float32")
    prompt = "a prompt that is longer than its continuations"
    (written,) = engine.run([Generate(prompt, 5)])
    other = "".join(reversed(written.text))
    assert other != written.text
    for texts in ((written.text,), (written.text, other), (other, written.text[:2], written.text)):
        (response,) = engine.run([LogLikelihood(prompt, texts)])
        assert response.greedy == tuple(written.text.startswith(text) for text in texts)


def test_a_prompt_is_computed_once(babbler: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(babbler, dtype=torch.float32).eval()
    computed: list[int] = []
    model.register_forward_pre_hook(
        lambda module, _, arguments: computed.append(arguments["input_ids"].numel()), with_kwargs=True
    )
    group = [Row([1, *range(4, 24), last], 1) for last in (25, 26, 27, 28)]
    scores(model, [group], 0, 64)
    assert computed == [20, 4 * 2]
    computed.clear()
    scores(model, [group, group], 0, 4)
    assert computed == [2 * 20, 4 * 2, 4 * 2], "texts that are too many for one batch share what they begin with"
    computed.clear()
    scores(model, [group[:1]], 0, 64)
    assert computed == [22], "one text shares nothing"


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([Row([5, 6, 7, 8, 9], 1), Row([5, 6, 7, 8, 1], 1)], 3),
        ([Row([5, 6, 7, 8, 9], 1)], 0),
        ([Row([5, 6, 7, 8, 9], 3), Row([5, 6, 7, 8, 1], 3)], 0),
        ([Row([5, 6, 7, 8, 9], 1), Row([5, 6, 0, 8, 1], 1)], 0),
        ([Row([5, 6, 7, 8, 9], 1), Row([5, 6, 7, 0, 8, 1], 2)], 0),
        ([Row([5, 6, 7, 8, 9, 1], 1), Row([5, 6, 7, 8, 0, 1], 1)], 3),
        ([Row([5], 0), Row([5], 0)], 0),
    ],
)
def test_what_is_shared_is_what_all_texts_begin_with_where_that_pays(group: list[Row], expected: int) -> None:
    assert shared(group) == expected
