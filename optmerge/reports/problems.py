"""A trial, problem by problem: what was asked, what it scored, and what it answered where that is kept."""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optmerge.study.trial_scores import decode
from optmerge.tasks import Problem, Task
from optmerge.tasks.task import SORTING, Split

Kept = Mapping[Split, Mapping[str, str]]  # split to metric to encoded scores


def write_problems(path: Path, task: Task, kept: Kept, response_to: Callable[[Problem], str | None]) -> None:
    """Write a table of the problems that a trial has answered.

    Args:
        path: CSV file to write.
        task: Has the problems.
        kept: What the trial scored.
        response_to: What it answered in the search, where that is known.
    """
    metrics = sorted({metric for scores in kept.values() for metric in scores} - {SORTING})
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["split", "id", "question", "answer", *metrics, "response"])
        for split, encoded in kept.items():
            scores = {metric: decode(encoded[metric]) for metric in metrics if metric in encoded}
            for i, problem in enumerate(task.problems(split)):
                cells = [_cell(scores[metric][i]) if metric in scores else "" for metric in metrics]
                if any(cells):
                    response = response_to(problem) if split == "search" else None
                    table.writerow([split, problem.id, problem.question, problem.answer, *cells, response or ""])


def _cell(score: Any) -> str:
    return "" if math.isnan(score) else f"{np.round(score, 4):g}"
