"""The export command: a configuration that imports as the same recipe, or a line that says what it cannot say."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from interchange.conftest import NAMES, Import, root_of
from interchange.test_import import LINEAR, refused
from optmerge.__main__ import run
from optmerge.interchange import FORMATS
from optmerge.interchange.configuration import parse_configuration
from optmerge.interchange.resolution import resolve_tensors
from optmerge.recipe import load_recipe
from optmerge.registered import names


def sliced(method: str, *slices: list[tuple[str, int, int]], **more: Any) -> dict[str, Any]:
    sources = [[{"model": model, "layer_range": [first, end]} for model, first, end in listed] for listed in slices]
    return {"merge_method": method, "slices": [{"sources": listed} for listed in sources], **more}


ATTENTION = [{"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": "mlp", "value": 0.2}, {"value": 0.5}]
PAIR = {"models": [{"model": "alpha"}, {"model": "beta"}], "base_model": "base"}
CONFIGURATIONS: Mapping[str, dict[str, Any]] = {
    "linear": LINEAR,
    "normalize": LINEAR | {"parameters": {"normalize": False}},
    "base is a source": {"merge_method": "linear", **PAIR, "parameters": {"weight": [1, 2]}},
    "slerp": sliced(
        "slerp", [("alpha", 0, 4), ("beta", 0, 4)], base_model="alpha", parameters={"t": ATTENTION}, dtype="float32"
    ),
    "other layers": sliced(
        "slerp",
        [("alpha", 0, 3), ("beta", 1, 4)],
        [("alpha", 2, 4), ("beta", 0, 2)],
        base_model="alpha",
        parameters={"t": ATTENTION},
    ),
    "stack": sliced(
        "passthrough", [("alpha", 0, 3)], [("beta", 1, 4)], [("alpha", 0, 1)], parameters={"scale": ATTENTION}
    ),
    "ties": {"merge_method": "ties", **PAIR, "parameters": {"weight": [0.1, 1], "density": ATTENTION, "lambda": 0.8}},
    "dare": {"merge_method": "dare_linear", **PAIR, "parameters": {"weight": 1, "density": 0.5, "rescale": False}},
    "della": {"merge_method": "della", **PAIR, "parameters": {"weight": 1, "density": 0.5, "epsilon": [0.1, 0.2]}},
    "breadcrumbs": {"merge_method": "breadcrumbs", **PAIR, "parameters": {"weight": 1, "density": 0.9, "gamma": 0.02}},
    "embedding": {
        "merge_method": "task_arithmetic",
        **PAIR,
        "parameters": {
            "weight": [{"filter": "embed_tokens", "value": 0.0}, {"filter": "lm_head", "value": 2}, {"value": 1}]
        },
    },
    "one tensor": {
        "merge_method": "task_arithmetic",
        **PAIR,
        "parameters": {"weight": [{"filter": "layers.1.self_attn.q_proj", "value": 0.25}, {"value": 1}]},
    },
    "norm": {
        "merge_method": "linear",
        **PAIR,
        "parameters": {"weight": [{"filter": "model.norm", "value": 2}, {"value": 1}]},
    },
    "no parameters": {"merge_method": "model_stock", **PAIR},
    "karcher": {"merge_method": "karcher", **PAIR, "parameters": {"max_iter": 5}},
    "without a base": {"merge_method": "nuslerp", "models": PAIR["models"], "parameters": {"weight": 1}},
    "half": LINEAR | {"out_dtype": "bfloat16", "tokenizer": {"source": "beta", "pad_to_multiple_of": 8}},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_exported_imports_as_the_same_recipe(imported: Import, here: Path, name: str) -> None:
    document = imported({"dtype": "float32"} | CONFIGURATIONS[name])
    assert run(["export", "recipe.yaml", "out", "format=mergekit"]) == 0
    assert run(["import", "out/mergekit.yaml", "again.yaml"]) == 0
    again = yaml.safe_load((here / "again.yaml").read_text(encoding="utf-8"))
    assert root_of(again) == root_of(document)
    assert load_recipe(here / "again.yaml").sha256 == load_recipe(here / "recipe.yaml").sha256


def test_layers_that_are_merged_alike_are_one_slice(imported: Import, here: Path) -> None:
    weight = [{"filter": "layers.3.", "value": 0.5}, {"value": 1}]
    imported({"merge_method": "linear", **PAIR, "parameters": {"weight": weight}, "dtype": "float32"})
    assert run(["export", "recipe.yaml", "out", "format=mergekit"]) == 0
    text = (here / "out" / "mergekit.yaml").read_text(encoding="utf-8")
    assert text.startswith("# mergekit-yaml mergekit.yaml OUT\n")
    ranges = [[source["layer_range"] for source in part["sources"]] for part in yaml.safe_load(text)["slices"]]
    assert ranges == [[[0, 3]] * 3, [[3, 4]] * 3]
    assert "layer_range: [0, 3]" in text


def test_a_source_that_has_no_part_in_some_tensors_has_weight_0_there(imported: Import, here: Path) -> None:
    document = imported({"merge_method": "ties", **PAIR, "parameters": {"weight": 1, "density": 0.5}})
    root = root_of(document)
    (group,) = root["groups"].values()
    root["groups"] = {
        "embeddings": {"tensors": ["model.embed_tokens.weight"], "parameters": {"beta": group["parameters"]["beta"]}},
        "rest": {**group, "tensors": ["lm_head.weight", "model.norm.weight", "model.layers.*"]},
    }
    rename(document, here)
    assert run(["export", "recipe.yaml", "out", "format=mergekit"]) == 0
    alpha = yaml.safe_load((here / "out" / "mergekit.yaml").read_text(encoding="utf-8"))["models"][0]
    assert alpha["parameters"]["weight"] == [{"filter": "embed_tokens", "value": 0.0}, {"value": 1.0}]


def test_a_slerp_without_a_base_is_written_with_its_first_source_for_one(imported: Import, here: Path) -> None:
    document = imported(CONFIGURATIONS["slerp"])
    root = root_of(document)
    root["base"] = None
    for group in root["groups"].values():
        group["parameters"] = {"alpha": {}, "beta": {}}
    rename(document, here)
    assert run(["export", "recipe.yaml", "out", "format=mergekit"]) == 0
    text = (here / "out" / "mergekit.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["base_model"] == str(here / "alpha")


def test_division_by_the_density_goes_into_the_weights(
    imported: Import, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {
        "weight": 0.75,
        "density": [{"filter": "mlp", "value": 0.5}, {"filter": "norm", "value": 0}, {"value": 1}],
    }
    document = imported({"merge_method": "dare_ties", **PAIR, "parameters": parameters})
    root_of(document)["options"]["rescale"] = "inverse_density"
    rename(document, here)
    assert run(["export", "recipe.yaml", "out", "format=mergekit"]) == 0
    assert "weights are divided by their densities" in capsys.readouterr().out
    written = yaml.safe_load((here / "out" / "mergekit.yaml").read_text(encoding="utf-8"))
    assert written["parameters"]["rescale"] is False
    again = parse_configuration(written)
    found = resolve_tensors(again, NAMES, {name: Path(name.path).name for name in again.names()}).tensors
    weights = [
        found[f"model.layers.0.{part}.weight"].parameters["beta"]["weight"]
        for part in ("mlp.up_proj", "self_attn.q_proj", "input_layernorm")
    ]
    assert weights == [1.5, 0.75, 0.0]


def rename(document: Any, here: Path) -> None:
    """Write a changed recipe, its root under a name of one's own."""
    document["nodes"]["mine"] = document["nodes"].pop(document["root"])
    document["root"] = "mine"
    (here / "recipe.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"options": {"normalize": True, "rescale": "inverse_density"}},
            "options.rescale=inverse_density: mergekit restores the L1 norm",
        ),
        (
            {
                "method": "model_stock",
                "options": {},
                "groups": {
                    "head": {"tensors": ["lm_head.weight"], "parameters": {"alpha": {}, "beta": {}}},
                    "rest": {"tensors": ["model.*"], "parameters": {"alpha": {}, "base": {}}},
                },
            },
            "mergekit's slices and filters cannot say how",
        ),
        (
            {"groups": {"all": {"tensors": ["*"], "source": "alpha"}}},
            "group all takes the tensors of alpha as they are",
        ),
        (
            {
                "method": "karcher",
                "base": None,
                "options": {},
                "groups": {"all": {"tensors": ["*"], "parameters": {"alpha": {"weight": 1}, "beta": {"weight": 2}}}},
            },
            "the weight of beta is 2, but mergekit's karcher has no such parameter",
        ),
    ],
)
def test_what_mergekit_has_no_words_for_is_refused(
    imported: Import, here: Path, capsys: pytest.CaptureFixture[str], changes: Any, message: str
) -> None:
    document = imported({"merge_method": "dare_ties", **PAIR, "parameters": {"weight": 1, "density": 0.5}})
    root_of(document).update(changes)
    rename(document, here)
    assert message in refused(capsys, "export", "recipe.yaml", "out", "format=mergekit")
    assert not (here / "out").exists()
    assert not list(here.glob("out*"))


