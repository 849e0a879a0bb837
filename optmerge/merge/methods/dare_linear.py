"""DARE: drop entries of task vectors at random, rescale the rest, add (Yu et al., 2024)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.consensus import weighted_sum
from optmerge.merge.masks import Stream
from optmerge.merge.sparsify import Rescale, drop
from optmerge.method import DENSITY, WEIGHT, merge_method


@merge_method(base="required", random=True, weight=WEIGHT, density=DENSITY)
def dare_linear(
    tensors: Sequence[Tensor],
    base: Tensor,
    *,
    streams: Sequence[Stream],
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool = False,
    rescale: Rescale = "inverse_density",
    lambda_: float = 1.0,
) -> Tensor:
    """`theta_base + lambda sum_k w_k drop(theta_k - theta_base)`."""
    dropped = [drop(t - base, d, stream, rescale) for t, d, stream in zip(tensors, density, streams, strict=True)]
    return base + lambda_ * weighted_sum(dropped, weight, normalize)
