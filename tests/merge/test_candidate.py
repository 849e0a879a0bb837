"""Recipes made available, on the quick zoo."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from optmerge.commands.assembly import Assembly
from optmerge.errors import OptmergeError, UsageError
from optmerge.merge import Workbench
from optmerge.models import weights_sha256
from optmerge.recipe import CheckpointNode, Group, MergeNode, Node, Recipe

HALVES = {"ja": {"weight": 0.5}, "math_add": {"weight": 0.25}}


def searched(assembly: Assembly) -> Recipe:
    """The recipe in the middle of the demo's space: DARE-TIES, one group."""
    return assembly.space.decode({gene.name: gene.start() for gene in assembly.space.genes})


def with_groups(recipe: Recipe, groups: Mapping[str, Group]) -> Recipe:
    return Recipe(replace(recipe.root, groups=groups))


@pytest.mark.parametrize("alias", ["base", "ja", "math_add", "math_mul"])
def test_a_source_by_itself_is_its_checkpoint_bit_for_bit(assembly: Assembly, bench: Workbench, alias: str) -> None:
    node = assembly.ingredients.sources[alias]
    assert isinstance(node, CheckpointNode)
    candidate = bench.candidate(assembly.ingredients.source(alias))
    assert weights_sha256(candidate.tensors()) == node.weights_sha256


def test_tensors_come_in_name_order(assembly: Assembly, bench: Workbench) -> None:
    streamed = [name for name, _ in bench.candidate(searched(assembly)).tensors()]
    assert streamed == sorted(assembly.checkpoints["base"].names())


def test_tensors_follow_the_formula_of_the_method(assembly: Assembly, bench: Workbench) -> None:
    recipe = assembly.ingredients.recipe("task_arithmetic", HALVES)
    for name, tensor in bench.candidate(recipe).tensors():
        base, ja, math = (assembly.checkpoints[alias].tensor(name) for alias in ("base", "ja", "math_add"))
        torch.testing.assert_close(tensor, base + 0.5 * (ja - base) + 0.25 * (math - base))


def test_resident_sources_give_the_same_bytes(assembly: Assembly, bench: Workbench) -> None:
    resident = Workbench(assembly.opened(), assembly.fit, torch.device("cpu"), resident=True)
    recipe = searched(assembly)
    mapped = weights_sha256(bench.candidate(recipe).tensors())
    assert weights_sha256(resident.candidate(recipe).tensors()) == mapped


def test_every_group_has_parameters_of_its_own(assembly: Assembly, bench: Workbench) -> None:
    root = assembly.ingredients.recipe("task_arithmetic", {}).root
    groups = {
        "layers": Group(("model.layers.*",), {"ja": {"weight": 1.0}}),
        "rest": Group(("model.embed_tokens.*", "model.norm.*"), {"ja": {"weight": 0.0}}),
    }
    for name, tensor in bench.candidate(with_groups(Recipe(root), groups)).tensors():
        alias = "ja" if name.startswith("model.layers.") else "base"
        torch.testing.assert_close(tensor, assembly.checkpoints[alias].tensor(name))


def test_merged_tensors_have_the_type_of_the_recipe(assembly: Assembly, bench: Workbench) -> None:
    recipe = replace(assembly.ingredients, dtype="bfloat16").recipe("task_arithmetic", HALVES)
    full = dict(bench.candidate(assembly.ingredients.recipe("task_arithmetic", HALVES)).tensors())
    for name, tensor in bench.candidate(recipe).tensors():
        assert torch.equal(tensor, full[name].to(torch.bfloat16))


def test_a_merge_as_a_source_counts_as_rounded_to_its_own_type(assembly: Assembly, bench: Workbench) -> None:
    inner = replace(assembly.ingredients, dtype="bfloat16").recipe("task_arithmetic", HALVES)
    sources: dict[str, Node] = {**assembly.ingredients.sources, "half": inner.root}
    outer = replace(assembly.ingredients, sources=sources).source("half")
    rounded = dict(bench.candidate(inner).tensors())
    for name, tensor in bench.candidate(outer).tensors():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, rounded[name].float())


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"all": ("*",), "norm": ("model.norm.*",)}, "tensor model.norm.weight is in two groups: all and norm"),
        ({"layers": ("model.layers.*", "model.embed*")}, "tensor model.norm.weight is in no group"),
    ],
)
def test_groups_must_hold_every_tensor_once(
    assembly: Assembly, bench: Workbench, patterns: Mapping[str, tuple[str, ...]], message: str
) -> None:
    root = assembly.ingredients.recipe("task_arithmetic", {}).root
    groups = {name: Group(tensors, {"ja": {"weight": 1.0}}) for name, tensors in patterns.items()}
    with pytest.raises(UsageError, match=message):
        bench.candidate(with_groups(Recipe(root), groups))


def test_the_groups_of_an_inner_merge_are_checked_too(assembly: Assembly, bench: Workbench) -> None:
    inner = replace(assembly.ingredients.source("ja").root, groups={})
    outer = replace(assembly.ingredients, sources={"inner": inner}, base=None, tokenizer="inner").source("inner")
    with pytest.raises(UsageError, match="is in no group"):
        bench.candidate(outer)


def test_numbers_too_large_for_the_type_are_an_error(assembly: Assembly, bench: Workbench) -> None:
    recipe = replace(assembly.ingredients, dtype="float16").recipe("task_arithmetic", {"ja": {"weight": 1e9}})
    with pytest.raises(OptmergeError, match="NaN or infinity in model"):
        list(bench.candidate(recipe).tensors())


def test_a_source_that_is_not_open_is_a_usage_error(assembly: Assembly, bench: Workbench) -> None:
    stranger = replace(assembly.ingredients, sources={"stranger": CheckpointNode("elsewhere", "0" * 64)})
    with pytest.raises(UsageError, match="source elsewhere .* is not open"):
        bench.candidate(stranger.source("stranger"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "slerpy"}, "unknown merge method 'slerpy'"),
        ({"base": None}, "task_arithmetic needs a base"),
        ({"options": {"lambda": 1.0}}, "options.lambda: .*did you mean 'lambda_'"),
        ({"groups": {"all": Group(("*",), {"ja": {}})}}, "group all: ja has no weight"),
        ({"groups": {"all": Group(("*",), {"ja": {"weight": float("inf")}})}}, "group all, ja: weight must be"),
    ],
)
def test_a_recipe_that_its_method_cannot_carry_out_is_a_usage_error(
    assembly: Assembly, bench: Workbench, change: dict[str, object], message: str
) -> None:
    root: MergeNode = assembly.ingredients.recipe("task_arithmetic", HALVES).root
    with pytest.raises(UsageError, match=message):
        bench.candidate(Recipe(replace(root, **change)))  # type: ignore[arg-type]
