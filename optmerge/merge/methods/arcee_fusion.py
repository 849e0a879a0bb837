"""Arcee Fusion: only the important changes of one source (Arcee AI, 2024, https://arcee.ai)."""

from dataclasses import replace

import torch
from torch import Tensor

from optmerge.merge.inputs import Inputs
from optmerge.merge.magnitudes import kth_largest
from optmerge.merge.sparsify import task_vectors
from optmerge.merge.sweep import SUMMED, Piece
from optmerge.method import merge_method

_EPS = 1e-8  # added to the probabilities


@merge_method(base="required", sources=(1, 1))
def arcee_fusion(inputs: Inputs) -> Tensor:
    """The source where a change is important, the base elsewhere.

    The importance of an entry is `|theta - theta_base| KL(softmax(row) || softmax(base's row))`, over the tensor's
    last dimension. Important is what reaches `median + 1.5 (third quartile - first quartile)` of all entries.
    """
    if not inputs.shape:
        return inputs.copy(inputs.sources[0])  # a row of one entry has no divergence: all is equally important
    divergence, threshold = inputs.once("importance", lambda: _facts(inputs))
    if threshold == 0:
        return inputs.copy(inputs.sources[0])
    return inputs.sweep_rows(_entries, divergence=divergence, threshold=divergence.new_tensor([threshold]))


def _facts(inputs: Inputs) -> tuple[Tensor, float]:
    """Each row's divergence, to be passed to `sweep_rows`, and the least importance that counts."""
    divergence = _divergences(inputs).to(torch.float32).reshape(1, *inputs.shape[:-1], 1)
    importance = replace(inputs, out=None).sweep_rows(_importance, divergence=divergence)
    last = inputs.count - 1
    first, median, third = (kth_largest(importance, inputs.count - int(q * last)) for q in (0.25, 0.5, 0.75))
    return divergence, median + 1.5 * (third - first)


def _divergences(inputs: Inputs) -> Tensor:
    """`KL(softmax(row) || softmax(base's row))` of each row; float64, as rows that are alike differ in few digits."""
    assert inputs.base is not None
    columns = inputs.shape[-1]
    source, base = inputs.sources[0].reshape(-1, columns), inputs.base.reshape(-1, columns)
    found = torch.empty(len(source), dtype=torch.float64, device=inputs.device)
    rows = max(1, SUMMED // columns)
    for start in range(0, len(source), rows):
        p = source[start : start + rows].double().softmax(-1) + _EPS
        q = base[start : start + rows].double().softmax(-1) + _EPS
        parts = torch.split(p * (p / q).log(), SUMMED, dim=-1)
        found[start : start + rows] = torch.stack([part.sum(-1) for part in parts]).sum(0)
    return found.clamp_(min=0)


def _importance(piece: Piece) -> Tensor:
    return task_vectors(piece)[0].abs() * piece.numbers["divergence"][0]


def _entries(piece: Piece) -> Tensor:
    assert piece.base is not None
    # Rows are merged by plain PyTorch alone, so a comparison needs no second spelling.
    return torch.where(_importance(piece) >= piece.numbers["threshold"][0], piece.sources[0], piece.base)
