"""Data-flow space: what genes there are, and which path a genome gives."""

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from optmerge.errors import UsageError
from optmerge.recipe import CheckpointNode, Hop, PathNode, Recipe
from optmerge.space import PathSettings, PathSpace, Value
from optmerge.study.samplers import cmaes
from optmerge.study.slots import Ledger, Plan, Slot

A, B = CheckpointNode("a", "a" * 64), CheckpointNode("b", "b" * 64)


def space(depths: tuple[int, int] = (3, 3), **settings: Any) -> PathSpace:
    """Two sources, by default of three layers each, in which a is the first."""
    ends = {"first": "a", "last": "a", "embeddings": "a", "head": "a"}
    given = PathSettings(**{"order": ["a", "b"], "repeats": 2, **ends, **settings})
    return PathSpace(given, {"a": A, "b": B}, dict(zip("ab", depths, strict=True)), "a", "float32")


def hops(recipe: Recipe) -> tuple[Hop, ...]:
    assert isinstance(recipe.root, PathNode)
    return recipe.root.hops


def taking(searched: PathSpace, *slots: str, **others: Value) -> dict[str, Value]:
    """A genome in which some slots are on, the one that is named first most, and all else is as it starts."""
    genome = {gene.name: gene.start() for gene in searched.genes}
    for slot in searched.slots:
        strength = 1 - 0.01 * slots.index(slot.name) if slot.name in slots else -0.5
        genome[f"{slot.name}/on"] = strength if searched.settings.switches == "threshold" else slot.name in slots
    return genome | others


def test_the_papers_space_has_its_genes() -> None:
    """Two models of 32 layers, three times: 192 switches and 192 scales, or 64 x 64 transitions."""
    paper = {"depths": (32, 32), "repeats": 3}
    assert len(space(**paper).genes) == 384
    assert len(space(**paper, scales="transition").genes) == 192 + 64 * 64
    assert len(space(**paper, scales="none").genes) == 192


def test_the_papers_first_candidates_have_about_111_hops() -> None:
    """Steps of 1/3 from 2/3 above 0 for the first pass of a (0.977), and from 0 for all else: 32 * 0.977 + 160 / 2."""
    searched = space((32, 32), repeats=3, max_hops=1000, scales="none")
    draw = random.Random(0)
    counts = []
    for _ in range(200):
        genome = {
            gene.name: gene.start() + draw.gauss(0, (gene.sigma or 0) * (gene.high - gene.low))  # type: ignore[operator]
            for gene in searched.genes
        }
        counts.append(len(hops(searched.decode(genome))))
    assert abs(sum(counts) / len(counts) - 111.3) < 2


@pytest.mark.parametrize(("first_pass", "others"), [(0.7, 0.3), (0.5, 0.9)])
@pytest.mark.parametrize("switches", ["threshold", "switch"])
def test_slots_are_as_likely_at_first_as_declared(switches: str, first_pass: float, others: float) -> None:
    searched = space(switches=switches, first_pass=first_pass, others=others, scales="none")
    sampler = cmaes.build(cmaes.Options(population=4000), searched.genes, 0)
    ledger = Ledger(Plan(4000))
    genomes = [sampler.genome(Slot(0, member), ledger) for member in range(4000)]
    for slot in searched.slots:
        wanted = first_pass if slot.repeat == 0 and slot.layer.source == "a" else others
        on = sum(float(genome[f"{slot.name}/on"]) > 0 for genome in genomes) / len(genomes)
        assert on == pytest.approx(wanted, abs=0.03)


def test_interleaved_layers_of_the_same_number_are_neighbours() -> None:
    searched = space((3, 2), layout="interleaved", first="free", last="free", scales="none")
    assert [slot.name for slot in searched.slots[:5]] == ["r0/a.00", "r0/b.00", "r0/a.01", "r0/b.01", "r0/a.02"]
    swapped = searched.decode(taking(searched, "r0/a.00", "r0/b.01", "r0/a.02"))
    assert hops(swapped) == (Hop("a", 0), Hop("b", 1), Hop("a", 2))
    assert searched.decode(searched.genome_of(swapped)) == swapped


def test_slots_that_are_on_are_the_hops_in_their_order() -> None:
    searched = space()
    genome = taking(
        searched, "r1/b.00", "r0/b.02", **{"r0/b.02/scale": 0.7, "r1/b.00/scale": 1.2, "r0/a.00/scale": 0.9}
    )
    assert hops(searched.decode(genome)) == (Hop("a", 0, 0.9), Hop("b", 2, 0.7), Hop("b", 0, 1.2), Hop("a", 2, 1.0))


