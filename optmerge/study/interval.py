"""How sure a score is."""

from collections.abc import Mapping
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


def bootstrap(scores: Mapping[str, NDArray[np.float64]], metric: str) -> Score:
    """Mean over problems with its 95% percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Args:
        scores: Metric to one score a problem, NaN where it has none. Problems with the same metrics are of one part of
            a composite task. How many there are of each part is no matter of chance, so they are drawn within it.
        metric: Of which the mean is wanted.
    """
    own, rng = scores[metric], np.random.default_rng(0)
    has = np.array([~np.isnan(each) for each in scores.values()])[:, ~np.isnan(own)]
    own = own[~np.isnan(own)]
    _, parts = np.unique(has, axis=1, return_inverse=True)
    sums = np.zeros(_RESAMPLES)
    for part in range(int(parts.max()) + 1):
        drawn = own[parts.ravel() == part]
        sums += drawn[rng.integers(len(drawn), size=(_RESAMPLES, len(drawn)))].sum(axis=1)
    low, high = np.percentile(sums / len(own), (2.5, 97.5))
    return Score(float(own.mean()), float(low), float(high))
