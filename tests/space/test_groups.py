"""Which tensors share their genes."""

import fnmatch
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optmerge.errors import UsageError
from optmerge.space import By, group_tensors

LLAMA_LAYER = (
    "input_layernorm.weight",
    "mlp.down_proj.weight",
    "mlp.up_proj.weight",
    "post_attention_layernorm.weight",
    "self_attn.q_proj.weight",
)
GPT2_LAYER = ("attn.c_attn.weight", "ln_1.weight", "ln_2.weight", "mlp.c_fc.weight")


def llama(layers: int, tied: bool = False) -> list[str]:
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    names += [f"model.layers.{i}.{rest}" for i in range(layers) for rest in LLAMA_LAYER]
    return sorted(names if tied else [*names, "lm_head.weight"])


def gpt2(layers: int) -> list[str]:
    names = ["transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"]
    return sorted(names + [f"transformer.h.{i}.{rest}" for i in range(layers) for rest in GPT2_LAYER])


def members(groups: dict[str, tuple[str, ...]], names: list[str]) -> dict[str, set[str]]:
    """The tensors that each group's patterns match."""
    return {g: {n for pattern in patterns for n in fnmatch.filter(names, pattern)} for g, patterns in groups.items()}


def test_layers_with_embeddings_apart() -> None:
    assert group_tensors(llama(3), "layers") == {
        "embeddings": ("model.embed_tokens.weight",),
        "head": ("lm_head.weight", "model.norm.weight"),
        "layers.00": ("model.layers.0.*",),
        "layers.01": ("model.layers.1.*",),
        "layers.02": ("model.layers.2.*",),
    }


def test_final_norm_goes_with_the_embeddings_where_the_head_is_tied() -> None:
    groups = group_tensors(llama(1, tied=True), "layers")
    assert groups == {
        "embeddings": ("model.embed_tokens.weight", "model.norm.weight"),
        "layers.00": ("model.layers.0.*",),
    }


def test_embeddings_that_are_not_apart_join_the_first_and_the_last_group() -> None:
    assert group_tensors(llama(2), "layers", embeddings=False) == {
        "layers.00": ("model.embed_tokens.weight", "model.layers.0.*"),
        "layers.01": ("lm_head.weight", "model.layers.1.*", "model.norm.weight"),
    }


def test_blocks_are_layers_in_a_row_and_the_last_may_be_shorter() -> None:
    groups = group_tensors(llama(10), "blocks", block_layers=4)
    assert list(groups) == ["embeddings", "head", "layers.00-03", "layers.04-07", "layers.08-09"]
    assert groups["layers.04-07"] == tuple(f"model.layers.{i}.*" for i in (4, 5, 6, 7))


def test_whole_model_is_one_group() -> None:
    assert group_tensors(llama(2), "model", embeddings=False) == {"model": ("*",)}


def test_whole_model_with_embeddings_apart() -> None:
    assert list(group_tensors(llama(2), "model")) == ["embeddings", "head", "layers"]


def test_sublayers_hold_attention_and_mlp_each_with_the_norm_before_it() -> None:
    groups = members(group_tensors(llama(1), "layers", sublayers=True), llama(1))
    layer = "model.layers.0."
    assert groups["layers.00.attention"] == {layer + "input_layernorm.weight", layer + "self_attn.q_proj.weight"}
    assert groups["layers.00.mlp"] == {
        layer + "mlp.down_proj.weight",
        layer + "mlp.up_proj.weight",
        layer + "post_attention_layernorm.weight",
    }


def test_sublayers_take_embeddings_in_at_the_first_attention_and_the_last_mlp() -> None:
    groups = members(group_tensors(llama(2), "layers", sublayers=True, embeddings=False), llama(2))
    assert "model.embed_tokens.weight" in groups["layers.00.attention"]
    assert {"lm_head.weight", "model.norm.weight"} < groups["layers.01.mlp"]


def test_layers_under_another_name_are_found() -> None:
    assert group_tensors(gpt2(2), "layers") == {
        "embeddings": ("transformer.ln_f.weight", "transformer.wpe.weight", "transformer.wte.weight"),
        "layers.00": ("transformer.h.0.*",),
        "layers.01": ("transformer.h.1.*",),
    }


def test_norm_before_the_mlp_goes_with_it_under_another_name() -> None:
    groups = members(group_tensors(gpt2(1), "layers", sublayers=True), gpt2(1))
    assert groups["layers.00.mlp"] == {"transformer.h.0.ln_2.weight", "transformer.h.0.mlp.c_fc.weight"}


def test_group_names_sort_as_layers_do() -> None:
    groups = [name for name in group_tensors(llama(101), "layers") if name.startswith("layers")]
    assert groups == [f"layers.{i:03d}" for i in range(101)]


@settings(max_examples=60, deadline=None)
@given(
    names=st.one_of(
        st.builds(llama, st.integers(1, 13), st.booleans()),
        st.builds(gpt2, st.integers(1, 13)),
    ),
    by=st.sampled_from(["model", "blocks", "layers"]),
    block_layers=st.integers(1, 5),
    sublayers=st.booleans(),
    embeddings=st.booleans(),
)
def test_every_tensor_is_in_exactly_one_group(
    names: list[str], by: By, block_layers: int, sublayers: bool, embeddings: bool
) -> None:
    groups = group_tensors(names, by, block_layers=block_layers, sublayers=sublayers, embeddings=embeddings)
    counts = Counter(name for matched in members(groups, names).values() for name in matched)
    assert counts == Counter(names)
    assert all(members(groups, names).values())


def test_names_without_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="none is named like"):
        group_tensors(["embed_tokens.weight", "norm.weight"], "layers")


def test_blocks_of_no_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="space.block_layers must be at least 1, got 0"):
        group_tensors(llama(2), "blocks", block_layers=0)
