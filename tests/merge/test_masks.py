"""Random masks: nested, reproducible, and independent of one another."""

import hashlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optmerge.merge import Stream

CPU = torch.device("cpu")
few = settings(max_examples=25, deadline=None)
streams = st.builds(Stream, seed=st.integers(0, 2**31), alias=st.text(max_size=8), name=st.text(max_size=8))


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def lowbias32(x: int) -> int:
    """The published hash, in Python's own integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def test_masks_can_be_recomputed_by_hand() -> None:
    stream = Stream(seed=7, alias="ja", name="model.norm.weight")
    digest = hashlib.sha256(b"7\0ja\0model.norm.weight").digest()
    one, other = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
    numbers = [lowbias32(lowbias32(position ^ one) ^ other) for position in range(60)]
    expected = [number < 0.3 * 2**32 for number in numbers]
    assert stream.keep(0.3, (5, 12), CPU).flatten().tolist() == expected


@few
@given(stream=streams, densities=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_masks_are_nested_in_density(stream: Stream, densities: tuple[float, float]) -> None:
    low, high = (stream.keep(density, (999,), CPU) for density in sorted(densities))
    assert not (low & ~high).any()


@few
@given(stream=streams, density=st.floats(0.02, 0.98))
def test_share_that_is_kept_is_near_the_density(stream: Stream, density: float) -> None:
    count = 20_000
    share = float(stream.keep(density, (100, 200), CPU).float().mean())
    assert abs(share - density) < 6 * (density * (1 - density) / count) ** 0.5


@pytest.mark.parametrize(
    "other", [Stream(1, "ja", "layer.1"), Stream(0, "math", "layer.1"), Stream(0, "ja", "layer.2")]
)
def test_masks_depend_on_seed_alias_and_name(other: Stream) -> None:
    count = 10_000
    mask, another = (stream.keep(0.5, (count,), CPU) for stream in (Stream(0, "ja", "layer.1"), other))
    # Independent masks agree in half of their entries, give or take five standard errors.
    assert abs(float((mask == another).float().mean()) - 0.5) < 5 * 0.5 / count**0.5


@pytest.mark.usefixtures("threads")
def test_masks_do_not_depend_on_the_number_of_threads() -> None:
    masks = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        masks.append(Stream(0, "ja", "big").keep(0.5, (700, 700), CPU))
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


def test_neighbouring_entries_are_independent() -> None:
    count = 100_000
    mask = Stream(3, "ja", "layer.1").keep(0.5, (count,), CPU).float() - 0.5
    for lag in (1, 2, 64, 4096):
        assert abs(float((mask[lag:] * mask[:-lag]).mean()) * 4) < 5 / (count - lag) ** 0.5
