"""Task arithmetic (Ilharco et al., 2023)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.consensus import weighted_sum
from optmerge.method import WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT)
def task_arithmetic(
    tensors: Sequence[Tensor], base: Tensor, *, weight: Sequence[float], normalize: bool = False, lambda_: float = 1.0
) -> Tensor:
    """`theta_base + lambda sum_k w_k (theta_k - theta_base)`."""
    return base + lambda_ * weighted_sum([tensor - base for tensor in tensors], weight, normalize)
