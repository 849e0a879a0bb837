"""Model Stock: how far towards the average, from the angles between task vectors (Jang et al., 2024).

arXiv:2403.19522.
"""

import torch
from torch import Tensor

from optmerge.merge.consensus import LEAST_DIVISOR
from optmerge.merge.inputs import Inputs
from optmerge.merge.sphere import combination, cosines, gram, row_combination, row_gram
from optmerge.method import merge_method


@merge_method(base="required", sources=(2, None))
def model_stock(inputs: Inputs, *, filter_wise: bool = False) -> Tensor:
    """`t mean_k theta_k + (1 - t) theta_base` with `t = N cos / (1 + (N - 1) cos)`, section 4 of the paper.

    `cos` is the mean over all pairs of task vectors. The more they agree, the more of their average is taken: all of
    it where they are parallel, none where they are at right angles. Where they oppose each other so that `t` would
    divide by almost nothing, none is taken either.

    Args:
        inputs: The base and two sources or more.
        filter_wise: Find `t` for every vector along the last dimension, not once a tensor.
    """
    by_rows = filter_wise and len(inputs.shape) > 1
    cosine = cosines(row_gram(inputs, -1) if by_rows else gram(inputs))
    count = len(inputs.sources)
    first, second = torch.triu_indices(count, count, 1)
    mean = cosine[first, second].mean(0)
    divisor = 1 + (count - 1) * mean
    singular = divisor.abs() < LEAST_DIVISOR
    t = torch.where(singular, 0.0, count * mean / torch.where(singular, 1.0, divisor))
    if not t.any():
        assert inputs.base is not None
        return inputs.copy(inputs.base)
    coefficients = (t / count).expand(count, *t.shape)
    return row_combination(inputs, coefficients) if by_rows else combination(inputs, coefficients.tolist())
