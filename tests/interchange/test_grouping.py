"""Groups of tensors with the same values have patterns that match them alone, and names that tell them apart."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interchange.conftest import NAMES
from optmerge.interchange.grouping import describe, groups_of, patterns_of, values_by_tensor
from optmerge.interchange.resolution import TensorValues


def values(weight: float) -> TensorValues:
    return TensorValues({"a": {"weight": weight}}, {})


@given(st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES)))
def test_every_tensor_is_in_the_group_of_its_values(numbers: list[int]) -> None:
    tensors = {name: values(number) for name, number in zip(NAMES, numbers, strict=True)}
    groups = groups_of(tensors)
    assert len(groups) == len(set(numbers))
    assert values_by_tensor(groups, NAMES) == tensors


@pytest.mark.parametrize(
    ("chosen", "patterns", "name"),
    [
        (["*"], ("*",), "model"),
        (["model.layers.*"], ("model.layers.*",), "layers"),
        (["model.layers.2.*"], ("model.layers.2.*",), "layers.02"),
        (["*mlp*"], ("model.layers.*.mlp.*",), "layers.mlp"),
        (
            ["*norm*"],
            ("model.layers.*.input_layernorm.*", "model.layers.*.post_attention_layernorm.*", "model.norm.weight"),
            "layers.norms+norm",
        ),
        (["model.layers.[013].mlp.*"], tuple(f"model.layers.{n}.mlp.*" for n in (0, 1, 3)), "layers.00-01,03.mlp"),
        (["*q_proj*"], ("model.layers.*.self_attn.q_proj.weight",), "layers.self_attn"),
        (["lm_head*", "*.1.*"], ("lm_head.weight", "model.layers.1.*"), "layers.01+lm_head"),
        (
            ["*.0.mlp*", "*.3.self_attn*"],
            ("model.layers.0.mlp.*", "model.layers.3.self_attn.*"),
            "layers.00.mlp+layers.03.self_attn",
        ),
    ],
)
def test_patterns_are_as_coarse_as_they_can_be(chosen: list[str], patterns: tuple[str, ...], name: str) -> None:
    members = sorted({name for pattern in chosen for name in fnmatch.filter(NAMES, pattern)})
    assert patterns_of(members, NAMES) == patterns
    assert describe(members, NAMES) == name


def test_layer_1_is_not_layer_11() -> None:
    names = [f"model.layers.{n}.mlp.weight" for n in range(12)]
    assert patterns_of(names[1:2], names) == ("model.layers.1.*",)
