"""Thresholds by magnitude are exact, whatever the numbers and however they are sampled."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optmerge.merge import magnitudes, merge_tensors
from optmerge.merge.inputs import Inputs
from optmerge.merge.magnitudes import MagnitudeTable, kept_count, kth_largest, kth_largest_of, magnitude_table

few = settings(max_examples=30, deadline=None)
SAMPLED = 200_003  # so many entries are sampled


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def differences(seed: int, size: int) -> Tensor:
    """Magnitudes of the changes of 16-bit weights: few distinct ones, many of them 0."""
    base = (0.02 * torch.randn(size, generator=generator(seed))).bfloat16()
    source = (base.float() + 1e-4 * torch.randn(size, generator=generator(seed + 1))).bfloat16()
    return (source.float() - base.float()).abs()


KINDS: dict[str, Callable[[int], Tensor]] = {
    "random": lambda size: torch.rand(size, generator=generator(0)),
    "tied": lambda size: (torch.rand(size, generator=generator(0)) * 7).floor(),
    "constant": lambda size: torch.full((size,), 0.25),
    "zeros": torch.zeros,
    "differences of 16-bit numbers": lambda size: differences(0, size),
    "ascending": lambda size: torch.linspace(0, 1, size),
    "descending": lambda size: torch.linspace(1, 0, size),
    "one large, others denormal": lambda size: torch.where(torch.arange(size) == size // 3, 1e30, 1e-41),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SAMPLED, 3 * 65536])
def test_large_tensors_give_the_numbers_of_a_sort(kind: str, size: int) -> None:
    magnitude = KINDS[kind](size)
    descending = magnitude.sort(descending=True).values
    for k in (1, 2, 3, size // 1000, size // 10, size // 2, size // 2 + 1, 9 * size // 10, size - 1, size):
        assert kth_largest(magnitude, k) == descending[k - 1].item()


@few
@given(
    values=st.lists(
        st.sampled_from([0.0, 2.0**-149, 0.5, 1.0, 2.0**127]) | st.floats(0, 10, width=32), min_size=1, max_size=40
    )
)
def test_small_tensors_give_the_numbers_of_a_sort_for_every_k(values: list[float]) -> None:
    descending = sorted(values, reverse=True)
    magnitude = torch.tensor(values)
    table = magnitude_table(magnitude)
    assert table is not None
    for k, expected in enumerate(descending, start=1):
        assert kth_largest(magnitude, k) == table.kth_largest(k) == expected


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(131_072, 300_000),
    share=st.floats(0, 1),
    power=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_any_share_of_a_large_tensor_is_found(seed: int, size: int, share: float, power: float) -> None:
    magnitude = torch.rand(size, generator=generator(seed)) ** power
    k = max(1, int(share * size))
    assert kth_largest(magnitude, k) == magnitude.sort(descending=True).values[k - 1].item()


@pytest.mark.parametrize("planted", [0.0, 1e9])
def test_a_sample_that_misleads_does_no_harm(planted: float) -> None:
    magnitude = torch.rand(SAMPLED, generator=generator(3)) + 1
    magnitude[:: SAMPLED // 65536] = planted  # just where the sample is taken
    descending = magnitude.sort(descending=True).values
    for k in (1, 100, SAMPLED // 3, SAMPLED // 2, SAMPLED - 1, SAMPLED):
        assert kth_largest(magnitude, k) == descending[k - 1].item()


def test_magnitudes_computed_as_needed_are_asked_for_in_any_stretch() -> None:
    magnitude = differences(2, SAMPLED)
    asked: list[slice] = []

    def of(part: slice) -> Tensor:
        asked.append(part)
        return magnitude[part]

    assert kth_largest_of(of, SAMPLED, 777) == magnitude.sort(descending=True).values[776].item()
    # A sample, then one pass in pieces: never all of them at once.
    assert max(len(magnitude[part]) for part in asked) <= 131_072
    assert sum(len(magnitude[part]) for part in asked[1:]) == SAMPLED


def test_shape_does_not_matter() -> None:
    magnitude = torch.rand(6, 5, 4, generator=generator(1))
    assert kth_largest(magnitude.transpose(0, 2), 17) == magnitude.flatten().sort(descending=True).values[16].item()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("random", "ascending", "descending")])
def test_tables_of_large_tensors_give_the_numbers_of_a_sort(kind: str) -> None:
    magnitude = KINDS[kind](SAMPLED)
    table = magnitude_table(magnitude.reshape(1, -1))
    assert table is not None
    descending = magnitude.sort(descending=True).values
    for k in (1, 2, 1000, SAMPLED // 2, SAMPLED - 1, SAMPLED):
        assert table.kth_largest(k) == descending[k - 1].item()


def test_tables_hold_each_magnitude_once() -> None:
    table = magnitude_table(torch.tensor([3.0, 0.0, 3.0, 1.0, 0.0, 0.0]))
    assert isinstance(table, MagnitudeTable)
    assert table.values.tolist() == [0.0, 1.0, 3.0]
    assert [table.kth_largest(k) for k in range(1, 7)] == [3.0, 3.0, 1.0, 0.0, 0.0, 0.0]


def test_tables_that_would_be_as_large_as_their_tensor_are_not_made() -> None:
    assert magnitude_table(torch.rand(SAMPLED, generator=generator(0))) is None
    # A quarter of the entries is the most.
    assert magnitude_table(torch.arange(SAMPLED).div(4, rounding_mode="floor").float()) is None
    assert magnitude_table(torch.arange(SAMPLED).div(5, rounding_mode="floor").float()) is not None


@pytest.mark.parametrize("size", [1000, SAMPLED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_thresholds_are_the_same_with_and_without_a_table(size: int, dtype: torch.dtype) -> None:
    base = torch.randn(size, generator=generator(4)).to(dtype)
    source = (base + 0.1 * torch.randn(size, generator=generator(5))).to(dtype)
    without, kept = Inputs([source], base), Inputs([source], base, facts={}, identities=["ja"])
    vector = (source.float() - base.float()).abs().sort(descending=True).values
    for density in (1e-9, 0.1, 0.5, 0.999):
        expected = vector[max(1, int(density * size)) - 1].item()
        assert without.threshold(0, density) == kept.threshold(0, density) == expected
    assert without.threshold(0, 0.0) == float("inf") and without.threshold(0, 1.0) == 0.0


@pytest.mark.parametrize(("density", "kept"), [(0.0, 0), (1e-9, 1), (0.1, 1), (0.19, 1), (0.2, 2), (0.999, 9), (1, 10)])
def test_a_density_keeps_one_entry_at_least_unless_it_is_zero(density: float, kept: int) -> None:
    assert kept_count(density, 10) == kept


def test_trimming_a_large_tensor_keeps_what_a_sort_keeps() -> None:
    source = torch.randn(SAMPLED, generator=generator(6))
    merged = merge_tensors("ties", [source], base=torch.zeros(SAMPLED), density=0.2)
    order = source.abs().argsort(descending=True)
    expected = torch.zeros(SAMPLED)
    expected[order[: int(0.2 * SAMPLED)]] = source[order[: int(0.2 * SAMPLED)]]
    assert torch.equal(merged, expected)


def test_sampling_begins_where_the_tests_think() -> None:
    assert min(SAMPLED, 131_072) >= 2 * magnitudes._SAMPLE
