"""What a merge method is given, and the few things that it can do with it."""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from optmerge.merge.magnitudes import kept_count, kth_largest_of, magnitude_table_of
from optmerge.merge.masks import SEGMENT, Stream
from optmerge.merge.sweep import NOWHERE, Entries, Piece, Sweeper, packed, piece_of, positions, row_pieces, unpacked

Found = TypeVar("Found")

_WORTH_THREADS = 2**22  # entries


@dataclass(frozen=True)
class Inputs:
    """One tensor of every source, in the canonical order of their aliases.

    A method computes numbers from them and ends with a `sweep`, which writes the merged entries:

        def linear(inputs, *, weight):
            return inputs.sweep(_weighted_sum, weight=weight)

        def _weighted_sum(piece):
            return sum(w * x for w, x in zip(piece.numbers["weight"], piece.sources))

    Attributes:
        sources: The sources' tensors, as stored.
        base: The base's tensor, or None.
        streams: The sources' random streams.
        out: Where the result goes, contiguous; a new float32 tensor by default.
        sweeper: How sweeps are run.
        facts: What is known about these tensors whatever the method's parameters, such as norms; methods add to it
            through `once`. A search keeps it from trial to trial.
        identities: What tells each source's tensor from others in `facts`.
        base_identity: The same for the base.
    """

    sources: Sequence[Tensor]
    base: Tensor | None = None
    streams: Sequence[Stream] = ()
    out: Tensor | None = None
    sweeper: Sweeper = field(default_factory=Sweeper)
    facts: MutableMapping[Any, Any] | None = None
    identities: Sequence[Hashable] = ()
    base_identity: Hashable = None

    @property
    def shape(self) -> torch.Size:
        return self.sources[0].shape

    @property
    def count(self) -> int:
        """Entries in the tensor."""
        return self.sources[0].numel()

    @property
    def device(self) -> torch.device:
        return self.sources[0].device

    def sweep(
        self, entries: Entries, integers: Mapping[str, Sequence[int]] | None = None, /, **numbers: Sequence[float]
    ) -> Tensor:
        """The merged tensor, entry by entry.

        Args:
            entries: What to compute; a function of a module, or a `functools.partial` of one with its settings.
            integers: Passed on as `Piece.integers`.
            **numbers: Passed on as `Piece.numbers`, rounded to float32.
        """
        out = self._out()
        self.sweeper.write(entries, out, self.sources, self.base, numbers, self._integers(integers))
        return out

    def sums(
        self, entries: Entries, integers: Mapping[str, Sequence[int]] | None = None, /, **numbers: Sequence[float]
    ) -> list[float]:
        """Sums over all entries.

        Args:
            entries: Gives, for a piece, a one-dimensional float64 tensor of sums over the piece.
            integers: As in `sweep`.
            **numbers: As in `sweep`.
        """
        return self.sweeper.sums(entries, self.sources, self.base, numbers, self._integers(integers))

    def sweep_rows(
        self, entries: Entries, integers: Mapping[str, Sequence[int]] | None = None, /, **numbers: Tensor
    ) -> Tensor:
        """The merged tensor, where numbers differ from row to row or a row must be seen as a whole; plain PyTorch.

        Args:
            entries: As for `sweep`, of pieces that are some whole rows of the tensor.
            integers: As in `sweep`.
            **numbers: One tensor for each name: numbers, or a list of numbers that broadcast against the tensor, such
                as [sources, rows, 1] or [sources, 1, columns].
        """
        out = self._out()
        for start, end, piece in self._rows(integers, numbers):
            out[start:end].copy_(entries(piece))
        return out

    def sum_rows(
        self, entries: Entries, integers: Mapping[str, Sequence[int]] | None = None, /, **numbers: Tensor
    ) -> list[float]:
        """Sums over all entries, where a row must be seen as a whole; see `sums` and `sweep_rows`."""
        found = [entries(piece).tolist() for _, _, piece in self._rows(integers, numbers)]
        return [math.fsum(values) for values in zip(*found, strict=True)]

    def _rows(
        self, integers: Mapping[str, Sequence[int]] | None, numbers: Mapping[str, Tensor]
    ) -> Iterator[tuple[int, int, Piece]]:
        tensors = [*([] if self.base is None else [self.base]), *self.sources]
        columns = self.count // max(1, self.shape[0])
        whole = self._integers(integers)
        for start, end in row_pieces(self.shape, self.device):
            rest = [tensor[start:end] for tensor in tensors]
            cut = {name: _rows_of(value, start, end, self.shape[0]) for name, value in numbers.items()}
            segment, first = divmod(start * columns, SEGMENT)
            count = (end - start) * columns
            words: dict[str, Sequence[Tensor]] = unpacked(*packed(whole(segment), torch.int32, self.device))
            position = positions(self.device, first, first + count) if words else NOWHERE
            if first + count > SEGMENT and "tensor_key" in words:
                # Some entries are counted anew, under keys of their own.
                absolute = torch.arange(first, first + count, device=self.device)
                position = (absolute % SEGMENT).to(torch.int32)
                following = range(segment, segment + (first + count - 1) // SEGMENT + 1)
                keys = torch.tensor([self.streams[0].tensor_key(s) for s in following], dtype=torch.int32)
                words["tensor_key"] = [keys.to(self.device)[absolute // SEGMENT].reshape(rest[0].shape)]
            position = position.reshape(rest[0].shape) if words else position
            yield start, end, piece_of(rest, self.base is not None, cut, words, position)

    def as_matrix(self) -> "Inputs":
        """The same tensors with two dimensions: the first, and all others; a vector is one row."""
        shape = (1, -1) if len(self.shape) < 2 else (self.shape[0], -1)
        return replace(
            self,
            sources=[source.reshape(shape) for source in self.sources],
            base=None if self.base is None else self.base.reshape(shape),
            out=self._out().view(shape),
        )

    def copy(self, tensor: Tensor) -> Tensor:
        """One of the tensors as the result, bit for bit where the result's type can hold it."""
        return self._out().copy_(tensor)

    def once(self, key: Hashable, compute: Callable[[], Found], of: Sequence[int] | None = None) -> Found:
        """What `compute` gives, computed once a search; it must not depend on anything that is searched.

        Args:
            key: What it is.
            compute: Computes it.
            of: The sources that it depends on, beside the base; by default all.
        """
        if self.facts is None:
            return compute()
        sources = tuple(self.identities) if of is None else tuple(self.identities[k] for k in of)
        full = (key, sources, self.base_identity, self.base is None)
        if full not in self.facts:
            self.facts[full] = compute()
        found: Found = self.facts[full]
        return found

    def threshold(self, index: int, density: float) -> float:
        """The least magnitude among the `density` share of a source's task vector that is largest.

        At least one entry is kept, unless the density is 0: then the threshold is infinite.
        """
        kept = kept_count(density, self.count)
        if kept == 0:
            return float("inf")
        return 0.0 if kept == self.count else self.kth_largest(index, kept)

    def thresholds(self, density: Sequence[float]) -> list[float]:
        """The `threshold` of every source; where each costs a pass over much memory, several at once."""
        if self.facts is not None or self.device.type != "cpu" or self.count < _WORTH_THREADS:
            return [self.threshold(index, share) for index, share in enumerate(density)]
        with ThreadPoolExecutor(len(density), initializer=torch.set_num_threads, initargs=(1,)) as threads:
            return list(threads.map(self.threshold, range(len(density)), density))

    def kth_largest(self, index: int, k: int) -> float:
        """The k-th largest magnitude in a source's task vector, counting from 1."""
        assert self.base is not None
        source, base = self.sources[index].reshape(-1), self.base.reshape(-1)

        def magnitudes(part: slice) -> Tensor:
            return (source[part].float() - base[part].float()).abs_()

        if self.facts is not None:
            table = self.once("magnitudes", lambda: magnitude_table_of(magnitudes, self.count), of=[index])
            if table is not None:
                return table.kth_largest(k)
        return kth_largest_of(magnitudes, self.count, k)

    def gram(self, of_task_vectors: bool) -> list[list[float]]:
        """Dot products of all pairs of tensors, summed in float64.

        Args:
            of_task_vectors: Of sources minus base; otherwise of the sources themselves.

        Returns:
            A symmetric matrix, in the order of the sources.
        """
        return self.once(("gram", of_task_vectors), lambda: self._gram(of_task_vectors))

    def _gram(self, of_task_vectors: bool) -> list[list[float]]:
        count = len(self.sources)
        flat = self.sums(_task_products if of_task_vectors else _source_products)
        found = [[0.0] * count for _ in range(count)]
        pairs = [(i, j) for i in range(count) for j in range(i + 1)]
        for (i, j), value in zip(pairs, flat, strict=True):
            found[i][j] = found[j][i] = value
        return found

    def _out(self) -> Tensor:
        return torch.empty(self.shape, dtype=torch.float32, device=self.device) if self.out is None else self.out

    def _integers(self, given: Mapping[str, Sequence[int]] | None) -> Callable[[int], Mapping[str, Sequence[int]]]:
        def of_segment(segment: int) -> Mapping[str, Sequence[int]]:
            if given is None:
                return {}
            keys = {
                "tensor_key": [self.streams[0].tensor_key(segment)],
                "source_key": [stream.source_key() for stream in self.streams],
            }
            return {**given, **keys}

        return of_segment


def _source_products(piece: Piece) -> Tensor:
    return _products(piece.sources)


def _task_products(piece: Piece) -> Tensor:
    assert piece.base is not None
    return _products([source - piece.base for source in piece.sources])


def _products(vectors: Sequence[Tensor]) -> Tensor:
    wide = [vector.double() for vector in vectors]
    return torch.stack([(wide[i] * wide[j]).sum() for i in range(len(wide)) for j in range(i + 1)])


def _rows_of(value: Tensor, start: int, end: int, rows: int) -> Sequence[Tensor]:
    return list(value[:, start:end] if value.ndim > 1 and value.shape[1] == rows > 1 else value)
