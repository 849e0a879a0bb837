"""Which tensors share their genes: by block of layers or layer, by kind, by name, and by products of these."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from optmerge.errors import UsageError
from optmerge.models.layers import LAYER
from optmerge.space.kinds import EMBEDDINGS, HEAD, NORM, TensorKind, kind_of

By = Literal["model", "blocks", "layers"]
Kinds = Literal["none", "sublayers", "kinds"]

GENES, JOIN = "genes", "join"

_RESERVED = ("model", "layers", "embeddings", "head", "attention", "mlp", "norms", "anchors")


@dataclass(frozen=True)
class Grouping:
    """How tensors are divided into groups; the settings of `space`.

    Attributes:
        by: One group for all layers (`model`), one for `block_layers` layers in a row (`blocks`), or one a layer.
        block_layers: Layers in a block; the last block may be shorter.
        kinds: Divide these groups again: `sublayers` into attention and MLP, each with the norms around it; `kinds`
            into attention, MLP and norms, the final norm going with the last norms.
        embeddings: The input embedding has `genes` of its own, as in the paper; or it is to `join` the first group; or
            it is taken as it is from the source of this alias.
        head: The same for the output head, which joins the last group; like `embeddings` by default. Where it has
            genes of its own, the final norm goes with it, and with the input embedding where the two are tied.
        patterns: Name of a further group to shell patterns over tensor names. The first that matches decides, before
            all the rest.
        patterns_by: One group a name (`model`), or one for each block or layer that it is found in.
        smooth: With groups by layer: so many anchors, evenly spread over the depth, have genes; each layer's values
            lie on the straight line between its two neighbouring anchors.
    """

    by: By = "blocks"
    block_layers: int = 4
    kinds: Kinds = "none"
    embeddings: str = GENES
    head: str | None = None
    patterns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    patterns_by: By = "model"
    smooth: int | None = None

    def check(self) -> None:
        """Refuse settings that no model suits.

        Raises:
            UsageError: Naming the setting.
        """
        if self.block_layers < 1:
            raise UsageError(f"space.block_layers must be at least 1, got {self.block_layers}")
        if self.smooth is not None and self.by != "layers":
            raise UsageError(f"space.smooth interpolates from layer to layer: set space.groups=layers, not {self.by}")
        if self.smooth is not None and self.smooth < 2:
            raise UsageError(
                f"space.smooth must be at least 2 anchors, got {self.smooth}: space.groups=model is one value for all"
            )
        for name, patterns in self.patterns.items():
            if not re.fullmatch(r"[\w-]+", name):
                raise UsageError(f"space.patterns: the name {name!r} must be made of letters, digits, '_' and '-'")
            if name in _RESERVED:
                raise UsageError(f"space.patterns.{name}: groups of that name are made already; call it otherwise")
            if not patterns:
                raise UsageError(f"space.patterns.{name} is empty: give shell patterns over names of tensors")


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are merged with the same values.

    Attributes:
        tensors: Shell patterns that match them.
        source: Alias of the source that they are taken from as they are; they have no genes then.
        anchors: Under which names their genes go, where it is not the group's own: an anchor, or the two between which
            it lies.
        share: How much the second anchor counts.
    """

    tensors: tuple[str, ...]
    source: str | None = None
    anchors: tuple[str, ...] = ()
    share: float = 0.0


@dataclass(frozen=True)
class _Place:
    """Where a tensor goes: a group, and the layer that the group consists of, if it is one."""

    group: str
    source: str | None = None
    layer: int | None = None
    suffix: str = ""


def group_tensors(names: Sequence[str], grouping: Grouping) -> dict[str, TensorGroup]:
    """Divide a model's tensors into groups.

    Args:
        names: All tensor names of the model.
        grouping: How.

    Returns:
        Group name, such as `layers.04-07.mlp`, to group. Every tensor is in exactly one.

    Raises:
        UsageError: If the names show no layers, or the model does not suit the settings.
    """
    grouping.check()
    places = _Places(names, grouping)
    groups: dict[_Place, list[str]] = {}
    for name in names:
        groups.setdefault(places.of(name), []).append(name)
    if set(groups) == {_Place("layers")}:
        return {"model": TensorGroup(("*",))}
    return {
        place.group: TensorGroup(_shortened(members, names), place.source, *places.anchors(place))
        for place, members in sorted(groups.items(), key=lambda item: item[0].group)
    }


