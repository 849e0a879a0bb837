"""What a configuration says about every tensor: precedence, gradients over slices, base, layers."""

from typing import Any

import pytest

from interchange.conftest import LAYERS, NAMES
from optmerge.errors import UsageError
from optmerge.interchange.configuration import parse_configuration
from optmerge.interchange.resolution import Resolved, resolve_tensors


def resolved(document: Any) -> Resolved:
    configuration = parse_configuration(document)
    return resolve_tensors(configuration, NAMES, {name: name.path for name in configuration.names()})


def ties(**changes: Any) -> dict[str, Any]:
    return {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": "a", "parameters": {"weight": 0.5}}, {"model": "b"}],
        "parameters": {"weight": 1.0},
    } | changes


def weight(found: Resolved, name: str, alias: str = "a") -> float:
    return found.tensors[name].parameters[alias]["weight"]


def sliced(*slices: Any, method: str = "passthrough", **more: Any) -> dict[str, Any]:
    return {"merge_method": method, "slices": list(slices), **more}


def source(model: str, first: int, end: int, **parameters: Any) -> dict[str, Any]:
    return {"model": model, "layer_range": [first, end], "parameters": parameters}


def test_a_models_own_parameters_count_before_those_of_all() -> None:
    found = resolved(ties())
    assert {alias: values["weight"] for alias, values in found.tensors["lm_head.weight"].parameters.items()} == {
        "a": 0.5,
        "b": 1.0,
    }


def test_a_source_counts_before_its_slice_and_a_slice_before_all() -> None:
    found = resolved(
        sliced(
            {"sources": [source("a", 0, 2, weight=1), source("b", 0, 2)], "parameters": {"weight": 2}},
            {"sources": [source("a", 2, 4), source("b", 2, 4)]},
            method="linear",
            parameters={"weight": 3},
        )
    )
    place = "model.layers.{}.mlp.up_proj.weight"
    assert [weight(found, place.format(n), alias) for n in (0, 2) for alias in "ab"] == [1, 2, 3, 3]
    assert [weight(found, "model.embed_tokens.weight", alias) for alias in "ab"] == [1, 2]
    assert [weight(found, "lm_head.weight", alias) for alias in "ab"] == [3, 3]


def test_a_filter_that_matches_nothing_leaves_the_value_to_those_above() -> None:
    models = [{"model": "a", "parameters": {"weight": [{"filter": "mlp", "value": 0.25}]}}, {"model": "b"}]
    found = resolved(ties(models=models))
    assert weight(found, "model.layers.1.mlp.up_proj.weight") == 0.25
    assert weight(found, "model.layers.1.self_attn.q_proj.weight") == 1.0


def test_the_base_takes_part_without_being_listed_and_has_no_parameters() -> None:
    listed = resolved(ties(models=[*ties()["models"], {"model": "base", "parameters": {"weight": 9}}]))
    assert set(listed.tensors["model.norm.weight"].parameters) == {"a", "b"}
    assert listed.tensors == resolved(ties()).tensors


def test_a_base_is_a_source_like_others_where_the_method_knows_none() -> None:
    found = resolved(ties(merge_method="linear"))
    assert set(found.tensors["model.norm.weight"].parameters) == {"a", "b", "base"}


def test_gradients_run_over_the_layers_and_begin_before_them() -> None:
    found = resolved(ties(parameters={"weight": [0.0, 3.0]}))
    assert [weight(found, f"model.layers.{n}.mlp.up_proj.weight", "b") for n in range(LAYERS)] == [0, 1, 2, 3]
    assert [weight(found, name, "b") for name in ("model.embed_tokens.weight", "model.norm.weight")] == [0, 0]


def test_gradients_run_over_each_slice_by_itself() -> None:
    found = resolved(
        sliced(
            {"sources": [source("a", 0, 3, scale=[1.0, 2.0])]},
            {"sources": [source("a", 3, 4)]},
            {"sources": [source("a", 1, 2, scale=[1, 2])]},
        )
    )
    scales = [found.tensors[f"model.layers.{n}.mlp.up_proj.weight"].parameters["a"]["scale"] for n in range(5)]
    assert scales == [1.0, 1.5, 2.0, 1.0, 2.0]


def test_layers_that_stay_in_place_are_not_listed() -> None:
    cut = sliced({"sources": [source("a", 0, 1)]}, {"sources": [source("a", 1, 4)]})
    assert resolved(cut).layers == ()
    assert resolved(ties()).layers == ()


@pytest.mark.parametrize("spans", [[(0, 3)], [(0, 4), (3, 4)], [(1, 4), (0, 1)]])
def test_layers_that_are_left_out_repeated_or_moved_are_listed(spans: list[tuple[int, int]]) -> None:
    found = resolved(sliced(*({"sources": [source("a", *span)]} for span in spans)))
    assert found.layers == tuple({"a": layer} for first, end in spans for layer in range(first, end))


