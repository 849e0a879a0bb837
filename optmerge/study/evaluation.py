"""Scoring a mounted candidate on problems."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from optmerge.engines import Engine
from optmerge.errors import OptmergeError
from optmerge.study.memory import Memory
from optmerge.tasks import Problem, Task

_AT_ONCE = 512  # problems that an engine is asked at once: what is answered is remembered after each


@dataclass
class Evaluation:
    """Scores gathered so far.

    Attributes:
        scores: Metric to one score a problem, NaN where unseen, in the order of the problems.
        seconds: Phase to seconds spent in it.
        tokens: How many an engine has generated, or scored.
    """

    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: int = 0

    def seen(self) -> int:
        """How many problems were answered."""
        return int((~self.unseen()).sum()) if self.scores else 0

    def unseen(self) -> NDArray[np.bool_]:
        """Which problems have no score; there must be scores of some."""
        found: NDArray[np.bool_] = np.all([np.isnan(scores) for scores in self.scores.values()], axis=0)
        return found

    def mean(self, metric: str) -> float:
        """Mean over the problems that were answered and have this score."""
        return float(np.nanmean(self.scores[metric]))


def answer(
    engine: Engine,
    task: Task,
    problems: Sequence[Problem],
    positions: Sequence[int],
    evaluation: Evaluation,
    memory: Memory | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Let a candidate answer the problems at some positions, adding to `evaluation`.

    Args:
        engine: Answers.
        task: Asks and scores.
        problems: All problems.
        positions: Of those to be answered.
        evaluation: What is added to.
        memory: Responses that the candidate has given before; it is told of new ones.
        ready: Called before the engine is asked: it sees to it that the candidate is mounted.
    """
    memory = memory or Memory(None)
    asked = [i for i in positions if memory.get(problems[i]) is None]
    responses = {i: known for i in positions if (known := memory.get(problems[i])) is not None}
    for start in range(0, len(asked), _AT_ONCE):
        ready()
        some = asked[start : start + _AT_ONCE]
        began = time.perf_counter()
        found = engine.run([task.request(problems[i]) for i in some])
        _spent(evaluation, "generate", began)
        evaluation.tokens += sum(response.tokens for response in found)
        memory.add([problems[i] for i in some], found)
        responses.update(zip(some, found, strict=True))
    began = time.perf_counter()
    for i in positions:
        _put(evaluation.scores, i, task.score(problems[i], responses[i]), len(problems))
    _spent(evaluation, "score", began)


def _spent(evaluation: Evaluation, phase: str, began: float) -> None:
    evaluation.seconds[phase] = evaluation.seconds.get(phase, 0.0) + time.perf_counter() - began


def _put(scores: dict[str, NDArray[np.float64]], i: int, values: Mapping[str, float], count: int) -> None:
    for metric, value in values.items():
        if not math.isfinite(value):
            raise OptmergeError(f"{metric} of a problem is {value}: the merge's answers cannot be scored")
        scores.setdefault(metric, np.full(count, np.nan))[i] = value
