"""Whether one of two is better, told by their scores of the same problems."""

import math

import numpy as np
from numpy.typing import NDArray


def paired_p_value(candidate: NDArray[np.float64], reference: NDArray[np.float64], of: int | None = None) -> float:
    """P-value of the one-sided test that the candidate's scores are lower than the reference's.

    McNemar's test where scores are 0 or 1, else Student's for paired samples. Not Wilcoxon's: it goes by ranks, and the
    fitness is a mean. Where losses and gains are of unlike size, as between the parts of a composite task, it calls a
    candidate worse whose mean is higher.

    With `of`, the question is not who is better in general, but who would be after all of so many problems, of which
    these are drawn without replacement: the more of them are seen, the less can still change. Of the problems that only
    one of two equals solves half are lost, so those among the ones seen are hypergeometric; how many there are in all
    is taken to be in proportion to those seen. The p-value is the mid-p, as the exact one is far too careful where
    there are few (Fagerland, Lydersen and Laake, 2013, "The McNemar test for binary matched-pairs data"). Student's has
    the finite population correction (Cochran, 1977, "Sampling techniques", chapter 2).

    Args:
        candidate: One score a problem.
        reference: The other's scores of the same problems.
        of: How many problems there are in all; unlimited by default.
    """
    from scipy.stats import binomtest, hypergeom, t

    difference = candidate - reference
    lost, won, seen = int((difference < 0).sum()), int((difference > 0).sum()), len(difference)
    if lost + won == 0:
        return 1.0
    if seen == of:  # nothing is left to chance
        return float(difference.sum() >= 0)
    if np.isin(candidate, (0, 1)).all() and np.isin(reference, (0, 1)).all():
        if of is None:
            return float(binomtest(lost, lost + won, alternative="greater").pvalue)
        half = max(round((lost + won) * of / seen / 2), lost, won)
        equals = hypergeom(2 * half, half, lost + won)
        return float(equals.sf(lost) + equals.pmf(lost) / 2)
    mean, deviation = float(difference.mean()), float(difference.std(ddof=1)) if seen > 1 else math.inf
    if deviation == 0:  # worse, or better, by the same everywhere
        return float(mean > 0)
    unseen = 1.0 if of is None else 1 - seen / of
    return float(t.cdf(mean / (deviation * math.sqrt(unseen / seen)), df=max(1, seen - 1)))
