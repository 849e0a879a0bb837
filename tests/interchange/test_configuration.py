"""What a configuration may hold, and what is refused in one line that names the key."""

from pathlib import Path
from typing import Any

import pytest

from optmerge.errors import UsageError
from optmerge.interchange.configuration import ModelName, model_name, parse_configuration, read_configuration

LINEAR: dict[str, Any] = {
    "merge_method": "linear",
    "models": [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 2}}],
}
SLICES: dict[str, Any] = {
    "merge_method": "passthrough",
    "slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}]}],
}


def with_slice(**changes: Any) -> dict[str, Any]:
    return SLICES | {"slices": [SLICES["slices"][0] | changes]}


def with_source(**changes: Any) -> dict[str, Any]:
    return with_slice(sources=[SLICES["slices"][0]["sources"][0] | changes])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (LINEAR | {"modules": {"text": {}}}, "modules: parts of a model"),
        (LINEAR | {"merge_method": "slurp"}, r"merge_method: unknown 'slurp' \(did you mean 'slerp'\?\)"),
        ({"models": LINEAR["models"]}, "merge_method: unknown 'None'"),
        (LINEAR | SLICES, "models and slices: exactly one"),
        ({"merge_method": "linear"}, "exactly one of models and slices"),
        (LINEAR | {"models": "a"}, "models: expected a list"),
        (LINEAR | {"models": ["a"]}, r"models\[0\]: expected keys such as model"),
        (LINEAR | {"models": [{"parameters": {}}]}, r"models\[0\]\.model: expected a folder or hub id"),
        (LINEAR | {"models": [{"model": "a"}, {"model": "a"}]}, "models: a is listed 2 times"),
        (LINEAR | {"models": [{"model": "a@b@c"}]}, r"models\[0\]\.model: cannot read 'a@b@c'"),
        (LINEAR | {"models": [{"model": "a+b+c"}]}, "cannot read"),
        (
            LINEAR | {"models": [{"model": "a", "merge_method": "ties"}]},
            r"models\[0\]\.merge_method: one merge has one",
        ),
        (with_slice(merge_method="slerp"), r"slices\[0\]\.merge_method: one merge has one method"),
        (with_slice(base_model="b"), r"slices\[0\]\.base_model: a recipe has one base"),
        (with_slice(sources=[]), r"slices\[0\]\.sources: expected a list"),
        (with_source(layer_range=[2, 2]), r"slices\[0\]\.sources\[0\]\.layer_range: expected \[FIRST, END\]"),
        (with_source(layer_range=[0, 1, 2]), "layer_range: expected"),
        (with_source(layer_range=["0", "1"]), "layer_range: expected"),
        (with_source(layer_range=None), "layer_range: expected"),
        (with_source(parameters=3), r"slices\[0\]\.sources\[0\]\.parameters: expected"),
        (
            with_slice(sources=[{"model": "a", "layer_range": [0, 2]}, {"model": "b", "layer_range": [0, 3]}]),
            r"slices\[0\]: all sources must have the same number of layers, but a has 2, b has 3",
        ),
        (LINEAR | {"dtype": "float64"}, "dtype: a recipe's weights are"),
        (LINEAR | {"out_dtype": "int64"}, "out_dtype: a recipe's weights are"),
        (LINEAR | {"tokenizer": {"tokens": {"x": {"source": "a"}}}}, r"tokenizer\.tokens: rules for single tokens"),
        (LINEAR | {"tokenizer": "union"}, "tokenizer: expected settings such as source"),
        (LINEAR | {"tokenizer": {"pad_to_multiple_of": 0}}, r"tokenizer\.pad_to_multiple_of"),
        (LINEAR | {"tokenizer": {}, "tokenizer_source": "a"} | {"tokenizer": {"source": "a"}}, "only one of them"),
        (LINEAR | {"base_model": {"model": "a", "override_architecture": "X"}}, "override_architecture"),
    ],
)
def test_what_no_recipe_can_say_is_refused(document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_configuration(document)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a/b", ModelName("a/b")),
        ("a/b@main", ModelName("a/b", "main")),
        ("a@1+c@2", ModelName("a", "1", ModelName("c", "2"))),
        ({"model": {"path": "/x+y@z"}, "lora": "c"}, ModelName("/x+y@z", None, ModelName("c"))),
        ({"model": "a"}, ModelName("a")),
    ],
)
def test_models_are_read_in_all_their_forms(written: Any, expected: ModelName) -> None:
    assert model_name(written, "here") == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, (None, None)),
        ({"tokenizer_source": "base"}, ("base", None)),
        ({"tokenizer_source": "union"}, ("union", None)),
        ({"tokenizer_source": "b"}, (ModelName("b"), None)),
        ({"tokenizer": {}}, ("union", None)),
        ({"tokenizer": {"source": "b", "pad_to_multiple_of": 8}}, (ModelName("b"), 8)),
    ],
)
def test_the_tokenizer_is_read_in_both_forms(document: Any, expected: Any) -> None:
    found = parse_configuration(LINEAR | document)
    assert (found.tokenizer, found.pad_vocabulary_to) == expected


def test_keys_that_mergekit_ignores_are_told() -> None:
    document = with_slice(residual_weight=0.3) | {"name": "x", "paramters": {}, "chat_template": "chatml"}
    told = "\n".join(parse_configuration(document).notices)
    for part in (
        "name is no key of mergekit's",
        "paramters is no key of mergekit's, and has no effect (did you mean 'parameters'?)",
        "slices[0].residual_weight has no effect",
        "chat_template is not part of a recipe",
    ):
        assert part in told


def test_types_may_be_written_as_those_of_torch() -> None:
    found = parse_configuration(LINEAR | {"dtype": "torch.float32", "out_dtype": "bfloat16"})
    assert (found.dtype, found.out_dtype) == ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a", "no mapping of keys to values"),
        ("a: 1\n---\nb: 1", "holds 2 documents"),
        ("merge_method: linear", "x.yaml: models, slices: exactly one"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_configuration(tmp_path / "x.yaml")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read .*No such file"):
        read_configuration(tmp_path / "x.yaml")
