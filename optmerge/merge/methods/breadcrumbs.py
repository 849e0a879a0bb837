"""Model Breadcrumbs: drop the smallest and largest entries of task vectors (Davari and Belilovsky, 2024)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.adding import added, short_cut, unless_one
from optmerge.merge.consensus import factors
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import GAMMA, RescaleTrimmed, band, l1_norms, restoring, without_outliers
from optmerge.merge.sweep import Piece
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, gamma=GAMMA, lambda_=LAMBDA)
def breadcrumbs(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    lambda_: float,
    normalize: bool = False,
    rescale: RescaleTrimmed = "none",
) -> Tensor:
    """`theta_base + lambda sum_k w_k m_k * (theta_k - theta_base)`, equation 2 of arXiv:2312.06795.

    The mask `m_k` drops the `gamma` share of entries that is largest in magnitude, and of the others keeps the
    largest, until the `density` share of all entries is kept (entries that tie with the first or last are kept too).
    Where density and gamma are more than 1 together, fewer of the largest are dropped.
    """
    exact = short_cut(inputs, weight, lambda_, normalize, [share >= 1 for share in density])
    if exact is not None:
        return exact
    bounds = band(inputs, density, gamma)
    factor = factors(weight, normalize)
    if rescale == "l1_norm":
        factor = [w * r for w, r in zip(factor, restoring(inputs, _norms, **bounds), strict=True)]
    return inputs.sweep(_entries, factor=factor, **unless_one(lambda_), **bounds)


def _entries(piece: Piece) -> Tensor:
    return added(piece, without_outliers(piece), elect=False)


def _norms(piece: Piece) -> Tensor:
    return l1_norms(piece, without_outliers(piece))
