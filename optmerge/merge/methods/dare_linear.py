"""DARE: drop entries of task vectors at random, rescale the rest, add (Yu et al., 2024)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.adding import added, short_cut, unless_one
from optmerge.merge.consensus import factors
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import Rescale, drop_factors, dropped, l1_norms
from optmerge.merge.sweep import Piece
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, lambda_=LAMBDA)
def dare_linear(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float,
    normalize: bool = False,
    rescale: Rescale = "inverse_density",
) -> Tensor:
    """`theta_base + lambda sum_k w_k drop(theta_k - theta_base)`, the sum divided by `sum_k w_k` if `normalize`.

    `drop` keeps each entry with probability `density`, and divides it by that (`rescale` says what else it can do).
    """
    exact = short_cut(inputs, weight, lambda_, normalize, [share >= 1 for share in density])
    if exact is not None:
        return exact
    factor, limits = drop_factors(inputs, _norms, factors(weight, normalize), density, rescale)
    return inputs.sweep(_entries, {"limit": limits}, factor=factor, **unless_one(lambda_))


def _entries(piece: Piece) -> Tensor:
    return added(piece, dropped(piece), elect=False)


def _norms(piece: Piece) -> Tensor:
    return l1_norms(piece, dropped(piece))
