"""RAM+, tensor-local: RAM that makes up for what averaging takes from a source (2026, arXiv:2601.13572)."""

import torch
from torch import Tensor

from optmerge.merge.consensus import plain_sum
from optmerge.merge.entries import moved, where_positive
from optmerge.merge.inputs import Inputs
from optmerge.merge.methods.ram import average, changes, least_changes
from optmerge.merge.sweep import Piece
from optmerge.method import Parameter, merge_method

R = Parameter(low=0.0, high=float("inf"), default=0.1, search=None, shared=True)
ALPHA = Parameter(low=0.0, high=float("inf"), default=0.2, search=None, shared=True)


@merge_method(base="required", r=R, alpha=ALPHA)
def ramplus_tl(inputs: Inputs, *, r: float, alpha: float, epsilon: float = 1e-5) -> Tensor:
    """As `ram`, with entries that source k alone changed multiplied by `1 + r min(alpha, rho_k)`.

    `rho_k` is the number of entries of this tensor that k changed together with others, over the number that it
    changed alone.

    Args:
        inputs: The base and the sources.
        r: How strongly unique changes are amplified.
        alpha: Greatest `rho_k` that counts.
        epsilon: As in `ram`.
    """
    one, least = [1.0], least_changes(inputs, epsilon)
    counts = inputs.once(("ram", epsilon), lambda: inputs.sums(_counts, one=one, least=least))
    pairs = zip(counts[: len(inputs.sources)], counts[len(inputs.sources) :], strict=True)
    # Nothing unique: no entry is amplified, so any number does.
    scale = [1 + r * min(alpha, shared / unique) if unique else 1.0 for shared, unique in pairs]
    return inputs.sweep(_entries, scale=scale, one=one, least=least)


def _entries(piece: Piece) -> Tensor:
    assert piece.base is not None
    changed, count = changes(piece)
    amplified = plain_sum([vector * scale for vector, scale in zip(changed, piece.numbers["scale"], strict=True)])
    # The counts are whole numbers: one of these two is 0 wherever anything changed.
    alone, together = (2 - count).relu(), (count - 1).relu()
    return moved(piece.base, where_positive(alone, amplified) + where_positive(together, average(changed, count)))


def _counts(piece: Piece) -> Tensor:
    """Entries that each source changed with others, then those that it changed alone."""
    changed, count = changes(piece)
    shared = [((vector != 0) & (count > 1)).sum() for vector in changed]
    unique = [((vector != 0) & (count == 1)).sum() for vector in changed]
    return torch.stack(shared + unique).double()
