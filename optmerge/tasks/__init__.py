"""Tasks: problem sets, prompts and metrics."""

from optmerge.tasks.problem_files import ProblemFile, missing, read_problems
from optmerge.tasks.splits import check_disjoint
from optmerge.tasks.task import SPLITS, Objective, Problem, Split, Task

__all__ = [
    "SPLITS",
    "Objective",
    "Problem",
    "ProblemFile",
    "Split",
    "Task",
    "check_disjoint",
    "missing",
    "read_problems",
]
