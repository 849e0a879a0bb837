"""Layers are told, renamed and stacked by the names of their tensors."""

import pytest

from optmerge.errors import UsageError
from optmerge.models.layers import depth, layer_of, layers_of, renamed, rest_of, stacked_config, stacked_names, stem_of

NAMES = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    *(f"model.layers.{n}.{part}.weight" for n in range(3) for part in ("mlp", "norm")),
]


@pytest.mark.parametrize(
    ("name", "layer", "stem", "rest"),
    [
        ("model.layers.12.mlp.up_proj.weight", 12, "model.layers.", "mlp.up_proj.weight"),
        ("transformer.h.0.ln_1.bias", 0, "transformer.h.", "ln_1.bias"),
        ("gpt_neox.layers.7.attention.dense.weight", 7, "gpt_neox.layers.", "attention.dense.weight"),
        ("model.layers.3.mlp.experts.5.w1.weight", 3, "model.layers.", "mlp.experts.5.w1.weight"),
        ("model.norm.weight", None, "", "model.norm.weight"),
        ("lm_head.weight", None, "", "lm_head.weight"),
    ],
)
def test_a_name_tells_layer_and_place(name: str, layer: int | None, stem: str, rest: str) -> None:
    assert (layer_of(name), stem_of(name), rest_of(name)) == (layer, stem, rest)


def test_a_renamed_tensor_is_in_the_other_layer_and_nowhere_else() -> None:
    assert renamed("model.layers.3.mlp.experts.3.w1.weight", 12) == "model.layers.12.mlp.experts.3.w1.weight"


def test_what_is_in_no_layer_cannot_be_renamed() -> None:
    with pytest.raises(ValueError, match=r"lm_head\.weight belongs to no layer"):
        renamed("lm_head.weight", 1)


def test_depth_counts_layers() -> None:
    assert (depth(NAMES), depth(["lm_head.weight"])) == (3, 0)


def test_layers_in_their_order_change_no_name() -> None:
    assert stacked_names(NAMES, [0, 1, 2]) == sorted(NAMES)


def test_stacked_layers_are_numbered_anew() -> None:
    stacked = stacked_names(NAMES, [2, 2, 0, 1])
    assert stacked == sorted(stacked)
    assert depth(stacked) == 4
    assert len(stacked) == 2 + 4 * 2


def test_stacked_layers_have_the_tensors_of_those_that_they_are() -> None:
    names = [*NAMES, "model.layers.1.router.weight"]
    assert [name for name in stacked_names(names, [1, 0, 1]) if "router" in name] == [
        "model.layers.0.router.weight",
        "model.layers.2.router.weight",
    ]


def test_a_layer_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer 3: the sources have 3 layers"):
        stacked_names(NAMES, [0, 3])


def test_a_source_that_has_no_part_in_a_layer_stands_back_for_the_first_that_has() -> None:
    layers = [{"a": 0, "b": 1}, {"b": 5, "c": 6}]
    assert [layers_of(layers, alias) for alias in "abc"] == [[0, 5], [1, 5], [0, 6]]


def test_a_stacked_config_counts_its_layers_and_lists_their_types() -> None:
    config = {"num_hidden_layers": 3, "layer_types": ["full", "sliding", "other"], "hidden_size": 3}
    assert stacked_config(config, [0, 1, 1, 2]) == {
        "num_hidden_layers": 4,
        "layer_types": ["full", "sliding", "sliding", "other"],
        "hidden_size": 3,
    }
    assert config["num_hidden_layers"] == 3


def test_a_stacked_config_reaches_the_nested_part_of_the_language_model() -> None:
    config = {"text_config": {"num_hidden_layers": 2, "layer_types": ["a", "b"]}, "vision_config": {"num_layers": 9}}
    stacked = stacked_config(config, [1])
    assert stacked["text_config"] == {"num_hidden_layers": 1, "layer_types": ["b"]}
    assert stacked["vision_config"] == {"num_layers": 9}
