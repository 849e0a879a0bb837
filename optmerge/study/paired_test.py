"""Whether one of two is better, told by their scores of the same problems."""

import numpy as np
from numpy.typing import NDArray


def paired_p_value(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """P-value of the one-sided test that the candidate's scores are lower than the reference's.

    McNemar's exact test where scores are 0 or 1, else Wilcoxon's signed-rank test.

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
