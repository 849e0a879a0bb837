"""From a recipe back to the genome that it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optmerge.errors import UsageError
from optmerge.recipe import CheckpointNode, Node, Recipe, load_recipe
from optmerge.space import (
    Gene,
    Grouping,
    Ingredients,
    ParameterSpace,
    Range,
    Searched,
    TensorGroup,
    Value,
    genome_of,
    group_tensors,
)

LAYER = ("input_layernorm.weight", "mlp.up_proj.weight", "self_attn.q_proj.weight")


def tensors(layers: int) -> list[str]:
    names = [f"model.layers.{i}.{rest}" for i in range(layers) for rest in LAYER]
    return ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight", *names]


def ingredients(*aliases: str, base: str | None = "base") -> Ingredients:
    sources: dict[str, Node] = {
        alias: CheckpointNode(f"models/{alias}", f"{i:064x}") for i, alias in enumerate(aliases)
    }
    return Ingredients(sources, base, tokenizer=aliases[0], dtype="float32", seed=5)


OURS = ingredients("base", "ja", "math")


def space(
    method: str = "dare_ties",
    *,
    layers: int = 5,
    of: Ingredients = OURS,
    grouping: Mapping[str, Any] | None = None,
    ranges: Mapping[str, Range] | None = None,
    **searched: Any,
) -> ParameterSpace:
    how: dict[str, Any] = {"by": "layers", **(grouping or {})}
    return ParameterSpace(
        searched=Searched(method=method, ranges=ranges or {}, options={}, **searched),
        groups=group_tensors(tensors(layers), Grouping(**how)),
        ingredients=of,
    )


def drawn(genes: Sequence[Gene], seed: int = 0) -> dict[str, Value]:
    """A genome by chance."""
    random = np.random.default_rng(seed)

    def value(gene: Gene) -> Value:
        if gene.kind == "choice":
            return str(random.choice(gene.choices))
        return gene.low + float(random.random()) * (gene.high - gene.low)

    return {gene.name: value(gene) for gene in genes}


def back(recipe: Recipe, of: ParameterSpace, layers: int = 5) -> dict[str, Value]:
    return genome_of(recipe, of, tensors(layers))


SPACES: dict[str, dict[str, Any]] = {
    "layers": {},
    "blocks": {"grouping": {"by": "blocks", "block_layers": 2}},
    "model": {"grouping": {"by": "model"}},
    "sublayers": {"grouping": {"kinds": "sublayers"}},
    "kinds": {"grouping": {"kinds": "kinds"}},
    "patterns": {"grouping": {"patterns": {"queries": ["*q_proj*"]}, "patterns_by": "model"}},
    "embeddings of a source": {"grouping": {"embeddings": "ja", "head": "genes"}},
    "embeddings join": {"grouping": {"embeddings": "join"}},
    "smooth": {"grouping": {"smooth": 3}},
    "smooth, every layer an anchor": {"grouping": {"smooth": 5}},
    "smooth kinds": {"grouping": {"smooth": 2, "kinds": "kinds"}},
    "tied": {"ranges": {"weight": Range(tied=True)}},
    "shared": {"ranges": {"lambda_": Range(0.5, 2.0)}},
    "tied, shared and smooth": {
        "ranges": {"weight": Range(tied=True), "lambda_": Range(0.5, 2.0)},
        "grouping": {"smooth": 3},
    },
    "other ranges": {"ranges": {"weight": Range(-1.0, 2.0), "density": Range(0.1, 0.7)}},
    "fixed": {"ranges": {"density": Range(value=0.3)}, "genes": {"layers.00/ja/*": Range(value=0.5)}},
    "methods": {"method": "ties", "choices": ["ties", "dare_ties", "linear"]},
    "sources": {"of": ingredients("base", "a", "b", "c"), "choose_sources": True},
    "methods and sources": {
        "method": "ties",
        "choices": ["ties", "task_arithmetic"],
        "of": ingredients("base", "a", "b", "c"),
        "choose_sources": True,
        "least_sources": 2,
        "grouping": {"smooth": 2},
    },
    "no base": {"method": "linear", "of": ingredients("ja", "math", base=None)},
}


def matters(of: ParameterSpace, genome: Mapping[str, Value]) -> dict[str, Value]:
    """The part of a genome that reaches the recipe: of the chosen sources, and parameters of the chosen method."""
    before, found = of.decode(genome), {}
    for gene in of.genes:
        if gene.kind == "choice":
            found[gene.name] = genome[gene.name]
            continue
        other = gene.low if genome[gene.name] != gene.low else gene.high
        if of.decode({**genome, gene.name: other}) != before:
            found[gene.name] = genome[gene.name]
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", SPACES.values(), ids=SPACES)
def test_a_recipe_of_the_same_space_gives_its_genome_exactly(how: dict[str, Any], seed: int) -> None:
    searched = space(**how)
    genome = drawn(searched.genes, seed)
    recipe = searched.decode(genome)
    found = back(recipe, searched)
    assert list(found) == [gene.name for gene in searched.genes]
    assert found.items() >= matters(searched, genome).items()
    assert searched.decode(found).sha256 == recipe.sha256


@pytest.mark.parametrize("how", [SPACES["methods"], SPACES["sources"]], ids=["methods", "sources"])
def test_what_a_recipe_says_nothing_of_is_at_its_start(how: dict[str, Any]) -> None:
    searched = space(**how)
    genome = drawn(searched.genes, 4)
    heard = matters(searched, genome)
    assert len(heard) < len(genome)
    found = back(searched.decode(genome), searched)
    assert all(found[gene.name] == gene.start() for gene in searched.genes if gene.name not in heard)


def test_a_recipe_from_a_file_gives_the_same(tmp_path: Path) -> None:
    searched = space(**SPACES["tied, shared and smooth"])
    genome = drawn(searched.genes)
    searched.decode(genome).save(tmp_path / "recipe.yaml")
    assert back(load_recipe(tmp_path / "recipe.yaml"), searched) == genome


def test_sources_are_known_by_their_weights_not_by_their_names() -> None:
    searched = space()
    genome = drawn(searched.genes)
    renamed = {"base": "start", "ja": "z", "math": "a"}
    root = searched.decode(genome).root
    theirs = replace(
        root,
        sources={renamed[alias]: node for alias, node in root.sources.items()},
        base="start",
        tokenizer="start",
        groups={
            name: replace(group, parameters={renamed[alias]: v for alias, v in group.parameters.items()})
            for name, group in root.groups.items()
        },
    )
    assert back(Recipe(theirs), searched) == genome


@pytest.mark.parametrize(("layers", "anchors"), [(4, 3), (5, 4), (6, 4), (8, 3), (8, 4), (32, 5), (32, 17)])
def test_anchors_between_layers_come_back_but_for_rounding(layers: int, anchors: int) -> None:
    searched = space(layers=layers, grouping={"smooth": anchors, "kinds": "sublayers"})
    genome = drawn(searched.genes)
    assert back(searched.decode(genome), searched, layers) == pytest.approx(genome, abs=1e-9)


def test_a_fixed_anchor_does_not_disturb_the_others() -> None:
    searched = space(layers=6, grouping={"smooth": 4}, genes={"anchors.1/ja/weight": Range(value=0.9)})
    genome = drawn(searched.genes)
    assert back(searched.decode(genome), searched, 6) == pytest.approx(genome, abs=1e-9)


def test_a_source_of_the_recipe_is_not_taken_for_another_of_its_name() -> None:
    """In this search `ja` is another model, and may be left out."""
    theirs = space("task_arithmetic", of=ingredients("base", "ja"))
    nodes = {"base": OURS.sources["base"], "better": OURS.sources["ja"], "ja": CheckpointNode("models/x", "e" * 64)}
    ours = space("task_arithmetic", of=Ingredients(nodes, "base", "base", "float32", 5), choose_sources=True)
    genome = drawn(theirs.genes)
    found = back(theirs.decode(genome), ours)
    assert found["sources"] == "better"
    for name, value in genome.items():
        assert found[name.replace("/ja/", "/better/")] == value
        assert found[name] == next(gene.start() for gene in ours.genes if gene.name == name)


# Other groupings


def weights(searched: ParameterSpace, of: Mapping[str, float], alias: str = "ja") -> dict[str, Value]:
    """A genome whose weights of a source are these where a group's name begins so, and 0.5 elsewhere."""
    genome: dict[str, Value] = {gene.name: 0.5 for gene in searched.genes}
    for start, value in of.items():
        genome |= {name: value for name in genome if name.startswith(start) and name.endswith(f"/{alias}/weight")}
    return genome


