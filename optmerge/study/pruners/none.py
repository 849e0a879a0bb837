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

    def is_beaten(self, scores: NDArray[np.float64], finished: Sequence[FinishedTrial], look: int) -> bool:
        return False


def build(options: Options) -> NoPruner:
    """The pruner."""
    return NoPruner()