def test_first_and_last_hop_are_taken_whatever_their_switches_say() -> None:
    searched = space()
    assert hops(searched.decode(taking(searched))) == (Hop("a", 0), Hop("a", 2))


def test_first_and_last_hop_may_be_another_sources_or_free() -> None:
    searched = space(first="b", last="b")
    assert hops(searched.decode(taking(searched))) == (Hop("b", 0), Hop("b", 2))
    searched = space(first="free", last="free")
    assert hops(searched.decode(taking(searched, "r0/b.01"))) == (Hop("b", 1),)
    assert len(hops(searched.decode(taking(searched)))) == 1  # never none


def test_hops_beyond_the_limit_are_those_that_are_least_on() -> None:
    searched = space(max_hops=4)
    genome = taking(searched, "r1/b.01", "r0/a.01", "r0/b.00", "r1/a.01")
    assert hops(searched.decode(genome)) == (Hop("a", 0), Hop("a", 1), Hop("b", 1), Hop("a", 2))


def test_switches_beyond_the_limit_go_from_the_end() -> None:
    searched = space(max_hops=4, switches="switch")
    genome = taking(searched, "r0/a.01", "r0/b.00", "r1/a.01", "r1/b.01")
    assert hops(searched.decode(genome)) == (Hop("a", 0), Hop("a", 1), Hop("b", 0), Hop("a", 2))


def test_layers_beyond_the_limit_are_left_out_wherever_they_come() -> None:
    searched = space(max_layers=3)
    genome = taking(searched, "r1/b.01", "r0/b.01", "r0/b.00", "r1/a.02", "r1/a.00")
    assert [(hop.source, hop.layer) for hop in hops(searched.decode(genome))] == [
        ("a", 0),
        ("b", 1),
        ("a", 0),
        ("b", 1),
        ("a", 2),
    ]


def test_every_genome_gives_a_path_within_the_limits() -> None:
    draw = random.Random(1)
    for kind, (most, layers) in itertools.product(("threshold", "switch"), ((2, None), (5, 3), (80, 2), (12, None))):
        searched = space((4, 3), max_hops=most, max_layers=layers, switches=kind)
        for _ in range(100):
            genome = {
                gene.name: draw.random() < 0.7 if gene.kind == "switch" else draw.uniform(gene.low, gene.high)
                for gene in searched.genes
            }
            path = [(hop.source, hop.layer) for hop in hops(searched.decode(genome))]
            assert path[0] == ("a", 0)
            assert path[-1] == ("a", 3)
            assert len(path) <= most
            assert layers is None or len(set(path)) <= layers


def test_genomes_of_the_same_path_give_the_same_recipe() -> None:
    searched = space()
    one = taking(searched, "r0/b.01", **{"r0/b.02/scale": 0.6})
    other = taking(searched, "r0/b.01", **{"r0/b.02/scale": 1.4, "r0/b.02/on": -0.1})
    assert searched.decode(one).sha256 == searched.decode(other).sha256


def test_transition_scales_a_hop_by_where_it_comes_from() -> None:
    searched = space(scales="transition")
    given = {"a.00>b.01/scale": 0.6, "b.01>b.01/scale": 1.3, "b.01>a.02/scale": 0.8, "b.01>a.00/scale": 0.5}
    genome = taking(searched, "r0/b.01", "r1/b.01", **given)
    assert [hop.scale for hop in hops(searched.decode(genome))] == [1.0, 0.6, 1.3, 0.8]


def test_network_computes_the_scale_from_places_and_number() -> None:
    searched = space(scales="network", width=1, max_hops=10)
    given = {"i": 0.3, "j": -0.2, "t": 0.5, "bias": 0.1, "out": 0.4}
    genome = taking(searched, "r0/b.01", **{f"network/0/{name}": value for name, value in given.items()})
    genome["network/bias"] = -0.05
    # Layers in their row: a.00 at -1, a.02 at -0.2, b.01 at 0.6; hops 1 and 2 of 10 at -0.8 and -0.6.
    second = 1 - 0.05 + 0.4 * math.tanh(3 * (0.3 * -1 - 0.2 * 0.6 + 0.5 * -0.8 + 0.1))
    third = 1 - 0.05 + 0.4 * math.tanh(3 * (0.3 * 0.6 - 0.2 * -0.2 + 0.5 * -0.6 + 0.1))
    assert [hop.scale for hop in hops(searched.decode(genome))] == pytest.approx([1.0, second, third])


