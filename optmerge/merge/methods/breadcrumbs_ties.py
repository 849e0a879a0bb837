"""Model Breadcrumbs whose masked task vectors are added where they agree in sign, as in TIES."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.adding import added, check_divisors, nearly_cancelled, normalizing, short_cut, unless_one
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import GAMMA, RescaleTrimmed, band, l1_norms, restoring, without_outliers
from optmerge.merge.sweep import Piece
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, gamma=GAMMA, lambda_=LAMBDA)
def breadcrumbs_ties(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    lambda_: float,
    normalize: bool = False,
    rescale: RescaleTrimmed = "none",
) -> Tensor:
    """`theta_base + lambda * disjoint_sum(m_k * (theta_k - theta_base))`; see `breadcrumbs` and `ties`."""
    exact = short_cut(inputs, weight, lambda_, normalize, [share >= 1 for share in density])
    if exact is not None:
        return exact
    bounds = band(inputs, density, gamma)
    factor = list(weight)
    if rescale == "l1_norm":
        factor = [w * r for w, r in zip(weight, restoring(inputs, _norms, **bounds), strict=True)]
    if normalize:
        check_divisors(inputs, _cancelled, weight, factor=factor, **bounds)
    return inputs.sweep(_entries, factor=factor, **normalizing(weight, normalize), **unless_one(lambda_), **bounds)


def _entries(piece: Piece) -> Tensor:
    return added(piece, without_outliers(piece), elect=True)


def _norms(piece: Piece) -> Tensor:
    return l1_norms(piece, without_outliers(piece))


def _cancelled(piece: Piece) -> Tensor:
    return nearly_cancelled(piece, without_outliers(piece))
