"""Thresholds by magnitude: which number is the k-th largest, found without sorting a tensor in every trial."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAMPLE = 65536
_CHUNK = 131072  # entries
_TABLE_CHUNK = 2**22
_TABLE_SHARE = 4  # a table is kept where a tensor has so many entries for each distinct magnitude
_SMALL = 2**16  # entries; tables of such tensors are kept whatever they hold


@dataclass(frozen=True)
class MagnitudeTable:
    """The distinct magnitudes of a tensor, and how many entries are smaller than each.

    Differences of 16-bit numbers have few distinct magnitudes, some ten thousand in a tensor of many million entries,
    so the table is small and answers exactly.

    Attributes:
        values: Distinct magnitudes, ascending, float32.
        below: How many entries are smaller than each, int32 or int64.
        count: How many entries there are.
    """

    values: "NDArray[np.float32]"
    below: "NDArray[np.int32] | NDArray[np.int64]"
    count: int

    def kth_largest(self, k: int) -> float:
        """The k-th largest magnitude, counting from 1."""
        # The largest value below which there are no more than the others.
        return float(self.values[int(self.below.searchsorted(self.count - k, side="right")) - 1])


def magnitude_table(magnitudes: Tensor) -> MagnitudeTable | None:
    """The table of some magnitudes; None where it would take as much memory as the tensor.

    Args:
        magnitudes: Any shape, float32, no negative entry.
    """
    flat = magnitudes.reshape(-1)
    return magnitude_table_of(lambda part: flat[part], flat.numel())


def magnitude_table_of(magnitudes: Callable[[slice], Tensor], count: int) -> MagnitudeTable | None:
    """The table of magnitudes that are computed as they are needed, some million at a time.

    Args:
        magnitudes: Gives those in a slice of positions, one-dimensional, float32.
        count: How many there are.
    """
    values, occurrences = torch.empty(0), torch.empty(0, dtype=torch.int64)
    for start in range(0, count, _TABLE_CHUNK):
        ascending = _sorted(magnitudes(slice(start, start + _TABLE_CHUNK)))
        found, times = torch.unique_consecutive(ascending, return_counts=True)
        values, occurrences = _joined((values, found.cpu()), (occurrences, times.cpu()))
        if len(values) * _TABLE_SHARE > count > _SMALL:
            return None
    below = occurrences.cumsum(0) - occurrences
    below = below.to(torch.int32 if count < 2**31 else torch.int64)
    return MagnitudeTable(values.numpy(), below.numpy(), count)


def _joined(values: tuple[Tensor, Tensor], occurrences: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two lists of distinct ascending values with their numbers of occurrences, as one."""
    together, order = torch.cat(values).sort()
    distinct, place = torch.unique_consecutive(together, return_inverse=True)
    counts = torch.zeros(len(distinct), dtype=torch.int64)
    return distinct, counts.index_add_(0, place, torch.cat(occurrences)[order])


def kth_largest(magnitudes: Tensor, k: int) -> float:
    """The k-th largest of some magnitudes, counting from 1.

    Args:
        magnitudes: Any shape, float32, no negative entry.
        k: From 1 to the number of entries.
    """
    flat = magnitudes.reshape(-1)
    return kth_largest_of(lambda part: flat[part], flat.numel(), k)


def kth_largest_of(magnitudes: Callable[[slice], Tensor], count: int, k: int) -> float:
    """The k-th largest of magnitudes that are computed as they are needed, by one pass and a small sort.

    A sample says between which two numbers it must lie, and only entries between them are sorted (Floyd and Rivest,
    "Expected time bounds for selection", 1975).

    Args:
        magnitudes: Gives those in a slice of positions, one-dimensional, float32.
        count: How many there are.
        k: From 1 to `count`.
    """
    sample = _sorted(magnitudes(slice(0, count, max(1, count // _SAMPLE))))
    if len(sample) == count:
        return float(sample[count - k])
    place, slack = (1 - k / count) * len(sample), 4 * len(sample) ** 0.5
    low = float(sample[max(0, int(place - slack))])
    high = float(sample[min(len(sample) - 1, int(place + slack) + 1)])
    # Entries equal to the bounds are counted, not kept: differences of 16-bit numbers are equal in great numbers. The
    # others go into memory that is taken once: many small pieces of it would keep large ones between them from reuse.
    above, at_high, at_low, filled = 0, 0, 0, 0
    room = torch.empty(count // 8, device=sample.device)
    for start in range(0, count, _CHUNK):
        part = magnitudes(slice(start, start + _CHUNK))
        if part.device.type == "cpu":
            import numpy as np

            # NumPy compares sixteen numbers at once; PyTorch's eager mode does not.
            values = part.numpy()
            above += int(np.count_nonzero(values > high))
            at_high += int(np.count_nonzero(values == high))
            at_low += int(np.count_nonzero(values == low))
            found = torch.from_numpy(values[(values > low) & (values < high)])
        else:
            above += int((part > high).sum())
            at_high += int((part == high).sum())
            at_low += int((part == low).sum())
            found = part[(part > low) & (part < high)]
        kept = found[: len(room) - filled]
        room[filled : filled + len(kept)] = kept
        filled += len(found)
    inner = _sorted(room[: min(filled, len(room))])
    if filled > len(room):
        above = count  # the sample misled
    if above < k <= above + at_high:
        return high
    if above + at_high < k <= above + at_high + len(inner):
        return float(inner[len(inner) - (k - above - at_high)])
    if low < high and above + at_high + len(inner) < k <= above + at_high + len(inner) + at_low:
        return low
    return float(_sorted(magnitudes(slice(0, count)))[count - k])  # the sample misled


def kept_count(density: float, count: int) -> int:
    """How many of `count` entries a density keeps: at least one, unless the density is 0."""
    return 0 if density <= 0 else min(count, max(1, int(density * count)))


def _sorted(flat: Tensor) -> Tensor:
    if flat.device.type != "cpu":
        return torch.sort(flat).values
    import numpy as np

    # Several times faster than torch.sort, which finds the order too.
    return torch.from_numpy(np.sort(flat.contiguous().numpy()))
