"""DELLA's random drop by magnitude with a plain sum, no election of signs (Deep et al., 2024)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.inputs import Inputs
from optmerge.merge.magprune import EPSILON, magprune_merge
from optmerge.merge.sparsify import Rescale
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, epsilon=EPSILON, lambda_=LAMBDA)
def della_linear(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    lambda_: float,
    normalize: bool = False,
    rescale: Rescale = "inverse_density",
) -> Tensor:
    """`theta_base + lambda sum_k w_k magprune(theta_k - theta_base)`, the sum divided by `sum_k w_k` if `normalize`.

    See `della` and `optmerge.merge.magprune`.
    """
    return magprune_merge(
        inputs,
        weight=weight,
        density=density,
        epsilon=epsilon,
        lambda_=lambda_,
        elect=False,
        normalize=normalize,
        rescale=rescale,
    )
