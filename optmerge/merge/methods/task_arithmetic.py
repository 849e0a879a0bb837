"""Task arithmetic (Ilharco et al., 2023)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.adding import added, short_cut, unless_one
from optmerge.merge.consensus import factors
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import task_vectors
from optmerge.merge.sweep import Piece
from optmerge.method import LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, lambda_=LAMBDA)
def task_arithmetic(inputs: Inputs, *, weight: Sequence[float], lambda_: float, normalize: bool = False) -> Tensor:
    """`theta_base + lambda sum_k w_k (theta_k - theta_base)`, the sum divided by `sum_k w_k` if `normalize`."""
    exact = short_cut(inputs, weight, lambda_, normalize, [True] * len(weight))
    if exact is not None:
        return exact
    return inputs.sweep(_entries, factor=factors(weight, normalize), **unless_one(lambda_))


def _entries(piece: Piece) -> Tensor:
    return added(piece, task_vectors(piece), elect=False)
