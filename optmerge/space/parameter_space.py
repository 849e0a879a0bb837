"""Parameter space (PS): how strongly each source's weights count, group by group (Akiba et al., 2025, section 3.1)."""

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from optmerge.errors import OptmergeError, UsageError
from optmerge.method import Method
from optmerge.recipe import UNION, CheckpointNode, Group, MergeNode, Node, Recipe, node_sha256
from optmerge.registered import did_you_mean
from optmerge.space.gene import Gene, Value
from optmerge.space.groups import TensorGroup
from optmerge.space.naive import Ingredients, naive_merges
from optmerge.space.ranges import Range
from optmerge.space.searched import METHOD, SOURCES, Searched


@dataclass(frozen=True)
class _Cell:
    """Where a value of a recipe comes from: a gene or fixed value, or the line between two."""

    parameter: str
    first: str
    second: str
    share: float

    def of(self, values: Mapping[str, float]) -> float:
        first = values[self.first]
        if not self.share:
            return first
        second = values[self.second]
        between = first + self.share * (second - first)
        # Rounding must not carry it beyond its end, which may be the limit of what has a meaning.
        return between if first <= between <= second or second <= between <= first else second


@dataclass(frozen=True)
class _Plan:
    """What all recipes of a method share, and how the rest of them is filled in.

    Attributes:
        node: All but groups and sources.
        fixed: The values that are not searched.
        per_source: Group name to alias to the cells of its parameters.
        shared: Group name to the cells of the parameters that sources share.
    """

    node: MergeNode
    fixed: Mapping[str, float]
    per_source: Mapping[str, Mapping[str, Sequence[_Cell]]]
    shared: Mapping[str, Sequence[_Cell]]


