"""What holds for any tensors and parameters."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optmerge.merge import get_method, merge_tensors
from optmerge.registered import names

METHODS = names("optmerge.merge.methods")
WITH_BASE = [name for name in METHODS if get_method(name).base == "required"]
WITH_DENSITY = [name for name in METHODS if "density" in get_method(name).parameters]

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)
# Not all zero: `linear` refuses to make a model of nothing.
weights = st.lists(st.floats(0.0, 2.0), min_size=3, max_size=3).filter(any)
densities = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3)
ALIASES = ["ja", "math_add", "math_mul"]


def tensors(seed: int, count: int = 4) -> list[Tensor]:
    """A base and sources near it, in shapes that follow from the seed."""
    random = torch.Generator().manual_seed(seed)
    shape = torch.randint(1, 12, (2,), generator=random).tolist()
    base = torch.randn(shape, generator=random)
    return [base] + [base + 0.1 * torch.randn(shape, generator=random) for _ in range(count - 1)]


def parameters(method: str, weight: list[float], density: list[float]) -> dict[str, Any]:
    return {"weight": weight} | ({"density": density} if method in WITH_DENSITY else {})


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32)


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds, weight=weights, density=densities, order=st.permutations(range(3)))
def test_order_of_sources_does_not_matter(
    method: str, seed: int, weight: list[float], density: list[float], order: list[int]
) -> None:
    base, *sources = tensors(seed)
    merged = merge_tensors(
        method, sources, base=base, aliases=ALIASES, seed=seed, **parameters(method, weight, density)
    )
    shuffled = merge_tensors(
        method,
        [sources[i] for i in order],
        base=base,
        aliases=[ALIASES[i] for i in order],
        seed=seed,
        **parameters(method, [weight[i] for i in order], [density[i] for i in order]),
    )
    assert torch.equal(bits(merged), bits(shuffled))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", WITH_BASE)
@few
@given(seed=seeds, density=densities)
def test_weight_zero_gives_the_base_bit_for_bit(method: str, normalize: bool, seed: int, density: list[float]) -> None:
    base, *sources = tensors(seed)
    merged = merge_tensors(
        method, sources, base=base, normalize=normalize, **parameters(method, [0.0, 0.0, 0.0], density)
    )
    assert torch.equal(bits(merged), bits(base))


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds, density=densities, weight=st.floats(0.1, 2.0))
def test_a_source_of_weight_zero_counts_for_nothing(
    method: str, seed: int, density: list[float], weight: float
) -> None:
    base, *sources = tensors(seed)
    alone = merge_tensors(
        method, sources[:1], base=base, aliases=ALIASES[:1], **parameters(method, [weight], density[:1])
    )
    merged = merge_tensors(
        method, sources, base=base, aliases=ALIASES, **parameters(method, [weight, 0.0, 0.0], density)
    )
    torch.testing.assert_close(merged, alone)


@pytest.mark.parametrize(("dropping", "whole"), [("dare_linear", "task_arithmetic"), ("dare_ties", "ties")])
@few
@given(seed=seeds, weight=weights, normalize=st.booleans(), rescale=st.sampled_from(["inverse_density", "l1_norm"]))
def test_dare_at_density_one_drops_nothing(
    dropping: str, whole: str, seed: int, weight: list[float], normalize: bool, rescale: str
) -> None:
    base, *sources = tensors(seed)
    shared = {"base": base, "weight": weight, "normalize": normalize}
    dropped = merge_tensors(dropping, sources, **shared, density=1.0, rescale=rescale, seed=seed)  # type: ignore[arg-type]
    kept = merge_tensors(whole, sources, **shared, **({"density": 1.0} if whole == "ties" else {}))  # type: ignore[arg-type]
    assert torch.equal(dropped, kept)


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds, weight=weights, density=densities)
def test_half_precision_is_merged_in_float32(method: str, seed: int, weight: list[float], density: list[float]) -> None:
    base, *sources = [tensor.to(torch.bfloat16) for tensor in tensors(seed)]
    arguments = parameters(method, weight, density)
    merged = merge_tensors(method, sources, base=base, **arguments)
    widened = merge_tensors(method, [source.float() for source in sources], base=base.float(), **arguments)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, widened)


@few
@given(seed=seeds, share=st.floats(0.01, 0.99))
def test_ties_keeps_the_largest_entries(seed: int, share: float) -> None:
    source = torch.randn(200, generator=torch.Generator().manual_seed(seed))
    kept = merge_tensors("ties", [source], base=torch.zeros(200), density=share) != 0
    assert int(kept.sum()) == int(share * 200)
    if kept.any():
        assert source[kept].abs().min() >= source[~kept].abs().max()
