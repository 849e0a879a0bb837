"""TIES: trim, elect sign, disjoint mean (Yadav et al., 2023)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.consensus import disjoint_sum
from optmerge.merge.sparsify import trim
from optmerge.method import DENSITY, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY)
def ties(
    tensors: Sequence[Tensor],
    base: Tensor,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    normalize: bool = True,
    lambda_: float = 1.0,
) -> Tensor:
    """`theta_base + lambda * disjoint_sum(trimmed task vectors)`, section 4 of the paper."""
    trimmed = [trim(tensor - base, share) for tensor, share in zip(tensors, density, strict=True)]
    return base + lambda_ * disjoint_sum(trimmed, weight, normalize)
