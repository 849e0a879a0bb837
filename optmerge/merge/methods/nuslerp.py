"""NuSLERP: spherical interpolation by weights, optionally of task vectors, optionally by rows or columns.

Goddard et al., "Arcee's MergeKit" (2024, arXiv:2403.13257), whose tool introduced it.
"""

from collections.abc import Sequence

from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.consensus import LEAST_DIVISOR
from optmerge.merge.inputs import Inputs
from optmerge.merge.sphere import combination, cosines, gram, row_combination, row_gram, slerp_coefficients
from optmerge.method import WEIGHT, merge_method

_NOTHING = 1e-6  # weights whose sum is no more than this say nothing about which source is nearer


@merge_method(base="optional", sources=(2, 2), weight=WEIGHT)
def nuslerp(
    inputs: Inputs, *, weight: Sequence[float], nuslerp_flatten: bool = True, nuslerp_row_wise: bool = False
) -> Tensor:
    """Slerp of two sources at `t = w_1 / (w_0 + w_1)`; with a base, of their task vectors, added to the base.

    Weights that sum to 0 mean halfway, but with a base and no weight at all the base. Vectors that are collinear,
    almost so or opposite, are interpolated in a straight line.

    Args:
        inputs: Two sources.
        weight: One a source.
        nuslerp_flatten: Take a tensor for one vector, not for many.
        nuslerp_row_wise: Where it is not, take vectors along the first dimension; otherwise along the last.

    Raises:
        OptmergeError: If weights of opposite sign almost cancel.
    """
    if inputs.base is not None and not any(weight):
        return inputs.copy(inputs.base)
    t = _position(weight)
    if t in (0, 1):
        return inputs.copy(inputs.sources[int(t)])
    flat = nuslerp_flatten or len(inputs.shape) < 2
    cosine = cosines(gram(inputs) if flat else row_gram(inputs, 0 if nuslerp_row_wise else -1))[0, 1]
    sine = ((1 - cosine) * (1 + cosine)).sqrt()
    # Nearer to opposite, rounding errors would be divided by almost nothing; nearer to parallel, both ways agree.
    coefficients = slerp_coefficients(t, cosine, sine < LEAST_DIVISOR)
    return combination(inputs, coefficients.tolist()) if flat else row_combination(inputs, coefficients)


def _position(weight: Sequence[float]) -> float:
    total = sum(weight)
    if abs(total) < _NOTHING:
        return 0.5
    if abs(total) < LEAST_DIVISOR * sum(map(abs, weight)):
        raise OptmergeError(f"the weights cancel to {total:.2g}, too little to divide by")
    return weight[1] / total
