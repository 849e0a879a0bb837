"""TIES: trim, elect sign, disjoint mean (Yadav et al., 2023)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.adding import added, check_divisors, nearly_cancelled, normalizing, short_cut, unless_one
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import RescaleTrimmed, l1_norms, restoring, trimmed
from optmerge.merge.sweep import Piece
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, lambda_=LAMBDA)
def ties(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float,
    normalize: bool = True,
    rescale: RescaleTrimmed = "none",
) -> Tensor:
    """`theta_base + lambda * disjoint_sum(trimmed task vectors)`, section 4 of the paper.

    Each task vector keeps the `density` share of its entries that is largest in magnitude, and those that tie with
    the smallest of them. `normalize` makes the sum a mean over the sources that agree, weighted by their weights.
    """
    exact = short_cut(inputs, weight, lambda_, normalize, [share >= 1 for share in density])
    if exact is not None:
        return exact
    threshold = inputs.thresholds(density)
    factor = list(weight)
    if rescale == "l1_norm":
        factor = [w * r for w, r in zip(weight, restoring(inputs, _norms, threshold=threshold), strict=True)]
    if normalize:
        check_divisors(inputs, _cancelled, weight, factor=factor, threshold=threshold)
    return inputs.sweep(
        _entries, factor=factor, threshold=threshold, **normalizing(weight, normalize), **unless_one(lambda_)
    )


def _entries(piece: Piece) -> Tensor:
    return added(piece, trimmed(piece), elect=True)


def _norms(piece: Piece) -> Tensor:
    return l1_norms(piece, trimmed(piece))


def _cancelled(piece: Piece) -> Tensor:
    return nearly_cancelled(piece, trimmed(piece))
