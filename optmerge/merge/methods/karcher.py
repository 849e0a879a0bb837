"""Karcher mean: the point of a hypersphere with the least sum of squared arcs to the sources (arXiv:2603.04972).

Karcher, "Riemannian center of mass and mollifier smoothing" (1977).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.consensus import LEAST_DIVISOR
from optmerge.merge.inputs import Inputs
from optmerge.merge.methods.linear import weighted_sum
from optmerge.merge.sphere import combination, cosines, gram, norms
from optmerge.method import WEIGHT, merge_method


@merge_method(base="ignored", weight=replace(WEIGHT, low=0.0))
def karcher(inputs: Inputs, *, weight: Sequence[float], max_iter: int = 10, tol: float = 1e-5) -> Tensor:
    """`(sum_k w_k |theta_k|) m`, where `m` is the weighted Karcher mean of the directions; weights sum to 1.

    Tensors of one entry are averaged.

    Args:
        inputs: The sources.
        weight: One a source, not negative; 0 leaves a source out.
        max_iter: Most steps of gradient descent.
        tol: Length of a step, in radians, that ends it.

    Raises:
        OptmergeError: If all weights are 0, or a source points away from the mean, so that no arc is the shortest.
    """
    taking_part = [k for k, w in enumerate(weight) if w]
    if not taking_part:
        raise OptmergeError("all weights are 0, so nothing is left of the model")
    if len(taking_part) == 1:
        return inputs.copy(inputs.sources[taking_part[0]])
    if inputs.count == 1:  # a number has no direction, but for its sign
        return inputs.sweep(weighted_sum, factor=[w / sum(weight) for w in weight])
    products = gram(inputs)
    length = norms(products)
    w = products.new_tensor(weight)
    w = w / w.sum()
    directed = w * (length > 0)  # a tensor of zeros has no direction, though its length counts
    if not directed.any():
        return inputs.copy(inputs.sources[taking_part[0]])
    mean = _mean(cosines(products), directed / directed.sum(), max_iter, tol)
    return combination(inputs, ((w * length).sum() * mean / torch.where(length > 0, length, 1.0)).tolist())


def _mean(cosine: Tensor, weight: Tensor, max_iter: int, tol: float) -> Tensor:
    """The Karcher mean's coefficients on unit vectors with these cosines, by gradient descent from their plain mean."""
    mean = weight
    if _norm(mean, cosine) < tol:
        mean = torch.eye(len(weight), dtype=weight.dtype)[int(weight.nonzero()[0])]
    mean = mean / _norm(mean, cosine)
    for _ in range(max_iter):
        dot = (cosine @ mean).clamp(-1, 1)
        sine = ((1 - dot) * (1 + dot)).sqrt()
        if ((weight > 0) & (dot < 0) & (sine < LEAST_DIVISOR)).any():
            raise OptmergeError("a source points away from the mean of all, so no arc between them is the shortest")
        # The logarithm map: the tangent at the mean towards each unit vector, as long as the arc.
        pull = weight * torch.where(sine > 0, torch.acos(dot) / torch.where(sine > 0, sine, 1.0), 1.0)
        tangent = pull - (pull * dot).sum() * mean
        step = _norm(tangent, cosine)
        if step <= tol:
            break
        # The exponential map, back onto the sphere; dividing by the norm mends what rounding does to it.
        mean = torch.cos(step) * mean + torch.sin(step) / step * tangent
        mean = mean / _norm(mean, cosine)
    return mean


def _norm(coefficients: Tensor, cosine: Tensor) -> Tensor:
    return (coefficients @ cosine @ coefficients).clamp(min=0).sqrt()
