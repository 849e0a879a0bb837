"""Genes of the parameter space, and how a genome becomes a recipe."""

import time
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optmerge.errors import OptmergeError, UsageError
from optmerge.recipe import CheckpointNode, Group, Node, Option
from optmerge.space import Gene, Grouping, Ingredients, ParameterSpace, Range, Searched, TensorGroup, group_tensors

GROUPS = {"embeddings": ("model.embed*",), "layers": ("model.layers.*", "model.norm*")}
NAMES = ["model.embed_tokens.weight", "model.norm.weight"]
LAYER = ["input_layernorm.weight", "mlp.up_proj.weight", "self_attn.q_proj.weight"]


def ingredients(*aliases: str, base: str | None = "base", tokens: str | None = None) -> Ingredients:
    sources: dict[str, Node] = {
        alias: CheckpointNode(f"models/{alias}", f"{i:064x}", tokens_sha256=tokens) for i, alias in enumerate(aliases)
    }
    return Ingredients(sources, base, tokenizer=aliases[0], dtype="float32", seed=5)


OURS = ingredients("math", "base", "ja")
FOUR = ingredients("base", "a", "b", "c")


def space(
    method: str = "dare_ties",
    ranges: Mapping[str, Range] | None = None,
    options: Mapping[str, Option] | None = None,
    of: Ingredients = OURS,
    groups: Mapping[str, TensorGroup] | None = None,
    **searched: Any,
) -> ParameterSpace:
    return ParameterSpace(
        searched=Searched(method=method, ranges=ranges or {}, options=options or {}, **searched),
        groups=groups or {name: TensorGroup(tensors) for name, tensors in GROUPS.items()},
        ingredients=of,
    )


def deep(layers: int, **how: Any) -> dict[str, TensorGroup]:
    """The groups of a model with so many layers."""
    names = NAMES + [f"model.layers.{i}.{rest}" for i in range(layers) for rest in LAYER]
    return group_tensors(names, Grouping(by="layers", **how))


def at_start(searched: ParameterSpace, **changes: Any) -> dict[str, Any]:
    return {gene.name: gene.start() for gene in searched.genes} | changes


def names(searched: ParameterSpace) -> list[str]:
    return [gene.name for gene in searched.genes]


def gene(searched: ParameterSpace, name: str) -> Gene:
    return next(gene for gene in searched.genes if gene.name == name)