def test_a_coarser_gene_is_the_mean_over_its_tensors() -> None:
    fine = space("task_arithmetic", layers=4)
    coarse = space("task_arithmetic", layers=4, grouping={"by": "blocks", "block_layers": 2})
    values = {"layers.00": 0.1, "layers.01": 0.4, "layers.02": 0.2, "layers.03": 1.0, "embeddings": 0.9}
    found = back(fine.decode(weights(fine, values)), coarse, layers=4)
    blocks = [found[gene.name] for gene in coarse.genes if gene.name.endswith("ja/weight") and "layers" in gene.name]
    assert blocks == pytest.approx([0.25, 0.6])
    assert {found[gene.name] for gene in coarse.genes if gene.name.endswith("math/weight")} == {0.5}


def test_a_coarser_gene_counts_every_tensor_once() -> None:
    fine = space("task_arithmetic", grouping={"by": "model", "kinds": "kinds", "patterns": {"up": ["*up_proj*"]}})
    coarse = space("task_arithmetic", grouping={"by": "model"})
    genome: dict[str, Value] = {gene.name: 0.0 for gene in fine.genes}
    genome |= {name: 1.0 for name in genome if name.startswith("up/")}
    found = back(fine.decode(genome), coarse)
    assert found["layers/ja/weight"] == pytest.approx(1 / len(LAYER))


