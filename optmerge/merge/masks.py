"""Random masks that anyone can recompute: functions of (seed, alias, tensor name, position) and nothing else.

Every position of a tensor has one number, drawn uniformly from 32 bits by hashing a counter. A mask keeps the
positions whose number lies below the density, so masks are nested: raising the density only adds positions, and the
fitness is a smooth function of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK_32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Stream:
    """The random numbers of one source's tensor."""

    seed: int
    alias: str
    name: str

    def keys(self) -> tuple[int, int]:
        """Two 32-bit keys derived from the stream's identity."""
        digest = hashlib.sha256(f"{self.seed}\0{self.alias}\0{self.name}".encode()).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")

    def keep(self, density: float, shape: Sequence[int], device: torch.device) -> Tensor:
        """Mask of the given shape that is true with probability `density`."""
        count = torch.Size(shape).numel()
        numbers = uniform_bits(self.keys(), count, device)
        return (numbers < round(density * 2**32)).reshape(tuple(shape))


def uniform_bits(keys: tuple[int, int], count: int, device: torch.device) -> Tensor:
    """`count` numbers in [0, 2^32) as int64: position i's is a hash of i and both keys."""
    position = torch.arange(count, dtype=torch.int64, device=device)
    # Two rounds, keyed separately: with one, streams whose keys differ in few bits would be permutations of each other.
    first = _mix((position & _MASK_32) ^ keys[0])
    return _mix(first ^ keys[1] ^ (position >> 32))


def _mix(x: Tensor) -> Tensor:
    """The 32-bit integer hash `lowbias32` (Wellons, "Prospecting for Hash Functions", 2018), in place."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x &= _MASK_32
    x ^= x >> 15
    x *= 0x846CA68B
    x &= _MASK_32
    x ^= x >> 16
    return x
