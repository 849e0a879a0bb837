"""DELLA: task vectors dropped at random by magnitude, then merged as in TIES (Deep et al., 2024)."""

from collections.abc import Sequence

from torch import Tensor

from optmerge.merge.inputs import Inputs
from optmerge.merge.magprune import EPSILON, magprune_merge
from optmerge.merge.sparsify import Rescale
from optmerge.method import DENSITY, LAMBDA, WEIGHT, merge_method


@merge_method(base="required", weight=WEIGHT, density=DENSITY, epsilon=EPSILON, lambda_=LAMBDA)
def della(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    lambda_: float,
    normalize: bool = True,
    rescale: Rescale = "inverse_density",
) -> Tensor:
    """`theta_base + lambda * disjoint_sum(magprune(theta_k - theta_base))`, arXiv:2406.11617.

    What is kept is divided by the probability of keeping it (`rescale` says what else can be done). `normalize`
    divides by the sum of the weights that agree. See `optmerge.merge.magprune` and `ties`.
    """
    return magprune_merge(
        inputs,
        weight=weight,
        density=density,
        epsilon=epsilon,
        lambda_=lambda_,
        elect=True,
        normalize=normalize,
        rescale=rescale,
    )
