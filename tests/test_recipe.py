"""Recipes as files and as values."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from optmerge.errors import UsageError
from optmerge.recipe import (
    CheckpointNode,
    Group,
    MergeNode,
    Node,
    Recipe,
    load_recipe,
    node_sha256,
    portable_location,
    read_recipe,
)

BASE = CheckpointNode("models/base", "b" * 64)
JA = CheckpointNode("org/ja", "a" * 64, revision="main")
MATH = CheckpointNode("models/数学", "c" * 64)


def merge(**changes: Any) -> MergeNode:
    node = MergeNode(
        method="dare_ties",
        sources={"base": BASE, "ja": JA, "math": MATH},
        base="base",
        tokenizer="ja",
        dtype="bfloat16",
        groups={
            "layers.00": Group(("model.layers.0.*",), {"ja": {"weight": 0.1}, "math": {"weight": 1 / 3}}),
            "rest": Group(("model.embed*", "model.norm.weight"), {"ja": {"weight": 0.7}, "math": {"weight": 1e-17}}),
        },
        options={"normalize": False, "rescale": "l1_norm", "lambda_": 0.5},
        seed=3,
    )
    return dataclasses.replace(node, **changes)


def backwards(mapping: Any) -> Any:
    """The same nested mappings, each in the opposite order."""
    if isinstance(mapping, Group):
        return Group(tuple(reversed(mapping.tensors)), backwards(mapping.parameters))
    if isinstance(mapping, dict):
        return {key: backwards(mapping[key]) for key in reversed(mapping)}
    return mapping


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def rewrite(path: Path, change: str, by: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert change in text
    path.write_text(text.replace(change, by), encoding="utf-8")


def test_a_recipe_comes_back_from_its_file_as_it_was(path: Path) -> None:
    recipe = Recipe(merge(), weights_sha256="d" * 64)
    recipe.save(path)
    assert load_recipe(path) == recipe


def test_licence_of_a_source_is_kept_and_is_no_part_of_what_the_model_is(path: Path) -> None:
    licensed = Recipe(merge(sources={"base": BASE, "ja": dataclasses.replace(JA, licence="mit"), "math": MATH}))
    licensed.save(path)
    assert load_recipe(path) == licensed and licensed.sha256 == Recipe(merge()).sha256


def test_recipe_inside_weights_is_the_same_model_and_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    base = dataclasses.replace(BASE, location=str(tmp_path / "x" / "base"))
    lora = CheckpointNode("~/secret/lora", "e" * 64, over=base)
    below = {"base": lora, "ja": JA, "math": dataclasses.replace(MATH, location="/home/me/数学")}
    recipe = Recipe(merge(sources={"ja": JA, "math": merge(sources=below), "base": lora}), "d" * 64, "cpu")
    text = recipe.embedded()
    found = read_recipe(json.loads(text), "the weights")
    assert (found.sha256, found.weights_sha256, found.merged_on) == (recipe.sha256, "d" * 64, "cpu")
    assert found == recipe.portable() and "\n" not in text
    assert all(word not in text for word in ("/home", "secret", str(tmp_path)))
    assert set(re.findall(r'"location":"([^"]+)"', text)) == {"org/ja", "./lora", "./base", "./数学"}


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("org/model", "org/model"),
        ("gpt2", "gpt2"),
        ("/models/ja", "./ja"),
        ("../ja", "./ja"),
        ("a/b/c", "./c"),
        ("tests/models", "./models"),  # it is there
        ("/cache/hub/models--org--model-7b/snapshots/0123abc", "org/model-7b"),
    ],
)
def test_location_says_elsewhere_what_it_says_here(location: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert portable_location(location) == said


def test_what_differing_vocabularies_need_comes_back_and_counts(path: Path) -> None:
    ja = dataclasses.replace(JA, tokens_sha256="e" * 64)
    changes: list[dict[str, Any]] = [
        {"sources": {"base": BASE, "ja": ja, "math": MATH}},
        {"tokenizer": "union"},
        {"vocabulary_base": "base"},
        {"pad_vocabulary_to": 64},
    ]
    recipes = [Recipe(merge(), "d" * 64), *(Recipe(merge(**change), "d" * 64) for change in changes)]
    assert len({recipe.sha256 for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        recipe.save(path)
        assert load_recipe(path) == recipe


def test_a_recipe_with_a_source_called_union_is_refused(path: Path) -> None:
    Recipe(merge(sources={"base": BASE, "ja": JA, "math": MATH, "union": JA})).save(path)
    with pytest.raises(UsageError, match="a source called 'union'"):
        load_recipe(path)


def test_a_recipe_of_a_recipe_comes_back_too(path: Path) -> None:
    sources: dict[str, Node] = {"ja": JA, "inner": merge()}
    recipe = Recipe(merge(sources=sources, base=None, tokenizer="inner", groups={}))
    recipe.save(path)
    assert load_recipe(path) == recipe


def test_shared_ancestors_are_written_once() -> None:
    inner = merge()
    outer = merge(sources={"one": inner, "two": inner, "ja": JA}, base=None, groups={})
    nodes = yaml.safe_load(Recipe(outer).to_yaml())["nodes"]
    assert set(nodes) == {node_sha256(node) for node in (outer, inner, BASE, JA, MATH)}


def test_what_an_adapter_lies_over_comes_back_and_is_written_once(path: Path) -> None:
    lora = CheckpointNode("models/lora", "e" * 64, over=BASE)
    recipe = Recipe(merge(sources={"base": BASE, "ja": JA, "math": lora}))
    recipe.save(path)
    assert load_recipe(path) == recipe
    nodes = yaml.safe_load(recipe.to_yaml())["nodes"]
    assert set(nodes) == {node_sha256(node) for node in (recipe.root, BASE, JA, lora)}
    assert nodes[node_sha256(lora)]["over"] == node_sha256(BASE)


def test_what_an_adapter_lies_over_is_in_the_file_though_it_is_no_source(path: Path) -> None:
    recipe = Recipe(merge(sources={"base": CheckpointNode("models/lora", "e" * 64, over=BASE), "ja": JA, "math": MATH}))
    recipe.save(path)
    assert load_recipe(path) == recipe
    assert yaml.safe_load(recipe.to_yaml())["nodes"][node_sha256(BASE)]["location"] == BASE.location


def test_hash_depends_on_what_an_adapter_lies_over() -> None:
    alone = CheckpointNode("models/lora", "e" * 64)
    over = [dataclasses.replace(alone, over=node) for node in (None, BASE, JA)]
    assert len({node_sha256(node) for node in over}) == 3


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ("low", "node lora lies over node low, which is not a whole checkpoint"),
        ("lora", "node lora is its own source"),
        ("mine", "node mine is its own source"),
        ("italian", "node italian is not in it"),
    ],
)
def test_adapter_over_anything_but_a_whole_checkpoint_is_refused(path: Path, over: str, message: str) -> None:
    leaf = "{kind: checkpoint, location: folder, weights_sha256: 0, over: %s}"
    adapters = f"  lora: {leaf % over}\n  low: {leaf % 'japanese'}\n"
    path.write_text(HAND_WRITTEN.replace("ja: japanese", "ja: lora") + adapters, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_hash_does_not_depend_on_any_order() -> None:
    node = merge()
    other = merge(sources=backwards(node.sources), groups=backwards(node.groups), options=backwards(node.options))
    assert Recipe(other).sha256 == Recipe(node).sha256


def test_hash_does_not_depend_on_where_checkpoints_lie() -> None:
    moved: dict[str, Node] = {"base": BASE, "ja": CheckpointNode("/elsewhere", JA.weights_sha256), "math": MATH}
    assert Recipe(merge(sources=moved)).sha256 == Recipe(merge()).sha256


@pytest.mark.parametrize(
    "change",
    [
        {"method": "ties"},
        {"base": "math"},
        {"tokenizer": "base"},
        {"dtype": "float32"},
        {"seed": 4},
        {"options": {"normalize": True, "rescale": "l1_norm", "lambda_": 0.5}},
        {"groups": {"rest": Group(("*",), {"ja": {"weight": 0.1}})}},
        {"sources": {"base": BASE, "ja": CheckpointNode("org/ja", "e" * 64), "math": MATH}},
        {"sources": {"base": BASE, "ja": MATH, "math": JA}},
    ],
)
def test_hash_depends_on_everything_that_decides_the_weights(change: dict[str, Any]) -> None:
    assert Recipe(merge(**change)).sha256 != Recipe(merge()).sha256


def test_hash_does_not_depend_on_whether_the_weights_were_kept() -> None:
    recipe = Recipe(merge())
    assert recipe.with_weights("d" * 64, "cpu").sha256 == recipe.sha256


def test_a_changed_value_is_refused(path: Path) -> None:
    Recipe(merge()).save(path)
    rewrite(path, "weight: 0.7", "weight: 0.8")
    with pytest.raises(UsageError, match="was changed after it was written"):
        load_recipe(path)


def test_a_changed_source_is_refused(path: Path) -> None:
    Recipe(merge()).save(path)
    rewrite(path, f"weights_sha256: {'a' * 64}", f"weights_sha256: {'f' * 64}")
    with pytest.raises(UsageError, match="was changed after it was written"):
        load_recipe(path)


def test_a_changed_location_is_accepted(path: Path) -> None:
    Recipe(merge()).save(path)
    rewrite(path, "location: org/ja", "location: /disk/ja")
    loaded = load_recipe(path).root.sources["ja"]
    assert isinstance(loaded, CheckpointNode) and loaded.location == "/disk/ja"


def test_nodes_may_be_named_by_hand(path: Path) -> None:
    path.write_text(HAND_WRITTEN, encoding="utf-8")
    groups = {"all": Group(("*",), {"ja": {"weight": 0.5}})}
    expected = MergeNode("linear", {"ja": CheckpointNode("models/ja", "a" * 64)}, None, "ja", "float32", groups)
    assert load_recipe(path) == Recipe(expected)


HAND_WRITTEN = f"""\
format: optmerge-recipe
version: 1
root: mine
nodes:
  mine:
    kind: merge
    method: linear
    sources: {{ja: japanese}}
    base: null
    tokenizer: ja
    dtype: float32
    groups:
      all: {{tensors: ["*"], parameters: {{ja: {{weight: 0.5}}}}}}
  japanese: {{kind: checkpoint, location: models/ja, weights_sha256: {"a" * 64}}}
