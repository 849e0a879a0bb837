"""Recipes made available, on the quick zoo."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from optmerge.commands.assembly import Assembly
from optmerge.errors import OptmergeError, UsageError
from optmerge.merge import Workbench
from optmerge.method import get_method
from optmerge.models import Checkpoint, weights_sha256
from optmerge.recipe import CheckpointNode, Group, MergeNode, Node, Recipe, node_sha256

HALVES = {"ja": {"weight": 0.5}, "math_add": {"weight": 0.25}}


def searched(assembly: Assembly) -> Recipe:
    """The recipe in the middle of the demo's space: DARE-TIES, one group."""
    return assembly.space.decode({gene.name: gene.start() for gene in assembly.space.genes})


def with_groups(recipe: Recipe, groups: Mapping[str, Group]) -> Recipe:
    return Recipe(replace(recipe.root, groups=groups))


@pytest.mark.parametrize("alias", ["base", "ja", "math_add", "math_mul"])
def test_a_source_by_itself_is_its_checkpoint_bit_for_bit(assembly: Assembly, bench: Workbench, alias: str) -> None:
    node = assembly.space.ingredients.sources[alias]
    assert isinstance(node, CheckpointNode)
    candidate = bench.candidate(assembly.space.ingredients.source(alias))
    assert weights_sha256(candidate.tensors()) == node.weights_sha256


def test_tensors_come_in_name_order(assembly: Assembly, bench: Workbench) -> None:
    streamed = [name for name, _ in bench.candidate(searched(assembly)).tensors()]
    assert streamed == sorted(assembly.checkpoints["base"].names())


def test_tensors_follow_the_formula_of_the_method(assembly: Assembly, bench: Workbench) -> None:
    recipe = assembly.space.ingredients.recipe("task_arithmetic", HALVES)
    for name, tensor in bench.candidate(recipe).tensors():
        base, ja, math = (assembly.checkpoints[alias].tensor(name) for alias in ("base", "ja", "math_add"))
        torch.testing.assert_close(tensor, base + 0.5 * (ja - base) + 0.25 * (math - base))


def test_resident_sources_give_the_same_bytes(assembly: Assembly, bench: Workbench) -> None:
    resident = Workbench(assembly.opened(), assembly.fit, torch.device("cpu"), resident=True)
    recipe = searched(assembly)
    mapped = weights_sha256(bench.candidate(recipe).tensors())
    assert weights_sha256(resident.candidate(recipe).tensors()) == mapped


def read_into_memory(assembly: Assembly) -> dict[str, Checkpoint]:
    """The checkpoints again, with their tensors read where otherwise they are mapped."""
    read = {alias: Checkpoint.open(found.folder, alias, kept=False) for alias, found in assembly.checkpoints.items()}
    return {node_sha256(node): read[alias] for alias, node in assembly.space.ingredients.sources.items()}


def test_sources_that_are_read_give_the_same_bytes_as_mapped_ones(assembly: Assembly, bench: Workbench) -> None:
    recipe = searched(assembly)
    read = Workbench(read_into_memory(assembly), assembly.fit, torch.device("cpu"))
    mapped = weights_sha256(bench.candidate(recipe).tensors())
    assert weights_sha256(read.candidate(recipe).tensors()) == mapped


@pytest.mark.parametrize("method", ["ties", "sce", "model_stock", "breadcrumbs", "dare_ties"])
def test_what_is_remembered_of_the_sources_changes_no_bit_of_later_candidates(
    assembly: Assembly, bench: Workbench, method: str
) -> None:
    remembering = Workbench(assembly.opened(), assembly.fit, torch.device("cpu"), keep_facts=True)
    everyone = assembly.space.ingredients.merged()
    for share in (0.3, 0.8, 0.55):
        per_source = get_method(method).per_source()
        values = {alias: {name: share for name in ("weight", "density") if name in per_source} for alias in everyone}
        recipe = assembly.space.ingredients.recipe(method, values)
        shared = dict.fromkeys(recipe.root.groups["model"].shared, share)
        recipe = with_groups(recipe, {"model": replace(recipe.root.groups["model"], shared=shared)})
        plain = weights_sha256(bench.candidate(recipe).tensors())
        assert weights_sha256(remembering.candidate(recipe).tensors()) == plain


