"""Both spellings of every step on single entries give the same bits."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from optmerge.merge import entries

TINY = 2.0**-149  # the least denormal
HUGE = 3.4028234663852886e38  # the largest float32
LIMITS = torch.tensor([0.0, TINY, 2.0**-126, 0.5, 1.0, HUGE, float("inf")])


def floats() -> Tensor:
    """Zeros, denormals, neighbours of the limits, huge numbers; then random bits of every exponent."""
    special = [0.0, TINY, 2 * TINY, 2.0**-126, 2.0**-126 - TINY, 0.5, 1.0, 1.5, HUGE / 4]
    special += [float(torch.nextafter(torch.tensor(x), torch.tensor(to))) for x in (0.5, 1.0) for to in (0.0, 2.0)]
    bits = torch.randint(0, 0x7E800000, (4001,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    positive = torch.cat([torch.tensor(special), bits.view(torch.float32)])
    return torch.stack([positive, -positive], dim=1).reshape(-1)


X = floats()
SIGN = torch.where(torch.arange(len(X)) % 3 == 0, -1.0, 1.0)
NUMBER = torch.randint(-(2**30), 2**30, X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.int32)
NUMBER[:6] = torch.tensor([-(2**30), -(2**30) + 1, -1, 0, 1, 2**30 - 1], dtype=torch.int32)
SHARES = torch.tensor([-(2**30), -(2**30) + 1, -1, 0, 1, 2**30 - 1, 2**30], dtype=torch.int32)
VALUES = torch.tensor([-2.5, TINY, 3.0])


def steps() -> dict[str, Tensor]:
    """Every step, on all of the numbers and limits."""
    return {
        "keep_large": entries.keep_large(X, LIMITS[:, None]),
        "keep_large, a limit for each": entries.keep_large(X, X.abs().roll(1)),
        "keep_small": entries.keep_small(X, LIMITS[:, None]),
        "keep_small, a limit for each": entries.keep_small(X, X.abs().roll(1)),
        "keep_below": entries.keep_below(X, NUMBER, SHARES[:, None]),
        "keep_below, a limit for each": entries.keep_below(X, NUMBER, NUMBER.roll(1)),
        "elect_sign": entries.elect_sign(X),
        "agreeing": entries.agreeing(X, SIGN),
        "where_positive": entries.where_positive(X.relu(), VALUES[:, None]),
        "one_if_zero": entries.one_if_zero(X),
        "moved": entries.moved(X, X.roll(1) / 2),
        "moved by zero": entries.moved(X, 0.0 * SIGN),
    }


@pytest.fixture(scope="module")
def compiled() -> dict[str, Tensor]:
    """The other spelling, which only the compiler sees; one compilation for all."""
    if shutil.which("g++") is None:
        pytest.skip("the compiler's spelling needs g++")
    return torch.compile(steps, fullgraph=True)()


@pytest.mark.parametrize("step", steps())
def test_both_spellings_give_the_same_bits(step: str, compiled: dict[str, Tensor]) -> None:
    plain = steps()[step]
    if step == "where_positive":
        assert torch.equal(plain, compiled[step])  # zeros may differ in sign; what is done with them does not tell
    else:
        assert torch.equal(plain.view(torch.int32), compiled[step].view(torch.int32))


def select(x: Tensor, chosen: Callable[[float, int], bool]) -> list[float]:
    """What a selection gives, by Python's own comparisons."""
    return [value if chosen(value, i) else 0.0 for i, value in enumerate(x.tolist())]


@pytest.mark.parametrize("limit", LIMITS.tolist())
def test_selections_by_magnitude_are_those_of_plain_comparisons(limit: float) -> None:
    threshold = torch.tensor(limit)
    assert entries.keep_large(X, threshold).tolist() == select(X, lambda value, _: abs(value) >= limit)
    assert entries.keep_small(X, threshold).tolist() == select(X, lambda value, _: abs(value) <= limit)


@pytest.mark.parametrize("limit", SHARES.tolist())
def test_selections_by_number_are_those_of_plain_comparisons(limit: int) -> None:
    kept = entries.keep_below(X, NUMBER, torch.tensor(limit, dtype=torch.int32))
    numbers = NUMBER.tolist()
    assert kept.tolist() == select(X, lambda _, i: numbers[i] < limit)


def test_what_is_kept_is_kept_bit_for_bit() -> None:
    kept = entries.keep_large(X, torch.tensor(0.0))
    assert torch.equal(kept.view(torch.int32), X.view(torch.int32))


def test_a_zero_of_either_sign_elects_the_positive_sign() -> None:
    assert entries.elect_sign(torch.tensor([0.0, -0.0, TINY, -TINY, 2.0, -HUGE])).tolist() == [1, 1, 1, -1, 1, -1]


def test_agreeing_entries_are_magnitudes() -> None:
    found = entries.agreeing(torch.tensor([2.0, -2.0, 2.0, -2.0, -0.0]), torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0]))
    assert found.tolist() == [2, 0, 0, 2, 0]


def test_only_zeros_become_one() -> None:
    x = torch.tensor([0.0, -0.0, TINY, -TINY, 1.0, -2.5, HUGE])
    assert entries.one_if_zero(x).tolist() == [1.0, 1.0, *x[2:].tolist()]


def test_a_delta_of_zero_leaves_the_base_bit_for_bit() -> None:
    for zero in (0.0, -0.0):
        found = entries.moved(X, torch.full_like(X, zero))
        assert torch.equal(found.view(torch.int32), X.view(torch.int32))


def test_moving_adds() -> None:
    deltas = X.roll(7) / 2
    assert torch.equal(entries.moved(X, deltas), X + deltas)
