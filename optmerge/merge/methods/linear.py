"""Weighted average of the sources (Wortsman et al., 2022, "Model soups")."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.adding import short_cut
from optmerge.merge.consensus import cancel, factors, plain_sum
from optmerge.merge.inputs import Inputs
from optmerge.merge.sweep import Piece
from optmerge.method import WEIGHT, merge_method


@merge_method(base="ignored", weight=WEIGHT)
def linear(inputs: Inputs, *, weight: Sequence[float], normalize: bool = True) -> Tensor:
    """`sum_k w_k theta_k`, divided by `sum_k w_k` if `normalize`.

    Raises:
        OptmergeError: If all weights are 0, or they cancel and are to be normalized.
    """
    if not any(weight):
        raise OptmergeError("all weights are 0, so nothing is left of the model")
    if normalize and cancel(weight):
        raise OptmergeError("the weights cancel, so there is nothing to divide by; normalize=false adds them")
    exact = short_cut(inputs, weight, 1.0, normalize, [True] * len(weight))
    return inputs.sweep(weighted_sum, factor=factors(weight, normalize)) if exact is None else exact


def weighted_sum(piece: Piece) -> Tensor:
    """`sum_k factor_k theta_k`."""
    return plain_sum([source * factor for source, factor in zip(piece.sources, piece.numbers["factor"], strict=True)])
