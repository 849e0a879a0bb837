"""Multi-SLERP: barycentric interpolation on a hypersphere (Goddard, 2025).

https://goddard.blog/posts/multislerp-wow-what-a-cool-idea
"""

from collections.abc import Sequence

from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.consensus import LEAST_DIVISOR
from optmerge.merge.inputs import Inputs
from optmerge.merge.sphere import combination, gram, norms
from optmerge.method import WEIGHT, merge_method

_CANCELLED = 1e-7  # square root of what rounding leaves of squares that cancel


@merge_method(base="optional", weight=WEIGHT)
def multislerp(inputs: Inputs, *, weight: Sequence[float], normalize_weights: bool = True, eps: float = 1e-8) -> Tensor:
    """`(sum_k w_k |theta_k|) u / |u|` with `u = sum_k w_k theta_k / |theta_k|`; with a base, of task vectors.

    The sources, projected onto the unit sphere, are averaged in the tangent space at `u / |u|` and brought back by
    the exponential map. Their tangent vectors there, weighted, always sum to zero, so that average is `u / |u|`.

    Args:
        inputs: The sources.
        weight: One a source.
        normalize_weights: Divide the weights by their sum.
        eps: Added to norms that are divided by; also the length of `u` that counts as none.

    Raises:
        OptmergeError: If the weights are all 0 without a base, or they or the directions almost cancel.
    """
    taking_part = [k for k, w in enumerate(weight) if w]
    if not taking_part:
        if inputs.base is not None:
            return inputs.copy(inputs.base)
        raise OptmergeError("all weights are 0, so nothing is left of the model")
    share = _normalized(weight) if normalize_weights else list(weight)
    if len(inputs.sources) == 1 or (len(taking_part) == 1 and share[taking_part[0]] == 1):
        return inputs.copy(inputs.sources[taking_part[0]])

    products = gram(inputs)
    length = norms(products)
    if not any(length[taking_part]):
        return inputs.copy(inputs.sources[taking_part[0]] if inputs.base is None else inputs.base)
    w = products.new_tensor(share)
    inverse = (length > 0) / (length + eps).clamp(min=1e-300)
    mean = w * inverse
    mean_norm = float((mean @ products @ mean).clamp(min=0).sqrt())
    most = float((mean.abs() * length).sum())  # the norm if all pointed one way
    if mean_norm < max(eps, _CANCELLED * most):
        if len(taking_part) == 2:
            return combination(inputs, share)  # opposite each other: there is no arc, but there is a straight line
        raise OptmergeError("the sources' weighted directions cancel, so their mean points nowhere")
    if mean_norm < LEAST_DIVISOR * most:
        raise OptmergeError(f"the sources' weighted directions cancel to {mean_norm:.2g}, too little to divide by")
    return combination(inputs, (mean / mean_norm * (w * length).sum()).tolist())


def _normalized(weight: Sequence[float]) -> list[float]:
    total = sum(weight)
    if abs(total) < LEAST_DIVISOR * sum(map(abs, weight)):
        raise OptmergeError(f"the weights cancel to {total:.2g}, too little to divide by; try normalize_weights=false")
    return [w / total for w in weight]
