"""Weighted sums of task vectors, plain or over the entries that agree in sign."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optmerge.errors import OptmergeError

_LEAST_DIVISOR = 1e-3  # in units of the sum of absolute weights


def divisor(weights: Sequence[float]) -> float:
    """The sum of weights to divide by.

    Raises:
        OptmergeError: If weights of opposite sign cancel: the quotient would explode.
    """
    total = sum(weights)
    if abs(total) < _LEAST_DIVISOR * sum(abs(weight) for weight in weights):
        raise OptmergeError("the weights cancel to almost zero, so they cannot be normalized")
    return total or 1.0  # nothing, divided by nothing, stays nothing


def weighted_sum(task_vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """`sum_k w_k tau_k`, divided by `sum_k w_k` if `normalize`."""
    # The weights are divided, not the tensors: GPUs divide by a number as they multiply by its inverse, and every
    # device must give the same bits.
    factors = [weight / divisor(weights) for weight in weights] if normalize else weights
    total = factors[0] * task_vectors[0]
    for task_vector, factor in zip(task_vectors[1:], factors[1:], strict=True):
        total += factor * task_vector
    return total


def disjoint_sum(task_vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Elect a sign an entry, then add the entries that agree with it (Yadav et al., 2023, section 4).

    Args:
        task_vectors: One tensor a source, all of the same shape, float32.
        weights: One factor a source; an entry's sign is that of the sum of weighted entries.
        normalize: Divide each entry by the sum of weights that agree there: the disjoint mean.
    """
    weighted = [weight * task_vector for task_vector, weight in zip(task_vectors, weights, strict=True)]
    total = torch.zeros_like(weighted[0])
    for vector in weighted:
        total += vector
    elected = torch.where(total >= 0, 1.0, -1.0)  # an exact tie goes positive
    kept = torch.zeros_like(total)
    share = torch.zeros_like(total)
    for vector, weight in zip(weighted, weights, strict=True):
        agrees = vector * elected > 0
        kept += torch.where(agrees, vector, 0.0)
        share += torch.where(agrees, weight, 0.0)
    # Weights of opposite sign can agree on an entry's sign and yet cancel; such an entry is left unscaled.
    return kept / torch.where(share.abs() <= _LEAST_DIVISOR * sum(map(abs, weights)), 1.0, share) if normalize else kept
