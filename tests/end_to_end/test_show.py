"""show tells the family of any model that optmerge has made, from its folder or from its weights alone."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from end_to_end.studies import Search
from optmerge.commands.show import run_show
from optmerge.errors import UsageError
from optmerge.recipe import RECIPE, RECIPE_KEY, CheckpointNode, Group, MergeNode, Recipe, load_recipe

WEIGHTS = "model.safetensors"


def shown(*arguments: str) -> str:
    text = io.StringIO()
    run_show(arguments, Console(file=text))
    return text.getvalue()


def as_json(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(str(model), "--json"))
    return found


@pytest.fixture
def best(search: Search, tmp_path: Path) -> Path:
    """A copy of a winner's folder."""
    return Path(shutil.copytree(search.folder / "best", tmp_path / "best"))


def test_family_of_a_winner_is_told_with_what_each_source_is(search: Search, best: Path) -> None:
    text = shown(str(best))
    recipe = load_recipe(best / RECIPE)
    assert text.startswith(f"{best}: a merge by dare_ties, 3 groups, float32\n")
    assert f"recipe {recipe.sha256[:12]}, weights {search.result()['winner']['weights_sha256'][:12]}" in text
    assert "licence apache-2.0" in text
    for alias, node in recipe.root.sources.items():
        assert isinstance(node, CheckpointNode)
        line = next(line for line in text.splitlines() if f" {alias}" in line and node.location in line)
        assert node.weights_sha256[:12] in line and "licence apache-2.0" in line
    assert "base (base, tokenizer): " in text and "weight " in text


def test_weights_alone_tell_the_same(best: Path, zoo: Path) -> None:
    told = as_json(best)
    (best / RECIPE).unlink()
    for place in (best, best / WEIGHTS):
        alone = as_json(place)
        assert alone["recipe_in"] == str(best / WEIGHTS)
        assert {key: alone[key] for key in ("recipe_sha256", "weights_sha256", "merged_on", "licence")} == {
            key: told[key] for key in ("recipe_sha256", "weights_sha256", "merged_on", "licence")
        }
        # Weights travel: they name no folder of the machine that made them.
        assert [one["location"] for one in alone["root"]["sources"]] == ["./base", "./ja", "./math_add", "./math_mul"]
    with safe_open(best / WEIGHTS, "pt") as file:
        assert str(zoo) not in json.dumps(file.metadata())


def test_result_names_the_licence_of_the_winner_and_of_every_source(search: Search) -> None:
    result = search.result()
    assert result["licence"] == "apache-2.0" and set(result["licences"]) == set(result["sources"])
    assert {one["licence"] for one in result["licences"].values()} == {"apache-2.0"}
    assert all(one["reasons"] and one["said_by"] == "config" for one in result["licences"].values())
    assert result["licence_terms"]["duties"] and result["languages"] == ["ja"]


def test_folder_of_a_study_stands_for_its_winner(search: Search) -> None:
    assert as_json(search.folder)["recipe_sha256"] == load_recipe(search.recipe).sha256


def test_model_of_ours_among_the_sources_has_its_own_tree(best: Path, tmp_path: Path) -> None:
    inner = load_recipe(best / RECIPE)
    assert inner.weights_sha256
    leaf = CheckpointNode(str(best), inner.weights_sha256)
    groups = {"all": Group(("*",), {"evolved": {"weight": 1.0}})}
    Recipe(MergeNode("linear", {"evolved": leaf}, None, "evolved", "float32", groups)).save(tmp_path / "outer.yaml")
    (source,) = as_json(tmp_path / "outer.yaml")["root"]["sources"]
    assert [one["alias"] for one in source["made_by"]["sources"]] == sorted(inner.root.sources)
    assert "which is itself a merge by dare_ties" in shown(str(tmp_path / "outer.yaml"))
    # Other weights in that folder are another model.
    Recipe(
        MergeNode("linear", {"evolved": CheckpointNode(str(best), "0" * 64)}, None, "evolved", "float32", groups)
    ).save(tmp_path / "other.yaml")
    assert "made_by" not in as_json(tmp_path / "other.yaml")["root"]["sources"][0]


def test_model_that_optmerge_has_not_made_is_said_to_be_none(zoo: Path) -> None:
    for place in (zoo / "ja", zoo / "ja" / WEIGHTS):
        with pytest.raises(UsageError, match="is no model that optmerge has made"):
            shown(str(place))


def test_weights_in_another_form_are_not_told_to_be_those_of_the_recipe(search: Search, best: Path) -> None:
    assert as_json(best)["form"] is None
    with safe_open(best / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    save_file({"a": torch.zeros(2, dtype=torch.int8)}, best / WEIGHTS, metadata=metadata)
    config = json.loads((best / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "torchao"}
    (best / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for place in (best, best / WEIGHTS):
        text = shown(str(place))
        assert text.startswith(f"{place}: in 8 bits by torchao, made from: a merge by dare_ties, 3 groups, float32\n")
        assert f", made from weights {search.result()['winner']['weights_sha256'][:12]}" in text
        assert as_json(place)["form"] == {"name": "int8", "kind": None}


@pytest.mark.usefixtures("no_network")
def test_form_of_a_model_on_the_hub_is_that_of_its_card(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--me--merge"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    shutil.copy(best / RECIPE, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert shown("me/merge").startswith("me/merge: a merge by ")
    for title, told in (("GGUF, Q8_0", "GGUF, Q8_0, made"), ("GGUF", "GGUF, made"), ("int8, torchao", "in 8 bits")):
        (snapshot / "README.md").write_text(f"---\nlicense: mit\n---\n# me/merge ({title})\n", encoding="utf-8")
        assert shown("me/merge").startswith(f"me/merge: {told}")


def test_recipe_in_the_weights_that_was_changed_is_refused(best: Path) -> None:
    (best / RECIPE).unlink()
    with safe_open(best / WEIGHTS, "pt") as file:
        text = file.metadata()[RECIPE_KEY]
    tensors = load_file(best / WEIGHTS)
    save_file(tensors, best / WEIGHTS, metadata={"format": "pt", RECIPE_KEY: text.replace('"seed":0', '"seed":1')})
    with pytest.raises(UsageError, match="was changed after it was written"):
        shown(str(best))
    save_file(tensors, best / WEIGHTS, metadata={"format": "pt", RECIPE_KEY: "{"})
    with pytest.raises(UsageError, match="is no recipe: it is not JSON"):
        shown(str(best))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("model", ["moon/model", "./moon", "/moon/moon/moon"])
def test_model_that_is_nowhere_is_refused(model: str) -> None:
    with pytest.raises(UsageError, match="moon"):
        shown(model)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--tree", "a"]])
def test_command_line_that_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="write `show FOLDER`"):
        shown(*arguments)
