"""How sure a score is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Score:
    """A mean with its 95% interval."""

    score: float
    low: float
    high: float


def bootstrap(scores: NDArray[np.float64]) -> Score:
    """Mean over problems with its 95% percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Args:
        scores: One score a problem.
    """
    resampled = np.random.default_rng(0).integers(len(scores), size=(_RESAMPLES, len(scores)))
    low, high = np.percentile(scores[resampled].mean(axis=1), (2.5, 97.5))
    return Score(float(scores.mean()), float(low), float(high))
