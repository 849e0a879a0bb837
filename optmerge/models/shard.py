"""One safetensors file: its header, read without the data, or laid out before there is any data.

The format is eight bytes (the header's length, little-endian), the header (JSON), and the tensors' bytes back to back.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
TORCH_NAMES = {
    "F64": "float64", "I64": "int64", "U64": "uint64", "F32": "float32", "I32": "int32", "U32": "uint32",
    "F16": "float16", "BF16": "bfloat16", "I16": "int16", "U16": "uint16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
LONGEST_HEADER = 100_000_000  # as in the safetensors library


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file.

    Attributes:
        dtype: As safetensors calls it, such as "BF16".
        shape: One size a dimension.
        start: First byte, counted from the start of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Length of the data in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def torch_dtype(dtype: str) -> "torch.dtype":
    """The torch dtype that safetensors calls `dtype`."""
    import torch

    found = getattr(torch, TORCH_NAMES[dtype])
    assert isinstance(found, torch.dtype)
    return found


def dtype_name(dtype: "torch.dtype") -> str:
    """What safetensors calls a torch dtype."""
    name = str(dtype).removeprefix("torch.")
    return next(key for key, value in TORCH_NAMES.items() if value == name)


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors that a file says it holds, without reading their data.

    Raises:
        ValueError: If the file is no safetensors file, or is shorter or longer than its header says; the message
            continues a sentence that begins with the file's name.
    """
    return _read_header(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself beside its tensors.

    Raises:
        ValueError: As `read_header` does.
    """
    return _read_header(path)[1]


def _read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if first == b"version ":
            raise ValueError("is a git-lfs pointer, not the weights: run `git lfs pull` there")
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > LONGEST_HEADER:
            raise ValueError("is not a safetensors file")
        if length > size - 8:
            raise ValueError(f"is truncated: {size} bytes, not even a whole header")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", None) or {}
        entries = {name: _entry(value, data_start=8 + length) for name, value in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("is not a safetensors file: its header cannot be read") from error
    expected = 8 + length
    for entry in sorted(entries.values(), key=lambda e: (e.start, e.nbytes)):
        if entry.start != expected:
            raise ValueError("is not a valid safetensors file: its tensors overlap or leave gaps")
        expected += entry.nbytes
    if size < expected:
        raise ValueError(f"is truncated: {size} bytes of {expected}")
    if size > expected:
        raise ValueError(f"is longer than its header says: {size} bytes instead of {expected}")
    return entries, {str(key): str(value) for key, value in metadata.items()}


def map_tensor(path: Path, entry: Entry) -> "Tensor":
    """A tensor mapped from its file by itself: what was read of it leaves the memory with it.

    Raises:
        OSError: If the file ends before the tensor does.
    """
    import mmap

    import torch

    if not entry.nbytes:
        return torch.empty(entry.shape, dtype=torch_dtype(entry.dtype))
    before = entry.start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < entry.start + entry.nbytes:
            raise OSError(f"{path} ended early")
        mapped = mmap.mmap(file.fileno(), before + entry.nbytes, access=mmap.ACCESS_COPY, offset=entry.start - before)
    if hasattr(mmap, "MADV_WILLNEED"):  # disks are read ahead
        mapped.madvise(mmap.MADV_WILLNEED)
    flat = torch.frombuffer(mapped, dtype=torch.uint8, offset=before, count=entry.nbytes)
    if entry.start % ITEM_BYTES[entry.dtype]:  # torch wants numbers to begin at multiples of their size
        flat = flat.clone()
    return flat.view(torch_dtype(entry.dtype)).reshape(entry.shape)


def lay_out(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, Entry]]:
    """The start of a file that will hold these tensors, and where each one goes.

    Args:
        tensors: dtype (as safetensors calls it) and shape of each.
        metadata: What the file says of itself.

    Returns:
        The bytes before the data, and the place of each tensor.
    """
    # Wide items first, as the safetensors library does: every tensor then starts at a multiple of its item size.
    order = sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name][0]], name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    places: dict[str, Entry] = {}
    for name in order:
        dtype, shape = tensors[name]
        places[name] = Entry(dtype, shape, offset)
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + places[name].nbytes],
        }
        offset += places[name].nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    moved = {name: Entry(place.dtype, place.shape, start + place.start) for name, place in places.items()}
    return len(text).to_bytes(8, "little") + text, moved


def _entry(value: Mapping[str, object], *, data_start: int) -> Entry:
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise TypeError("dtype, shape or data_offsets")
    if any(not isinstance(size, int) or size < 0 for size in shape + offsets):
        raise ValueError("negative or broken sizes")
    start, stop = offsets
    entry = Entry(dtype, tuple(shape), data_start + start)
    if stop - start != entry.nbytes:
        raise ValueError("data_offsets and shape disagree")
    return entry
