"""Racing: stop a trial that is worse than a reference on the problems both have seen, beyond chance.

A partial mean says little: it depends on which problems came first. So a trial is compared with one reference trial
problem by problem, on those it has seen, by a one-sided paired test: McNemar's where scores are 0 or 1, Wilcoxon's
signed-rank test otherwise. The search ranks trials by what they score on these very problems, so what is tested is
whether the trial can still draw level on them, not whether it is worse in general: with most problems seen, little can
change, and both tests allow for that (`optmerge.study.paired_test`). The reference is not the best trial, which was
lucky on these very problems, but the last that CMA-ES would still learn from: the middle of the last closed generation
(Heidrich-Meisner and Igel, 2009, "Hoeffding and Bernstein races"). It is the same whoever runs the trial and whatever
else has come in.

Stopped trials rank below all survivors, and among themselves by an estimate of their fitness. TPE ranks them by the
mean over what each has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optmerge.errors import UsageError
from optmerge.study.paired_test import paired_p_value
from optmerge.study.trial_scores import FinishedTrial


@dataclass
class Options:
    """Settings of the pruner.

    Attributes:
        batch: Problems a batch; after each the trial may be stopped.
        level: Chance, over all looks at a trial together, of stopping one that would have drawn level in the end.
        rank: Rank of the reference among those of the last closed generation that ran to the end, 1 being the best; by
            default half the size of a generation, as many as CMA-ES recombines.
    """

    batch: int = 40
    level: float = 0.2
    rank: int | None = None


class RacingPruner:
    """Stops trials that are beaten."""

    def __init__(self, options: Options) -> None:
        for name, value in (("batch", options.batch), ("rank", options.rank)):
            if value is not None and value < 1:
                raise UsageError(f"pruner.{name} must be at least 1, got {value}")
        if not 0 < options.level < 1:
            raise UsageError(f"pruner.level must be between 0 and 1, got {options.level}")
        self._options = options
        self._looks = 1

    def batch_sizes(self, problems: int) -> Sequence[int]:
        """Batches of about equal size, so that the last is not a handful."""
        count = max(1, round(problems / self._options.batch))
        self._looks = count - 1  # after the last batch there is nothing left to save
        return [problems // count + (i < problems % count) for i in range(count)]

    def reference(self, survivors: Sequence[FinishedTrial], population: int) -> FinishedTrial | None:
        """The trial that others race.

        Args:
            survivors: The trials of a closed generation that ran to the end, by index, which decides between equals.
            population: How many trials it had.
        """
        rank = self._options.rank or max(1, population // 2)
        order = sorted(survivors, key=lambda trial: -trial.value)
        return order[min(rank, len(order)) - 1] if order else None

    def is_beaten(self, scores: NDArray[np.float64], reference: NDArray[np.float64], look: int) -> bool:
        """Whether the trial is so far behind the reference that it is unlikely to draw level on all problems.

        Args:
            scores: One score a problem, higher is better, NaN where unseen.
            reference: The reference's scores of all problems.
            look: How many batches the trial has seen.
        """
        if look > self._looks:
            return False
        seen = ~np.isnan(scores)
        return paired_p_value(scores[seen], reference[seen], of=len(scores)) < self._options.level / self._looks

    def estimate(self, scores: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
        """The mean over all problems that is likely after those seen, and its standard error.

        A control variate: `mean_seen(x) + beta (mean(y) - mean_seen(y))`, in which beta, the slope of the scores x on
        the reference's y, is shrunk as if a problem had been seen that shows none, and kept within [0, 1]. The error is
        that of the mean of what the slope leaves, of so many problems out of all. It is biased low after a trial was
        stopped, and only orders the beaten.
        """
        seen = ~np.isnan(scores)
        x, y = scores[seen], reference[seen]
        spread = float(((y - y.mean()) ** 2).sum())
        slope = min(1.0, max(0.0, float(((x - x.mean()) * (y - y.mean())).sum()) / (spread + 1.0)))
        left = x - slope * y
        unseen = 1 - len(x) / len(scores)
        variance = float(((left - left.mean()) ** 2).sum()) / max(1, len(x) - 1)
        error = (variance / len(x) * unseen) ** 0.5
        return float(x.mean() + slope * (reference.mean() - y.mean())), error


def build(options: Options) -> RacingPruner:
    """The pruner with these settings."""
    return RacingPruner(options)
