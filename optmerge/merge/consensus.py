"""Sums of task vectors, plain or over the entries that agree in sign: the last stage of most methods.

Every function here works on single entries (see `optmerge.merge.sweep`), after whatever made the vectors sparse.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.entries import agreeing, elect_sign, keep_large, one_if_zero, where_positive

LEAST_DIVISOR = 1e-3
"""In units of the sum of absolute weights: a smaller one would let rounding errors and noise explode."""

ROUNDING = 2.0**-22
"""In the same units: what can be left, in float32, of weights that cancel."""

_TINY = 2.0**-126  # the least float32 of full precision
_MANY = 12  # weights whose subsets are too many to try
_NOTHING = 1e-8  # in the same units: weights that cancel to within this are meant to, nothing is left to divide by


def divisor(weights: Sequence[float]) -> float:
    """The sum of weights to divide by; 1 where they cancel exactly, as nothing is to be normalized then.

    Raises:
        OptmergeError: If weights of opposite sign almost cancel: the quotient would explode.
    """
    total = sum(weights)
    if cancel(weights):
        return 1.0
    if abs(total) < LEAST_DIVISOR * sum(abs(weight) for weight in weights):
        raise OptmergeError(f"the weights cancel to {total:.2g}, too little to divide by; normalize=false adds them")
    return total


def cancel(weights: Sequence[float]) -> bool:
    """Whether weights cancel, but for rounding."""
    return abs(sum(weights)) <= _NOTHING * sum(map(abs, weights))


def factors(weights: Sequence[float], normalize: bool) -> list[float]:
    """The weights of a plain sum, divided by their sum if `normalize`."""
    # The weights are divided, not the tensors: GPUs divide by a number as they multiply by its inverse, and every
    # device must give the same bits.
    return [weight / divisor(weights) for weight in weights] if normalize else list(weights)


@lru_cache(maxsize=64)
def can_cancel(weights: tuple[float, ...]) -> bool:
    """Whether the weights of sources that agree at some entry could almost cancel; True if that is long to find out."""
    nonzero = [weight for weight in weights if weight]
    if all(weight > 0 for weight in nonzero) or all(weight < 0 for weight in nonzero):
        return False
    return len(nonzero) > _MANY or any(
        abs(sum(subset)) < LEAST_DIVISOR * sum(map(abs, subset))
        for size in range(2, len(nonzero) + 1)
        for subset in itertools.combinations(nonzero, size)
    )


def plain_sum(vectors: Sequence[Tensor]) -> Tensor:
    """The sum, in order."""
    if len(vectors) == 1:
        return vectors[0]
    total = vectors[0] + vectors[1]
    for vector in vectors[2:]:
        total += vector
    return total


def disjoint_sum(
    weighted: Sequence[Tensor], weights: Sequence[Tensor] | None = None, sizes: Sequence[Tensor] | None = None
) -> Tensor:
    """Elect a sign for each entry, then add the entries that agree with it (Yadav et al., 2023, section 4).

    Args:
        weighted: Weighted sparse task vectors; an entry's sign is that of their sum, and an exact tie is positive.
        weights: Divide each entry by the sum of the weights that agree there: the disjoint mean. Where none agrees,
            or they cancel, by 1.
        sizes: The weights' absolute values, given where some weights are negative, and so can cancel.
    """
    sign = elect_sign(plain_sum(weighted))
    parts = [agreeing(vector, sign) for vector in weighted]
    kept = plain_sum(parts)
    if weights is not None:
        share = weight_of(parts, weights)
        if sizes is None:
            kept = kept / share.clamp(min=_TINY)  # where no source agrees nothing is kept, and that stays so
        else:
            kept = kept / one_if_zero(keep_large(share, weight_of(parts, sizes) * ROUNDING))
    return kept * sign


def weight_of(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The sum of the weights of sources whose entries take part, being positive and not 0."""
    return plain_sum([where_positive(part, weight) for part, weight in zip(parts, weights, strict=True)])