def test_there_is_a_gene_for_each_group_source_and_parameter() -> None:
    assert names(space()) == [
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
            ("model.embed*",),
            {"ja": {"weight": 0.1, "density": 0.2}, "math": {"weight": 0.3, "density": 0.4}},
            {"lambda_": 1.0},
        ),
        "layers": Group(
            ("model.layers.*", "model.norm*"),
            {"ja": {"weight": 0.5, "density": 0.6}, "math": {"weight": 0.7, "density": 0.8}},
            {"lambda_": 1.0},
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
    assert root.options == {"normalize": False, "rescale": "l1_norm"}


def test_a_fixed_value_is_no_gene_but_in_every_recipe() -> None:
    searched = space(ranges={"density": Range(0.0, 1.0, value=0.3)})
    assert [gene.name for gene in searched.genes if gene.name.endswith("density")] == []
    groups = searched.decode({gene.name: 0.9 for gene in searched.genes}).root.groups
    assert {tuple(v.items()) for g in groups.values() for v in g.parameters.values()} == {
        (("weight", 0.9), ("density", 0.3))
    }


def test_a_value_may_be_fixed_for_one_source_or_group_alone() -> None:
    searched = space(genes={"layers/*/density": Range(value=0.3), "*/ja/weight": Range(value=1.0)})
    assert names(searched) == [
        "embeddings/ja/density",
        "embeddings/math/weight",
        "embeddings/math/density",
        "layers/math/weight",
    ]
    assert len(searched.fixed) == 6  # the weights and densities, and lambda_ of either group
    groups = searched.decode(at_start(searched)).root.groups
    assert groups["layers"].parameters == {
        "ja": {"weight": 1.0, "density": 0.3},
        "math": {"weight": 0.5, "density": 0.3},
    }


def test_a_gene_may_have_a_range_of_its_own_and_later_patterns_count_over_earlier_ones() -> None:
    searched = space(
        ranges={"weight": Range(0, 2, initial=1.5)},
        genes={
            "*/ja/weight": Range(high=3, sigma=0.1),
            "layers/*/weight": Range(low=-1, initial=0.5),
            "layers/ja/weight": Range(high=1),
        },
    )
    found = {name: gene(searched, f"{name}/weight") for name in ("embeddings/math", "embeddings/ja", "layers/ja")}
    assert {name: (g.low, g.high, g.start(), g.sigma) for name, g in found.items()} == {
        "embeddings/math": (0, 2, 1.5, None),
        "embeddings/ja": (0, 3, 1.5, 0.1),
        "layers/ja": (-1, 1, 0.5, 0.1),
    }


def test_limits_make_a_fixed_value_searched_again() -> None:
    searched = space(
        ranges={"weight": Range(value=1.0), "density": Range(value=1.0)}, genes={"layers/ja/weight": Range(high=2)}
    )
    assert [(g.name, g.low, g.high) for g in searched.genes] == [("layers/ja/weight", 0, 2)]


def test_a_parameter_that_sources_share_keeps_its_default_until_it_has_a_range() -> None:
    assert not [name for name in names(space()) if "lambda_" in name]
    searched = space(ranges={"lambda_": Range(0.5, 1.5)})
    assert [name for name in names(searched) if "lambda_" in name] == ["embeddings/lambda_", "layers/lambda_"]
    groups = searched.decode(at_start(searched, **{"layers/lambda_": 0.75})).root.groups
    assert {name: group.shared for name, group in groups.items()} == {
        "embeddings": {"lambda_": 1.0},
        "layers": {"lambda_": 0.75},
    }


def test_a_parameter_that_sources_share_may_be_fixed_at_another_value_or_searched_in_one_group() -> None:
    searched = space(ranges={"lambda_": Range(value=0.7)}, genes={"layers/lambda_": Range(0, 2)})
    assert [name for name in names(searched) if "lambda_" in name] == ["layers/lambda_"]
    assert searched.decode(at_start(searched)).root.groups["embeddings"].shared == {"lambda_": 0.7}


@given(weight=st.floats(0, 1), density=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_tied_sources_have_the_recipe_of_untied_ones_with_equal_values(weight: float, density: float) -> None:
    tied, untied = space(ranges={"weight": Range(tied=True)}), space()
    assert names(tied)[:3] == ["embeddings/weight", "embeddings/ja/density", "embeddings/math/density"]

    def genome(searched: ParameterSpace) -> dict[str, Any]:
        return {name: weight if name.endswith("weight") else density for name in names(searched)}

    assert tied.decode(genome(tied)) == untied.decode(genome(untied))


def test_tied_values_may_be_fixed_or_have_a_range_like_others() -> None:
    searched = space(ranges={"weight": Range(tied=True, high=2)}, genes={"layers/weight": Range(value=1.0)})
    assert gene(searched, "embeddings/weight").high == 2 and "layers/weight" not in names(searched)
    parameters = searched.decode(at_start(searched)).root.groups["layers"].parameters
    assert {values["weight"] for values in parameters.values()} == {1.0}


def test_a_group_that_is_taken_from_a_source_has_no_genes() -> None:
    searched = space(groups=deep(2, embeddings="ja"))
    assert {name.split("/")[0] for name in names(searched)} == {"layers.00", "layers.01"}
    assert searched.decode(at_start(searched)).root.groups["embeddings"] == Group(
        ("model.embed_tokens.weight",), source="ja"
    )


# Anchors


@given(value=st.floats(0, 1), anchors=st.integers(2, 7), share=st.sampled_from(["none", "kinds"]))
@settings(max_examples=30, deadline=None)
def test_constant_anchors_are_a_constant(value: float, anchors: int, share: str) -> None:
    searched = space(groups=deep(7, smooth=anchors, kinds=share))
    groups = searched.decode(dict.fromkeys(names(searched), value)).root.groups
    assert {v for g in groups.values() for values in g.parameters.values() for v in values.values()} == {value}


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
@settings(max_examples=30, deadline=None)
def test_as_many_anchors_as_layers_are_the_layers(weights: list[float]) -> None:
    smooth, plain = space("linear", groups=deep(5, smooth=5)), space("linear", groups=deep(5))
    genome = {f"layers.{i:02d}/ja/weight": weight for i, weight in enumerate(weights)}
    anchored = {name.replace("layers.0", "anchors."): weight for name, weight in genome.items()}
    decoded = smooth.decode(at_start(smooth, **anchored))
    assert decoded == plain.decode(at_start(plain, **genome))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(3, 40))
@settings(max_examples=60, deadline=None)
def test_layers_lie_on_the_line_between_their_anchors_and_never_beyond(anchors: list[float], layers: int) -> None:
    searched = space(groups=deep(layers, smooth=3))
    groups = searched.decode(
        at_start(searched, **{f"anchors.{i}/ja/density": v for i, v in enumerate(anchors)})
    ).root.groups
    for i in range(layers):
        density, at = groups[f"layers.{i:02d}"].parameters["ja"]["density"], i / (layers - 1) * 2
        first, second = anchors[min(int(at), 1)], anchors[min(int(at), 1) + 1]
        assert density == pytest.approx(first + (at - min(int(at), 1)) * (second - first), abs=1e-9)
        assert min(anchors) <= density <= max(anchors)


def test_anchors_may_be_fixed_and_have_ranges_like_other_genes() -> None:
    searched = space(
        "linear", groups=deep(3, smooth=2), genes={"anchors.0/ja/weight": Range(value=0.0), "anchors.1/*": Range(0, 2)}
    )
    assert "anchors.0/ja/weight" not in names(searched) and gene(searched, "anchors.1/ja/weight").high == 2
    groups = searched.decode(at_start(searched, **{"anchors.1/ja/weight": 2.0})).root.groups
    assert [groups[f"layers.0{i}"].parameters["ja"]["weight"] for i in range(3)] == [0.0, 1.0, 2.0]


# Choices


def test_sources_that_are_not_chosen_are_not_in_the_recipe() -> None:
    searched = space(of=FOUR, choose_sources=True)
    choice = gene(searched, "sources")
    assert choice.choices == ("a+b+c", "a+b", "a+c", "b+c", "a", "b", "c") and choice.start() == "a+b+c"
    root = searched.decode(at_start(searched, sources="a+c")).root
    assert set(root.sources) == {"base", "a", "c"} and root.base == "base"
    assert {alias for group in root.groups.values() for alias in group.parameters} == {"a", "c"}


@pytest.mark.parametrize(
    ("of", "groups"),
    [
        (ingredients("b", "a", "c", "base"), None),  # b gives the tokenizer
        (FOUR, deep(2, embeddings="b")),
        (ingredients("base", "a", "b", tokens="1" * 64), None),  # rows that one lacks are made from all others
    ],
)
def test_a_source_that_is_needed_for_another_reason_stays_without_being_merged(
    of: Ingredients, groups: dict[str, TensorGroup] | None
) -> None:
    searched = space(of=of, groups=groups, choose_sources=True)
    root = searched.decode(at_start(searched, sources="a")).root
    assert set(root.sources) == {"base", "a", "b"}
    assert {alias for group in root.groups.values() for alias in group.parameters} == {"a"}


def test_so_many_sources_take_part_at_least() -> None:
    choices = gene(space(of=FOUR, choose_sources=True, least_sources=2), "sources").choices
    assert choices == ("a+b+c", "a+b", "a+c", "b+c")


def test_sets_that_the_method_cannot_merge_are_no_choice() -> None:
    assert gene(space("passthrough", of=FOUR, choose_sources=True), "sources").choices == ("a", "b", "c")


def test_a_chosen_method_has_its_own_parameters_and_options() -> None:
    searched = space("ties", choices=["ties", "task_arithmetic"], options={"rescale": "l1_norm", "normalize": False})
    choice = gene(searched, "method")
    assert (choice.kind, choice.choices, choice.start()) == ("choice", ("ties", "task_arithmetic"), "ties")
    assert names(searched)[1:3] == ["embeddings/ja/weight", "embeddings/ja/density"]
    ties = searched.decode(at_start(searched)).root
    plain = searched.decode(at_start(searched, method="task_arithmetic")).root
    assert (ties.method, ties.options) == ("ties", {"normalize": False, "rescale": "l1_norm"})
    assert (plain.method, plain.options) == ("task_arithmetic", {"normalize": False})
    assert set(ties.groups["layers"].parameters["ja"]) == {"weight", "density"}
    assert set(plain.groups["layers"].parameters["ja"]) == {"weight"}


def test_an_option_is_for_the_methods_that_know_its_value() -> None:
    searched = space("ties", choices=["ties", "dare_ties"], options={"rescale": "inverse_density"})
    options = {m: searched.decode(at_start(searched, method=m)).root.options for m in ("ties", "dare_ties")}
    assert {method: values["rescale"] for method, values in options.items()} == {
        "ties": "none",
        "dare_ties": "inverse_density",
    }


def test_a_method_that_cannot_merge_the_chosen_sources_fails_the_trial() -> None:
    searched = space("ties", of=FOUR, choices=["ties", "passthrough"], choose_sources=True)
    assert searched.decode(at_start(searched, method="passthrough", sources="a")).root.method == "passthrough"
    with pytest.raises(OptmergeError, match=r"the sources a\+b: passthrough merges exactly 1 source, got 2"):
        searched.decode(at_start(searched, method="passthrough", sources="a+b"))


def test_a_search_over_methods_starts_with_sources_that_the_first_can_merge() -> None:
    searched = space("passthrough", of=FOUR, choices=["ties", "passthrough"], choose_sources=True)
    assert searched.decode(at_start(searched)).root.method == "passthrough"


def test_every_genome_that_optuna_draws_becomes_a_recipe() -> None:
    searched = space(
        "ties", of=FOUR, choices=["ties", "dare_ties", "linear"], choose_sources=True, groups=deep(4, smooth=2)
    )
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=4, seed=0), direction="maximize")
    for _ in range(15):
        trial = study.ask({gene.name: gene.distribution() for gene in searched.genes})
        root = searched.decode(trial.params).root
        assert root.method == trial.params["method"]
        assert "+".join(sorted(set(root.sources) - {"base"})) == trial.params["sources"]
        study.tell(trial, len(root.sources))


