"""Which tensors share their genes."""

import fnmatch
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optmerge.errors import UsageError
from optmerge.space import By, Grouping, Kinds, TensorGroup, group_tensors

LLAMA_LAYER = (
    "input_layernorm.weight",
    "mlp.down_proj.weight",
    "mlp.up_proj.weight",
    "post_attention_layernorm.weight",
    "self_attn.q_proj.weight",
)
GPT2_LAYER = ("attn.c_attn.weight", "ln_1.weight", "ln_2.weight", "mlp.c_fc.weight")

# Tensors of a layer by kind, as sorted; for models of transformers whose names differ.
LLAMA_NORMS = ["input_layernorm.weight", "post_attention_layernorm.weight"]
SANDWICH = ["post_attention_layernorm.weight", "post_feedforward_layernorm.weight"]
HEADS = ["self_attn.k_norm.weight", "self_attn.q_norm.weight"]
NORMS = {
    "llama": LLAMA_NORMS,
    "mistral": LLAMA_NORMS,
    "qwen2": LLAMA_NORMS,
    "qwen3": LLAMA_NORMS + HEADS,
    "gemma": LLAMA_NORMS,
    "gemma2": ["input_layernorm.weight", *SANDWICH, "pre_feedforward_layernorm.weight"],
    "gemma3_text": ["input_layernorm.weight", *SANDWICH, "pre_feedforward_layernorm.weight", *HEADS],
    "phi3": LLAMA_NORMS,
    "olmo2": SANDWICH + HEADS,
    "gpt2": ["ln_1.bias", "ln_1.weight", "ln_2.bias", "ln_2.weight"],
    "mixtral": LLAMA_NORMS,
    "opt": [f"{name}.{part}" for name in ("final_layer_norm", "self_attn_layer_norm") for part in ("bias", "weight")],
}
BY: list[By] = ["model", "blocks", "layers"]
KINDS: list[Kinds] = ["none", "sublayers", "kinds"]


def llama(layers: int, tied: bool = False) -> list[str]:
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    names += [f"model.layers.{i}.{rest}" for i in range(layers) for rest in LLAMA_LAYER]
    return sorted(names if tied else [*names, "lm_head.weight"])


def gpt2(layers: int) -> list[str]:
    names = ["transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"]
    return sorted(names + [f"transformer.h.{i}.{rest}" for i in range(layers) for rest in GPT2_LAYER])


@cache
def real(kind: str) -> list[str]:
    """The tensors that a checkpoint of such a model has."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 64}
    if kind in ("gpt2", "opt"):
        del sizes["num_key_value_heads"]
    config = AutoConfig.for_model(kind, num_hidden_layers=3, **sizes, **tokens)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sorted(n for n in model.state_dict() if n != "lm_head.weight" or not config.tie_word_embeddings)


def members(groups: Mapping[str, TensorGroup], names: list[str]) -> dict[str, set[str]]:
    """The tensors that each group's patterns match."""
    return {g: {n for p in group.tensors for n in fnmatch.filter(names, p)} for g, group in groups.items()}


def divided(names: list[str], **how: Any) -> dict[str, set[str]]:
    return members(group_tensors(names, Grouping(**how)), names)


def patterns(names: list[str], **how: Any) -> dict[str, tuple[str, ...]]:
    return {name: group.tensors for name, group in group_tensors(names, Grouping(**how)).items()}


def test_layers_with_embeddings_apart() -> None:
    assert patterns(llama(3), by="layers") == {
        "embeddings": ("model.embed_tokens.weight",),
        "head": ("lm_head.weight", "model.norm.weight"),
        "layers.00": ("model.layers.0.*",),
        "layers.01": ("model.layers.1.*",),
        "layers.02": ("model.layers.2.*",),
    }


def test_final_norm_goes_with_the_embeddings_where_the_head_is_tied() -> None:
    assert patterns(llama(1, tied=True), by="layers") == {
        "embeddings": ("model.embed_tokens.weight", "model.norm.weight"),
        "layers.00": ("model.layers.0.*",),
    }


def test_embeddings_that_are_not_apart_join_the_first_and_the_last_group() -> None:
    assert patterns(llama(2), by="layers", embeddings="join") == {
        "layers.00": ("model.embed_tokens.weight", "model.layers.0.*"),
        "layers.01": ("lm_head.weight", "model.layers.1.*", "model.norm.weight"),
    }


def test_embeddings_may_have_genes_where_the_head_has_none() -> None:
    groups = divided(llama(2), by="layers", head="join")
    assert groups["embeddings"] == {"model.embed_tokens.weight"}
    assert {"lm_head.weight", "model.norm.weight"} < groups["layers.01"]


@pytest.mark.parametrize("kinds", KINDS)
def test_embedding_and_head_that_are_taken_from_a_source_are_taken_without_the_final_norm(kinds: Kinds) -> None:
    groups = group_tensors(llama(2), Grouping(by="layers", kinds=kinds, embeddings="ja", head="math"))
    assert groups["embeddings"] == TensorGroup(("model.embed_tokens.weight",), source="ja")
    assert groups["head"] == TensorGroup(("lm_head.weight",), source="math")
    assert {name for name, group in groups.items() if group.source is not None} == {"embeddings", "head"}


