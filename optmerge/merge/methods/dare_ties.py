"""TIES whose trim by magnitude is replaced by DARE's random drop (Akiba et al., 2025)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.consensus import disjoint_sum
from optmerge.merge.masks import Stream
from optmerge.merge.sparsify import Rescale, drop
from optmerge.method import DENSITY, WEIGHT, merge_method


@merge_method(base="required", random=True, weight=WEIGHT, density=DENSITY)
def dare_ties(
    tensors: Sequence[Tensor],
    base: Tensor,
    *,
    streams: Sequence[Stream],
    weight: Sequence[float],
    density: Sequence[float],
    # Not normalized by default: the published evolved weights sum to nearly 2, which normalizing would undo.
    normalize: bool = False,
    rescale: Rescale = "inverse_density",
    lambda_: float = 1.0,
) -> Tensor:
    """`theta_base + lambda * disjoint_sum(drop(theta_k - theta_base))`."""
    dropped = [drop(t - base, d, stream, rescale) for t, d, stream in zip(tensors, density, streams, strict=True)]
    return base + lambda_ * disjoint_sum(dropped, weight, normalize)
