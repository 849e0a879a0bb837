"""Rows of embeddings and output heads, brought into one order where the sources' vocabularies differ.

A row is found by its token, never by its number. Where a source has no row for a token of the merged vocabulary, it
gets one by the first of these rules that applies:

1. the base's row for that token: the source's task vector is 0 there, it has no say;
2. where the base lacks the token too, or there is no base: the mean of the rows of the sources that have the token,
   summed in float32 in the order of their aliases; the base gets that row as well;
3. where no source has it: the mean of all rows of the base (without one, of the tokenizer's source), the same for all.

A row that no token of the merged vocabulary uses (padding) counts as a token that those sources have in which that row
is unused too. Two tokens are the same if they are written the same in both tokenizers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from optmerge.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CHUNK = 4096  # rows widened at once where all are averaged: an embedding can be a large part of the memory


@dataclass(frozen=True)
class Vocabulary:
    """The merged model's tokens.

    Attributes:
        giver: Alias of the source that gives config and tokenizer.
        ids: Token to row.
        rows: Of the embedding; more than there are tokens where it is padded.
        added: Token to the alias that it comes from, in the order of their ids, where the tokenizer is a union.
        union: Whether the giver's tokenizer takes in what the others have.
    """

    giver: str
    ids: Mapping[str, int]
    rows: int
    added: Mapping[str, str]
    union: bool


@dataclass(frozen=True)
class Known:
    """What a source knows: its tokens, and how many rows its embedding has."""

    tokens: Mapping[str, int]
    rows: int

    def row(self, token: str) -> int:
        """The row of a token, or -1: a tokenizer may know tokens that its model has no row for."""
        number = self.tokens.get(token, -1)
        return number if number < self.rows else -1


def merge_vocabularies(known: Mapping[str, Known], *, giver: str, union: bool, pad_to: int | None) -> Vocabulary:
    """The vocabulary that some sources have together.

    A union has the giver's tokens with their ids, then what the others have rows for: in the order of their aliases,
    and of their ids. The rows are those of the giver if its tokens fit, and of a union as many as it needs; tokens at
    the end that no source has a row for need none.

    Args:
        known: What each source knows, by alias.
        giver: Alias of the source that gives the tokenizer.
        union: Whether the tokens of the others are added.
        pad_to: Rows are rounded up to a multiple of this.
    """
    ids = dict(known[giver].tokens)
    added: dict[str, str] = {}
    if union:
        for alias in sorted(known):
            for token, _ in sorted(known[alias].tokens.items(), key=lambda item: (item[1], item[0])):
                if token not in ids and known[alias].row(token) >= 0:
                    ids[token] = 1 + max(ids.values()) if not added else 1 + ids[next(reversed(added))]
                    added[token] = alias
    needed = 1 + max((n for token, n in ids.items() if any(k.row(token) >= 0 for k in known.values())), default=-1)
    rows = needed if union else max(needed, known[giver].rows)
    if pad_to is not None:
        rows = -(-max(rows, needed) // pad_to) * pad_to
    return Vocabulary(giver, ids, rows, added, union)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where each source holds each row of the merged model's token tensors.

    Attributes:
        names: The token tensors.
        sources: The checkpoints that take part, by alias.
        places: Alias to the source's row for each row of the merged model, -1 where it has none.
        base: Alias of the base, if there is one.
        reference: Alias of the source whose mean fills what nobody has.
    """

    names: frozenset[str]
    sources: Mapping[str, Checkpoint]
    places: "Mapping[str, Tensor]"
    base: str | None
    reference: str
    _means: "dict[str, Tensor]" = field(default_factory=dict, repr=False)

    def tensor(self, checkpoint: Checkpoint, name: str) -> "Tensor":
        """A source's tensor with its rows in the merged model's order, filled where it has none.

        It has the type that the file has; but where rows are filled, and the sources' types differ, the one that holds
        them all, so that a row taken from the base is exactly the base's.
        """
        places = self.places[checkpoint.alias]
        if is_prefix(places):
            return checkpoint.tensor(name)[: len(places)]
        lacking = (places < 0).nonzero().flatten()
        aligned = checkpoint.tensor(name).index_select(0, places.clamp(min=0))
        if len(lacking):
            aligned = aligned.to(self._dtype(name))
            aligned[lacking] = self._fill(name, lacking)
        return aligned

    def _fill(self, name: str, rows: "Tensor") -> "Tensor":
        """What a source that lacks these rows of the merged model has there, in the type that holds all sources'."""
        import torch

        shape = self.sources[self.reference].shape(name)
        total, count = torch.zeros(len(rows), *shape[1:]), torch.zeros(len(rows))
        from_base = torch.zeros(len(rows), dtype=torch.bool)
        # The base goes first; what it has is not averaged with anything.
        for alias in [self.base, *sorted(self.sources)] if self.base is not None else sorted(self.sources):
            place = self.places[alias][rows]
            having = ((place >= 0) & ~from_base).nonzero().flatten()
            if len(having):
                total[having] += self.sources[alias].tensor(name).index_select(0, place[having]).to(torch.float32)
                count[having] += 1
            if alias == self.base:
                from_base = place >= 0
        nobody = (count == 0).nonzero().flatten()
        if len(nobody):
            total[nobody] = self._mean(name)
        return (total / count.clamp(min=1).reshape(-1, *[1] * (total.dim() - 1))).to(self._dtype(name))

    def _mean(self, name: str) -> "Tensor":
        """The mean of all rows, in float64 so that it hardly depends on how a processor adds them up."""
        import torch

        if name not in self._means:
            tensor = self.sources[self.reference].tensor(name)
            sums = [chunk.to(torch.float64).sum(0) for chunk in torch.split(tensor, _CHUNK)]
            self._means[name] = (torch.stack(sums).sum(0) / len(tensor)).to(torch.float32)
        return self._means[name]

    def _dtype(self, name: str) -> "torch.dtype":
        import torch

        return reduce(torch.promote_types, (source.dtype(name) for source in self.sources.values()))

    def notice(self, vocabulary: Vocabulary) -> str:
        """What was aligned, in one line for people."""
        from torch import stack

        named = sorted({number for number in vocabulary.ids.values() if number < vocabulary.rows})
        lacks = [
            f"{alias} lacks {count}"
            for alias in sorted(self.places)
            if (count := int((self.places[alias][named] < 0).sum()))
        ]
        having = stack([places >= 0 for _, places in sorted(self.places.items())])
        lacking, nobody = ~having.all(0), ~having.any(0)
        based = self.places[self.base] >= 0 if self.base is not None else nobody & False
        filled = [
            f"{count} with {what}"
            for what, rows in (
                (f"{self.base}'s row", lacking & based),
                ("the mean of the sources that have them", lacking & ~based & ~nobody),
                (f"the mean of all rows of {self.reference}", nobody),
            )
            if (count := int(rows.sum()))
        ]
        whose = "the union vocabulary" if vocabulary.union else f"{vocabulary.giver}'s vocabulary"
        return (
            f"rows are matched by token to {whose} of {len(named)} tokens in {vocabulary.rows} rows: "
            f"{', '.join(lacks) or 'no source lacks any'}; {'filled are ' if filled else 'nothing is filled'}"
            f"{', '.join(filled)}"
        )


