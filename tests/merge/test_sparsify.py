"""Sparse task vectors: Model Breadcrumbs and DELLA against their definitions, and what makes up for dropped entries."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from optmerge.merge import merge_tensors
from optmerge.merge.magprune import keeping_probability, row_ranks

MANIFEST = Path(__file__).parents[3] / "shared" / "golden" / "manifest.json"
DOCUMENT = json.loads(MANIFEST.read_text(encoding="utf-8")) if MANIFEST.exists() else {}
SPARSIFIED = [
    pytest.param(entry, id=entry["id"]) for entry in DOCUMENT.get("random_statistics", []) if "sparsifier" in entry
]

few = settings(max_examples=30, deadline=None)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Model Breadcrumbs


def crumbs(vector: Tensor, density: float, gamma: float) -> Tensor:
    """The masked task vector by a full sort, as the paper describes it; for entries that differ in magnitude."""
    count = vector.numel()
    kept = int(density * count)
    above = min(int(gamma * count), count - kept)
    order = vector.abs().flatten().argsort(descending=True)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[order[above : above + kept]] = True
    return torch.where(mask.reshape(vector.shape), vector, 0.0)


@few
@given(seed=st.integers(0, 2**31), density=st.floats(0, 1), gamma=st.floats(0, 1), lambda_=st.floats(0.1, 2))
def test_breadcrumbs_drops_the_largest_and_the_smallest(
    seed: int, density: float, gamma: float, lambda_: float
) -> None:
    vectors = [normal(seed, 9, 11), normal(seed + 1, 9, 11)]
    merged = merge_tensors(
        "breadcrumbs",
        vectors,
        base=torch.zeros(9, 11),
        weight=[0.7, -0.4],
        density=[density, 0.5],
        gamma=[gamma, 0.1],
        lambda_=lambda_,
    )
    expected = lambda_ * (0.7 * crumbs(vectors[0], density, gamma) - 0.4 * crumbs(vectors[1], 0.5, 0.1))
    torch.testing.assert_close(merged, expected)


@few
@given(seed=st.integers(0, 2**31), density=st.floats(0.05, 0.9), gamma=st.floats(0, 0.3), normalize=st.booleans())
def test_breadcrumbs_ties_elects_among_what_breadcrumbs_keeps(
    seed: int, density: float, gamma: float, normalize: bool
) -> None:
    vectors, weight = [normal(seed + k, 9, 11) for k in range(3)], [0.7, 0.4, 0.2]
    merged = merge_tensors(
        "breadcrumbs_ties",
        vectors,
        base=torch.zeros(9, 11),
        weight=weight,
        density=density,
        gamma=gamma,
        normalize=normalize,
    )
    masked = [crumbs(vector, density, gamma) for vector in vectors]
    for place, found in enumerate(merged.flatten().tolist()):
        entries = [(w, w * mask.flatten()[place].item()) for w, mask in zip(weight, masked, strict=True)]
        positive = sum(entry for _, entry in entries) >= 0
        agreeing = [(w, entry) for w, entry in entries if entry and (entry > 0) == positive]
        total = sum(entry for _, entry in agreeing)
        divided = total / sum(w for w, _ in agreeing) if normalize and agreeing else total
        assert found == pytest.approx(divided, rel=1e-5, abs=1e-6)


def test_breadcrumbs_by_hand() -> None:
    source = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0, -10.0])
    merged = merge_tensors("breadcrumbs", [source], base=torch.zeros(10), density=0.4, gamma=0.2)
    assert merged.tolist() == [0, 0, 0, 0, 5, -6, 7, -8, 0, 0]


def test_breadcrumbs_keeps_entries_that_tie_with_the_first_or_the_last() -> None:
    source = torch.tensor([5.0, 4.0, 4.0, -4.0, 2.0, 2.0, -2.0, 1.0, 0.5, 0.25])
    # The 3rd to the 5th largest would be kept: magnitudes 4 to 2.
    merged = merge_tensors("breadcrumbs", [source], base=torch.zeros(10), density=0.3, gamma=0.2)
    assert merged.tolist() == [0, 4, 4, -4, 2, 2, -2, 0, 0, 0]


# DELLA


def ranks(row: list[float]) -> list[int]:
    """Each entry's place in a stable sort by magnitude."""
    order = sorted(range(len(row)), key=lambda i: (abs(row[i]), i))
    return [order.index(i) for i in range(len(row))]


