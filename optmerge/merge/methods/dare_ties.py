"""TIES whose trim by magnitude is replaced by DARE's random drop (Akiba et al., 2025)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.adding import added, check_divisors, nearly_cancelled, normalizing, short_cut, unless_one
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import Rescale, drop_factors, dropped, l1_norms
from optmerge.merge.sweep import Piece
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, lambda_=LAMBDA)
def dare_ties(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float,
    # Not normalized by default: the published evolved weights sum to nearly 2, which normalizing would undo.
    normalize: bool = False,
    rescale: Rescale = "inverse_density",
) -> Tensor:
    """`theta_base + lambda * disjoint_sum(drop(theta_k - theta_base))`; see `dare_linear` and `ties`."""
    exact = short_cut(inputs, weight, lambda_, normalize, [share >= 1 for share in density])
    if exact is not None:
        return exact
    factor, limits = drop_factors(inputs, _norms, weight, density, rescale)
    integers = {"limit": limits}
    if normalize:
        check_divisors(inputs, _cancelled, weight, integers, factor=factor)
    return inputs.sweep(_entries, integers, factor=factor, **normalizing(weight, normalize), **unless_one(lambda_))


def _entries(piece: Piece) -> Tensor:
    return added(piece, dropped(piece), elect=True)


def _norms(piece: Piece) -> Tensor:
    return l1_norms(piece, dropped(piece))


def _cancelled(piece: Piece) -> Tensor:
    return nearly_cancelled(piece, dropped(piece))
