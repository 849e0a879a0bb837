"""Making task vectors sparse: by magnitude (TIES, Model Breadcrumbs), at random (DARE) or both (DELLA).

The functions that take a `Piece` work on single entries, see `optmerge.merge.sweep`; what they need is passed to the
sweep under the names that they mention.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from optmerge.merge.entries import keep_below, keep_large, keep_small
from optmerge.merge.inputs import Inputs
from optmerge.merge.masks import limit, numbers, shared_hash
from optmerge.merge.sweep import Entries, Piece, summed
from optmerge.method import Parameter

Rescale = Literal["inverse_density", "l1_norm", "none"]
"""What makes up for dropped entries. `inverse_density` divides what is kept by the probability of keeping it, as the
papers do; `l1_norm` restores the tensor's L1 norm, as mergekit does; `none` does neither."""

RescaleTrimmed = Literal["none", "l1_norm"]
"""The same after a trim by magnitude, where there is no probability to divide by."""

GAMMA = Parameter(low=0.0, high=1.0, default=0.01, search=None)
"""The share of entries, largest in magnitude, that Model Breadcrumbs drops."""

_LEAST_NORM = 1e-7  # of a task vector whose L1 norm can be restored


def task_vectors(piece: Piece) -> list[Tensor]:
    """Sources minus base."""
    assert piece.base is not None
    return [source - piece.base for source in piece.sources]


def trimmed(piece: Piece) -> list[Tensor]:
    """Task vectors' entries of magnitude `threshold` and more (Yadav et al., 2023, section 4).

    Entries that tie with the smallest kept one are kept too, so that the result does not depend on their order.
    """
    return [keep_large(v, t) for v, t in zip(task_vectors(piece), piece.numbers["threshold"], strict=True)]


def without_outliers(piece: Piece) -> list[Tensor]:
    """Task vectors' entries of magnitude `threshold` to `outlier` (Davari and Belilovsky, 2024), ties kept."""
    return [keep_small(v, t) for v, t in zip(trimmed(piece), piece.numbers["outlier"], strict=True)]


def dropped(piece: Piece) -> list[Tensor]:
    """Task vectors' entries whose random number lies below `limit` (DARE: Yu et al., 2024)."""
    shared = shared_hash(piece.position, piece.integers["tensor_key"][0])
    return [
        keep_below(vector, numbers(shared, key), limit)
        for vector, key, limit in zip(
            task_vectors(piece), piece.integers["source_key"], piece.integers["limit"], strict=True
        )
    ]


def l1_norms(piece: Piece, sparse: Sequence[Tensor]) -> Tensor:
    """L1 norms over the piece: of every task vector, then of every sparse one; float64."""
    return torch.stack([summed(vector.abs()) for vector in (*task_vectors(piece), *sparse)])


def restoring(
    inputs: Inputs,
    norms: Entries,
    integers: Mapping[str, Sequence[int]] | None = None,
    /,
    **numbers: Sequence[float],
) -> list[float]:
    """The factors that give sparse task vectors back the L1 norms that they had.

    Args:
        inputs: The sources.
        norms: Gives `l1_norms` of a piece.
        integers: What `norms` needs.
        **numbers: What `norms` needs.
    """
    return restoring_factors(inputs.sums(norms, integers, **numbers))


def restoring_factors(norms: Sequence[float]) -> list[float]:
    """The factors from L1 norms: those of the task vectors, then those of the sparse ones."""
    count = len(norms) // 2
    pairs = zip(norms[:count], norms[count:], strict=True)
    return [1.0 if min(before, after) < _LEAST_NORM else before / after for before, after in pairs]


def drop_factors(
    inputs: Inputs, norms: Entries, weight: Sequence[float], density: Sequence[float], rescale: Rescale
) -> tuple[list[float], list[int]]:
    """What dropped task vectors are multiplied by, and the `limit` of their random numbers.

    Args:
        inputs: The sources.
        norms: Gives `l1_norms` of a piece.
        weight: One a source.
        density: Probability of keeping an entry, one a source.
        rescale: What makes up for dropped entries.
    """
    limits = [limit(share) for share in density]
    if rescale == "inverse_density":
        # A density too small for the random numbers keeps nothing, and must not divide by zero.
        factor = [w / share if limit(share) > limit(0) else 0.0 for w, share in zip(weight, density, strict=True)]
    elif rescale == "l1_norm":
        restored = restoring(inputs, norms, {"limit": limits})
        factor = [w * r for w, r in zip(weight, restored, strict=True)]
    else:
        factor = list(weight)
    return factor, limits


def band(inputs: Inputs, density: Sequence[float], gamma: Sequence[float]) -> dict[str, Sequence[float]]:
    """The `threshold` and `outlier` between which Model Breadcrumbs keeps entries, for each source.

    Args:
        inputs: The sources.
        density: Share of entries to keep, one a source.
        gamma: Share of the largest entries to drop, one a source; less where `density` leaves less room.
    """
    threshold, outlier = [], []
    for index, (share, largest) in enumerate(zip(density, gamma, strict=True)):
        kept = 0 if share <= 0 else int(share * inputs.count)
        above = min(int(largest * inputs.count), inputs.count - kept)
        if kept == 0:
            low, high = float("inf"), 0.0
        else:
            low = 0.0 if above + kept == inputs.count else inputs.kth_largest(index, above + kept)
            high = inputs.kth_largest(index, above + 1) if above else float("inf")
        threshold.append(low)
        outlier.append(high)
    return {"threshold": threshold, "outlier": outlier}