class ParameterSpace:
    """Genes: one a group, source and parameter of the merge method; and those that choose the method and the sources.

    Every name `group/source/parameter` (`group/parameter` where sources share it) is a gene or a fixed value.

    Args:
        searched: What may be done with the sources.
        groups: Group name to group, see `optmerge.space.group_tensors`.
        ingredients: The sources, and what else all recipes share.

    Attributes:
        ingredients: The sources, and what else all recipes share.
        fixed: Names of the values that are not searched to these; None stands for the default of the method.

    Raises:
        UsageError: If the settings do not suit the method or the model, or there is nothing to search.
    """

    def __init__(self, *, searched: Searched, groups: Mapping[str, TensorGroup], ingredients: Ingredients) -> None:
        merged, has_base = ingredients.merged(), ingredients.base is not None
        searched.check(merged, has_base)
        self._searched, self._groups, self.ingredients, self._merged = searched, groups, ingredients, tuple(merged)
        self._ranges = searched.parameter_ranges()
        ranges = self._overridden({name: self._ranges[parameter] for name, parameter in self._names().items()})
        self._genes = [
            *searched.choice_genes(merged, has_base),
            *(
                Gene(name, low=cast("float", r.low), high=cast("float", r.high), initial=r.initial, sigma=r.sigma)
                for name, r in ranges.items()
                if r.is_searched()
            ),
        ]
        if not self._genes:
            raise UsageError("every tensor is taken as it is, or every value fixed: there is nothing to search")
        self.fixed = {name: given.value for name, given in ranges.items() if not given.is_searched()}
        self._sets = {
            "+".join(chosen): (self._nodes_of(chosen), unfit, chosen)
            for chosen, unfit in searched.source_choices(merged, has_base).items()
        }
        self._plans = {method.name: self._plan(method) for method in searched.methods()}

    @property
    def genes(self) -> Sequence[Gene]:
        return self._genes

    def decode(self, genome: Mapping[str, Value]) -> Recipe:
        """The recipe of a genome.

        Raises:
            OptmergeError: If the method that it chooses cannot merge the sources that it chooses.
        """
        method = str(genome[METHOD]) if self._searched.choices else self._searched.method
        chosen = str(genome[SOURCES]) if self._searched.choose_sources else "+".join(self._merged)
        nodes, unfit, aliases = self._sets[chosen]
        if method in unfit:
            raise OptmergeError(unfit[method])
        plan = self._plans[method]
        values = cast("dict[str, float]", {**genome, **plan.fixed})
        groups: dict[str, Group] = {}
        for name, group in self._groups.items():
            if group.source is not None:
                groups[name] = Group(group.tensors, source=group.source)
                continue
            cells = plan.per_source[name]
            groups[name] = Group(
                group.tensors,
                {alias: {cell.parameter: cell.of(values) for cell in cells[alias]} for alias in aliases},
                {cell.parameter: cell.of(values) for cell in plan.shared[name]},
            )
        return Recipe(replace(plan.node, sources=nodes, groups=groups))

    def methods(self) -> list[str]:
        """Names of the methods that its recipes may have."""
        return list(self._plans)

    def source_hashes(self) -> dict[str, str]:
        """Alias to node hash, of the sources that may take part."""
        return {alias: node_sha256(node) for alias, node in self.ingredients.sources.items()}

    def shares(self, method: str, names: Sequence[str]) -> dict[tuple[str, str, str], dict[str, float]]:
        """What decides each value in the recipes of a method.

        Args:
            method: The method.
            names: Names of the model's tensors.

        Returns:
            Tensor, alias (empty where sources share the value) and parameter, to the names of the genes or fixed values
            that it is the weighted mean of.
        """
        plan = self._plans[method]
        found: dict[tuple[str, str, str], dict[str, float]] = {}
        for name, group in self._groups.items():
            tensors = {tensor for pattern in group.tensors for tensor in fnmatch.filter(names, pattern)}
            for alias, cells in {**plan.per_source.get(name, {}), "": plan.shared.get(name, ())}.items():
                for cell in cells:
                    shares = {cell.second: cell.share, cell.first: 1 - cell.share} if cell.share else {cell.first: 1.0}
                    found |= {(tensor, alias, cell.parameter): shares for tensor in tensors}
        return found

    @property
    def sources(self) -> Mapping[str, Node]:
        """Alias to node, the base among them."""
        return self.ingredients.sources

    def source(self, alias: str) -> Recipe:
        """A source by itself."""
        return self.ingredients.source(alias)

    def baselines(self) -> dict[str, dict[str, Recipe]]:
        """The merges that people make without a search: name to its settings."""
        return naive_merges(self.ingredients)

    def ablations(self, recipe: Recipe) -> dict[str, Recipe]:
        """None: all that a merge has is its weights."""
        return {}

    def description(self) -> dict[str, Any]:
        """What all recipes of the space share, as plain data.

        Two spaces with the same genes and the same description decode alike.
        """
        content = self._plans[self._searched.method].node.content()
        content["sources"] = self.source_hashes()
        content["groups"] = {name: _digest(group) for name, group in self._groups.items()}
        if self._searched.choices:
            content["methods"] = {method.name: self._searched.options_of(method) for method in self._searched.methods()}
        fixed = {name: dict(plan.fixed) for name, plan in self._plans.items()}
        content["fixed"] = fixed if self._searched.choices else fixed[self._searched.method]
        return content

    def _names(self) -> dict[str, str]:
        """The names of all values, searched or fixed, to their parameter, in order."""
        per_source = self._searched.parameters(Method.per_source)
        shared = self._searched.parameters(Method.shared)
        names: dict[str, str] = {}
        for name, group in self._groups.items():
            for anchor in group.anchors or (name,):
                if group.source is None:
                    names |= {
                        self._name(anchor, alias, parameter): parameter
                        for alias in self._merged
                        for parameter in per_source
                    }
                    names |= {f"{anchor}/{parameter}": parameter for parameter in shared}
        return names

    def _name(self, anchor: str, alias: str, parameter: str) -> str:
        return f"{anchor}/{parameter}" if self._ranges[parameter].tied else f"{anchor}/{alias}/{parameter}"

    def _overridden(self, ranges: dict[str, Range]) -> dict[str, Range]:
        """Name to range, with what `method.genes` says of some of them."""
        parameters = self._names()
        having = self._searched.parameters(lambda method: method.parameters)
        for pattern, given in self._searched.genes.items():
            matched = fnmatch.filter(ranges, pattern)
            where = f"method.genes.{pattern}"
            if not matched:
                raise UsageError(
                    f"{where}: no gene is called so{did_you_mean(pattern, list(ranges))}; names are like "
                    f"{next(iter(ranges), 'group/source/parameter')}"
                )
            for name in matched:
                ranges[name] = ranges[name].updated(given)
            for parameter, changed in {(parameters[name], ranges[name]) for name in matched}:
                changed.check(parameter, having[parameter], where)
        return ranges

    def _plan(self, method: Method) -> _Plan:
        ingredients, parameters = self.ingredients, self._names()
        node = MergeNode(
            method=method.name,
            sources={},
            base=ingredients.base,
            tokenizer=ingredients.tokenizer,
            dtype=ingredients.dtype,
            groups={},
            options=self._searched.options_of(method),
            seed=ingredients.seed,
            vocabulary_base=ingredients.vocabulary_base,
            pad_vocabulary_to=ingredients.pad_vocabulary_to,
        )
        merged = {name: group for name, group in self._groups.items() if group.source is None}
        return _Plan(
            node=node,
            fixed={
                name: method.parameters[parameters[name]].default if value is None else value
                for name, value in self.fixed.items()
                if parameters[name] in method.parameters
            },
            per_source={
                name: {
                    alias: [
                        _cell(parameter, [self._name(a, alias, parameter) for a in group.anchors or (name,)], group)
                        for parameter in method.per_source()
                    ]
                    for alias in self._merged
                }
                for name, group in merged.items()
            },
            shared={
                name: [
                    _cell(parameter, [f"{anchor}/{parameter}" for anchor in group.anchors or (name,)], group)
                    for parameter in method.shared()
                ]
                for name, group in merged.items()
            },
        )

    def _nodes_of(self, chosen: Sequence[str]) -> dict[str, Node]:
        """The sources of a recipe in which some are chosen: these, and those that it needs for another reason."""
        sources = self.ingredients.sources
        if any(isinstance(node, CheckpointNode) and node.tokens_sha256 is not None for node in sources.values()):
            # Vocabularies differ: the rows that a source lacks are made from all the others.
            return dict(sources)
        needed = {*chosen, *self._needed()}
        return {alias: node for alias, node in sources.items() if alias in needed}

    def _needed(self) -> Iterator[str]:
        ingredients = self.ingredients
        for alias in (ingredients.base, ingredients.tokenizer, ingredients.vocabulary_base):
            if alias == UNION:
                yield from ingredients.sources
            elif alias is not None:
                yield alias
        yield from (group.source for group in self._groups.values() if group.source is not None)


def _cell(parameter: str, names: Sequence[str], group: TensorGroup) -> _Cell:
    return _Cell(parameter, names[0], names[-1], group.share)


def _digest(group: TensorGroup) -> str:
    return hashlib.sha256(json.dumps(asdict(group), sort_keys=True).encode()).hexdigest()[:16]
