"""Distances between tensors, counted in numbers of their type."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optmerge.models import rounding
from optmerge.models.rounding import roundings_apart

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def stepped(start, steps):
    """A number of NumPy's after so many steps up or down."""
    found = start
    for _ in range(abs(steps)):
        found = np.nextafter(found, start.dtype.type(np.inf if steps > 0 else -np.inf))
    return found


@settings(max_examples=60, deadline=None)
@given(
    start=st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 2.0**-24, 0.5, 60000.0]),
    steps=st.integers(-40, 40),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_steps_are_those_from_one_number_to_the_next(start, steps, dtype):
    first = dtype(start)
    other = stepped(first, steps)
    found = roundings_apart(torch.tensor(np.array([first])), torch.tensor(np.array([other])))
    assert found == (int(steps != 0), abs(steps))


def test_steps_of_bfloat16_are_those_of_its_bits():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    ascending = every[every.isfinite()].float().unique().to(torch.bfloat16)  # which has one zero
    for distance in (1, 2, 1000):
        assert roundings_apart(ascending[:-distance], ascending[distance:]) == (len(ascending) - distance, distance)


@pytest.mark.parametrize("dtype", TYPES)
def test_zeros_of_either_sign_are_the_same_number(dtype):
    assert roundings_apart(torch.zeros(3, dtype=dtype), -torch.zeros(3, dtype=dtype)) == (0, 0)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_two_numbers_nearest_to_zero_are_two_steps_apart(dtype):
    least = torch.nextafter(torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype))
    assert roundings_apart(least, -least) == (2, 2)


def test_the_largest_numbers_of_either_sign_are_all_numbers_apart():
    largest = torch.tensor([torch.finfo(torch.float16).max], dtype=torch.float16)
    # 31 exponents (subnormal ones among them) of 1024 numbers each, of either sign.
    assert roundings_apart(largest, -largest) == (1, 2 * (31 * 1024 - 1))


def test_entries_that_differ_are_counted_and_the_farthest_is_told():
    ours = torch.ones(4, 5)
    theirs = ours.clone()
    theirs[0, 0] = torch.nextafter(ours[0, 0], torch.tensor(2.0))
    theirs[3, 4] = 1 - 3 * 2.0**-24
    assert roundings_apart(ours, theirs) == roundings_apart(theirs, ours) == (2, 3)


def test_tensors_are_compared_chunk_by_chunk(monkeypatch):
    monkeypatch.setattr(rounding, "_CHUNK", 4)
    ours = torch.arange(11.0)
    theirs = ours.clone()
    theirs[[1, 5, 10]] += torch.tensor([2.0**-23, 2.0**-20, 2.0**-20])
    assert roundings_apart(ours, theirs) == (3, 2)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
def test_equal_tensors_of_any_shape_are_nothing_apart(shape):
    ours = torch.rand(shape)
    assert roundings_apart(ours, ours.clone()) == (0, 0)


def test_tensors_that_lie_across_memory_are_compared_by_entry():
    ours = torch.rand(5, 7)
    across = ours.T.contiguous().T
    assert roundings_apart(ours, across) == (0, 0)
