"""SCE: select, calculate, erase (Wan et al., "FuseChat", 2024, arXiv:2408.07990)."""

import itertools
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from optmerge.merge.consensus import plain_sum, weight_of
from optmerge.merge.entries import agreeing, elect_sign, keep_large, moved, one_if_zero, where_positive
from optmerge.merge.inputs import Inputs
from optmerge.merge.magnitudes import MagnitudeTable, kth_largest, magnitude_table
from optmerge.merge.sparsify import task_vectors
from optmerge.merge.sweep import Piece
from optmerge.method import Parameter, merge_method

SELECT_TOPK = Parameter(low=0.0, high=1.0, default=1.0, shared=True)


@merge_method(base="required", select_topk=SELECT_TOPK)
def sce(inputs: Inputs, *, select_topk: float) -> Tensor:
    """`theta_base + sum_k eta_k tau_k / sum_k eta_k` over the sources that agree with the elected sign.

    Selected are the `select_topk` share of the entries whose task vectors differ at all that differ most, by their
    variance over the sources, and those that tie with the last of them; at 1 all entries are. `eta_k` is the mean
    square of what is left of task vector k, as a share of the sum. The sign is that of the sum of task vectors.
    """
    assert inputs.base is not None
    select = select_topk < 1
    threshold = _threshold(inputs, select_topk) if select else 0.0
    if threshold is None:
        return inputs.copy(inputs.base)
    if len(inputs.sources) == 1 and not select:
        return inputs.copy(inputs.sources[0])
    squares = inputs.sums(partial(_squares, select=select), threshold=[threshold])
    total = sum(squares)
    if total == 0:
        return inputs.copy(inputs.base)
    weight = [square / total for square in squares]
    return inputs.sweep(partial(_entries, select=select), threshold=[threshold], weight=weight)


def _threshold(inputs: Inputs, share: float) -> float | None:
    """The least variance that is selected; None where nothing is."""

    def variances() -> Tensor:
        return replace(inputs, out=None).sweep(_variance)

    def known() -> tuple[MagnitudeTable | None, int]:
        found = variances()
        return magnitude_table(found) if inputs.facts is not None else None, int(found.count_nonzero())

    table, different = inputs.once("variances", known)
    k = int(different * share)
    if k == 0:
        return None
    return kth_largest(variances(), k) if table is None else table.kth_largest(k)


def _variance(piece: Piece) -> Tensor:
    """What is proportional to the variance of the task vectors, and exactly 0 where they are equal."""
    pairs = list(itertools.combinations(task_vectors(piece), 2))
    return plain_sum([(a - b) * (a - b) for a, b in pairs]) if pairs else piece.sources[0] * 0.0


def _selected(piece: Piece, select: bool) -> list[Tensor]:
    if not select:
        return task_vectors(piece)
    chosen = keep_large(_variance(piece), piece.numbers["threshold"][0])
    return [where_positive(chosen, vector) for vector in task_vectors(piece)]


def _squares(piece: Piece, select: bool) -> Tensor:
    return torch.stack([vector.double().square().sum() for vector in _selected(piece, select)])


def _entries(piece: Piece, select: bool) -> Tensor:
    assert piece.base is not None
    vectors, weights = _selected(piece, select), piece.numbers["weight"]
    sign = elect_sign(plain_sum(vectors))
    parts = [agreeing(vector, sign) for vector in vectors]
    kept = plain_sum([part * weight for part, weight in zip(parts, weights, strict=True)])
    return moved(piece.base, kept / one_if_zero(weight_of(parts, weights)) * sign)
