"""Steps of merge methods on single entries, in two spellings that give the same bits.

PyTorch's eager mode runs selections and comparisons one entry at a time, but arithmetic and bit operations sixteen at
once; its compiler is the other way round. So each step is spelled twice, and `tests/merge/test_entries.py` holds one
spelling against the other. Tensors are float32 unless a name says otherwise; limits are single numbers, or broadcast.
"""

import torch
from torch import Tensor

_MAGNITUDE = 0x7FFFFFFF  # all bits of a float32 but its sign; as integers, magnitudes have the order of their values


def keep_large(x: Tensor, at_least: Tensor) -> Tensor:
    """Entries whose magnitude is at least a number, 0 elsewhere."""
    if torch.compiler.is_compiling():
        return torch.where(x.abs() >= at_least, x, 0.0)
    bits = x.view(torch.int32)
    # An arithmetic shift by 31 makes all ones of a negative difference, and zeros of any other.
    mask = ((at_least.view(torch.int32) - 1) - (bits & _MAGNITUDE)) >> 31
    return (bits & mask).view(torch.float32)


def keep_small(x: Tensor, at_most: Tensor) -> Tensor:
    """Entries whose magnitude is at most a number, 0 elsewhere."""
    if torch.compiler.is_compiling():
        return torch.where(x.abs() <= at_most, x, 0.0)
    bits = x.view(torch.int32)
    mask = ((bits & _MAGNITUDE) - at_most.view(torch.int32) - 1) >> 31
    return (bits & mask).view(torch.float32)


def keep_below(x: Tensor, number: Tensor, limit: Tensor) -> Tensor:
    """Entries whose random number lies below a limit, 0 elsewhere.

    Args:
        x: The entries.
        number: int32 in [-2^30, 2^30), see `optmerge.merge.masks`.
        limit: int32 in [-2^30, 2^30].
    """
    if torch.compiler.is_compiling():
        return torch.where(number < limit, x, 0.0)
    return (x.view(torch.int32) & ((number - limit) >> 31)).view(torch.float32)


def elect_sign(total: Tensor) -> Tensor:
    """The sign of every entry, 1 or -1; a zero counts as positive."""
    if torch.compiler.is_compiling():
        return torch.where(total >= 0, 1.0, -1.0)
    return torch.copysign(torch.ones((), device=total.device), total + 0.0)  # -0 + 0 is +0


def agreeing(x: Tensor, sign: Tensor) -> Tensor:
    """The magnitude of entries that have the given sign, 0 elsewhere."""
    return (x * sign).relu()


def where_positive(x: Tensor, value: Tensor) -> Tensor:
    """`value` where an entry that is not negative is positive, 0 where it is 0."""
    if torch.compiler.is_compiling():
        return torch.where(x > 0, value, 0.0)
    return x.sign() * value


def one_if_zero(x: Tensor) -> Tensor:
    """The entries, with 1 in place of 0."""
    if torch.compiler.is_compiling():
        return torch.where(x == 0, 1.0, x)
    return x + (1.0 - x.sign().abs())


def moved(base: Tensor, delta: Tensor) -> Tensor:
    """`base + delta`, and the base bit for bit where delta is zero: -0 + 0 would be +0."""
    return base - (0.0 - delta)
