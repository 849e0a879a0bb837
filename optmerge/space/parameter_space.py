"""Parameter space (PS): how strongly each source's weights count, group by group (Akiba et al., 2025, section 3.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

from optmerge.errors import UsageError
from optmerge.method import get_method
from optmerge.recipe import Group, MergeNode, Option, Recipe
from optmerge.space.gene import Gene, Value
from optmerge.space.naive import Ingredients


@dataclass(frozen=True)
class Range:
    """Where a parameter is searched.

    Attributes:
        low: Least value.
        high: Greatest value.
        initial: Where the search starts; the middle by default.
        value: A fixed value instead: the parameter is not searched.
    """

    low: float
    high: float
    initial: float | None = None
    value: float | None = None


def searched_ranges(
    method: str, ranges: Mapping[str, Range], options: Mapping[str, Option] = MappingProxyType({})
) -> dict[str, Range]:
    """Where each parameter of a method is searched: as given, or over the method's own range.

    Raises:
        UsageError: If the method is unknown, or a range or option does not suit it.
    """
    declared = get_method(method)
    declared.check_options(options, "method.options")
    searched = {name: Range(*parameter.search) for name, parameter in declared.parameters.items()}
    for name, given in ranges.items():
        where = f"method.parameters.{name}"
        for value in (given.low, given.high, given.initial, given.value):
            if value is not None:
                declared.check_value(name, value, where)
        if given.value is None and given.low >= given.high:
            raise UsageError(f"{where}: low ({given.low:g}) must be less than high ({given.high:g})")
        if given.initial is not None and not given.low <= given.initial <= given.high:
            raise UsageError(f"{where}: initial ({given.initial:g}) is outside [{given.low:g}, {given.high:g}]")
        searched[name] = given
    if all(given.value is not None for given in searched.values()):
        raise UsageError("method.parameters fixes every value: there is nothing to search")
    return searched


class ParameterSpace:
    """Genes: one a group, source and parameter of the merge method.

    Args:
        method: Name of the merge method.
        ranges: Parameter name to range; a parameter that is left out is searched over the method's own range.
        groups: Group name to tensor patterns, see `optmerge.space.group_tensors`.
        ingredients: The sources, and what else all recipes share.
        options: Options of the method.

    Raises:
        UsageError: If the method is unknown, a range or option does not suit it, or there is nothing to merge.
    """

    def __init__(
        self,
        *,
        method: str,
        ranges: Mapping[str, Range],
        groups: Mapping[str, tuple[str, ...]],
        ingredients: Ingredients,
        options: Mapping[str, Option],
    ) -> None:
        declared = get_method(method)
        self.ranges = searched_ranges(method, ranges, options)
        self._merged = ingredients.merged()
        if not self._merged:
            raise UsageError("models.sources: there is nothing to merge but the base")
        self._groups = groups
        self._node = MergeNode(
            method=method,
            sources=ingredients.sources,
            base=ingredients.base,
            tokenizer=ingredients.tokenizer,
            dtype=ingredients.dtype,
            groups={},
            options={**declared.options, **options},
            seed=ingredients.seed,
        )
        self._genes = [
            Gene(f"{group}/{alias}/{name}", low=given.low, high=given.high, initial=given.initial)
            for group in groups
            for alias in self._merged
            for name, given in self.ranges.items()
            if given.value is None
        ]

    @property
    def genes(self) -> Sequence[Gene]:
        return self._genes

    def decode(self, genome: Mapping[str, Value]) -> Recipe:
        """The recipe of a genome."""

        def value(group: str, alias: str, name: str) -> float:
            fixed = self.ranges[name].value
            return cast("float", genome[f"{group}/{alias}/{name}"]) if fixed is None else fixed

        groups = {
            group: Group(
                patterns, {alias: {name: value(group, alias, name) for name in self.ranges} for alias in self._merged}
            )
            for group, patterns in self._groups.items()
        }
        return Recipe(replace(self._node, groups=groups))
