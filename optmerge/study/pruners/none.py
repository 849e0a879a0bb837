"""No pruning: every trial answers every problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optmerge.study.trial_scores import FinishedTrial


@dataclass
class Options:
    """It has no settings."""


class NoPruner:
    """Beats nobody."""

    def batch_sizes(self, problems: int) -> Sequence[int]:
        return [problems]

    def reference(self, survivors: Sequence[FinishedTrial], population: int) -> FinishedTrial | None:
        return None

    def is_beaten(self, scores: NDArray[np.float64], reference: NDArray[np.float64], look: int) -> bool:
        return False

    def estimate(self, scores: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
        seen = scores[~np.isnan(scores)]
        return float(seen.mean()), float(seen.std(ddof=1) / len(seen) ** 0.5)


def build(options: Options) -> NoPruner:
    """The pruner."""
    return NoPruner()
