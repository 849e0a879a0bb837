"""How far apart two tensors are, counted in numbers that their type can hold."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**22  # entries at once: what is compared can be most of the memory


def roundings_apart(ours: "Tensor", theirs: "Tensor") -> tuple[int, int]:
    """Compare two tensors of the same shape and floating-point type.

    Args:
        ours: On the CPU.
        theirs: On the CPU.

    Returns:
        How many entries differ, and by how many steps at most from one number of the type to the next; zeros of either
        sign are the same number.
    """
    import torch

    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[ours.element_size()]
    differing, farthest = 0, 0
    flat, other = ours.reshape(-1), theirs.reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        a, b = flat[start : start + _CHUNK], other[start : start + _CHUNK]
        if torch.equal(a, b):
            continue
        steps = (_ordered(a.view(whole)) - _ordered(b.view(whole))).abs()
        differing += int((steps > 0).sum())
        farthest = max(farthest, int(steps.max()))
    return differing, farthest


def _ordered(bits: "Tensor") -> "Tensor":
    """Integers in the order of the numbers that the bits stand for."""
    import torch

    wide = bits.to(torch.int64)
    lowest = torch.iinfo(bits.dtype).min
    return torch.where(wide < 0, lowest - wide, wide)
