"""One pass over tensors, entry by entry, in cache-sized pieces or by one compiled kernel.

A merge method is some numbers (weights, thresholds, norms) and then one *sweep*: a function that gives the merged
entries from the entries of the sources at the same place. It sees a `Piece` and does not know how large it is, so the
same function runs piece by piece in plain PyTorch, where every intermediate stays in the processor's cache, or
compiled into one kernel over the whole tensor. Both give the same bits.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from optmerge.merge.kernels import Kernels
from optmerge.merge.masks import SEGMENT

PIECE = 131072
"""Entries at once: few enough for what a sweep makes of them to stay in the processor's cache."""

SUMMED = 32768
"""Entries summed at once. PyTorch splits work among threads only above this size, and sums must not depend on them."""

NOWHERE = torch.empty(0, dtype=torch.int32)
"""The positions of a piece whose entries do not need them."""

_DEVICE_PIECE = 2**26  # entries at once on a GPU, where launching counts and there is no cache to stay in
_LEAST_COMPILED = 64  # entries; the kernels' shapes begin here


@dataclass(frozen=True)
class Piece:
    """The same stretch of every tensor.

    Attributes:
        sources: The sources' entries, float32.
        base: The base's, float32; None where there is no base.
        numbers: What the caller passed by name: a one-dimensional float32 tensor for each, indexed like the list that
            it was; two-dimensional pieces come with numbers that broadcast over their rows or columns.
        integers: The same for whole numbers, int32.
        position: Where the entries are in their tensor (or in its segment of 2^31), int32; only where the caller passed
            integers, as random masks need both.
    """

    sources: Sequence[Tensor]
    base: Tensor | None
    numbers: Mapping[str, Sequence[Tensor]]
    integers: Mapping[str, Sequence[Tensor]]
    position: Tensor


Entries = Callable[[Piece], Tensor]
"""A function on single entries; a `functools.partial` of a module's function where it has settings."""


