"""Random masks: nested, reproducible, and independent of one another."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optmerge.merge import inputs, masks, merge_tensors, sweep
from optmerge.merge.masks import LEVELS, Stream, keep, limit, numbers, shared_hash

few = settings(max_examples=25, deadline=None)
streams = st.builds(Stream, seed=st.integers(0, 2**31), alias=st.text(max_size=8), name=st.text(max_size=8))
MANY = 200_000


def lowbias32(x: int, last_step: bool = True) -> int:
    """The published hash, in Python's own integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16 if last_step else x


def first_word(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def number(seed: int, alias: str, name: str, position: int, segment: str = "") -> int:
    """A source's number at one position, as documented: hash the counter with one key, then with the other.

    The last step is left out, and of the signed 32 bits the first 31 count.
    """
    tensor_key = first_word(f"{seed}\0{name}{segment}")
    hashed = lowbias32(lowbias32(position ^ tensor_key) ^ first_word(f"{seed}\0{alias}\0{name}"), last_step=False)
    return (hashed - 2**32 * (hashed >= 2**31)) >> 1


def correlation(one: Tensor, other: Tensor) -> float:
    """Correlation of two masks, in standard errors of what independent ones would have."""
    a, b = one.double() - one.double().mean(), other.double() - other.double().mean()
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt() * len(one) ** 0.5)


@pytest.mark.parametrize(("seed", "alias", "name"), [(7, "ja", "model.norm.weight"), (0, "", ""), (2**40, "数学", "é")])
def test_masks_can_be_recomputed_by_hand(seed: int, alias: str, name: str) -> None:
    for density in (0.01, 0.3, 0.97):
        expected = [number(seed, alias, name, i) < round(density * 2**31) - 2**30 for i in range(300)]
        assert keep(Stream(seed, alias, name), density, 300).tolist() == expected


def test_numbers_are_right_at_the_far_end_of_a_segment_and_in_the_next() -> None:
    stream = Stream(3, "ja", "embedding")
    places = [0, 1, 2**31 - 2, 2**31 - 1]
    for segment, text in ((0, ""), (1, "\x001"), (2, "\x002")):
        key = torch.tensor(stream.tensor_key(segment), dtype=torch.int32)
        position = torch.tensor(places, dtype=torch.int32)
        found = numbers(shared_hash(position, key), torch.tensor(stream.source_key(), dtype=torch.int32))
        assert found.tolist() == [number(3, "ja", "embedding", place, text) for place in places]


@few
@given(stream=streams, densities=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_masks_are_nested_in_density(stream: Stream, densities: tuple[float, float]) -> None:
    low, high = (keep(stream, density, 999) for density in sorted(densities))
    assert not (low & ~high).any()


@few
@given(stream=streams)
def test_none_is_kept_at_density_zero_and_all_at_one(stream: Stream) -> None:
    assert not keep(stream, 0.0, 5000).any()
    assert keep(stream, 1.0, 5000).all()


def test_limits_leave_no_number_out() -> None:
    # Numbers are in [-2^30, 2^30), of which `number < limit` keeps exactly the share that was asked for.
    assert limit(0.0) == -(2**30) and limit(1.0) == 2**30 and limit(0.5) == 0
    assert limit(1 / LEVELS) == -(2**30) + 1


@few
@given(stream=streams, density=st.floats(0.02, 0.98))
def test_share_that_is_kept_is_near_the_density(stream: Stream, density: float) -> None:
    count = 20_000
    share = float(keep(stream, density, count).float().mean())
    assert abs(share - density) < 6 * (density * (1 - density) / count) ** 0.5


@pytest.mark.parametrize("densities", [(0.5, 0.5), (0.9, 0.1), (0.02, 0.3)])
@pytest.mark.parametrize(
    "other",
    [Stream(1, "ja", "layer.1"), Stream(0, "math", "layer.1"), Stream(0, "ja", "layer.2"), Stream(1, "math", "norm")],
    ids=["seed", "alias", "name", "all"],
)
def test_masks_are_independent_between_seeds_aliases_and_names(other: Stream, densities: tuple[float, float]) -> None:
    one, another = (keep(s, d, MANY) for s, d in zip((Stream(0, "ja", "layer.1"), other), densities, strict=True))
    assert abs(correlation(one, another)) < 5


def test_masks_of_three_sources_are_jointly_independent() -> None:
    densities = (0.3, 0.5, 0.8)
    masks = [keep(Stream(0, alias, "w"), share, MANY) for alias, share in zip(("a", "b", "c"), densities, strict=True)]
    for kept in range(8):
        wanted = [bool(kept >> k & 1) for k in range(3)]
        together = torch.stack([mask == want for mask, want in zip(masks, wanted, strict=True)]).all(0)
        expected = 1.0
        for want, share in zip(wanted, densities, strict=True):
            expected *= share if want else 1 - share
        assert abs(float(together.double().mean()) - expected) < 5 * (expected * (1 - expected) / MANY) ** 0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 4096, 65536])
@pytest.mark.parametrize("density", [0.5, 0.1])
def test_neighbouring_entries_are_independent(lag: int, density: float) -> None:
    mask = keep(Stream(3, "ja", "layer.1"), density, MANY)
    assert abs(correlation(mask[lag:], mask[:-lag])) < 5


def test_masks_at_consecutive_seeds_are_independent_of_each_others_neighbours() -> None:
    one, other = (keep(Stream(seed, "ja", "layer.1"), 0.5, MANY) for seed in (0, 1))
    for lag in (1, 2, 1024):
        assert abs(correlation(one[lag:], other[:-lag])) < 5


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_merges_keep_what_the_masks_keep(method: str) -> None:
    # Without a spread, DELLA is DARE.
    more = {"epsilon": 0.0} if method.startswith("della") else {}
    shape = (300, 301)
    source = torch.ones(shape)
    merged = merge_tensors(
        method, [source], base=torch.zeros(shape), aliases=["ja"], seed=5, name="w", density=0.37, **more
    )
    assert torch.equal(merged.flatten() != 0, keep(Stream(5, "ja", "w"), 0.37, source.numel()))


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_counting_starts_again_after_a_segment(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (masks, sweep, inputs):
        monkeypatch.setattr(module, "SEGMENT", 600)
    monkeypatch.setattr(sweep, "PIECE", 100)
    more = {"epsilon": 0.0} if method.startswith("della") else {}
    shape = (50, 50)  # four segments of twelve rows, and two rows
    merged = merge_tensors(
        method, [torch.ones(shape)], base=torch.zeros(shape), aliases=["ja"], seed=5, name="w", density=0.4, **more
    )
    mask = merged.flatten() != 0
    stream = Stream(5, "ja", "w")
    assert torch.equal(mask, keep(stream, 0.4, 2500))
    for place in (0, 599, 600, 601, 1200, 2499):
        segment, position = divmod(place, 600)
        drawn = number(5, "ja", "w", position, f"\0{segment}" if segment else "")
        assert mask[place].item() == (drawn < limit(0.4))