class _Places:
    """Finds the place of each tensor of a model."""

    def __init__(self, names: Sequence[str], grouping: Grouping) -> None:
        self._grouping = grouping
        self._layers = sorted({int(match["index"]) for name in names if (match := LAYER.match(name))})
        if not self._layers:
            raise UsageError(
                "cannot group the tensors by layer: none is named like 'model.layers.0.mlp.down_proj.weight'"
            )
        count = len(self._layers)
        if grouping.smooth is not None and grouping.smooth > count:
            raise UsageError(
                f"space.smooth={grouping.smooth}: at most as many anchors as layers, of which it has {count}"
            )
        # Norms may stand before attention and MLP (then one is called post_attention), or after, or both.
        self._sandwiched = any("feedforward_layernorm" in name for name in names)
        self._tied = not any(HEAD.search(name) for name in names)
        self._head = grouping.embeddings if grouping.head is None else grouping.head
        if self._tied and self._head != grouping.embeddings:
            raise UsageError(
                f"space.head={self._head}: the output head is tied to the input embedding and follows "
                f"space.embeddings={grouping.embeddings}; leave space.head out"
            )
        self._patterns = _first_matches(names, grouping.patterns)

    def of(self, name: str) -> _Place:
        grouping, match, pattern = self._grouping, LAYER.match(name), self._patterns.get(name)
        if pattern is not None:
            if not match or grouping.patterns_by == "model":
                return _Place(pattern)
            return self._in_layer(int(match["index"]), grouping.patterns_by, f".{pattern}")
        if match:
            return self._in_layer(int(match["index"]), grouping.by, self._suffix(self._kind(match["rest"])))
        if EMBEDDINGS.search(name):
            return self._outside("embeddings", grouping.embeddings, self._layers[0], "attention")
        if HEAD.search(name):
            return self._outside("head", self._head, self._layers[-1], "mlp")
        # The final norm. What is taken from a source is the embedding or the head alone, as the norm belongs to the
        # layers that it follows.
        if NORM.search(name) and grouping.kinds == "kinds":
            return self._in_layer(self._layers[-1], grouping.by, ".norms")
        if self._head == GENES:
            return _Place("embeddings" if self._tied else "head")
        return self._outside("head", JOIN, self._layers[-1], "mlp")

    def anchors(self, place: _Place) -> tuple[tuple[str, ...], float]:
        """The anchors between which a place lies, and how much the second counts."""
        smooth = self._grouping.smooth
        if smooth is None or place.layer is None:
            return (), 0.0
        # In integers, so that as many anchors as layers are the layers exactly. As mergekit's gradients: the first
        # and the last layer are the first and the last anchor.
        first, rest = divmod(self._layers.index(place.layer) * (smooth - 1), len(self._layers) - 1)
        digits = len(str(smooth - 1))
        neighbours = (first, first + 1) if rest else (first,)
        return (
            tuple(f"anchors.{anchor:0{digits}d}{place.suffix}" for anchor in neighbours),
            rest / (len(self._layers) - 1),
        )

    def _outside(self, group: str, what: str, layer: int, kind: TensorKind) -> _Place:
        if what == JOIN:
            return self._in_layer(layer, self._grouping.by, self._suffix(kind))
        return _Place(group, source=None if what == GENES else what)

    def _kind(self, rest: str) -> TensorKind:
        return kind_of(rest, norms=self._grouping.kinds == "kinds", sandwiched=self._sandwiched)

    def _suffix(self, kind: TensorKind) -> str:
        return "" if self._grouping.kinds == "none" else f".{kind}"

    def _in_layer(self, index: int, by: By, suffix: str) -> _Place:
        digits = max(2, len(str(self._layers[-1])))
        if by == "model":
            return _Place(f"layers{suffix}")
        if by == "layers" or self._grouping.block_layers == 1:
            layer = index if by == "layers" else None
            return _Place(f"layers.{index:0{digits}d}{suffix}", layer=layer, suffix=suffix)
        start = index // self._grouping.block_layers * self._grouping.block_layers
        end = min(start + self._grouping.block_layers - 1, self._layers[-1])
        return _Place(f"layers.{start:0{digits}d}-{end:0{digits}d}{suffix}")


def _first_matches(names: Sequence[str], patterns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Tensor name to the first name in `patterns` that matches it.

    Raises:
        UsageError: If a pattern matches nothing, or nothing is left for a name.
    """
    owners: dict[str, str] = {}
    example = next(name for name in names if LAYER.match(name))
    for group, shells in patterns.items():
        matched: list[str] = []
        for shell in shells:
            found = fnmatch.filter(names, shell)
            if not found:
                raise UsageError(f"space.patterns.{group}: {shell!r} matches no tensor; names are like {example}")
            matched += found
        if all(name in owners for name in matched):
            raise UsageError(f"space.patterns.{group}: all that it matches is in {owners[matched[0]]} already")
        for name in matched:
            owners.setdefault(name, group)
    return owners


def _shortened(members: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Members, with every layer that is there as a whole written as one pattern."""
    patterns: list[str] = []
    remaining = set(members)
    for stem in sorted({f"{m['stem']}{m['index']}." for name in members if (m := LAYER.match(name))}):
        of_layer = {name for name in names if name.startswith(stem)}
        if of_layer <= remaining:
            patterns.append(f"{stem}*")
            remaining -= of_layer
    return tuple(sorted(patterns + list(remaining)))