def test_a_recipe_of_recipes_is_refused(imported: Import, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = imported(LINEAR)
    root = root_of(document)
    beta = root["sources"]["beta"]
    document["nodes"]["outer"] = {**root, "sources": {"alpha": document["root"], "beta": beta}}
    document["root"] = "outer"
    (here / "recipe.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    message = refused(capsys, "export", "recipe.yaml", "out", "format=mergekit")
    assert "alpha is a merge itself: mergekit.yaml describes one merge" in message


def test_random_masks_that_differ_are_told(imported: Import, capsys: pytest.CaptureFixture[str]) -> None:
    imported({"merge_method": "dare_ties", **PAIR, "parameters": {"weight": 1, "density": 0.5}})
    assert run(["export", "recipe.yaml", "out", "--format", "mergekit"]) == 0
    assert "mergekit drops other entries at random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RECIPE and OUT are missing; write `export RECIPE OUT format=FORMAT"),
        (["recipe.yaml", "out"], f"format= is missing: it is one of {', '.join(names(FORMATS))};"),
        (["recipe.yaml", "format=mergekit"], "OUT is missing; write `export RECIPE OUT format=FORMAT"),
        (["recipe.yaml", "out", "formt=mergekit"], "'formt=mergekit': no such word (did you mean 'format'?)"),
        (["recipe.yaml", "out", "more", "format=mergekit"], "'more' is one word too many"),
        (
            ["alpha", "out", "format=mergekit"],
            "in the folder alpha: neither recipe.yaml nor best/recipe.yaml",
        ),
        (["recipe.yaml", "out", "format=mergkit"], "unknown format 'mergkit' (did you mean 'mergekit'?)"),
        (["nothing.yaml", "out", "format=mergekit"], "cannot read the recipe nothing.yaml"),
        (["recipe.yaml", "alpha", "format=mergekit"], "alpha is not empty"),
        (["recipe.yaml", "out", "format=mergekit", "sources.x=y"], "sources.x: the recipe has no such source"),
    ],
)
def test_a_command_asked_wrongly_is_refused(
    imported: Import, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    imported(LINEAR)
    assert message in refused(capsys, "export", *arguments)


def test_folder_of_a_model_or_a_study_stands_for_its_recipe(imported: Import, here: Path) -> None:
    imported(LINEAR)
    for place in ("model", "study/best"):
        (here / place).mkdir(parents=True)
        shutil.copy("recipe.yaml", here / place / "recipe.yaml")
    for place in ("recipe.yaml", "model", "study"):
        assert run(["export", place, f"of-{place}", "format=mergekit"]) == 0
    texts = {(here / f"of-{place}" / "mergekit.yaml").read_text() for place in ("recipe.yaml", "model", "study")}
    assert len(texts) == 1


def test_formats_are_found_by_name() -> None:
    assert "mergekit" in names(FORMATS)
