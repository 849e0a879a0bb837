"""RAM, Reinforced Agent Merging: shared changes are averaged, unique ones kept whole (2026, arXiv:2601.13572)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from optmerge.merge.consensus import plain_sum, weight_of
from optmerge.merge.entries import keep_large, moved, one_if_zero
from optmerge.merge.inputs import Inputs
from optmerge.merge.sparsify import task_vectors
from optmerge.merge.sweep import Piece
from optmerge.method import merge_method


@merge_method(base="required")
def ram(inputs: Inputs, *, epsilon: float = 1e-5) -> Tensor:
    """`theta_base + sum_k changed_k / number of sources that changed the entry`.

    Args:
        inputs: The base and the sources.
        epsilon: An entry counts as changed where its task vector's magnitude is greater than this.
    """
    return inputs.sweep(_entries, one=[1.0], least=least_changes(inputs, epsilon))


def least_changes(inputs: Inputs, epsilon: float) -> list[float]:
    """The least magnitude greater than `epsilon`, for each source."""
    above = torch.nextafter(torch.tensor(epsilon, dtype=torch.float32), torch.tensor(math.inf))
    return [float(above)] * len(inputs.sources)


def changes(piece: Piece) -> tuple[list[Tensor], Tensor]:
    """The entries of task vectors that count as changed, and how many sources changed each.

    Args:
        piece: With numbers `least`, one a source, and `one`, which is 1.
    """
    changed = [keep_large(v, least) for v, least in zip(task_vectors(piece), piece.numbers["least"], strict=True)]
    return changed, weight_of([vector.abs() for vector in changed], [piece.numbers["one"][0]] * len(changed))


def average(changed: Sequence[Tensor], count: Tensor) -> Tensor:
    """The mean over the sources that changed an entry."""
    return plain_sum(changed) / one_if_zero(count)


def _entries(piece: Piece) -> Tensor:
    assert piece.base is not None
    return moved(piece.base, average(*changes(piece)))
