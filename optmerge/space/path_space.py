"""Data-flow space: which layers of which source a token passes through, and how each hop is scaled.

The layers of all sources are laid in a row, which is repeated; every place of it is a slot with a switch. The hops of a
path are the slots that are on, in their order (Akiba et al., 2025).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from optmerge.errors import UsageError
from optmerge.recipe import SCALE_TARGETS, Hop, Node, PathNode, Recipe, node_sha256
from optmerge.space.gene import Gene, Value
from optmerge.space.hop_scales import SCALES, HopScales, Layer, hop_scales

SWITCHES = ("threshold", "switch")
LAYOUTS = ("sources", "interleaved")
FREE = "free"  # instead of an alias: whichever layer comes
_SURE = 0.99  # most and, from the other end, least that a slot may be likely to be on at first


@dataclass
class PathSettings:
    """What paths there are: `space.path` of the configuration.

    Attributes:
        order: Aliases of the sources as they are laid in a row, the first source first; by default all but the base,
            the tokenizer's source first.
        layout: `sources` lays all layers of a source after those of the one before, as in the paper; `interleaved` the
            first layers of all, then the second, so that to exchange a layer for another source's, or to add that, is
            to change one or two switches.
        repeats: How often the row is laid down.
        switches: Kind of the switches' genes: `threshold` is a number on [-1, 1] that is on above 0, as in the paper;
            `switch` is on or off.
        scales: `none`, `hop` (a gene a slot), `transition` (a gene for each pair of layers) or `network` (a small
            network of two layers' places and the hop's number).
        scale_target: See `optmerge.recipe.PathNode`.
        low: Least scale.
        high: Greatest scale.
        first_pass: Probability with which the first candidates take a layer of the first source's first pass.
        others: Probability with which they take any other slot. Where layers cannot be put just anywhere, as in small
            or shallow models, few of the paper's first candidates, with every second slot on, are models at all.
        max_hops: A path has at most so many.
        max_layers: It has at most so many different layers.
        first: Alias of the source whose first layer is the first hop, by default the first in order; or `free`.
        last: The same for the last layer and the last hop.
        embeddings: Alias of the source that gives the embeddings, by default the first in order.
        head: Alias of the source that gives the final norm and the output head, by default the first in order.
        width: Hidden units of the network of scales.
    """

    order: list[str] = field(default_factory=list)
    layout: str = "sources"
    repeats: int = 3
    switches: str = "threshold"
    scales: str = "hop"
    scale_target: str = "hidden"
    low: float = 0.5
    high: float = 1.5
    first_pass: float = 0.977
    others: float = 0.5
    max_hops: int = 80
    max_layers: int | None = None
    first: str | None = None
    last: str | None = None
    embeddings: str | None = None
    head: str | None = None
    width: int = 8

    def alias(self, setting: str) -> str:
        """The alias that `first`, `last`, `embeddings` or `head` names: the first in order by default."""
        named: str | None = getattr(self, setting)
        return self.order[0] if named is None else named

    def check(self) -> None:
        """Check what can be checked without the sources.

        Raises:
            UsageError: If a setting is unknown or out of its range, or they allow no path.
        """
        if self.repeats < 1:
            raise UsageError(f"space.path.repeats must be at least 1, got {self.repeats}")
        for name, value, known in (
            ("layout", self.layout, LAYOUTS),
            ("switches", self.switches, SWITCHES),
            ("scales", self.scales, SCALES),
            ("scale_target", self.scale_target, SCALE_TARGETS),
        ):
            if value not in known:
                raise UsageError(f"space.path.{name}={value}: unknown; known are {', '.join(known)}")
        for name, chance in (("first_pass", self.first_pass), ("others", self.others)):
            if not 1 - _SURE <= chance <= _SURE:
                raise UsageError(f"space.path.{name} must be between {1 - _SURE:g} and {_SURE:g}, got {chance:g}")
        if not self.order or len(set(self.order)) < len(self.order):
            raise UsageError(f"space.path.order must name each source once, got {', '.join(self.order) or 'none'}")
        if not self.low <= self.high:
            raise UsageError(f"space.path: the scales' range [{self.low:g}, {self.high:g}] is empty")
        if self.low == self.high and self.scales != "none":
            raise UsageError(f"space.path: all scales would be {self.low:g}; write space.path.scales=none")
        if self.scales != "none" and self.scale_target == "hidden" and self.low <= 0 <= self.high:
            raise UsageError(
                f"space.path: the scales' range [{self.low:g}, {self.high:g}] includes 0, which cannot be folded into "
                "weights; take one on one side of it, or space.path.scale_target=branch"
            )
        if self.scales != "none" and not self.low <= 1 <= self.high:
            raise UsageError(f"space.path: the scales' range [{self.low:g}, {self.high:g}] must include 1")
        least = max(1, sum(alias != FREE for alias in (self.first, self.last)))
        for name, most in (("max_hops", self.max_hops), ("max_layers", self.max_layers)):
            if most is not None and most < least:
                raise UsageError(f"space.path.{name}={most} allows no path: it must be at least {least}")


@dataclass(frozen=True)
class Slot:
    """A place in the repeated row."""

    repeat: int
    layer: Layer

    @property
    def name(self) -> str:
        return f"r{self.repeat}/{self.layer}"


class PathSpace:
    """Genes of paths, and the way from a genome to a recipe.

    Args:
        settings: What paths there are.
        sources: Alias to node.
        depths: Alias to number of layers.
        tokenizer: Alias of the source that gives tokenizer and configuration.
        dtype: Type of the folded model's tensors.

    Raises:
        UsageError: If the settings allow no path.
    """

    def __init__(
        self,
        settings: PathSettings,
        sources: Mapping[str, Node],
        depths: Mapping[str, int],
        tokenizer: str,
        dtype: str,
    ) -> None:
        settings.check()
        self.settings = settings
        self._sources = sources
        self._depths = depths
        self._tokenizer = tokenizer
        self._dtype = dtype
        self.layers = [Layer(alias, layer) for alias in settings.order for layer in range(depths[alias])]
        if settings.layout == "interleaved":
            self.layers.sort(key=lambda layer: layer.number)  # and by the sources' order where numbers are equal
        self.slots = [Slot(repeat, layer) for repeat in range(settings.repeats) for layer in self.layers]
        first, last = settings.alias("first"), settings.alias("last")
        self._first = self._forced(first, 0, 0)
        self._last = self._forced(last, settings.repeats - 1, depths.get(last, 0) - 1)
        self._scales: HopScales = hop_scales(settings, self.layers, [slot.name for slot in self.slots])
        self.genes: list[Gene] = [self._switch(slot) for slot in self.slots]
        self.genes += self._scales.genes(lambda slot: None if slot in self._always() else f"{slot}/on")

    def _forced(self, alias: str, repeat: int, layer: int) -> int | None:
        return self.slots.index(Slot(repeat, Layer(alias, layer))) if alias != FREE else None

    def _always(self) -> set[str]:
        return {self.slots[number].name for number in (self._first, self._last) if number is not None}

    def _switch(self, slot: Slot) -> Gene:
        is_first_pass = slot.repeat == 0 and slot.layer.source == self.settings.order[0]
        chance = self.settings.first_pass if is_first_pass else self.settings.others
        name = f"{slot.name}/on"
        if self.settings.switches == "switch":
            even = chance == 0.5
            return Gene(
                name, "switch", initial=None if even else chance > 0.5, likely=None if even else max(chance, 1 - chance)
            )
        # Steps of 1/3 on [-1, 1]: so many of them above 0 that it is above 0 with that probability.
        return Gene(name, low=-1.0, high=1.0, initial=NormalDist().inv_cdf(chance) / 3, sigma=1 / 6)

    def decode(self, genome: Mapping[str, Value]) -> Recipe:
        """The recipe of a genome: the same for genomes that give the same path."""
        hops = self.path(genome)
        scales = self._scales.of(genome, [(self.slots[number].name, self.slots[number].layer) for number in hops])
        return self.recipe(
            [
                Hop(self.slots[number].layer.source, self.slots[number].layer.number, scale)
                for number, scale in zip(hops, scales, strict=True)
            ]
        )

    def recipe(self, hops: Sequence[Hop]) -> Recipe:
        """A path with the tokenizer, embeddings and head of this space."""
        embeddings, head = self.settings.alias("embeddings"), self.settings.alias("head")
        aliases = {hop.source for hop in hops} | {self._tokenizer, embeddings, head}
        return Recipe(
            PathNode(
                sources={alias: self._sources[alias] for alias in sorted(aliases)},
                hops=tuple(hops),
                tokenizer=self._tokenizer,
                embeddings=embeddings,
                head=head,
                dtype=self._dtype,
                scale_target=self.settings.scale_target,
            )
        )

    def source(self, alias: str) -> Recipe:
        """A source by itself: all its layers once, and what else it has."""
        hops = [Hop(alias, number) for number in range(self._depths[alias])]
        node = PathNode({alias: self._sources[alias]}, tuple(hops), alias, alias, alias, self._dtype)
        return Recipe(node)

    def genome_of(self, recipe: Recipe) -> dict[str, Value]:
        """A genome that gives a recipe's path, so that a search can begin from what is known.

        Raises:
            UsageError: If the recipe is no path, or this space does not have that one.
        """
        root = recipe.root
        if not isinstance(root, PathNode):
            raise UsageError("study.warm_start: a recipe merges weights, and this search is over paths")
        if self.settings.scales not in ("none", "hop"):
            raise UsageError(f"study.warm_start: space.path.scales={self.settings.scales} cannot begin from a recipe")
        genome: dict[str, Value] = {gene.name: gene.start() for gene in self.genes}
        strengths = (False, True) if self.settings.switches == "switch" else (-1 / 3, 2 / 3)
        genome |= {f"{slot.name}/on": strengths[0] for slot in self.slots}
        for number, hop in zip(self._slots_of(root.hops), root.hops, strict=True):
            genome[f"{self.slots[number].name}/on"] = strengths[1]
            if self.settings.scales == "hop":
                genome[f"{self.slots[number].name}/scale"] = hop.scale
        if self.decode(genome).sha256 != recipe.sha256:
            raise UsageError(f"study.warm_start: recipe {recipe.sha256[:12]} is a path that this search does not have")
        return genome

    def _slots_of(self, hops: Sequence[Hop]) -> list[int]:
        """The slot of each hop: the first of its layer that is left, but for the first and last that are forced."""
        found: list[int] = []
        for place, hop in enumerate(hops):
            if place == len(hops) - 1 and self._last is not None:
                found.append(self._last)
                continue
            start = found[-1] + 1 if found else 0
            numbers = (n for n in range(start, len(self.slots)) if n != self._last)
            layer = Layer(hop.source, hop.layer)
            number = next((n for n in numbers if self.slots[n].layer == layer), None)
            if number is None:
                raise UsageError(f"study.warm_start: hop {place} of a recipe, {layer}, has no slot in its order here")
            found.append(number)
        return found

    def path(self, genome: Mapping[str, Value]) -> list[int]:
        """The numbers of the slots that are hops, in order, within the limits.

        Where a limit is passed, the slots that are least on go first: of numbers the smallest, of switches those at
        the row's end.
        """
        strength = {number: self._strength(genome, number) for number in range(len(self.slots))}
        forced = [number for number in (self._first, self._last) if number is not None]
        chosen = [number for number, value in strength.items() if value > 0 and number not in forced]
        if not chosen and not forced:
            chosen = [max(strength, key=lambda number: strength[number])]
        chosen.sort(key=lambda number: (-strength[number], number))
        chosen = _of_few_layers([*forced, *chosen], [slot.layer for slot in self.slots], self.settings.max_layers)
        kept = set(chosen[: self.settings.max_hops])
        between = [number for number in sorted(kept) if number not in forced]
        begin = [] if self._first is None else [self._first]
        end = [] if self._last is None or self._last in begin else [self._last]
        return [*begin, *between, *end]

    def _strength(self, genome: Mapping[str, Value], number: int) -> float:
        return float(genome[f"{self.slots[number].name}/on"])

    @property
    def fixed(self) -> Mapping[str, float | None]:
        """Nothing is."""
        return {}

    @property
    def sources(self) -> Mapping[str, Node]:
        """Alias to node."""
        return self._sources

    def baselines(self) -> dict[str, dict[str, Recipe]]:
        """What people would try by hand: the first source with one layer left out, or taken from another."""
        edits = self._edits()
        return {"best skip or swap": edits} if edits else {}

    def _edits(self) -> dict[str, Recipe]:
        first, *others = self.settings.order
        depth = self._depths[first]
        whole = [Hop(first, number) for number in range(depth)]
        edits = {f"without layer {n}": [*whole[:n], *whole[n + 1 :]] for n in range(depth) if depth > 1}
        for alias in others:
            for n in range(min(depth, self._depths[alias])):
                edits[f"layer {n} of {alias}"] = [*whole[:n], Hop(alias, n), *whole[n + 1 :]]
        return {name: self.recipe(hops) for name, hops in edits.items()}

    def ablations(self, recipe: Recipe) -> dict[str, Recipe]:
        """The same path with all scales 1, if they are not."""
        assert isinstance(recipe.root, PathNode)
        hops = recipe.root.hops
        if all(hop.scale == 1 for hop in hops):
            return {}
        return {"all scales 1": self.recipe([Hop(hop.source, hop.layer) for hop in hops])}

    def description(self) -> dict[str, Any]:
        """What all recipes of the space share, as plain data."""
        settings = {name: value for name, value in vars(self.settings).items() if name != "order"}
        sources = {alias: node_sha256(node) for alias, node in self._sources.items()}
        return {
            "space": "path",
            "sources": sources,
            "order": list(self.settings.order),
            "tokenizer": self._tokenizer,
            "dtype": self._dtype,
            **settings,
        }


def _of_few_layers(numbers: Sequence[int], layers: Sequence[Layer], most: int | None) -> list[int]:
    """The numbers whose layers are among the first so many different ones."""
    seen: dict[Layer, None] = {}
    for number in numbers:
        if most is None or len(seen) < most:
            seen.setdefault(layers[number])
    return [number for number in numbers if layers[number] in seen]
