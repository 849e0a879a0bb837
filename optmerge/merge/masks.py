"""Random masks that anyone can recompute: functions of (seed, alias, tensor name, position) and nothing else.

Every position of a tensor has one number a source, drawn uniformly by hashing a counter. A mask keeps the positions
whose number lies below a limit that grows with the density, so masks are nested: raising the density only adds
positions, and the fitness is a smooth function of it.

The hash is the integer hash `lowbias32` (Wellons, "Prospecting for Hash Functions", 2018) of the position and a key
of the tensor, which all sources share, then once more with a key of the source. The last step of the first and the
first step of the second undo each other but for what they do to the key, which is done to the key beforehand; the
last step of all, which mixes upper bits into the lower ones, is left out, as the upper ones decide. All of it is 32-bit
arithmetic that wraps around.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

SEGMENT = 2**31
"""Positions are counted in 32 bits; after so many the count starts again, under another key."""

LEVELS = 2**31
"""Probabilities are in steps of one part in so many."""


@dataclass(frozen=True)
class Stream:
    """The random numbers of one source's tensor."""

    seed: int
    alias: str
    name: str

    def tensor_key(self, segment: int = 0) -> int:
        """Signed 32-bit key that the streams of all sources share at the same tensor."""
        return _key(f"{self.seed}\0{self.name}\0{segment}" if segment else f"{self.seed}\0{self.name}")

    def source_key(self) -> int:
        """Signed 32-bit key of this stream alone."""
        key = _key(f"{self.seed}\0{self.alias}\0{self.name}")
        return key ^ ((key >> 16) & 0xFFFF)


def limit(probability: float) -> int:
    """The number below which positions are kept, so that each is kept with this probability, in steps of 2^-31.

    At 0 none is kept and at 1 all are, exactly.
    """
    return round(probability * LEVELS) - LEVELS // 2


def shared_hash(position: Tensor, tensor_key: Tensor) -> Tensor:
    """What the sources' numbers at some positions are made from; int32."""
    x = position ^ tensor_key
    x = x ^ ((x >> 16) & 0xFFFF)  # `>>` carries the sign along, which a hash must not
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    return x * (0x846CA68B - 2**32)


def numbers(shared: Tensor, source_key: Tensor) -> Tensor:
    """One source's numbers, uniform in [-2^30, 2^30), to be held against a `limit`; int32."""
    x = (shared ^ source_key) * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - 2**32)
    return x >> 1


def keep(stream: Stream, probability: float, count: int) -> Tensor:
    """Mask over a tensor's first `count` positions, true with the given probability; for tests and pictures."""
    masks = []
    for segment, start in enumerate(range(0, max(count, 1), SEGMENT)):
        position = torch.arange(min(SEGMENT, count - start), dtype=torch.int32)
        shared = shared_hash(position, torch.tensor(stream.tensor_key(segment), dtype=torch.int32))
        masks.append(numbers(shared, torch.tensor(stream.source_key(), dtype=torch.int32)) < limit(probability))
    return torch.cat(masks)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little", signed=True)