def test_head_is_treated_as_the_embedding_unless_told_otherwise() -> None:
    assert group_tensors(llama(2), Grouping(embeddings="ja"))["head"].source == "ja"


def test_tied_head_follows_the_embedding() -> None:
    groups = group_tensors(llama(2, tied=True), Grouping(by="layers", embeddings="ja"))
    assert groups["embeddings"] == TensorGroup(("model.embed_tokens.weight",), source="ja")
    assert "model.norm.weight" in groups["layers.01"].tensors
    with pytest.raises(UsageError, match="space.head=join: the output head is tied to the input embedding"):
        group_tensors(llama(2, tied=True), Grouping(embeddings="ja", head="join"))


def test_blocks_are_layers_in_a_row_and_the_last_may_be_shorter() -> None:
    groups = patterns(llama(10), by="blocks", block_layers=4)
    assert list(groups) == ["embeddings", "head", "layers.00-03", "layers.04-07", "layers.08-09"]
    assert groups["layers.04-07"] == tuple(f"model.layers.{i}.*" for i in (4, 5, 6, 7))


def test_whole_model_is_one_group() -> None:
    assert patterns(llama(2), by="model", embeddings="join") == {"model": ("*",)}


def test_whole_model_with_embeddings_apart() -> None:
    assert list(patterns(llama(2), by="model")) == ["embeddings", "head", "layers"]


def test_sublayers_hold_attention_and_mlp_each_with_the_norm_before_it() -> None:
    groups, layer = divided(llama(1), by="layers", kinds="sublayers"), "model.layers.0."
    assert groups["layers.00.attention"] == {layer + "input_layernorm.weight", layer + "self_attn.q_proj.weight"}
    assert groups["layers.00.mlp"] == {
        layer + "mlp.down_proj.weight",
        layer + "mlp.up_proj.weight",
        layer + "post_attention_layernorm.weight",
    }


def test_sublayers_take_embeddings_in_at_the_first_attention_and_the_last_mlp() -> None:
    groups = divided(llama(2), by="layers", kinds="sublayers", embeddings="join")
    assert "model.embed_tokens.weight" in groups["layers.00.attention"]
    assert {"lm_head.weight", "model.norm.weight"} < groups["layers.01.mlp"]


def test_layers_under_another_name_are_found() -> None:
    assert patterns(gpt2(2), by="layers") == {
        "embeddings": ("transformer.ln_f.weight", "transformer.wpe.weight", "transformer.wte.weight"),
        "layers.00": ("transformer.h.0.*",),
        "layers.01": ("transformer.h.1.*",),
    }


def test_norm_before_the_mlp_goes_with_it_under_another_name() -> None:
    groups = divided(gpt2(1), by="layers", kinds="sublayers")
    assert groups["layers.00.mlp"] == {"transformer.h.0.ln_2.weight", "transformer.h.0.mlp.c_fc.weight"}


@pytest.mark.parametrize(("kind", "attention"), [("llama", False), ("gemma2", True), ("olmo2", True)])
def test_norm_that_follows_the_attention_goes_with_it_where_the_mlp_has_its_own(kind: str, attention: bool) -> None:
    groups = divided(real(kind), by="layers", kinds="sublayers")
    assert ("model.layers.0.post_attention_layernorm.weight" in groups["layers.00.attention"]) == attention


@pytest.mark.parametrize("kind", NORMS)
def test_kinds_of_real_models(kind: str) -> None:
    groups = divided(real(kind), by="layers", kinds="kinds")
    kinds = {name.rpartition(".")[2] for name in groups if name.startswith("layers")}
    assert kinds == {"attention", "mlp", "norms"}
    inside = {name.partition(".1.")[2] for name in groups["layers.01.norms"]}
    assert inside == set(NORMS[kind])
    assert all("attn" in name for name in groups["layers.01.attention"])
    assert all("mlp" in name or "fc" in name for name in groups["layers.01.mlp"])


@pytest.mark.parametrize("by", BY)
def test_final_norm_goes_with_the_last_norms_where_these_are_apart(by: str) -> None:
    groups = divided(llama(3), by=by, block_layers=2, kinds="kinds")
    last = {"model": "layers.norms", "blocks": "layers.02-02.norms", "layers": "layers.02.norms"}[by]
    assert "model.norm.weight" in groups[last] and groups["head"] == {"lm_head.weight"}


def test_patterns_make_groups_of_their_own_and_the_first_that_matches_decides() -> None:
    groups = divided(
        llama(2), by="layers", patterns={"queries": ["*q_proj*"], "attention_all": ["*self_attn*", "*norm*"]}
    )
    assert groups["queries"] == {f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)}
    assert all("norm" in name for name in groups["attention_all"]) and "model.norm.weight" in groups["attention_all"]
    assert groups["layers.00"] == {"model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"}