def test_finer_genes_have_the_value_of_the_group_that_held_them() -> None:
    coarse, fine = space("task_arithmetic", grouping={"by": "model"}), space("task_arithmetic")
    genome = drawn(coarse.genes)
    found = back(coarse.decode(genome), fine)
    for name, value in found.items():
        group, rest = name.split("/", 1)
        assert value == genome[f"{group.partition('.')[0]}/{rest}"]


def test_a_tied_gene_is_the_mean_over_the_sources() -> None:
    untied, tied = space("task_arithmetic"), space("task_arithmetic", ranges={"weight": Range(tied=True)})
    genome: dict[str, Value] = {gene.name: 0.2 if "/ja/" in gene.name else 0.6 for gene in untied.genes}
    found = back(untied.decode(genome), tied)
    assert list(found.values()) == pytest.approx([0.4] * len(found))


def test_anchors_follow_the_layers_that_they_lie_on() -> None:
    plain, smooth = space("task_arithmetic"), space("task_arithmetic", grouping={"smooth": 3})
    values = {f"layers.{i:02}": value for i, value in enumerate((0.1, 0.9, 0.3, 0.9, 0.7))}
    found = back(plain.decode(weights(plain, values)), smooth)
    anchors = [value for name, value in found.items() if name.startswith("anchors") and name.endswith("/ja/weight")]
    assert anchors == [0.1, 0.3, 0.7]


def test_a_recipe_of_another_method_that_may_be_chosen_sets_the_method() -> None:
    theirs = space("task_arithmetic")
    ours = space("ties", choices=["ties", "task_arithmetic"])
    genome = drawn(theirs.genes)
    found = back(theirs.decode(genome), ours)
    assert found["method"] == "task_arithmetic"
    assert found.items() >= genome.items()
    assert ours.decode(found).root.groups == theirs.decode(genome).root.groups


def test_a_recipe_of_fewer_sources_sets_the_choice_of_sources() -> None:
    theirs = space("task_arithmetic", of=ingredients("base", "ja"))
    ours = space("task_arithmetic", of=OURS, choose_sources=True)
    found = back(theirs.decode(drawn(theirs.genes)), ours)
    assert found["sources"] == "ja"


def test_values_outside_the_range_are_moved_to_its_end() -> None:
    wide, narrow = (space("task_arithmetic", ranges={"weight": Range(*limits)}) for limits in ((-2.0, 3.0), (0.0, 1.0)))
    values = {"layers.00": -1.0, "layers.01": 2.5, "layers.02": 0.25}
    found = back(wide.decode(weights(wide, values)), narrow)
    ja = [value for name, value in found.items() if name.endswith("/ja/weight") and "layers" in name]
    assert ja[:3] == [0.0, 1.0, 0.25]


# Refusals


def test_a_method_that_is_not_searched_is_refused() -> None:
    theirs = space("ties")
    with pytest.raises(
        UsageError, match="study.warm_start: a recipe merges by ties, this search by task_arithmetic, linear"
    ):
        back(theirs.decode(drawn(theirs.genes)), space("task_arithmetic", choices=["task_arithmetic", "linear"]))


def test_a_source_that_is_not_searched_is_refused() -> None:
    theirs = space(of=ingredients("base", "ja", "math", "code"))
    with pytest.raises(UsageError, match="study.warm_start: code of a recipe is none of .*: base, ja, math"):
        back(theirs.decode(drawn(theirs.genes)), space())


def test_a_source_of_another_revision_is_refused() -> None:
    theirs = space(
        of=Ingredients(
            {**OURS.sources, "ja": CheckpointNode("models/ja", "f" * 64)}, "base", "base", dtype="float32", seed=5
        )
    )
    with pytest.raises(UsageError, match="ja of a recipe is none of the sources of this search"):
        back(theirs.decode(drawn(theirs.genes)), space())


def test_a_set_of_sources_that_may_not_be_chosen_is_refused() -> None:
    three = ingredients("base", "a", "b", "c")
    theirs = space("task_arithmetic", of=ingredients("base", "a"))
    ours = space("task_arithmetic", of=three, choose_sources=True, least_sources=2)
    with pytest.raises(UsageError, match="study.warm_start: a recipe merges a, which this search may not choose"):
        back(theirs.decode(drawn(theirs.genes)), ours)


def test_groups_that_no_tensor_is_of_are_at_their_start() -> None:
    searched = ParameterSpace(
        searched=Searched(method="task_arithmetic", ranges={}, options={}),
        groups={"layers": TensorGroup(("model.layers.*",)), "vision": TensorGroup(("vision.*",))},
        ingredients=OURS,
    )
    genome = drawn(searched.genes)
    found = back(searched.decode(genome), searched)
    assert {name: value for name, value in found.items() if name.startswith("layers")} == {
        name: value for name, value in genome.items() if name.startswith("layers")
    }
    assert all(found[g.name] == g.start() for g in searched.genes if g.name.startswith("vision"))