@few
@given(
    rows=st.integers(1, 6).flatmap(
        lambda size: st.lists(
            st.lists(st.sampled_from([0.0, 1e-40, 0.5, 0.75, 2.0, 1e30]), min_size=size, max_size=size), min_size=1
        )
    )
)
def test_ranks_are_those_of_a_stable_sort(rows: list[list[float]]) -> None:
    assert row_ranks(torch.tensor(rows)).tolist() == [ranks(row) for row in rows]


def test_keeping_probabilities_grow_in_equal_steps() -> None:
    magnitude = torch.tensor([[3.0, 0.0, 2.0, 1.0, 4.0], [1.0, 1.0, 1.0, 0.0, 2.0]])
    number = {"density": torch.tensor(0.5, dtype=torch.float64), "spread": torch.tensor(0.2, dtype=torch.float64)}
    expected = torch.tensor([[0.6, 0.3, 0.5, 0.4, 0.7], [0.4, 0.5, 0.6, 0.3, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(keeping_probability(magnitude, **number), expected)


def test_keeping_probabilities_end_at_zero_and_one() -> None:
    magnitude = torch.arange(11.0).reshape(1, 11)
    for density, lowest, highest in ((0.1, 0.0, 0.6), (0.9, 0.4, 1.0)):
        found = keeping_probability(magnitude, torch.tensor(density).double(), torch.tensor(0.5).double())
        assert found.min().item() == pytest.approx(lowest) and found.max().item() == pytest.approx(highest)


def test_an_entry_without_neighbours_is_kept_with_the_density() -> None:
    found = keeping_probability(torch.ones(4, 1), torch.tensor(0.3).double(), torch.tensor(0.2).double())
    torch.testing.assert_close(found, torch.full((4, 1), 0.3, dtype=torch.float64))


def shares(source: Tensor, seeds: int, **parameters: Any) -> Tensor:
    """How often each entry of a task vector was kept."""
    kept = torch.zeros(source.shape)
    for seed in range(seeds):
        kept += merge_tensors("della", [source], base=torch.zeros(source.shape), seed=seed, **parameters) != 0
    return kept / seeds


@pytest.mark.parametrize("shape", [(6, 50), (300,), (2, 3, 50)])
def test_entries_are_kept_with_the_probability_of_their_rank(shape: tuple[int, ...]) -> None:
    source, seeds, density, epsilon = normal(0, *shape), 400, 0.4, 0.3
    rows = source.reshape(1, -1) if len(shape) == 1 else source.reshape(shape[0], -1)
    rank = torch.tensor([ranks(row) for row in rows.tolist()]).reshape(shape)
    expected = density + (2 * rank / (rows.shape[1] - 1) - 1) * epsilon
    error = (expected * (1 - expected) / seeds).sqrt()
    found = shares(source, seeds, density=density, epsilon=epsilon)
    assert ((found - expected).abs() <= 5 * error).all()
    assert abs(float((found - expected).mean())) <= 5 * float(error.square().mean().sqrt()) / source.numel() ** 0.5


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_dividing_by_the_probability_makes_the_mean_that_of_the_whole(method: str) -> None:
    source, base, seeds, density, epsilon = normal(1, 4, 40), normal(2, 4, 40), 600, 0.5, 0.3
    delta = source - base
    total = torch.zeros(source.shape, dtype=torch.float64)
    for seed in range(seeds):
        total += merge_tensors(method, [source], base=base, seed=seed, density=density, epsilon=epsilon) - base
    rank = torch.tensor([ranks(row) for row in delta.tolist()])
    probability = density + (2 * rank / 39 - 1) * epsilon
    error = delta.abs() * ((1 - probability) / probability / seeds).sqrt()
    assert ((total / seeds - delta).abs() <= 5 * error + 1e-5).all()


@pytest.mark.parametrize("entry", SPARSIFIED)
def test_shares_kept_equal_the_reference(entry: dict[str, Any], shared: Path) -> None:
    tensors = load_file(shared / "golden" / "golden.safetensors")
    source, base = (tensors[name] for name in entry["delta"].split(" - "))
    delta, theirs, seeds = source - base, tensors[entry["keep_frac"]], 256
    # Without a spread, DELLA's drop is the plain random one.
    ours = shares(delta, seeds, density=entry["density"], epsilon=entry["epsilon"], rescale="none")
    # Entries without a change are never told from dropped ones.
    assert not ours[delta == 0].any()
    expected = theirs[delta != 0]
    error = (expected * (1 - expected)).clamp(min=0.02) ** 0.5 * (1 / seeds + 1 / entry["n_seeds"]) ** 0.5
    assert ((ours[delta != 0] - expected).abs() <= 5 * error).all()
    assert float((ours[delta != 0] - expected).mean().abs()) <= 5 * float(error.mean()) / expected.numel() ** 0.5


@pytest.mark.parametrize("entry", [e for e in SPARSIFIED if e.values[0]["rescale_norm"] == "l1"])
def test_restored_norms_equal_the_reference(entry: dict[str, Any], shared: Path) -> None:
    tensors = load_file(shared / "golden" / "golden.safetensors")
    source, base = (tensors[name] for name in entry["delta"].split(" - "))
    delta, factors, seeds = source - base, [], 64
    for seed in range(seeds):
        pruned = merge_tensors(
            "della_linear",
            [delta],
            base=torch.zeros(delta.shape),
            seed=seed,
            density=entry["density"],
            epsilon=entry["epsilon"],
            rescale="l1_norm",
        )
        assert pruned.double().abs().sum().item() == pytest.approx(delta.double().abs().sum().item(), rel=1e-5)
        kept = pruned != 0
        factors.append((pruned[kept] / delta[kept]).median().item())
    theirs = entry["scale_of_kept"]
    assert abs(sum(factors) / seeds - theirs["mean"]) <= 5 * theirs["std"] * (1 / seeds + 1 / entry["n_seeds"]) ** 0.5


def test_the_spread_does_not_touch_densities_zero_and_one() -> None:
    source = normal(3, 5, 8)
    for density, expected in ((1.0, source), (0.0, torch.zeros(5, 8))):
        merged = merge_tensors("della", [source, source], base=torch.zeros(5, 8), density=density, epsilon=0.4)
        assert torch.equal(merged, expected)


# What makes up for dropped entries


@pytest.mark.parametrize("method", ["dare_linear", "della_linear", "breadcrumbs"])
def test_the_l1_norm_can_be_restored_for_each_source(method: str) -> None:
    source, base = normal(4, 30, 40), normal(5, 30, 40)
    merged = merge_tensors(method, [source], base=base, weight=0.5, density=0.3, rescale="l1_norm")
    norm = (merged - base).double().abs().sum().item()
    assert norm == pytest.approx(0.5 * (source - base).double().abs().sum().item(), rel=1e-5)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "ties", "breadcrumbs"])
def test_what_is_kept_can_stay_as_it_is(method: str) -> None:
    source = normal(6, 30, 40)
    merged = merge_tensors(method, [source], base=torch.zeros(30, 40), density=0.3, rescale="none")
    assert 0.2 < (merged != 0).float().mean() < 0.4
    assert torch.equal(merged[merged != 0], source[merged != 0])


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear", "ties", "breadcrumbs"])
def test_a_task_vector_of_nothing_has_no_norm_to_restore(method: str) -> None:
    base = normal(7, 30, 40)
    merged = merge_tensors(method, [base.clone(), base + 1], base=base, density=0.5, rescale="l1_norm")
    assert merged.isfinite().all() and not torch.equal(merged, base)


def test_a_density_below_the_steps_of_random_numbers_keeps_nothing() -> None:
    merged = merge_tensors("dare_linear", [torch.ones(1000)], base=torch.zeros(1000), density=1e-12)
    assert not merged.any()
