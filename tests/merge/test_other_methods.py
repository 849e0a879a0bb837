"""SCE, NearSwap, Arcee Fusion and RAM against their formulas, written as loops or on whole float64 tensors."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from optmerge.errors import UsageError
from optmerge.merge import merge_tensors, sweep

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)
counts = st.integers(1, 5)
shares = st.floats(0.0, 1.0)

METHODS: dict[str, dict[str, Any]] = {
    "sce": {"sources": 3, "select_topk": 0.3},
    "nearswap": {"sources": 1, "t": 0.05},
    "arcee_fusion": {"sources": 1},
    "ram": {"sources": 3},
    "ramplus_tl": {"sources": 3, "r": 0.5, "alpha": 2.0},
}


def tensors(seed: int, count: int) -> list[Tensor]:
    """A base and sources that differ from it at some entries, in a shape that follows from the seed."""
    random = torch.Generator().manual_seed(seed)
    dims = int(torch.randint(1, 4, (), generator=random))
    shape = torch.randint(1, 9, (dims,), generator=random).tolist()
    base = torch.randn(shape, generator=random)
    changes = 0.1 * torch.randn([count, *shape], generator=random)
    return [base, *(base + changes * (torch.rand(changes.shape, generator=random) < 0.6))]


def merge(method: str, inputs: list[Tensor], **arguments: Any) -> Tensor:
    arguments.pop("sources", None)
    base, *sources = inputs
    return merge_tensors(method, sources, base=base, **arguments)


def close(merged: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(merged, wanted.float(), rtol=1e-5, atol=1e-6)


def task_vectors(inputs: list[Tensor]) -> Tensor:
    return torch.stack([source - inputs[0] for source in inputs[1:]]).double()


# sce


@few
@given(seed=seeds, count=counts, share=shares)
def test_sce_selects_calculates_erases(seed: int, count: int, share: float) -> None:
    inputs = tensors(seed, count)
    vectors = task_vectors(inputs)
    variance = vectors.var(0, unbiased=False)
    if share < 1:
        kept = int(int((variance > 1e-14).sum()) * share)
        order = variance.flatten().sort(descending=True).values
        assume(kept == 0 or kept == len(order) or order[kept - 1] > order[kept] * 1.0001)  # which of two is a toss-up
        chosen = variance >= order[kept - 1] if kept else torch.zeros_like(variance, dtype=torch.bool)
        vectors = vectors * chosen
    squares = vectors.square().flatten(1).mean(1)
    weight = squares / squares.sum().clamp(min=1e-300)
    total = vectors.sum(0)
    assume(not ((total.abs() < 1e-7) & (total != 0)).any())  # a sign that rounding decides
    agrees = vectors.sign() == torch.where(total >= 0, 1.0, -1.0)
    weighted = weight.reshape(-1, *[1] * total.dim()) * agrees
    delta = (vectors * weighted).sum(0) / weighted.sum(0).clamp(min=1e-300)
    close(merge("sce", inputs, select_topk=share), inputs[0] + delta)


def test_sce_keeps_all_entries_that_tie_at_the_threshold() -> None:
    inputs = [torch.zeros(4), torch.tensor([1.0, 2.0, 2.0, 1.0]), torch.zeros(4)]
    assert merge("sce", inputs, select_topk=0.25).tolist() == [0, 2, 2, 0]


def test_sce_selects_no_entry_that_all_sources_changed_alike() -> None:
    change = torch.tensor([0.1, 0.2, 0.3])
    inputs = [torch.zeros(3), *(change + torch.tensor([0.0, 0.0, k]) for k in (0.0, 0.5, 1.0))]
    merged = merge("sce", inputs, select_topk=0.99999)
    assert merged[:2].tolist() == [0, 0]  # one entry differs, and a share of one entry below 1 is none
    assert merge("sce", inputs, select_topk=1.0)[:2].tolist() == pytest.approx([0.1, 0.2])


def test_sce_of_small_task_vectors_still_weighs_them() -> None:
    inputs = [torch.zeros(1), torch.full((1,), 3e-4), torch.full((1,), 1e-4)]
    close(merge("sce", inputs) / 1e-4, torch.tensor([0.9 * 3 + 0.1 * 1]))


@pytest.mark.parametrize(("share", "which"), [(0.0, 0), (1.0, 1)])
@few
@given(seed=seeds)
def test_sce_of_one_source_is_the_base_or_the_source(seed: int, share: float, which: int) -> None:
    inputs = tensors(seed, 1)
    assert torch.equal(merge("sce", inputs, select_topk=share), inputs[which])


def test_a_search_finds_the_same_thresholds_as_a_single_merge() -> None:
    inputs, facts = [torch.zeros(200, 400), *torch.randn(2, 200, 400)], {}
    for share in (0.7, 0.2):
        merged = merge("sce", inputs, select_topk=share, facts=facts)
        assert torch.equal(merged, merge("sce", inputs, select_topk=share))


# nearswap


@few
@given(seed=seeds, t=st.floats(1e-5, 0.3))
def test_nearswap_is_the_published_interpolation(seed: int, t: float) -> None:
    base, source = tensors(seed, 1)
    weight = (t / (base - source).double().abs()).clamp(max=1)  # infinite where they are equal: 1
    close(merge("nearswap", [base, source], t=t), weight * source + (1 - weight) * base)


@few
@given(seed=seeds)
def test_nearswap_goes_from_the_base_to_the_source(seed: int) -> None:
    base, source = tensors(seed, 1)
    assert torch.equal(merge("nearswap", [base, source], t=0.0), base)
    assert torch.equal(merge("nearswap", [base, source], t=100.0), source)


def test_nearswap_takes_near_entries_from_the_source_and_steps_towards_far_ones() -> None:
    merged = merge("nearswap", [torch.ones(4), torch.tensor([1.25, 0.75, 3.0, -3.0])], t=0.5)
    assert merged.tolist() == [1.25, 0.75, 1.5, 0.5]


# arcee_fusion


def important(base: Tensor, source: Tensor) -> tuple[Tensor, float]:
    """Importance by rows, and the threshold from a whole sort."""
    p, q = (tensor.double().softmax(-1) + 1e-8 for tensor in (source, base))
    importance = (source - base).double().abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    order = importance.flatten().sort().values
    first, median, third = (order[int(share * (len(order) - 1))] for share in (0.25, 0.5, 0.75))
    return importance, float(median + 1.5 * (third - first))


@few
@given(seed=seeds)
def test_arcee_fusion_takes_important_entries_from_the_source(seed: int) -> None:
    base, source = tensors(seed, 1)
    importance, threshold = important(base, source)
    assume(not ((importance - threshold).abs() < 1e-6 * threshold).any())  # rounding decides
    merged = merge("arcee_fusion", [base, source])
    assert torch.equal(merged, torch.where(importance >= threshold, source, base))


def test_arcee_fusion_of_a_change_of_one_row_takes_all_of_it() -> None:
    base = torch.randn(8, 5)
    source = base.clone()
    source[3] += torch.randn(5)
    # Most entries have no importance, and so neither has the threshold.
    assert torch.equal(merge("arcee_fusion", [base, source]), source)


def test_arcee_fusion_sees_divergences_that_float32_does_not() -> None:
    base = torch.randn(40, 60)
    source = base + 1e-4 * torch.randn(40, 60)
    importance, threshold = important(base, source)
    taken = merge("arcee_fusion", [base, source]) != base
    assert 0.01 < taken.float().mean() < 0.3
    assert (taken == (importance >= threshold)).float().mean() > 0.999


def test_arcee_fusion_of_a_single_number_is_the_source() -> None:
    assert merge("arcee_fusion", [torch.tensor(1.0), torch.tensor(2.0)]).item() == 2


# ram, ramplus_tl


def reinforced(inputs: list[Tensor], epsilon: float, r: float = 0.0, alpha: float = 0.0) -> Tensor:
    vectors = torch.stack([source - inputs[0] for source in inputs[1:]]).flatten(1)
    changed = vectors.abs() > epsilon
    merged = inputs[0].double().flatten()
    for vector, own in zip(vectors, changed, strict=True):
        others = changed.sum(0) - own.int()
        shared, unique = int((own & (others > 0)).sum()), int((own & (others == 0)).sum())
        scale = 1 + r * min(alpha, shared / max(unique, 1))
        for i in own.nonzero().flatten().tolist():
            merged[i] += vector[i] * scale if others[i] == 0 else vector[i] / (others[i] + 1)
    return merged.reshape(inputs[0].shape)


@few
@given(seed=seeds, count=counts, epsilon=st.sampled_from([0.0, 1e-5, 0.05]))
def test_ram_averages_shared_changes_and_keeps_unique_ones(seed: int, count: int, epsilon: float) -> None:
    inputs = tensors(seed, count)
    close(merge("ram", inputs, epsilon=epsilon), reinforced(inputs, epsilon))


@few
@given(seed=seeds, count=counts, r=st.floats(0.0, 2.0), alpha=st.floats(0.0, 3.0))
def test_ramplus_amplifies_unique_changes(seed: int, count: int, r: float, alpha: float) -> None:
    inputs = tensors(seed, count)
    close(merge("ramplus_tl", inputs, r=r, alpha=alpha), reinforced(inputs, 1e-5, r, alpha))


def test_ramplus_without_amplification_is_ram() -> None:
    inputs = tensors(11, 3)
    assert torch.equal(merge("ramplus_tl", inputs, r=0.0), merge("ram", inputs))


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
def test_changes_of_epsilon_and_less_do_not_count(method: str) -> None:
    epsilon = float(torch.tensor(0.01))
    above = float(torch.nextafter(torch.tensor(0.01), torch.tensor(1.0)))
    merged = merge(method, [torch.zeros(3), torch.tensor([epsilon, above, -above])], epsilon=0.01)
    assert merged.tolist() == [0.0, above, -above]


# What holds for all of them


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds)
def test_sources_that_equal_the_base_leave_it_bit_for_bit(method: str, seed: int) -> None:
    base = tensors(seed, 0)[0]
    base.reshape(-1)[0] = -0.0
    merged = merge(method, [base] * (1 + METHODS[method]["sources"]), **METHODS[method])
    assert torch.equal(merged.view(torch.int32), base.view(torch.int32))


@pytest.mark.parametrize("method", ["sce", "ram", "ramplus_tl"])
@few
@given(seed=seeds)
def test_names_of_sources_do_not_matter(method: str, seed: int) -> None:
    inputs = tensors(seed, 3)
    if method == "sce":
        assume(not (task_vectors(inputs).sum(0).abs() < 1e-6).logical_and(task_vectors(inputs).any(0)).any())
    merged = merge(method, inputs, aliases=["a", "b", "c"])
    torch.testing.assert_close(merged, merge(method, inputs, aliases=["c", "a", "b"]))


@pytest.mark.parametrize("method", METHODS)
def test_stored_types_only_matter_for_what_they_store(method: str) -> None:
    inputs = [tensor.to(torch.bfloat16) for tensor in tensors(8, METHODS[method]["sources"])]
    merged = merge(method, inputs, **METHODS[method])
    assert merged.dtype == torch.float32
    assert torch.equal(merged, merge(method, [tensor.float() for tensor in inputs], **METHODS[method]))


@pytest.mark.parametrize("shape", [(300,), (90, 31), (4, 5, 60)])
@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_pieces_does_not_matter(
    method: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = list(torch.randn(1 + METHODS[method]["sources"], *shape, generator=torch.Generator().manual_seed(9)))
    whole = merge(method, inputs, **METHODS[method])
    monkeypatch.setattr(sweep, "PIECE", 37)
    monkeypatch.setattr(sweep, "SUMMED", 37)
    assert torch.equal(whole, merge(method, inputs, **METHODS[method]))


@pytest.mark.parametrize("method", ["nearswap", "arcee_fusion"])
def test_methods_of_one_source_refuse_two(method: str) -> None:
    with pytest.raises(UsageError, match="exactly 1 source beside the base, got 2"):
        merge(method, [torch.zeros(2)] * 3)


@pytest.mark.parametrize("method", METHODS)
def test_a_base_is_required(method: str) -> None:
    with pytest.raises(UsageError, match="needs a base"):
        merge_tensors(method, [torch.zeros(2)] * METHODS[method]["sources"])