def test_patterns_may_be_multiplied_with_layers_whatever_the_rest_is_grouped_by() -> None:
    groups = divided(llama(2), by="model", patterns={"up": ["*up_proj*", "lm_head*"]}, patterns_by="layers")
    assert groups["layers.01.up"] == {"model.layers.1.mlp.up_proj.weight"}
    assert groups["up"] == {"lm_head.weight"}  # in no layer
    assert {name for name in groups if not name.endswith("up")} == {"embeddings", "head", "layers"}


def test_group_names_sort_as_layers_do() -> None:
    groups = [name for name in patterns(llama(101), by="layers") if name.startswith("layers")]
    assert groups == [f"layers.{i:03d}" for i in range(101)]


def test_layers_lie_between_anchors_that_are_evenly_spread() -> None:
    groups = group_tensors(llama(5), Grouping(by="layers", smooth=3))
    assert [(groups[f"layers.0{i}"].anchors, groups[f"layers.0{i}"].share) for i in range(5)] == [
        (("anchors.0",), 0.0),
        (("anchors.0", "anchors.1"), 0.5),
        (("anchors.1",), 0.0),
        (("anchors.1", "anchors.2"), 0.5),
        (("anchors.2",), 0.0),
    ]
    assert groups["embeddings"].anchors == groups["head"].anchors == ()


def test_each_kind_and_name_has_anchors_of_its_own() -> None:
    how = Grouping(by="layers", smooth=2, kinds="kinds", patterns={"up": ["*up_proj*"]}, patterns_by="layers")
    anchors = {anchor for group in group_tensors(llama(4), how).values() for anchor in group.anchors}
    assert anchors == {f"anchors.{i}.{kind}" for i in range(2) for kind in ("attention", "mlp", "norms", "up")}


@settings(max_examples=200, deadline=None)
@given(
    names=st.one_of(
        st.builds(llama, st.integers(1, 13), st.booleans()),
        st.builds(gpt2, st.integers(1, 13)),
        st.sampled_from(list(NORMS)).map(real),
    ),
    by=st.sampled_from(BY),
    block_layers=st.integers(1, 5),
    kinds=st.sampled_from(KINDS),
    embeddings=st.sampled_from(["genes", "join", "ja"]),
    head=st.sampled_from([None, "genes", "join", "math"]),
    shells=st.sampled_from([{}, {"a": ["*1.*"]}, {"a": ["*weight"]}, {"a": ["*norm*", "*ln_*"], "b": ["*.0.*"]}]),
    patterns_by=st.sampled_from(BY),
    smooth=st.none() | st.integers(2, 4),
)
def test_every_tensor_is_in_exactly_one_group(
    names: list[str], shells: dict[str, list[str]], head: str | None, smooth: int | None, **how: Any
) -> None:
    layers = len({name.split(".")[2] for name in names if ".layers." in name or ".h." in name})
    tied = "lm_head.weight" not in names
    how |= {"head": None if tied else head, "patterns": shells if all(fits(names, s) for s in shells.values()) else {}}
    how["smooth"] = smooth if how["by"] == "layers" and smooth is not None and smooth <= min(layers, 3) else None
    groups = group_tensors(names, Grouping(**how))
    counts = Counter(name for matched in members(groups, names).values() for name in matched)
    assert counts == Counter(names)
    assert all(members(groups, names).values())
    assert all(len(group.anchors) == 1 + (group.share > 0) for group in groups.values() if group.anchors)


def fits(names: list[str], shells: list[str]) -> bool:
    return all(fnmatch.filter(names, shell) for shell in shells)


def test_names_without_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="none is named like"):
        group_tensors(["embed_tokens.weight", "norm.weight"], Grouping())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"block_layers": 0}, "space.block_layers must be at least 1, got 0"),
        ({"smooth": 2}, "space.smooth interpolates from layer to layer: set space.groups=layers, not blocks"),
        ({"by": "layers", "smooth": 1}, "space.smooth must be at least 2 anchors, got 1"),
        ({"by": "layers", "smooth": 3}, "space.smooth=3: at most as many anchors as layers, of which it has 2"),
        ({"patterns": {"q/k": ["*"]}}, "space.patterns: the name 'q/k' must be made of letters"),
        ({"patterns": {"mlp": ["*mlp*"]}}, "space.patterns.mlp: groups of that name are made already"),
        ({"patterns": {"qk": []}}, "space.patterns.qk is empty"),
        ({"patterns": {"qk": ["*q_prj*"]}}, r"space.patterns.qk: '\*q_prj\*' matches no tensor; names are like"),
        ({"patterns": {"a": ["*mlp*"], "b": ["*up_proj*"]}}, "space.patterns.b: all that it matches is in a already"),
    ],
)
def test_what_does_not_suit_the_model_is_a_usage_error(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        group_tensors(llama(2), Grouping(**how))