def test_what_is_remembered_of_one_merge_is_not_taken_for_another(assembly: Assembly, bench: Workbench) -> None:
    # Two inner merges under one alias: their tensors have the same names, but not the same numbers.
    remembering = Workbench(assembly.opened(), assembly.fit, torch.device("cpu"), keep_facts=True)
    for weight in (0.25, 2.0):
        inner = assembly.space.ingredients.recipe(
            "task_arithmetic", {"ja": {"weight": weight}, "math_add": {"weight": 1.0}}
        )
        outer = replace(assembly.space.ingredients, sources={**assembly.space.ingredients.sources, "inner": inner.root})
        recipe = outer.recipe("ties", {"inner": {"density": 0.3}, "math_mul": {"density": 0.5}})
        plain = weights_sha256(bench.candidate(recipe).tensors())
        assert weights_sha256(remembering.candidate(recipe).tensors()) == plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("live", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_are_written_right_into_a_model(
    assembly: Assembly, bench: Workbench, dtype: str, live: torch.dtype
) -> None:
    candidate = bench.candidate(replace(assembly.space.ingredients, dtype=dtype).recipe("ties", HALVES))
    targets = {name: torch.full(shape, 7.0, dtype=live) for name, shape in candidate.shapes().items()}
    addresses = {name: target.data_ptr() for name, target in targets.items()}
    candidate.write_into({name: torch.nn.Parameter(target) for name, target in targets.items()})
    for name, tensor in candidate.tensors():
        assert torch.equal(targets[name], tensor.to(live))
        assert targets[name].data_ptr() == addresses[name]


def test_shapes_are_those_of_the_tensors(assembly: Assembly, bench: Workbench) -> None:
    candidate = bench.candidate(searched(assembly))
    assert candidate.shapes() == {name: tuple(tensor.shape) for name, tensor in candidate.tensors()}


def test_a_group_can_take_a_source_as_it_is(assembly: Assembly, bench: Workbench) -> None:
    recipe = with_groups(
        assembly.space.ingredients.recipe("dare_ties", {}),
        {
            "layers": Group(("model.layers.*",), {"ja": {"weight": 0.5, "density": 0.5}}, {"lambda_": 1.0}),
            "rest": Group(("model.embed_tokens.*", "model.norm.*"), source="math_mul"),
        },
    )
    taken = 0
    for name, tensor in bench.candidate(recipe).tensors():
        source = assembly.checkpoints["math_mul"].tensor(name)
        assert torch.equal(tensor, source) == (not name.startswith("model.layers."))
        taken += torch.equal(tensor, source)
    assert taken == 2


def test_parameters_shared_by_the_sources_are_of_a_group(assembly: Assembly, bench: Workbench) -> None:
    recipe = with_groups(
        assembly.space.ingredients.recipe("slerp", {}),
        {
            "layers": Group(("model.layers.*",), {"ja": {}}, {"t": 0.0}),
            "rest": Group(("model.embed_tokens.*", "model.norm.*"), {"ja": {}}, {"t": 1.0}),
        },
    )
    for name, tensor in bench.candidate(recipe).tensors():
        alias = "base" if name.startswith("model.layers.") else "ja"
        assert torch.equal(tensor, assembly.checkpoints[alias].tensor(name))


def test_a_shared_parameter_that_a_group_leaves_out_takes_its_default(assembly: Assembly, bench: Workbench) -> None:
    recipe = assembly.space.ingredients.recipe("slerp", {"ja": {}})
    assert recipe.root.groups["model"].shared == {"t": 0.5}
    without = with_groups(recipe, {"model": replace(recipe.root.groups["model"], shared={})})
    explicit = weights_sha256(bench.candidate(recipe).tensors())
    assert weights_sha256(bench.candidate(without).tensors()) == explicit


def stacked(assembly: Assembly, layers: tuple[Mapping[str, int], ...], values: Mapping[str, object]) -> Recipe:
    recipe = assembly.space.ingredients.recipe("linear", values)  # type: ignore[arg-type]
    sources = {alias: assembly.space.ingredients.sources[alias] for alias in values}
    return Recipe(replace(recipe.root, layers=layers, sources=sources, tokenizer=min(values)))


def test_layers_can_be_stacked_in_any_order_and_number(assembly: Assembly, bench: Workbench) -> None:
    layers = ({"ja": 1}, {"ja": 0}, {"ja": 1})
    candidate = bench.candidate(stacked(assembly, layers, {"ja": {"weight": 1.0}}))
    found = dict(candidate.tensors())
    source = assembly.checkpoints["ja"]
    expected = {name for name in source.names() if ".layers." not in name}
    for new, layer in enumerate(layers):
        for name in source.names():
            if name.startswith(f"model.layers.{layer['ja']}."):
                renamed = name.replace(f"layers.{layer['ja']}.", f"layers.{new}.")
                expected.add(renamed)
                assert torch.equal(found[renamed], source.tensor(name))
    assert set(found) == expected and list(found) == sorted(found)
    assert candidate.shapes() == {name: tuple(tensor.shape) for name, tensor in found.items()}


def test_stacked_layers_of_several_sources_are_merged(assembly: Assembly, bench: Workbench) -> None:
    recipe = stacked(
        assembly, ({"ja": 1, "math_add": 0}, {"ja": 0, "math_add": 0}), {"ja": {"weight": 1}, "math_add": {"weight": 3}}
    )
    found = dict(bench.candidate(recipe).tensors())
    ja, math = assembly.checkpoints["ja"], assembly.checkpoints["math_add"]
    name = "model.layers.{}.mlp.up_proj.weight"
    for new, (of_ja, of_math) in enumerate([(1, 0), (0, 0)]):
        expected = 0.25 * ja.tensor(name.format(of_ja)) + 0.75 * math.tensor(name.format(of_math))
        torch.testing.assert_close(found[name.format(new)], expected)
    norm = "model.norm.weight"
    torch.testing.assert_close(found[norm], 0.25 * ja.tensor(norm) + 0.75 * math.tensor(norm))


def test_a_stacked_model_can_be_a_source(assembly: Assembly, bench: Workbench) -> None:
    inner = stacked(assembly, ({"ja": 1}, {"ja": 0}), {"ja": {"weight": 1.0}}).root
    root = assembly.space.ingredients.recipe("linear", {"inner": {"weight": 1.0}, "math_add": {"weight": 1.0}}).root
    sources: dict[str, Node] = {"inner": inner, "math_add": assembly.space.ingredients.sources["math_add"]}
    found = dict(bench.candidate(Recipe(replace(root, sources=sources, tokenizer="math_add"))).tensors())
    name = "model.layers.{}.mlp.up_proj.weight"
    for layer in (0, 1):
        ja = assembly.checkpoints["ja"].tensor(name.format(1 - layer))
        math = assembly.checkpoints["math_add"].tensor(name.format(layer))
        torch.testing.assert_close(found[name.format(layer)], (ja + math) / 2)


def test_every_group_has_parameters_of_its_own(assembly: Assembly, bench: Workbench) -> None:
    root = assembly.space.ingredients.recipe("task_arithmetic", {}).root
    groups = {
        "layers": Group(("model.layers.*",), {"ja": {"weight": 1.0}}),
        "rest": Group(("model.embed_tokens.*", "model.norm.*"), {"ja": {"weight": 0.0}}),
    }
    for name, tensor in bench.candidate(with_groups(Recipe(root), groups)).tensors():
        alias = "ja" if name.startswith("model.layers.") else "base"
        torch.testing.assert_close(tensor, assembly.checkpoints[alias].tensor(name))


def test_merged_tensors_have_the_type_of_the_recipe(assembly: Assembly, bench: Workbench) -> None:
    recipe = replace(assembly.space.ingredients, dtype="bfloat16").recipe("task_arithmetic", HALVES)
    full = dict(bench.candidate(assembly.space.ingredients.recipe("task_arithmetic", HALVES)).tensors())
    for name, tensor in bench.candidate(recipe).tensors():
        assert torch.equal(tensor, full[name].to(torch.bfloat16))


def test_a_merge_as_a_source_counts_as_rounded_to_its_own_type(assembly: Assembly, bench: Workbench) -> None:
    inner = replace(assembly.space.ingredients, dtype="bfloat16").recipe("task_arithmetic", HALVES)
    sources: dict[str, Node] = {**assembly.space.ingredients.sources, "half": inner.root}
    outer = replace(assembly.space.ingredients, sources=sources).source("half")
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
    root = assembly.space.ingredients.recipe("task_arithmetic", {}).root
    groups = {name: Group(tensors, {"ja": {"weight": 1.0}}) for name, tensors in patterns.items()}
    with pytest.raises(UsageError, match=message):
        bench.candidate(with_groups(Recipe(root), groups))


def test_the_groups_of_an_inner_merge_are_checked_too(assembly: Assembly, bench: Workbench) -> None:
    inner = replace(assembly.space.ingredients.source("ja").root, groups={})
    outer = replace(assembly.space.ingredients, sources={"inner": inner}, base=None, tokenizer="inner").source("inner")
    with pytest.raises(UsageError, match="is in no group"):
        bench.candidate(outer)


@pytest.mark.parametrize(("dtype", "weight"), [("float16", 1e9), ("float32", 3e38), ("bfloat16", -3e38)])
def test_numbers_too_large_for_the_type_are_an_error(
    assembly: Assembly, bench: Workbench, dtype: str, weight: float
) -> None:
    root = replace(assembly.space.ingredients, dtype=dtype).recipe("task_arithmetic", {}).root
    groups = {
        "norm": Group(("model.norm.weight",), {"ja": {"weight": weight}}, {"lambda_": 1e30}),
        "rest": Group(("model.layers.*", "model.embed*"), {"ja": {"weight": 0.5}}),
    }
    candidate = bench.candidate(with_groups(Recipe(root), groups))
    with pytest.raises(OptmergeError, match=r"NaN or infinity in model\.norm\.weight"):
        list(candidate.tensors())
    with pytest.raises(OptmergeError, match=r"NaN or infinity in model\.norm\.weight"):
        candidate.write_into({name: torch.empty(shape) for name, shape in candidate.shapes().items()})


def test_weights_that_cancel_are_an_error(assembly: Assembly, bench: Workbench) -> None:
    recipe = assembly.space.ingredients.recipe("linear", {"ja": {"weight": 1.0}, "math_add": {"weight": -1.0}})
    with pytest.raises(OptmergeError, match="the weights cancel"):
        list(bench.candidate(recipe).tensors())


def test_a_source_that_is_not_open_is_a_usage_error(assembly: Assembly, bench: Workbench) -> None:
    stranger = replace(assembly.space.ingredients, sources={"stranger": CheckpointNode("elsewhere", "0" * 64)})
    with pytest.raises(UsageError, match="source elsewhere .* is not open"):
        bench.candidate(stranger.source("stranger"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "slerpy"}, "unknown merge method 'slerpy'"),
        ({"base": None}, "task_arithmetic needs a base"),
        ({"options": {"normalise": True}}, "options.normalise: .*did you mean 'normalize'"),
        ({"groups": {"all": Group(("*",), {"ja": {}})}}, "group all: ja has no weight"),
        ({"groups": {"all": Group(("*",), {"ja": {"weight": float("inf")}})}}, "group all, ja: weight must be"),
        ({"groups": {"all": Group(("*",), {})}}, "group all has no sources"),
        (
            {"groups": {"all": Group(("*",), {"ja": {"weight": 1.0}}, {"lambda": 1.0})}},
            "group all: task_arithmetic has no parameter 'lambda' .did you mean 'lambda_'",
        ),
        (
            {"groups": {"all": Group(("*",), {"ja": {"weight": 1.0}}, {"lambda_": float("nan")})}},
            "group all: lambda_ must be a number",
        ),
        (
            {"method": "slerp", "options": {}, "groups": {"all": Group(("*",), {"ja": {}, "math_add": {}})}},
            "group all: slerp merges exactly 1 source beside the base, got 2",
        ),
    ],
)
def test_a_recipe_that_its_method_cannot_carry_out_is_a_usage_error(
    assembly: Assembly, bench: Workbench, change: dict[str, object], message: str
) -> None:
    root: MergeNode = assembly.space.ingredients.recipe("task_arithmetic", HALVES).root
    with pytest.raises(UsageError, match=message):
        bench.candidate(Recipe(replace(root, **change)))  # type: ignore[arg-type]