# What is shared by all recipes


@pytest.mark.parametrize(
    "changes",
    [
        {"ranges": {"density": Range(value=0.3)}},
        {"ranges": {"lambda_": Range(value=0.7)}},
        {"genes": {"layers/ja/density": Range(value=0.3)}},
        {"method": "ties"},
        {"options": {"normalize": True}},
        {"choices": ["dare_ties", "ties"]},
        {"of": ingredients("math", "base", "ja", "code")},
        {"groups": deep(4)},
        {"groups": {"embeddings": TensorGroup(("model.*",)), "layers": TensorGroup(("lm_head.*",))}},
        {
            "groups": {
                "embeddings": TensorGroup(("model.embed*",), source="ja"),
                "layers": TensorGroup(GROUPS["layers"]),
            }
        },
    ],
)
def test_spaces_that_decode_differently_have_other_descriptions(changes: dict[str, Any]) -> None:
    assert space(**changes).description() != space().description()


def test_the_description_is_plain_data() -> None:
    import json

    for searched in (space(), space("ties", of=FOUR, choices=["ties", "linear"], choose_sources=True)):
        description = searched.description()
        assert json.loads(json.dumps(description)) == description


def test_hundreds_of_genes_are_decoded_in_no_time() -> None:
    searched = space(groups=deep(64, kinds="kinds"))
    genome = at_start(searched)
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        searched.decode(genome)
        spent.append(time.perf_counter() - began)
    assert len(genome) > 500 and min(spent) < 1e-3 * len(genome) / 100


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
        ({"of": ingredients("math", base=None)}, "dare_ties measures task vectors from a base: set models.base"),
        ({"method": "passthrough"}, "models.sources: passthrough merges exactly 1 source, got 2"),
        ({"method": "ties", "choices": ["ties", "passthrough"]}, "passthrough merges exactly 1 source, got 2"),
        ({"ranges": {"weight": Range(sigma=2)}}, r"weight: sigma must be in \(0, 1\], in units of the range, got 2"),
        ({"ranges": {"lambda_": Range(low=0)}}, "lambda_ has no range of its own: give both low and high"),
        ({"options": {"lambda_": 0.7}}, "lambda_ is a parameter: write method.parameters.lambda_.value=0.7"),
        (
            {"genes": {"layer/ja/weight": Range(value=1)}},
            "method.genes.layer/ja/weight: .*did you mean 'layers/ja/weight'",
        ),
        ({"genes": {"*/density": Range(high=2)}}, r"method.genes.\*/density: density must be a number in \[0, 1\]"),
        ({"genes": {"*/density": Range(low=1)}}, r"method.genes.\*/density: low \(1\) must be less than high \(1\)"),
        ({"genes": {"*/weight": Range(value=1), "*/density": Range(value=1)}}, "there is nothing to search"),
        ({"choices": ["ties", "linear"]}, "method.choices has ties, linear, not method.name=dare_ties"),
        ({"choices": ["dare_ties"]}, "method.choices=dare_ties: name two methods or more"),
        ({"choices": ["dare_ties", "tis"]}, "unknown merge method 'tis'"),
        (
            {"choices": ["dare_ties", "ties"], "options": {"rescal": 1}},
            "none of dare_ties, ties has such an option .*rescale",
        ),
        ({"choices": ["dare_ties", "ties"], "options": {"rescale": "x"}}, "method.options.rescale: unknown 'x'"),
        (
            {"choices": ["dare_ties", "ties"], "ranges": {"scale": Range()}},
            "none of dare_ties, ties has such a parameter",
        ),
        ({"least_sources": 2}, "set space.sources=choose too"),
        ({"choose_sources": True, "least_sources": 3}, "space.least_sources must be from 1 to 2"),
        ({"choose_sources": True, "least_sources": 2}, r"there is nothing to choose, as only ja\+math can be merged"),
        ({"choose_sources": True, "of": ingredients("base", *"abcdefg")}, "7 sources make 127 sets .* at most 6"),
        (
            {"ranges": {"weight": Range(0, 1, value=1), "density": Range(0, 1, value=1)}},
            "fixes every value: there is nothing to search",
        ),
    ],
)
def test_what_does_not_suit_the_method_is_a_usage_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space(**arguments)
