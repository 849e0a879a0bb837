"""Tasks: problem sets, prompts and metrics."""

from optmerge.tasks.data_task import DataOptions, DataTask, Scoring
from optmerge.tasks.problem_files import NUMBERS, TEXTS, Answers, ProblemFile
from optmerge.tasks.splits import check_disjoint
from optmerge.tasks.task import SORTING, SPLITS, Objective, Problem, Split, Task

__all__ = [
    "NUMBERS",
    "SORTING",
    "SPLITS",
    "TEXTS",
    "Answers",
    "DataOptions",
    "DataTask",
    "Objective",
    "Problem",
    "ProblemFile",
    "Scoring",
    "Split",
    "Task",
    "check_disjoint",
]
