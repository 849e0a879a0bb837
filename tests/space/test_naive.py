"""The merges that people make without a search."""

import math

from optmerge.recipe import CheckpointNode, Node, Recipe
from optmerge.space import Ingredients, naive_merges


def ingredients(*merged: str, base: str | None = "base") -> Ingredients:
    aliases = [*merged, *([base] if base else [])]
    sources: dict[str, Node] = {
        alias: CheckpointNode(f"models/{alias}", f"{i:064x}") for i, alias in enumerate(aliases)
    }
    return Ingredients(sources, base, tokenizer=aliases[0], dtype="float32", seed=0)


def weights(recipe: Recipe) -> dict[str, float]:
    (group,) = recipe.root.groups.values()
    return {alias: values["weight"] for alias, values in group.parameters.items()}


def test_three_sources_and_a_base_have_six_kinds_of_baseline() -> None:
    assert set(naive_merges(ingredients("ja", "add", "mul"))) == {
        "average",
        "average with base",
        "TIES",
        "DARE-TIES",
        "best shared weight",
        "best pair",
    }


def test_without_a_base_only_the_average_is_left() -> None:
    assert set(naive_merges(ingredients("ja", "add", "mul", base=None))) == {"average"}


def test_two_sources_have_no_pair_of_their_own() -> None:
    assert "best pair" not in naive_merges(ingredients("ja", "add"))


def test_every_pair_is_tried() -> None:
    pairs = naive_merges(ingredients("a", "b", "c", "d"))["best pair"]
    assert len(pairs) == math.comb(4, 2)
    assert weights(pairs["a + c"]) == {"a": 1.0, "c": 1.0}


def test_average_counts_the_base_only_where_it_says_so() -> None:
    baselines = naive_merges(ingredients("ja", "add"))
    assert weights(baselines["average"][""]) == {"add": 1.0, "ja": 1.0}
    assert weights(baselines["average with base"][""]) == {"add": 1.0, "base": 1.0, "ja": 1.0}


def test_a_source_by_itself_does_not_name_the_base() -> None:
    recipe = ingredients("ja", "add").source("ja")
    assert recipe.root.base is None and weights(recipe) == {"ja": 1.0}


def test_parameters_that_sources_share_have_their_defaults() -> None:
    (group,) = ingredients("ja", "add").recipe("ties", {"ja": {"weight": 1.0}}).root.groups.values()
    assert group.parameters == {"ja": {"weight": 1.0, "density": 0.5}} and group.shared == {"lambda_": 1.0}
