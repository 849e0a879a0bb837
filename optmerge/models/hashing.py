"""The hash of a model's weights: of the tensors themselves, whatever files they lie in."""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from optmerge.models.shard import dtype_name

if TYPE_CHECKING:
    from torch import Tensor


class WeightsHash:
    r"""SHA-256 over tensors, fed one at a time in the order of their names.

    Each tensor adds two things to the hashed bytes: the line `["NAME","DTYPE",[SIZE,SIZE]]` (JSON, ASCII, no spaces,
    ended by `\n`; dtypes as safetensors calls them, such as BF16), then the tensor's values, row-major, little-endian,
    as they lie in a safetensors file.
    """

    def __init__(self) -> None:
        """Start with no tensors."""
        self._hash = hashlib.sha256()
        self._last: str | None = None

    def update(self, name: str, tensor: "Tensor") -> None:
        """Add the next tensor.

        Raises:
            ValueError: If its name does not come after the last one's.
        """
        if self._last is not None and name <= self._last:
            raise ValueError(f"tensors must come sorted by name, once each: {name} came after {self._last}")
        self._last = name
        line = json.dumps([name, dtype_name(tensor.dtype), list(tensor.shape)], separators=(",", ":"))
        self._hash.update(line.encode() + b"\n")
        self._hash.update(tensor_bytes(tensor))

    def hexdigest(self) -> str:
        """The hash so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


def weights_sha256(tensors: "Iterable[tuple[str, Tensor]]") -> str:
    """SHA-256 of a model's weights; `WeightsHash` says over which bytes.

    Args:
        tensors: Names and tensors, sorted by name.

    Raises:
        ValueError: If they are not sorted.
    """
    hashed = WeightsHash()
    for name, tensor in tensors:
        hashed.update(name, tensor)
    return hashed.hexdigest()


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """The bytes of a tensor, row-major; no copy if it is contiguous and on the CPU."""
    import torch

    # numpy knows no bfloat16, but every dtype can be seen as bytes.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