@dataclass(frozen=True)
class Sweeper:
    """How sweeps are run.

    Attributes:
        kernels: Compiles; None where plain PyTorch is to be used.
    """

    kernels: Kernels | None = None

    def write(
        self,
        entries: Entries,
        out: Tensor,
        sources: Sequence[Tensor],
        base: Tensor | None,
        numbers: Mapping[str, Sequence[float]],
        integers: Callable[[int], Mapping[str, Sequence[int]]],
    ) -> None:
        """Write `entries` of the sources into `out`, rounding to its type.

        Args:
            entries: What to compute.
            out: Contiguous, of the sources' shape, any floating-point type.
            sources: Of any floating-point type.
            base: Likewise, or none.
            numbers: Passed on as `Piece.numbers`.
            integers: Passed on as `Piece.integers`: given the number of a segment of 2^31 entries, its integers.
        """
        tensors = [out, *([] if base is None else [base]), *sources]
        flat = [tensor.reshape(-1) for tensor in tensors]
        for segment, start in enumerate(range(0, out.numel(), SEGMENT)):
            stretch = [tensor[start : start + SEGMENT] for tensor in flat]
            self._write_segment(entries, stretch, base is not None, numbers, integers(segment))

    def _write_segment(
        self,
        entries: Entries,
        flat: Sequence[Tensor],
        has_base: bool,
        numbers: Mapping[str, Sequence[float]],
        integers: Mapping[str, Sequence[int]],
    ) -> None:
        device = flat[0].device
        floats, float_layout = packed(numbers, torch.float32, device)
        words, word_layout = packed(integers, torch.int32, device)
        if self.kernels and flat[0].numel() >= _LEAST_COMPILED:
            kernel = self.kernels.get(entries, flat, has_base, floats, float_layout, words, word_layout)
            if kernel is not None:
                kernel(flat, floats, words)
                return
        named, whole = unpacked(floats, float_layout), unpacked(words, word_layout)

        # PyTorch gives a thread no less than a quarter of a piece.
        size = _size(device, PIECE * max(1, torch.get_num_threads() // 4))
        for start, end in _pieces(flat[0].numel(), size):
            piece, *rest = (tensor[start:end] for tensor in flat)
            position = positions(device, start, end) if whole else NOWHERE
            piece.copy_(entries(piece_of(rest, has_base, named, whole, position)))

    def sums(
        self,
        entries: Callable[[Piece], Tensor],
        sources: Sequence[Tensor],
        base: Tensor | None,
        numbers: Mapping[str, Sequence[float]],
        integers: Callable[[int], Mapping[str, Sequence[int]]],
    ) -> list[float]:
        """Add up what `entries` gives for every piece: a one-dimensional float64 tensor of sums over the piece.

        The pieces' sums are added exactly, so that their order, and the number of threads, do not matter.
        """
        flat = [tensor.reshape(-1) for tensor in ([] if base is None else [base]) + list(sources)]
        device = flat[0].device
        found: list[list[float]] = []
        for segment, start in enumerate(range(0, flat[0].numel(), SEGMENT)):
            stretch = [tensor[start : start + SEGMENT] for tensor in flat]
            named = unpacked(*packed(numbers, torch.float32, device))
            whole = unpacked(*packed(integers(segment), torch.int32, device))

            for begin, end in _pieces(stretch[0].numel(), _size(device, SUMMED)):
                rest = [tensor[begin:end] for tensor in stretch]
                position = positions(device, begin, end) if whole else NOWHERE
                piece = piece_of(rest, base is not None, named, whole, position)
                # As numbers, not tensors: small pieces of memory would keep large ones between them from reuse.
                found.append(entries(piece).tolist())
        return [math.fsum(values) for values in zip(*found, strict=True)]


def _size(device: torch.device, on_cpu: int) -> int:
    return on_cpu if device.type == "cpu" else _DEVICE_PIECE


def _pieces(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)


def piece_of(
    rest: Sequence[Tensor],
    has_base: bool,
    numbers: Mapping[str, Sequence[Tensor]],
    integers: Mapping[str, Sequence[Tensor]],
    position: Tensor,
) -> Piece:
    """A piece of stored tensors, the base first if there is one."""
    widened = [tensor.to(torch.float32) for tensor in rest]
    base = widened.pop(0) if has_base else None
    return Piece(widened, base, numbers, integers, position)


def packed(
    values: Mapping[str, Sequence[float]], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[tuple[str, int], ...]]:
    """Lists of numbers as one tensor, with their names and lengths: a kernel takes few arguments."""
    layout = tuple((name, len(values[name])) for name in sorted(values))
    # One number at least: compilers treat empty tensors as a case of their own.
    joined = [value for name, _ in layout for value in values[name]] or [0]
    return torch.tensor(joined, dtype=dtype).to(device), layout


def unpacked(values: Tensor, layout: Sequence[tuple[str, int]]) -> dict[str, Sequence[Tensor]]:
    """The named lists in a packed tensor, of single numbers."""
    found: dict[str, Sequence[Tensor]] = {}
    start = 0
    for name, length in layout:
        found[name] = [values[start + i] for i in range(length)]
        start += length
    return found


def positions(device: torch.device, start: int, end: int) -> Tensor:
    """Counters from `start` up to `end`, int32."""
    return _counters(device, end - start) + start


@lru_cache(maxsize=4)
def _counters(device: torch.device, count: int) -> Tensor:
    return torch.arange(count, dtype=torch.int32, device=device)


def summed(x: Tensor) -> Tensor:
    """The sum of a piece's entries in float64; the same on any number of threads, as no part of it is split."""
    flat = x.reshape(-1)
    parts = [flat[start : start + SUMMED].sum(dtype=torch.float64) for start in range(0, max(1, len(flat)), SUMMED)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()


def row_pieces(shape: Sequence[int], device: torch.device) -> Iterator[tuple[int, int]]:
    """Stretches of whole rows (entries of the first dimension), about as large as a piece."""
    return _pieces(shape[0], max(1, _size(device, SUMMED) // max(1, math.prod(shape[1:]))))
