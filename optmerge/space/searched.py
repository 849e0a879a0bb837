"""What a search may do with the sources: by which method, how strongly each counts, and which take part."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optmerge.errors import UsageError
from optmerge.method import Method, Parameter, get_method
from optmerge.recipe import Option
from optmerge.registered import did_you_mean
from optmerge.space.gene import Gene
from optmerge.space.ranges import Range

METHOD, SOURCES = "method", "sources"
"""Names of the genes that choose a method, and the sources that take part."""

MOST_CHOSEN = 6


@dataclass(frozen=True)
class Searched:
    """The settings of `method`, and which sources take part.

    Attributes:
        method: Name of the merge method; among several, the one that the search starts with.
        choices: Names of the methods that the search chooses from; none where there is nothing to choose.
        ranges: Parameter name to range; what is left out is as the method declares it, the first that has it among
            several.
        genes: Shell pattern over names of genes to what is different there; later ones count over earlier ones.
        options: Options. Among several methods each takes those that it has, with values that it knows.
        choose_sources: Whether the search chooses which sources take part.
        least_sources: So many take part at least.
    """

    method: str
    choices: Sequence[str] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)
    genes: Mapping[str, Range] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    choose_sources: bool = False
    least_sources: int = 1

    def methods(self) -> list[Method]:
        """The method, or those that the search chooses from."""
        return [get_method(name) for name in self.choices or [self.method]]

    def check(self, aliases: Sequence[str], has_base: bool) -> None:
        """Refuse what cannot be searched, as far as it can be told without knowing the model.

        Args:
            aliases: The sources beside the base.
            has_base: Whether there is a base.

        Raises:
            UsageError: Naming the setting.
        """
        if self.choices and self.method not in self.choices:
            raise UsageError(
                f"method.choices has {', '.join(self.choices)}, not method.name={self.method}, with which the search "
                "starts; name one of them"
            )
        if len(set(self.choices)) < len(self.choices) or len(self.choices) == 1:
            raise UsageError(f"method.choices={','.join(self.choices)}: name two methods or more, each once")
        for method in self.methods():
            if method.base == "required" and not has_base:
                raise UsageError(
                    f"method={method.name} measures task vectors from a base: set models.base to a source's alias"
                )
        if self.least_sources != 1 and not self.choose_sources:
            raise UsageError("space.least_sources says how many are chosen: set space.sources=choose too")
        if not aliases:
            raise UsageError("models.sources: there is nothing to merge but the base")
        self._check_options()
        ranges = self.parameter_ranges()
        self.source_choices(aliases, has_base)
        if not (self.choices or self.choose_sources or self.genes):
            self._check_any_searched(ranges)

    def options_of(self, method: Method) -> dict[str, Option]:
        """Every option of a method: as given, or its default."""
        given = {name: value for name, value in self.options.items() if not _refusal(method, name, value)}
        return {**method.options, **given}

    def parameters(self, of: Callable[[Method], Mapping[str, Parameter]]) -> dict[str, list[Method]]:
        """Names of parameters to the methods that have them, in the order of the methods."""
        having: dict[str, list[Method]] = {}
        for method in self.methods():
            for name in of(method):
                having.setdefault(name, []).append(method)
        return having

    def parameter_ranges(self) -> dict[str, Range]:
        """Where each parameter is searched.

        Raises:
            UsageError: If a parameter is unknown, or its range does not suit it.
        """
        having = self.parameters(lambda method: method.parameters)
        for name in self.ranges:
            if name not in having:
                raise UsageError(
                    f"method.parameters.{name}: {self._none_has('parameter')}{did_you_mean(name, list(having))}; "
                    f"known are {', '.join(having)}"
                )
        ranges: dict[str, Range] = {}
        for name, methods in having.items():
            search = methods[0].parameters[name].search
            ranges[name] = Range(*(search or ())).updated(self.ranges.get(name, Range()))
            ranges[name].check(name, methods, f"method.parameters.{name}")
        return ranges

    def source_choices(self, aliases: Sequence[str], has_base: bool) -> dict[tuple[str, ...], dict[str, str]]:
        """The sets of sources that may take part, and for each the methods that cannot merge it, with the reason.

        Sets that no method can merge are left out.

        Raises:
            UsageError: If there is nothing to choose, or a method can merge none.
        """
        everyone = tuple(sorted(aliases))
        sets = self._sets(everyone) if self.choose_sources else [everyone]
        unfit = {chosen: self._unfit(chosen, has_base) for chosen in sets}
        methods = self.methods()
        for method in methods:
            if all(method.name in reasons for reasons in unfit.values()):
                raise UsageError(unfit[sets[-1]][method.name])
        fitting = {chosen: reasons for chosen, reasons in unfit.items() if len(reasons) < len(methods)}
        if self.choose_sources and len(fitting) == 1:
            raise UsageError(
                f"space.sources=choose: there is nothing to choose, as only {'+'.join(next(iter(fitting)))} can be "
                "merged; use space.sources=all"
            )
        return fitting

    def choice_genes(self, aliases: Sequence[str], has_base: bool) -> list[Gene]:
        """The genes that choose."""
        genes = [Gene(METHOD, "choice", choices=tuple(self.choices), initial=self.method)] if self.choices else []
        if self.choose_sources:
            sets = self.source_choices(aliases, has_base)
            start = next(chosen for chosen, unfit in sets.items() if self.method not in unfit)
            genes.append(Gene(SOURCES, "choice", choices=tuple(map("+".join, sets)), initial="+".join(start)))
        return genes

    def _sets(self, aliases: tuple[str, ...]) -> list[tuple[str, ...]]:
        """All sets of sources that are large enough, the largest first."""
        if len(aliases) > MOST_CHOSEN:
            raise UsageError(
                f"space.sources=choose: {len(aliases)} sources make {2 ** len(aliases) - 1} sets to choose from; at "
                f"most {MOST_CHOSEN} ({2**MOST_CHOSEN - 1} sets) are searched"
            )
        if not 1 <= self.least_sources <= len(aliases):
            raise UsageError(
                f"space.least_sources must be from 1 to {len(aliases)}, the number of sources beside the base, got "
                f"{self.least_sources}"
            )
        sizes = range(len(aliases), self.least_sources - 1, -1)
        return [chosen for size in sizes for chosen in itertools.combinations(aliases, size)]

    def _unfit(self, chosen: Sequence[str], has_base: bool) -> dict[str, str]:
        reasons: dict[str, str] = {}
        where = f"the sources {'+'.join(chosen)}" if self.choose_sources else "models.sources"
        for method in self.methods():
            try:
                method.check_sources(len(chosen), has_base, where)
            except UsageError as error:
                reasons[method.name] = str(error)
        return reasons

    def _check_options(self) -> None:
        methods = self.methods()
        for name, value in self.options.items():
            if not all(_refusal(method, name, value) for method in methods):
                continue
            having = [method for method in methods if name in method.options]
            if having:
                raise UsageError(_refusal(having[0], name, value))
            if any(name in method.parameters for method in methods):
                raise UsageError(f"method.options.{name} is a parameter: write method.parameters.{name}.value={value}")
            known = sorted({option for method in methods for option in method.options})
            raise UsageError(
                f"method.options.{name}: {self._none_has('option')}{did_you_mean(name, known)}; known are "
                f"{', '.join(known) or 'none'}"
            )

    def _check_any_searched(self, ranges: Mapping[str, Range]) -> None:
        if any(given.is_searched() for given in ranges.values()):
            return
        if not ranges:
            raise UsageError(
                f"method={self.method} has no parameters to search; a search can choose the sources instead "
                "(space.sources=choose), or the method (method.choices)"
            )
        if any(given.value is not None for given in ranges.values()):
            raise UsageError("method.parameters fixes every value: there is nothing to search")
        names = list(ranges)
        raise UsageError(
            f"method={self.method}: give a range to {' or '.join(names)} (method.parameters.{names[0]}.low and .high); "
            "there is nothing to search"
        )

    def _none_has(self, what: str) -> str:
        if self.choices:
            return f"none of {', '.join(self.choices)} has such {'an' if what == 'option' else 'a'} {what}"
        return f"{self.method} has no such {what}"


def _refusal(method: Method, name: str, value: Option) -> str:
    """Why a method does not take an option, or nothing if it does."""
    try:
        method.check_options({name: value}, "method.options")
    except UsageError as error:
        return str(error)
    return ""
