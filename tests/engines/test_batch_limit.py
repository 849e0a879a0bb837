"""Batches as large as memory allows: the rule, and an engine whose model runs out of memory."""

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from optmerge.engines import Generate, LogLikelihood, Request
from optmerge.engines.batch_limit import CPU_ROWS, BatchLimit
from optmerge.engines.transformers import Options, TransformersEngine, build
from optmerge.errors import OptmergeError

# The rule


@pytest.mark.parametrize(
    ("limit", "length", "expected"),
    [
        (BatchLimit(8), 1000, 8),
        (BatchLimit(8, tokens=1000), 100, 8),
        (BatchLimit(8, tokens=1000), 300, 3),
        (BatchLimit(None, tokens=1000), 10, 100),
        (BatchLimit(None, tokens=1000), 2000, 1),
    ],
)
def test_rows_go_together_up_to_both_limits(limit: BatchLimit, length: int, expected: int) -> None:
    assert limit.fitting(length) == expected


def test_on_the_cpu_and_where_it_is_said_the_number_of_rows_is_fixed() -> None:
    assert BatchLimit.of(None, "cpu") == BatchLimit(CPU_ROWS)
    assert BatchLimit.of(9, "cuda:1") == BatchLimit.of(9, "cpu") == BatchLimit(9)
    limit = BatchLimit.of(9, "cuda")
    limit.worked(9, 100)
    assert limit == BatchLimit(9)


def test_on_a_gpu_batches_double_until_memory_runs_out_and_then_stay() -> None:
    limit, memory, tried = BatchLimit.of(None, "cuda"), 100_000, []
    for _ in range(12):
        rows = limit.fitting(100)
        tried.append(rows)
        if rows * 100 > memory:
            limit.failed(rows, 100)
        else:
            limit.worked(rows, 100)
    assert tried == [163, 326, 652, 1304, *[652] * 8]


def test_what_ran_out_on_short_rows_holds_for_long_ones() -> None:
    limit = BatchLimit.of(None, "cuda")
    limit.failed(100, 40)
    assert (limit.fitting(20), limit.fitting(40), limit.fitting(400)) == (100, 50, 5)


# The engine


Seen = list[int]
Starved = Callable[[TransformersEngine, int], Seen]


@pytest.fixture
def starved() -> Starved:
    """Lets a model run out of memory where a batch has more than some number of rows; lists the rows of all batches."""

    def starve(engine: TransformersEngine, most: int) -> Seen:
        seen: Seen = []

        def allocate(module: object, arguments: tuple[()], given: dict[str, Any]) -> None:
            rows = len(given["input_ids"])
            if given["input_ids"].shape[1] > 1:  # not one of the tokens that follow
                seen.append(rows)
            if rows > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        engine._model.register_forward_pre_hook(allocate, with_kwargs=True)
        return seen

    return starve


def loaded(folder: Path, batch_size: int | None = None) -> TransformersEngine:
    return build(Options(device="cpu", threads=1, batch_size=batch_size), folder, "float32")


WORDS = ["".join(letters) for letters in itertools.product("abcd", repeat=3)]
WRITTEN: list[Request] = [Generate(word, 5) for word in WORDS]
COMPARED: list[Request] = [LogLikelihood(f"some words before {word}", ("ab", "c", "de")) for word in WORDS[:30]]


@pytest.mark.parametrize("asked", [WRITTEN, COMPARED], ids=["written", "compared"])
def test_batches_are_halved_until_they_fit_and_that_is_remembered(
    babbler: Path, starved: Starved, asked: list[Request]
) -> None:
    engine, free = loaded(babbler), loaded(babbler)
    seen = starved(engine, 12)
    wanted = free.run(asked)
    assert engine.run(asked) == wanted
    assert sum(rows > 12 for rows in seen) < 5
    assert max(rows for rows in seen if rows <= 12) >= 6
    seen.clear()
    assert engine.run(asked) == wanted
    assert max(seen) <= 12, "what has failed is not tried again"


@pytest.mark.parametrize("asked", [WRITTEN, COMPARED], ids=["written", "compared"])
def test_batches_double_while_there_is_memory(babbler: Path, starved: Starved, asked: list[Request]) -> None:
    """As on a GPU, but from fewer tokens: the limit is put in by hand, as there may be no GPU here."""
    engine, kind = loaded(babbler), type(asked[0])
    length = 3 + 5 if kind is Generate else max(map(len, ["some words before abc" + "ab"]))
    engine._limits[kind] = BatchLimit(None, 3 * length, growing=True)
    seen = starved(engine, 20)
    assert engine.run(asked) == loaded(babbler).run(asked)
    rows = [rows for rows, _ in itertools.groupby(seen)]
    assert rows[0] <= 3 and max(rows) > 20, "it grew until memory ran out"
    assert sum(number > 20 for number in seen) == 1, "which was once"
    seen.clear()
    engine.run(asked)
    assert 10 <= max(seen) <= 20


def test_one_kind_of_request_does_not_limit_the_other(babbler: Path, starved: Starved) -> None:
    engine = loaded(babbler)
    seen = starved(engine, 12)
    engine.run(COMPARED)
    seen.clear()
    engine.run(WRITTEN)
    assert seen[0] == len(WRITTEN)


def test_many_continuations_of_one_prompt_are_halved_too(babbler: Path, starved: Starved) -> None:
    asked = [LogLikelihood("what may follow", tuple(WORDS))]
    engine = loaded(babbler)
    starved(engine, 12)
    (found,), (wanted,) = engine.run(asked), loaded(babbler).run(asked)
    assert found.log_likelihoods == pytest.approx(wanted.log_likelihoods, abs=1e-5)


@pytest.mark.parametrize("asked", [WRITTEN, COMPARED], ids=["written", "compared"])
def test_a_request_that_exhausts_memory_alone_fails_the_candidate_and_harms_no_other(
    babbler: Path, starved: Starved, asked: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    engine = loaded(babbler)
    starved(engine, 0)
    with caplog.at_level(logging.INFO), pytest.raises(OptmergeError, match=r"^memory runs out on a single request"):
        engine.run(asked)
    assert "memory ran out on" in caplog.text
    engine._model._forward_pre_hooks.clear()
    seen = starved(engine, 1000)
    assert engine.run(asked) == loaded(babbler).run(asked)
    assert max(seen) == sum(len(getattr(one, "continuations", "1")) for one in asked), "all at once, as before"


def test_other_errors_are_not_taken_for_exhausted_memory(babbler: Path) -> None:
    engine = loaded(babbler)

    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match\nat some place")

    engine._model.register_forward_pre_hook(fail)
    with pytest.raises(OptmergeError, match=r"^generating failed: shapes do not match$"):
        engine.run(WRITTEN)