def test_each_source_has_layers_of_its_own() -> None:
    both = {"sources": [source("a", 0, 2), source("b", 2, 4)]}
    found = resolved(sliced(both, method="slerp", base_model="a", parameters={"t": 0.5}))
    assert found.layers == ({"a": 0, "b": 2}, {"a": 1, "b": 3})
    assert found.tensors["lm_head.weight"].parameters == {"b": {}}
    assert found.tensors["lm_head.weight"].shared == {"t": 0.5}


def test_filters_see_a_models_own_names_and_shared_ones_those_of_the_merged_model() -> None:
    own = {"scale": [{"filter": "layers.3.", "value": 7}, {"value": 1}]}
    found = resolved(sliced({"sources": [source("a", 2, 4, **own)]}))
    name = "model.layers.{}.mlp.up_proj.weight"
    assert [found.tensors[name.format(n)].parameters["a"]["scale"] for n in range(2)] == [1, 7]
    both = {"sources": [source("a", 2, 4), source("b", 2, 4)]}
    t = [{"filter": "layers.1.", "value": 0.25}, {"value": 0.75}]
    found = resolved(sliced(both, method="slerp", base_model="a", parameters={"t": t}))
    assert [found.tensors[name.format(n)].shared["t"] for n in range(2)] == [0.75, 0.25]


def test_embeddings_come_from_the_first_slice_and_the_head_from_the_last() -> None:
    found = resolved(sliced({"sources": [source("a", 0, 2)]}, {"sources": [source("b", 0, 2)]}))
    taking_part = {name: set(values.parameters) for name, values in found.tensors.items()}
    assert taking_part["model.embed_tokens.weight"] == {"a"}
    assert taking_part["model.norm.weight"] == taking_part["lm_head.weight"] == {"b"}


@pytest.mark.parametrize(
    ("method", "given", "options"),
    [
        ("ties", {}, {"normalize": True, "rescale": "none"}),
        ("dare_ties", {}, {"normalize": False, "rescale": "l1_norm"}),
        ("dare_linear", {"rescale": False, "normalize": True}, {"normalize": True, "rescale": "none"}),
        ("breadcrumbs", {"rescale": True}, {"normalize": False, "rescale": "l1_norm"}),
        ("task_arithmetic", {"int8_mask": True, "rescale": True}, {"normalize": False}),
    ],
)
def test_options_are_written_out_with_mergekits_defaults(method: str, given: Any, options: Any) -> None:
    parameters = {"weight": 1, "density": 1, **given}
    assert resolved(ties(merge_method=method, parameters=parameters)).options == options


def test_lambda_is_shared_by_all_sources() -> None:
    found = resolved(ties(parameters={"weight": 1, "lambda": [{"filter": "mlp", "value": 0.5}]}))
    assert found.tensors["model.layers.0.mlp.up_proj.weight"].shared == {"lambda_": 0.5}
    assert found.tensors["lm_head.weight"].shared == {"lambda_": 1.0}


def test_settings_without_effect_are_told() -> None:
    models = [{"model": "a", "parameters": {"weight": 1, "density": 0.5, "lambda": 2}}]
    told = "\n".join(resolved(ties(merge_method="task_arithmetic", models=models, parameters={"wieght": 1})).notices)
    assert "density has no effect on task_arithmetic" in told
    assert "wieght is no parameter of task_arithmetic" in told
    assert "lambda is shared by all models, and has no effect under one of them" in told


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (ties(parameters={}), "models: nothing says what the weight of b is for lm_head.weight"),
        (
            ties(parameters={"weight": 1, "normalize": [{"filter": "mlp", "value": False}, {"value": True}]}),
            r"parameters\.normalize: a recipe has one value for all tensors, but it is True for lm_head\.weight and",
        ),
        (ties(parameters={"weight": 1, "density": 1.5}), r"density must be a number in \[0, 1\], got 1.5"),
        (ties(parameters={"weight": "much"}), r"^parameters\.weight: expected a number, got 'much'"),
        ({"merge_method": "slerp", "models": [{"model": "a"}, {"model": "b"}]}, "base_model: slerp needs one"),
        ({"merge_method": "ties", "models": [{"model": "a"}]}, "models: ties needs a base"),
        (ties(merge_method="slerp", parameters={"t": 0.5}), "models: slerp merges exactly 1 source .*got 2"),
        (
            sliced({"sources": [source("a", 0, 4)]}, method="ties", base_model="base", parameters={"weight": 1}),
            r"slices\[0\]: base_model base is not among the sources",
        ),
        (
            sliced(
                {"sources": [source("a", 0, 2)]},
                {"sources": [source("a", 0, 2), source("b", 0, 2)]},
                method="linear",
                parameters={"weight": 1},
            ),
            r"slices\[1\]: mergekit takes what follows the layers from as many models as the first slice has, 1 of",
        ),
        (sliced({"sources": [source("a", 2, 5)]}), r"slices\[0\]\.sources\[0\]\.layer_range: a has 4 layers, not 5"),
        (sliced({"sources": [source("a", 0, 2), source("b", 0, 2)]}), "passthrough merges exactly 1 source"),
    ],
)
def test_what_mergekit_or_a_recipe_cannot_do_is_refused(document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        resolved(document)
    assert "\n" not in str(error.value)
