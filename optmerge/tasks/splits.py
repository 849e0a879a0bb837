"""The three splits of a task have no problem in common."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from optmerge.errors import UsageError
from optmerge.tasks.questions import shortened
from optmerge.tasks.task import Problem, Split


def check_disjoint(splits: Mapping[Split, Sequence[Problem]]) -> None:
    """Refuse splits that share a problem: what is searched on must not be what is tested on.

    Problems are compared by their ids, which follow from the question, and what else the prompt shows, without white
    space and after Unicode normalisation (NFKC): a copy of a problem set with other spacing is still recognised. A
    translation is not.

    Args:
        splits: The problems of each split.

    Raises:
        UsageError: If two splits share a problem; names the two, how many, and the first shared question.
    """
    # A part of a composite task has its name before the id.
    ids = {split: {problem.id.rpartition("/")[2] for problem in problems} for split, problems in splits.items()}
    for one, other in combinations(splits, 2):
        shared = [p.question for p in splits[other] if p.id.rpartition("/")[2] in ids[one]]
        if shared:
            raise UsageError(
                f"the {one} and {other} splits share {len(shared)} problem{'s' * (len(shared) > 1)}, "
                f"first {shortened(shared[0])!r}; give them different rows or files"
            )
