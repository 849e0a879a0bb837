"""MAGPRUNE: drop entries of task vectors at random, the smaller the likelier (DELLA: Deep et al., 2024, section 3.1).

In every row of a tensor, entries are ranked by magnitude; the smallest is kept with probability `density - epsilon`,
the largest with `density + epsilon`, those between in equal steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from optmerge.merge.adding import added, nearly_cancelled, normalizing, refuse_cancelled, short_cut, unless_one
from optmerge.merge.consensus import can_cancel, factors
from optmerge.merge.entries import keep_below
from optmerge.merge.inputs import Inputs
from optmerge.merge.masks import LEVELS, numbers, shared_hash
from optmerge.merge.sparsify import Rescale, l1_norms, restoring_factors, task_vectors
from optmerge.merge.sweep import Piece
from optmerge.method import Parameter

EPSILON = Parameter(low=0.0, high=1.0, default=0.15, search=None)
"""Half of the spread of keeping probabilities within a row; probabilities are cut off at 0 and 1."""


def magprune_merge(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    lambda_: float,
    elect: bool,
    normalize: bool,
    rescale: Rescale,
) -> Tensor:
    """`theta_base + lambda * sum`, over pruned task vectors, of all of them or of those that agree in sign.

    A density of 1 keeps everything and a density of 0 nothing, whatever the epsilon.
    """
    exact = short_cut(inputs, weight, lambda_, normalize, [share >= 1 for share in density])
    if exact is not None:
        return exact
    spread = [0.0 if share in (0.0, 1.0) else e for share, e in zip(density, epsilon, strict=True)]
    settings = {
        "density": torch.tensor(density, dtype=torch.float64),
        "spread": torch.tensor(spread, dtype=torch.float64),
        "inverse": torch.tensor([float(rescale == "inverse_density")]),
    }
    rows = inputs.as_matrix()
    factor = list(weight) if elect else factors(weight, normalize)
    if rescale == "l1_norm":
        restored = restoring_factors(rows.sum_rows(_norms, {}, **settings))
        factor = [w * r for w, r in zip(factor, restored, strict=True)]
    numbers: dict[str, Sequence[float]] = {"factor": factor, **normalizing(weight, elect and normalize)}
    settings |= {name: torch.tensor(values) for name, values in (numbers | unless_one(lambda_)).items()}
    if elect and normalize and can_cancel(tuple(weight)):
        refuse_cancelled(rows.sum_rows(_cancelled, {}, **settings)[0])
    return rows.sweep_rows(_disjoint_sum if elect else _sum, {}, **settings).reshape(inputs.shape)


def keeping_probability(magnitude: Tensor, density: Tensor, spread: Tensor) -> Tensor:
    """How likely each entry of some rows is kept.

    Args:
        magnitude: [rows, columns], float32.
        density: A number, float64.
        spread: A number, float64.

    Returns:
        [rows, columns], float64, in [0, 1].
    """
    last = max(1, magnitude.shape[1] - 1)
    # Of one entry alone, the rank is in the middle.
    rank = row_ranks(magnitude).double() / last if magnitude.shape[1] > 1 else torch.full_like(magnitude, 0.5).double()
    return (density + (2 * rank - 1) * spread).clamp(0, 1)


def row_ranks(magnitude: Tensor) -> Tensor:
    """The rank of every entry in its row, from 0 for the smallest; equal ones are ranked by column.

    Args:
        magnitude: [rows, columns], float32, no negative entry.
    """
    columns = torch.arange(magnitude.shape[1], device=magnitude.device).expand_as(magnitude)
    if magnitude.device.type == "cpu":
        import numpy as np

        # One number of both, so that a fast sort, which keeps no order, has nothing to choose.
        keys = (magnitude.view(torch.int32).to(torch.int64) << 32) | columns
        order = torch.from_numpy(np.sort(keys.numpy(), axis=1)) & 0xFFFFFFFF
    else:
        order = magnitude.sort(dim=1, stable=True).indices
    return torch.empty_like(order).scatter_(1, order, columns)


def _pruned(piece: Piece) -> list[Tensor]:
    shared = shared_hash(piece.position, piece.integers["tensor_key"][0])
    pruned = []
    for k, vector in enumerate(task_vectors(piece)):
        probability = keeping_probability(vector.abs(), piece.numbers["density"][k], piece.numbers["spread"][k])
        limit = ((probability * LEVELS).round() - LEVELS // 2).to(torch.int32)
        kept = keep_below(vector, numbers(shared, piece.integers["source_key"][k]), limit)
        if piece.numbers["inverse"][0]:
            kept = kept * (1 / probability.clamp(min=1 / LEVELS)).float()
        pruned.append(kept)
    return pruned


def _sum(piece: Piece) -> Tensor:
    return added(piece, _pruned(piece), elect=False)


def _disjoint_sum(piece: Piece) -> Tensor:
    return added(piece, _pruned(piece), elect=True)


def _norms(piece: Piece) -> Tensor:
    return l1_norms(piece, _pruned(piece))


def _cancelled(piece: Piece) -> Tensor:
    return nearly_cancelled(piece, _pruned(piece))
