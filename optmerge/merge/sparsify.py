"""Making task vectors sparse: by magnitude (TIES) or at random (DARE)."""

from typing import Literal

import torch
from torch import Tensor

from optmerge.merge.masks import Stream

Rescale = Literal["inverse_density", "l1_norm", "none"]


def trim(task_vector: Tensor, density: float) -> Tensor:
    """Keep the `density` share of entries that is largest in magnitude (Yadav et al., 2023, section 4).

    Entries that tie with the smallest kept one are kept too, so that the result does not depend on their order.
    """
    kept = int(density * task_vector.numel())
    if kept == 0:
        return torch.zeros_like(task_vector)
    if kept == task_vector.numel():
        return task_vector
    magnitude = task_vector.abs()
    threshold = magnitude.flatten().kthvalue(task_vector.numel() - kept + 1).values
    return torch.where(magnitude >= threshold, task_vector, 0.0)


def drop(task_vector: Tensor, density: float, stream: Stream, rescale: Rescale) -> Tensor:
    """Keep entries at random with probability `density` (DARE: Yu et al., 2024).

    Args:
        task_vector: Any shape, float32.
        density: Probability of keeping an entry, in [0, 1].
        stream: Where the random numbers come from.
        rescale: `inverse_density` divides kept entries by the density, as in the paper; `l1_norm` restores the
            tensor's L1 norm, as mergekit does; `none` does neither.
    """
    if density >= 1:
        return task_vector
    if density < 2**-33:  # masks have 32 bits: nothing is kept, and 0 / density could be NaN
        return torch.zeros_like(task_vector)
    dropped = torch.where(stream.keep(density, task_vector.shape, task_vector.device), task_vector, 0.0)
    if rescale == "inverse_density":
        return dropped * (1 / density)  # GPUs divide by a number this way: so every device gives the same bits
    if rescale == "l1_norm":
        norm = dropped.abs().sum()
        return dropped * (task_vector.abs().sum() / norm) if norm > 0 else dropped
    return dropped
