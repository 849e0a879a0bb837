"""The merges that people make without a search, which a search must beat."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optmerge.method import get_method
from optmerge.recipe import Group, MergeNode, Node, Option, Recipe

SHARED_WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)


@dataclass(frozen=True)
class Ingredients:
    """What all recipes of a study share.

    Attributes:
        sources: Alias to node, the base among them.
        base: Alias of the base, or none.
        tokenizer: Alias of the source that gives tokenizer and configuration.
        dtype: Type of the merged tensors.
        seed: Seed of random masks.
        vocabulary_base: Alias of the base where the sources' vocabularies differ, so that merges without a base fill
            the rows that a source lacks like those with one.
        pad_vocabulary_to: Vocabulary rows are rounded up to a multiple of this.
    """

    sources: Mapping[str, Node]
    base: str | None
    tokenizer: str
    dtype: str
    seed: int
    vocabulary_base: str | None = None
    pad_vocabulary_to: int | None = None

    def merged(self) -> list[str]:
        """Aliases of the sources that are merged into the base, in canonical order."""
        return [alias for alias in sorted(self.sources) if alias != self.base]

    def recipe(
        self, method: str, parameters: Mapping[str, Mapping[str, float]], options: Mapping[str, Option] | None = None
    ) -> Recipe:
        """The whole model merged alike.

        Args:
            method: Name of a merge method.
            parameters: Alias to parameter to value; parameters that are left out take the method's defaults.
            options: Options of the method that differ from its defaults.
        """
        declared = get_method(method)
        defaults = {name: parameter.default for name, parameter in declared.per_source().items()}
        group = Group(
            ("*",),
            {alias: {**defaults, **values} for alias, values in parameters.items()},
            {name: parameter.default for name, parameter in declared.shared().items()},
        )
        return Recipe(
            MergeNode(
                method=method,
                sources=self.sources,
                base=None if declared.base == "ignored" else self.base,
                tokenizer=self.tokenizer,
                dtype=self.dtype,
                groups={"model": group},
                options={**declared.options, **(options or {})},
                seed=self.seed,
                vocabulary_base=self.vocabulary_base,
                pad_vocabulary_to=self.pad_vocabulary_to,
            )
        )

    def source(self, alias: str) -> Recipe:
        """A source by itself: a sum of one."""
        return self.recipe("linear", {alias: {"weight": 1.0}})


def naive_merges(ingredients: Ingredients) -> dict[str, dict[str, Recipe]]:
    """Baselines: name to its settings, of which the one best on validation stands for the baseline.

    Averages with and without the base; TIES and DARE-TIES at their defaults; one weight shared by all sources; and
    every pair of sources at weight 1. What needs a base is left out where there is none, pairs where there are fewer
    than three sources.
    """
    merged = ingredients.merged()
    everyone = _at_full_weight(merged)
    baselines = {"average": {"": ingredients.recipe("linear", everyone)}}
    if ingredients.base is None:
        return baselines
    baselines["average with base"] = {"": ingredients.recipe("linear", {**everyone, ingredients.base: {"weight": 1.0}})}
    baselines["TIES"] = {"": ingredients.recipe("ties", everyone)}
    baselines["DARE-TIES"] = {"": ingredients.recipe("dare_ties", everyone)}
    baselines["best shared weight"] = {
        f"{weight:g}": ingredients.recipe("task_arithmetic", {alias: {"weight": weight} for alias in merged})
        for weight in SHARED_WEIGHTS
    }
    if len(merged) > 2:
        baselines["best pair"] = {
            " + ".join(pair): ingredients.recipe("task_arithmetic", _at_full_weight(pair))
            for pair in itertools.combinations(merged, 2)
        }
    return baselines


def _at_full_weight(aliases: Sequence[str]) -> dict[str, dict[str, float]]:
    return {alias: {"weight": 1.0} for alias in aliases}
