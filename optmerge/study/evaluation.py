"""Scoring a mounted candidate on problems."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from optmerge.engines import Engine
from optmerge.tasks import Problem, Task


@dataclass
class Evaluation:
    """Scores gathered so far.

    Attributes:
        scores: Metric to one score a problem, NaN where unseen, in the order of the problems.
        seconds: Phase to seconds spent in it.
    """

    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def seen(self) -> int:
        """How many problems were answered."""
        return max((int((~np.isnan(scores)).sum()) for scores in self.scores.values()), default=0)

    def mean(self, metric: str) -> float:
        """Mean over the problems that were answered."""
        return float(np.nanmean(self.scores[metric]))


def answer(
    engine: Engine, task: Task, problems: Sequence[Problem], positions: Sequence[int], evaluation: Evaluation
) -> None:
    """Let the mounted candidate answer the problems at some positions, adding to `evaluation`."""
    began = time.perf_counter()
    batch = [problems[i] for i in positions]
    responses = engine.run([task.request(problem) for problem in batch])
    generated = time.perf_counter()
    for i, problem, response in zip(positions, batch, responses, strict=True):
        _put(evaluation.scores, i, task.score(problem, response), len(problems))
    phases = evaluation.seconds
    phases["generate"] = phases.get("generate", 0.0) + generated - began
    phases["score"] = phases.get("score", 0.0) + time.perf_counter() - generated


def _put(scores: dict[str, NDArray[np.float64]], i: int, values: Mapping[str, float], count: int) -> None:
    for metric, value in values.items():
        scores.setdefault(metric, np.full(count, np.nan))[i] = value
