"""Scores problem by problem as a file: a table that MLflow's pages show, and that models are compared by.

Its form is that of pandas' `orient="split"`: names of columns, and rows; null where a problem has no such score.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optmerge.study.judged import Scores
from optmerge.tasks import Problem

_TOLD = ("id", "question", "answer")  # of a problem


@dataclass(frozen=True)
class ProblemTable:
    """What a model scored on some problems.

    Attributes:
        ids: Of the problems.
        questions: Their questions.
        scores: Metric to one score a problem, NaN where there is none.
    """

    ids: Sequence[str]
    questions: Sequence[str]
    scores: Mapping[str, NDArray[np.float64]]


def table_of(problems: Sequence[Problem], scores: Scores) -> dict[str, Any]:
    """A table as it is written."""
    columns = [plain(found) for found in scores.values()]
    rows = [
        [problem.id, problem.question, problem.answer, *found]
        for problem, *found in zip(problems, *columns, strict=True)
    ]
    return {"columns": [*_TOLD, *scores], "data": rows}


def plain(scores: NDArray[np.float64]) -> list[float | int | None]:
    """Scores as JSON has them, whole numbers short."""
    return [None if value != value else int(value) if value == int(value) else value for value in scores.tolist()]


def read_table(path: Path) -> ProblemTable:
    """The inverse of `table_of`, but for answers.

    Raises:
        ValueError: If the file is no such table.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    try:
        names, rows = document["columns"], document["data"]
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        scores = {name: np.array(columns[name], dtype=np.float64) for name in names if name not in _TOLD}
        return ProblemTable(columns["id"], columns["question"], scores)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is no table of scores") from error
