"""The three splits of a task have no problem in common."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from optmerge.errors import UsageError
from optmerge.tasks.questions import normalised, shortened
from optmerge.tasks.task import Problem, Split


def check_disjoint(splits: Mapping[Split, Sequence[Problem]]) -> None:
    """Refuse splits that share a problem: what is searched on must not be what is tested on.

    Questions are compared without white space and after Unicode normalisation (NFKC), so that a copy of a
    problem set with other spacing is still recognised. A translation is not.

    Args:
        splits: The problems of each split.

    Raises:
        UsageError: If two splits share a problem; names the two, how many, and the first shared question.
    """
    questions = {split: {normalised(problem.question) for problem in problems} for split, problems in splits.items()}
    for one, other in combinations(splits, 2):
        shared = [p.question for p in splits[other] if normalised(p.question) in questions[one]]
        if shared:
            raise UsageError(
                f"the {one} and {other} splits share {len(shared)} problem{'s' * (len(shared) > 1)}, "
                f"first {shortened(shared[0])!r}; give them different rows or files"
            )