"""


@pytest.mark.parametrize(
    ("change", "by", "message"),
    [
        ("format: optmerge-recipe", "format: other", "is not a recipe"),
        ("format: optmerge-recipe", "format: [", "is not YAML"),
        ("version: 1", "version: 2", "recipe version 2; this optmerge reads 1"),
        ("root: mine", "", "missing or malformed 'root'"),
        ("root: mine", "root: yours", "node yours is not in it"),
        ("root: mine", "root: japanese", "its root is a checkpoint"),
        ("{ja: japanese}", "{ja: mine}", "node mine is its own source"),
        ("{ja: japanese}", "{ja: italian}", "node italian is not in it"),
        ("{ja: japanese}", "[japanese]", "missing or malformed"),
        ("tokenizer: ja", "tokenizer: en", "speaks of 'en', which is not one of its sources"),
        ("base: null", "base: en", "speaks of 'en', which is not one of its sources"),
        ("    base: null\n", "", "missing or malformed 'base'"),
        ("{ja: {weight: 0.5}}", "{en: {weight: 0.5}}", "speaks of 'en', which is not one of its sources"),
        ("weight: 0.5", "weight: heavy", "heavy"),
        ("dtype: float32", "dtype: int8", "dtype 'int8'; known are float32, bfloat16, float16"),
        ("kind: merge", "kind: average", "unknown kind 'average'"),
        ("    dtype: float32", "    dtype: float32\n    seed: many", "many"),
        ("    dtype: float32", "    dtype: float32\n    options: [1]", "missing or malformed"),
        ("nodes:", "notes:", "missing or malformed 'nodes'"),
        ("location: models/ja, ", "", "missing or malformed 'location'"),
    ],
)
def test_a_malformed_file_is_one_clear_usage_error(path: Path, change: str, by: str, message: str) -> None:
    path.write_text(HAND_WRITTEN, encoding="utf-8")
    rewrite(path, change, by)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert re.search(message, str(caught.value))


def test_a_missing_file_is_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the recipe .*No such file"):
        load_recipe(path)


def test_a_binary_file_is_a_usage_error(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        load_recipe(path)


def test_a_file_that_names_python_objects_is_refused(path: Path) -> None:
    path.write_text("!!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is not a recipe"):
        load_recipe(path)