def align(
    sources: Mapping[str, Checkpoint],
    known: Mapping[str, Known],
    vocabulary: Vocabulary,
    *,
    names: frozenset[str],
    base: str | None,
) -> Alignment | None:
    """Find every source's rows for a vocabulary; None if each has them in that order already.

    Args:
        sources: The checkpoints that take part, by alias.
        known: What each of them knows.
        vocabulary: Of the merged model.
        names: The tensors with a row for every token.
        base: Alias of the base, if there is one.
    """
    import torch

    places = {alias: torch.tensor(_places(known[alias], vocabulary), dtype=torch.int64) for alias in sorted(sources)}
    if all(is_prefix(found) for found in places.values()):
        return None
    return Alignment(names, sources, places, base, base or vocabulary.giver)


def is_prefix(places: "Tensor") -> bool:
    """Whether these are a tensor's first rows in their order, so that a view of it is enough."""
    import torch

    return torch.equal(places, torch.arange(len(places)))


def _places(known: Known, vocabulary: Vocabulary) -> list[int]:
    places = [-1] * vocabulary.rows
    for token, number in sorted(vocabulary.ids.items()):  # a row can have two names: the first that is known counts
        if number < len(places) and places[number] < 0:
            places[number] = known.row(token)
    unused = set(range(min(known.rows, len(places)))) - set(vocabulary.ids.values()) - set(known.tokens.values())
    for number in unused:
        places[number] = number
    return places
