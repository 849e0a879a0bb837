"""Weighted average of the sources (Wortsman et al., 2022, "Model soups")."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge.consensus import weighted_sum
from optmerge.method import WEIGHT, merge_method


@merge_method(base="ignored", weight=WEIGHT)
def linear(
    tensors: Sequence[Tensor], base: Tensor | None, *, weight: Sequence[float], normalize: bool = True
) -> Tensor:
    """`sum_k w_k theta_k`, divided by `sum_k w_k` if `normalize`.

    Raises:
        OptmergeError: If all weights are 0, or they cancel and are to be normalized.
    """
    if not any(weight):
        raise OptmergeError("all weights are 0, so nothing is left of the model")
    return weighted_sum(tensors, weight, normalize)
