"""Genes of the parameter space, and how a genome becomes a recipe."""

from collections.abc import Mapping
from typing import Any

import pytest

from optmerge.errors import UsageError
from optmerge.recipe import CheckpointNode, Group, Node, Option
from optmerge.space import Ingredients, ParameterSpace, Range

GROUPS = {"embeddings": ("model.embed*",), "layers": ("model.layers.*", "model.norm*")}


def ingredients(*aliases: str, base: str | None = "base") -> Ingredients:
    sources: dict[str, Node] = {
        alias: CheckpointNode(f"models/{alias}", f"{i:064x}") for i, alias in enumerate(aliases)
    }
    return Ingredients(sources, base, tokenizer=aliases[0], dtype="float32", seed=5)


OURS = ingredients("math", "base", "ja")


def space(
    method: str = "dare_ties",
    ranges: Mapping[str, Range] | None = None,
    options: Mapping[str, Option] | None = None,
    of: Ingredients = OURS,
) -> ParameterSpace:
    return ParameterSpace(method=method, ranges=ranges or {}, groups=GROUPS, ingredients=of, options=options or {})


def test_there_is_a_gene_for_each_group_source_and_parameter() -> None:
    names = [gene.name for gene in space().genes]
    assert names == [
        f"{group}/{alias}/{parameter}"
        for group in ("embeddings", "layers")
        for alias in ("ja", "math")  # the base is merged into, not merged
        for parameter in ("weight", "density")
    ]


def test_the_base_is_merged_too_where_there_is_none() -> None:
    genes = space("linear", of=ingredients("math", "base", "ja", base=None)).genes
    assert {gene.name.split("/")[1] for gene in genes} == {"math", "base", "ja"}


def test_genes_have_the_range_that_they_are_given() -> None:
    genes = space(ranges={"weight": Range(-1.0, 2.0, initial=0.25)}).genes
    assert {(g.low, g.high, g.start()) for g in genes if g.name.endswith("weight")} == {(-1.0, 2.0, 0.25)}
    assert {(g.low, g.high, g.start()) for g in genes if g.name.endswith("density")} == {(0.0, 1.0, 0.5)}


def test_a_genome_becomes_the_recipe_with_its_values() -> None:
    searched = space()
    genome = {gene.name: (i + 1) / 10 for i, gene in enumerate(searched.genes)}
    assert searched.decode(genome).root.groups == {
        "embeddings": Group(
            ("model.embed*",), {"ja": {"weight": 0.1, "density": 0.2}, "math": {"weight": 0.3, "density": 0.4}}
        ),
        "layers": Group(
            ("model.layers.*", "model.norm*"),
            {"ja": {"weight": 0.5, "density": 0.6}, "math": {"weight": 0.7, "density": 0.8}},
        ),
    }


def test_recipes_share_what_is_not_searched() -> None:
    searched = space(options={"rescale": "l1_norm"})
    root = searched.decode({gene.name: 0.5 for gene in searched.genes}).root
    assert (root.method, root.base, root.tokenizer, root.dtype, root.seed) == (
        "dare_ties",
        "base",
        "math",
        "float32",
        5,
    )
    assert root.sources == OURS.sources


def test_recipes_state_every_option_of_the_method() -> None:
    searched = space(options={"rescale": "l1_norm"})
    root = searched.decode({gene.name: 0.5 for gene in searched.genes}).root
    assert root.options == {"normalize": False, "rescale": "l1_norm", "lambda_": 1.0}


def test_a_fixed_value_is_no_gene_but_in_every_recipe() -> None:
    searched = space(ranges={"density": Range(0.0, 1.0, value=0.3)})
    assert [gene.name for gene in searched.genes if gene.name.endswith("density")] == []
    groups = searched.decode({gene.name: 0.9 for gene in searched.genes}).root.groups
    assert {tuple(v.items()) for g in groups.values() for v in g.parameters.values()} == {
        (("weight", 0.9), ("density", 0.3))
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "tis"}, "unknown merge method 'tis'"),
        ({"ranges": {"wieght": Range(0, 1)}}, "method.parameters.wieght: .*did you mean 'weight'"),
        ({"ranges": {"density": Range(0, 1.5)}}, r"method.parameters.density: density must be a number in \[0, 1\]"),
        ({"ranges": {"density": Range(0, 1, value=-1)}}, "method.parameters.density: density must be"),
        ({"ranges": {"weight": Range(0, float("inf"))}}, "method.parameters.weight: weight must be"),
        ({"ranges": {"weight": Range(1, 1)}}, r"weight: low \(1\) must be less than high \(1\)"),
        ({"ranges": {"weight": Range(0, 1, initial=2)}}, r"weight: initial \(2\) is outside \[0, 1\]"),
        ({"options": {"normalise": True}}, "method.options.normalise: .*did you mean 'normalize'"),
        ({"of": ingredients("base")}, "nothing to merge but the base"),
        (
            {"ranges": {"weight": Range(0, 1, value=1), "density": Range(0, 1, value=1)}},
            "fixes every value: there is nothing to search",
        ),
    ],
)
def test_what_does_not_suit_the_method_is_a_usage_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space(**arguments)