def test_network_starts_with_scales_of_one_and_stays_in_the_range() -> None:
    searched = space(scales="network", low=0.8, high=1.1)
    assert {hop.scale for hop in hops(searched.decode(taking(searched, "r0/b.01", "r0/a.01")))} == {1.0}
    extreme = {gene.name: 1.0 for gene in searched.genes if gene.name.startswith("network")}
    scales = {hop.scale for hop in hops(searched.decode(taking(searched, "r0/b.01", "r0/a.01", **extreme)))}
    assert scales == {1.0, 1.1, 0.8} or scales == {1.0, 1.1}


def test_scales_matter_only_where_their_switch_is_on() -> None:
    searched = space(switches="switch")
    active = {gene.name: gene.active_if for gene in searched.genes if gene.name.endswith("/scale")}
    assert active["r0/b.01/scale"] == "r0/b.01/on"
    assert active["r0/a.00/scale"] is None  # the first hop and the last are always taken
    assert active["r1/a.02/scale"] is None
    assert active["r1/a.00/scale"] == "r1/a.00/on"


@pytest.mark.parametrize("switches", ["threshold", "switch"])
def test_recipe_of_the_space_is_met_again(switches: str) -> None:
    searched, draw = space(switches=switches), random.Random(3)
    for _ in range(30):
        genome = {
            gene.name: draw.random() < 0.5 if gene.kind == "switch" else draw.uniform(gene.low, gene.high)
            for gene in searched.genes
        }
        recipe = searched.decode(genome)
        assert searched.decode(searched.genome_of(recipe)).sha256 == recipe.sha256


def test_recipe_of_another_space_is_no_start() -> None:
    elsewhere = space((4, 4), scales="none")
    with pytest.raises(UsageError, match="has no slot"):
        space(scales="none").genome_of(elsewhere.decode(taking(elsewhere, "r0/b.03")))


def test_sources_may_differ_in_depth() -> None:
    searched = space((2, 5))
    assert len(searched.slots) == 2 * 7
    assert hops(searched.decode(taking(searched, "r0/b.04"))) == (Hop("a", 0), Hop("b", 4), Hop("a", 1))


def test_baselines_leave_out_or_exchange_one_layer() -> None:
    baselines = space((3, 2)).baselines()["best skip or swap"]
    assert {name: [(hop.source, hop.layer) for hop in hops(recipe)] for name, recipe in baselines.items()} == {
        "without layer 0": [("a", 1), ("a", 2)],
        "without layer 1": [("a", 0), ("a", 2)],
        "without layer 2": [("a", 0), ("a", 1)],
        "layer 0 of b": [("b", 0), ("a", 1), ("a", 2)],
        "layer 1 of b": [("a", 0), ("b", 1), ("a", 2)],
    }


def test_source_by_itself_takes_nothing_from_others() -> None:
    recipe = space((3, 2)).source("b")
    assert isinstance(recipe.root, PathNode)
    assert recipe.root == PathNode({"b": B}, (Hop("b", 0), Hop("b", 1)), "b", "b", "b", "float32")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"max_hops": 1}, "max_hops=1 allows no path"),
        ({"max_layers": 1}, "max_layers=1 allows no path"),
        ({"low": -0.5}, r"\[-0.5, 1.5\] includes 0"),
        ({"low": 1.2}, "must include 1"),
        ({"low": 1.5, "high": 0.5}, "is empty"),
        ({"scales": "sometimes"}, "scales=sometimes: unknown"),
        ({"switches": "maybe"}, "switches=maybe: unknown"),
        ({"scale_target": "nothing"}, "scale_target=nothing: unknown"),
        ({"order": ["a", "a"]}, "each source once"),
        ({"layout": "random"}, "layout=random: unknown; known are sources, interleaved"),
        ({"first_pass": 1.0}, "first_pass must be between 0.01 and 0.99, got 1"),
        ({"others": 0.0}, "others must be between 0.01 and 0.99, got 0"),
    ],
)
def test_settings_that_allow_no_path_are_refused(settings: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        space(**settings)


def test_scales_of_a_branch_may_be_zero_or_negative() -> None:
    assert space(low=-0.5, scale_target="branch").genes
