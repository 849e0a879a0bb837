"""Racing: stop a trial that is worse than a reference on the problems both have seen, beyond chance.

A partial mean says little: it depends on which problems came first. So a trial is compared with one reference trial
problem by problem, on those it has seen, by a one-sided paired test: McNemar's exact test where scores are 0 or 1,
Wilcoxon's signed-rank test otherwise. The reference is not the best trial, which was lucky on these very problems,
but the one that CMA-ES would still learn from: about the middle of the last trials that ran to the end
(Heidrich-Meisner and Igel, 2009, "Hoeffding and Bernstein races").

Optuna's CMA-ES never sees a stopped trial: a generation is filled with those that ran to the end. TPE ranks stopped
trials among themselves by the mean over what each has seen, below all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optmerge.errors import UsageError
from optmerge.study.trial_scores import FinishedTrial


@dataclass
class Options:
    """Settings of the pruner.

    Attributes:
        batch: Problems a batch; after each the trial may be stopped.
        level: Chance, over all looks at a trial together, of stopping one as good as the reference.
        window: The reference is chosen among this many of the last trials that ran to the end.
        rank: Its rank among them, 1 being the best.
    """

    batch: int = 40
    level: float = 0.1
    window: int = 12
    rank: int = 6


class RacingPruner:
    """Stops trials that are beaten."""

    def __init__(self, options: Options) -> None:
        for name in ("batch", "window", "rank"):
            if getattr(options, name) < 1:
                raise UsageError(f"pruner.{name} must be at least 1, got {getattr(options, name)}")
        if not 0 < options.level < 1:
            raise UsageError(f"pruner.level must be between 0 and 1, got {options.level}")
        if options.rank > options.window:
            raise UsageError(f"pruner.rank ({options.rank}) must not exceed pruner.window ({options.window})")
        self._options = options
        self._looks = 1

    def batch_sizes(self, problems: int) -> Sequence[int]:
        """Batches of about equal size, so that the last is not a handful."""
        count = max(1, round(problems / self._options.batch))
        self._looks = count - 1  # after the last batch there is nothing left to save
        return [problems // count + (i < problems % count) for i in range(count)]

    def is_beaten(self, scores: NDArray[np.float64], finished: Sequence[FinishedTrial], look: int) -> bool:
        """Whether the trial is worse than the reference on the problems that it has seen.

        Args:
            scores: One score a problem, higher is better, NaN where unseen.
            finished: The trials that ran to the end, oldest first.
            look: How many batches the trial has seen.
        """
        reference = self._reference(finished)
        if reference is None or look > self._looks:
            return False
        seen = ~np.isnan(scores)
        return paired_p_value(scores[seen], reference.scores()[seen]) < self._options.level / self._looks

    def _reference(self, finished: Sequence[FinishedTrial]) -> FinishedTrial | None:
        last = finished[-self._options.window :]
        if len(last) < self._options.window:
            return None
        return sorted(last, key=lambda trial: (-trial.value, trial.number))[self._options.rank - 1]


def paired_p_value(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """P-value of the one-sided test that the candidate's scores are lower than the reference's.

    Args:
        candidate: One score a problem.
        reference: The other's scores of the same problems.
    """
    from scipy.stats import binomtest, wilcoxon

    difference = candidate - reference
    lost, won = int((difference < 0).sum()), int((difference > 0).sum())
    if lost + won == 0:
        return 1.0
    if np.isin(candidate, (0, 1)).all() and np.isin(reference, (0, 1)).all():
        return float(binomtest(lost, lost + won, alternative="greater").pvalue)
    return float(wilcoxon(difference, alternative="less", zero_method="zsplit").pvalue)


def build(options: Options) -> RacingPruner:
    """The pruner with these settings."""
    return RacingPruner(options)
