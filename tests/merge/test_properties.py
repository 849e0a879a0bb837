"""What holds for any tensors and parameters."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optmerge.merge import get_method, merge_tensors, sweep
from optmerge.merge.inputs import Inputs
from optmerge.registered import names

METHODS = names("optmerge.merge.methods")
WITH_WEIGHT = [name for name in METHODS if "weight" in get_method(name).parameters]
WITH_LAMBDA = [name for name in METHODS if "lambda_" in get_method(name).parameters]
RESCALING = [name for name in METHODS if "rescale" in get_method(name).options]
SEVERAL = [name for name in METHODS if get_method(name).sources[1] != 1 or name == "slerp"]
# Those that are the base where all weights are 0; `nuslerp` goes halfway then.
STAYING = [name for name in WITH_WEIGHT if get_method(name).base != "ignored" and name != "nuslerp"]
# Those that add what each source gives, so that one of weight 0 counts for nothing.
ADDING = [*STAYING, "linear", "karcher"]
# Those that are a source where it alone takes part, whole and at weight 1.
ALONE: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("linear", "task_arithmetic", "karcher", "multislerp", "passthrough")},
    **{name: {"density": 1.0} for name in METHODS if "density" in get_method(name).parameters},
    "sce": {"select_topk": 1.0},
    "slerp": {"t": 1.0},
}
# Those whose result is in the units of their inputs, whatever these are.
SCALING = [name for name in METHODS if name not in ("arcee_fusion", "nearswap", "ram", "ramplus_tl")]

few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**31 - 1)
# Not all zero: `linear` refuses to make a model of nothing.
weights = st.lists(st.floats(0.0, 2.0), min_size=3, max_size=3).filter(lambda values: sum(values) > 1e-3)
densities = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3)
ALIASES = ["ja", "math_add", "math_mul"]


def tensors(seed: int, count: int = 4, shape: tuple[int, ...] | None = None) -> list[Tensor]:
    """A base with zeros of either sign, and sources near it, in a shape that follows from the seed unless given."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 12, (2,), generator=random).tolist() if shape is None else shape
    base = torch.randn(sizes, generator=random)
    base.view(-1)[::3] = torch.tensor([0.0, -0.0])[seed % 2]
    return [base] + [base + 0.1 * torch.randn(sizes, generator=random) for _ in range(count - 1)]


def arguments(method: str, weight: list[float], density: list[float]) -> dict[str, Any]:
    """These values for those of a method's parameters that a search gives one a source."""
    known = get_method(method).parameters
    return {name: value for name, value in (("weight", weight), ("density", density)) if name in known}


def sources_of(method: str, seed: int, **shape: Any) -> tuple[list[Tensor], Tensor | None]:
    """As many sources as the method merges, three if it can, and a base if it takes one."""
    declared = get_method(method)
    base, *sources = tensors(seed, **shape)
    return sources[: declared.sources[1] or 3], None if declared.base == "ignored" else base


def some(method: str, count: int) -> dict[str, Any]:
    """Values for all parameters of a method, different from source to source."""
    declared = get_method(method)
    values = {"weight": [0.7, 0.4, 0.9], "density": [0.6, 0.3, 0.8], "gamma": [0.1, 0.0, 0.05]}
    values |= {"epsilon": [0.1, 0.2, 0.05], "scale": [1.3]}
    shared = {"lambda_": 0.9, "t": 0.3, "select_topk": 0.4, "r": 0.5, "alpha": 0.6}
    given = {name: values[name][:count] for name in declared.per_source()}
    return given | {name: shared[name] for name in declared.shared()}


def merge(method: str, sources: list[Tensor], base: Tensor | None, **changed: Any) -> Tensor:
    return merge_tensors(method, sources, base=base, name="w", **{**some(method, len(sources)), **changed})


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


@pytest.fixture
def threads() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", SEVERAL)
@few
@given(seed=seeds, weight=weights, density=densities, order=st.permutations(range(3)))
def test_order_of_sources_does_not_matter(
    method: str, seed: int, weight: list[float], density: list[float], order: list[int]
) -> None:
    declared = get_method(method)
    base, *sources = tensors(seed)
    if declared.sources[1] is not None:
        count = declared.sources[1] if declared.base == "required" else 2
        sources, order, weight, density = sources[:count], [i for i in order if i < count], weight[:count], density[:2]
        weight = [w + 0.1 for w in weight]
    with_base = None if declared.base == "optional" else base
    merged = merge_tensors(
        method, sources, base=with_base, aliases=ALIASES[: len(order)], seed=seed, **arguments(method, weight, density)
    )
    shuffled = merge_tensors(
        method,
        [sources[i] for i in order],
        base=with_base,
        aliases=[ALIASES[i] for i in order],
        seed=seed,
        **arguments(method, [weight[i] for i in order], [density[i] for i in order]),
    )
    assert torch.equal(bits(merged), bits(shuffled))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", STAYING)
@few
@given(seed=seeds, density=densities)
def test_weight_zero_gives_the_base_bit_for_bit(method: str, normalize: bool, seed: int, density: list[float]) -> None:
    base, *sources = tensors(seed)
    options = {"normalize": normalize} if "normalize" in get_method(method).options else {}
    merged = merge_tensors(method, sources, base=base, **options, **arguments(method, [0.0, 0.0, 0.0], density))
    assert torch.equal(bits(merged), bits(base))


@pytest.mark.parametrize("method", [name for name in METHODS if "density" in get_method(name).parameters])
def test_density_zero_gives_the_base_bit_for_bit(method: str) -> None:
    base, *sources = tensors(1)
    for rescale in get_method(method).choices["rescale"]:
        merged = merge(method, sources, base, density=0.0, rescale=rescale)
        assert torch.equal(bits(merged), bits(base))


@pytest.mark.parametrize("method", WITH_LAMBDA)
def test_lambda_zero_gives_the_base_bit_for_bit(method: str) -> None:
    base, *sources = tensors(1)
    assert torch.equal(bits(merge(method, sources, base, lambda_=0.0)), bits(base))


@pytest.mark.parametrize("method", WITH_LAMBDA)
def test_lambda_scales_what_is_added_to_the_base(method: str) -> None:
    base, *sources = tensors(2, shape=(20, 30))
    once, twice = (merge(method, sources, base, lambda_=value) - base for value in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-5, atol=1e-6)
    assert once.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ALONE)
@few
@given(seed=seeds, among=st.booleans(), position=st.integers(0, 2))
def test_one_source_alone_is_that_source_bit_for_bit(
    method: str, dtype: torch.dtype, seed: int, among: bool, position: int
) -> None:
    declared = get_method(method)
    base, *sources = (tensor.to(dtype) for tensor in tensors(seed))
    sources = [3.7 * source for source in sources]  # so far away that base + (source - base) is another number
    given = dict(ALONE[method])
    if among and declared.sources[1] is None and "weight" in declared.parameters:
        given["weight"] = [float(k == position) for k in range(3)]
    else:
        sources = [sources[position]]
        position = 0
    out = torch.empty(base.shape, dtype=dtype)
    for normalize in (False, True):
        options = {"normalize": normalize} if "normalize" in declared.options else {}
        merge_tensors(method, sources, base=base, out=out, **given, **options)
        assert torch.equal(bits(out), bits(sources[position]))


@pytest.mark.parametrize("method", ADDING)
@few
@given(seed=seeds, density=densities, weight=st.floats(0.1, 2.0))
def test_a_source_of_weight_zero_counts_for_nothing(
    method: str, seed: int, density: list[float], weight: float
) -> None:
    base, *sources = tensors(seed)
    alone = merge_tensors(
        method, sources[:1], base=base, aliases=ALIASES[:1], **arguments(method, [weight], density[:1])
    )
    merged = merge_tensors(
        method, sources, base=base, aliases=ALIASES, **arguments(method, [weight, 0.0, 0.0], density)
    )
    torch.testing.assert_close(merged, alone)


@pytest.mark.parametrize(
    ("sparse", "whole"),
    [
        ("dare_linear", "task_arithmetic"),
        ("della_linear", "task_arithmetic"),
        ("breadcrumbs", "task_arithmetic"),
        ("dare_ties", "ties"),
        ("della", "ties"),
        ("breadcrumbs_ties", "ties"),
    ],
)
@few
@given(seed=seeds, weight=weights, normalize=st.booleans(), data=st.data())
def test_at_density_one_nothing_is_dropped(
    sparse: str, whole: str, seed: int, weight: list[float], normalize: bool, data: st.DataObject
) -> None:
    base, *sources = tensors(seed)
    rescale = data.draw(st.sampled_from(get_method(sparse).choices["rescale"]))
    shared: dict[str, Any] = {"base": base, "weight": weight, "normalize": normalize}
    more = {"gamma": 0.0} if "gamma" in get_method(sparse).parameters else {}
    dropped = merge_tensors(sparse, sources, **shared, density=1.0, rescale=rescale, seed=seed, **more)
    kept = merge_tensors(whole, sources, **shared, **({"density": 1.0} if whole == "ties" else {}))
    assert torch.equal(dropped, kept)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "ties", "della", "della_linear"])
@few
@given(seed=seeds, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_raising_the_density_only_adds_entries(method: str, seed: int, shares: tuple[float, float]) -> None:
    base, source = tensors(seed, 2, shape=(17, 13))
    more = {"epsilon": 0.0} if method.startswith("della") else {}
    low, high = (
        merge_tensors(method, [source], base=base, density=share, seed=seed, **more) != base for share in sorted(shares)
    )
    assert not (low & ~high).any()


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds)
def test_half_precision_is_merged_in_float32(method: str, seed: int) -> None:
    sources, base = sources_of(method, seed)
    sources = [source.to(torch.bfloat16) for source in sources]
    base = None if base is None else base.to(torch.bfloat16)
    merged = merge(method, sources, base)
    widened = merge(method, [source.float() for source in sources], None if base is None else base.float())
    assert merged.dtype == torch.float32
    assert torch.equal(bits(merged), bits(widened))


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds)
def test_results_go_where_they_are_wanted_in_its_type(method: str, seed: int) -> None:
    sources, base = sources_of(method, seed)
    merged = merge(method, sources, base)
    half = torch.empty(merged.shape, dtype=torch.bfloat16)
    returned = merge(method, sources, base, out=half)
    assert torch.equal(bits(half), bits(merged.to(torch.bfloat16)))
    assert returned.data_ptr() == half.data_ptr() and returned.shape == half.shape


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(12,), (5, 6), (3, 4, 5)])
def test_results_may_lie_in_memory_in_any_way(method: str, shape: tuple[int, ...]) -> None:
    sources, base = sources_of(method, 3, shape=shape)
    merged = merge(method, sources, base)
    across = torch.empty(shape[::-1]).permute(*reversed(range(len(shape))))
    among = torch.empty((*shape, 2))[..., 0]
    for out in (across, among):
        merge(method, sources, base, out=out)
        assert torch.equal(bits(out), bits(merged))


@pytest.mark.parametrize("method", METHODS)
@few
@given(seed=seeds)
def test_tensors_may_lie_in_memory_in_any_way(method: str, seed: int) -> None:
    sources, base = sources_of(method, seed)
    merged = merge(method, sources, base)
    strided = [source.T.contiguous().T for source in sources]
    assert torch.equal(bits(merge(method, strided, base)), bits(merged))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4, 5), (1, 9), (9, 1)])
def test_tensors_of_any_shape_are_merged(method: str, shape: tuple[int, ...]) -> None:
    sources, base = sources_of(method, 4, shape=shape)
    before = [tensor.clone() for tensor in (*sources, *([] if base is None else [base]))]
    merged = merge(method, sources, base)
    assert merged.shape == shape and merged.isfinite().all()
    for tensor, kept in zip((*sources, *([] if base is None else [base])), before, strict=True):
        assert torch.equal(bits(tensor), bits(kept))  # inputs are mapped from files, and shared


@pytest.mark.parametrize("factor", [0.5, 4.0])
@pytest.mark.parametrize("method", SCALING)
@few
@given(seed=seeds)
def test_inputs_scaled_by_a_power_of_two_give_the_result_so_scaled(method: str, factor: float, seed: int) -> None:
    sources, base = sources_of(method, seed)
    merged = merge(method, sources, base)
    scaled = merge(method, [factor * source for source in sources], None if base is None else factor * base)
    if method == "multislerp":  # which adds a constant to norms
        torch.testing.assert_close(scaled, factor * merged)
    else:
        assert torch.equal(scaled, factor * merged)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rescale", ["l1_norm", "none"])
@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_threads_does_not_matter(method: str, rescale: str) -> None:
    sources, base = sources_of(method, 5, shape=(7, 12_001))
    options = {"rescale": rescale} if method in RESCALING else {}
    if not options and rescale == "none":
        options = {"normalize": False} if "normalize" in get_method(method).options else {}
    merged = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        merged.append(merge(method, sources, base, **options))
    assert torch.equal(bits(merged[0]), bits(merged[1])) and torch.equal(bits(merged[0]), bits(merged[2]))


@pytest.mark.usefixtures("threads")
def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    # Held against each other in float64, where rounding to a merged tensor's type hides nothing.
    base, *sources = tensors(5, shape=(7, 60_001))
    found = []
    for count in (1, 2, 3, 4):
        torch.set_num_threads(count)
        found.append(Inputs(sources, base).gram(of_task_vectors=True))
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("rescale", ["l1_norm", "none"])
@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_pieces_does_not_matter(method: str, rescale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, base = sources_of(method, 6, shape=(31, 53))
    options = {"rescale": rescale} if method in RESCALING else {}
    merged = merge(method, sources, base, **options)
    monkeypatch.setattr(sweep, "PIECE", 64)
    monkeypatch.setattr(sweep, "SUMMED", 64)
    assert torch.equal(bits(merge(method, sources, base, **options)), bits(merged))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_facts_that_are_kept_change_no_bit(method: str, dtype: torch.dtype) -> None:
    sources, base = sources_of(method, 7, shape=(40, 60))
    sources = [source.to(dtype) for source in sources]
    base = None if base is None else base.to(dtype)
    count, facts = len(sources), dict[Any, Any]()
    for share in (0.2, 0.9, 0.55):
        changed: dict[str, Any] = arguments(method, [share, 1.0, 0.3][:count], [share, 0.5, 0.7][:count])
        changed |= {name: share for name in ("t", "select_topk", "alpha") if name in get_method(method).parameters}
        for seed in (0, 1):
            alone = merge(method, sources, base, seed=seed, **changed)
            assert torch.equal(bits(merge(method, sources, base, seed=seed, facts=facts, **changed)), bits(alone))


@pytest.mark.parametrize("method", METHODS)
def test_facts_of_other_tensors_are_told_apart(method: str) -> None:
    facts: dict[Any, Any] = {}
    for seed in (8, 9):
        sources, base = sources_of(method, seed, shape=(20, 30))
        identities = [f"{k}, {seed}" for k in range(len(sources) + 1)]
        kept = merge(method, sources, base, facts=facts, identities=identities)
        assert torch.equal(bits(kept), bits(merge(method, sources, base)))


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "della", "dare_linear"])
def test_facts_of_some_of_the_sources_are_told_apart_by_the_base(method: str) -> None:
    first, second, *sources = tensors(10, 5, shape=(20, 30))
    facts: dict[Any, Any] = {}
    for name, base in (("first", first), ("second", second)):
        kept = merge(method, sources, base, facts=facts, identities=[*"abc", name])
        assert torch.equal(bits(kept), bits(merge(method, sources, base)))


@few
@given(seed=seeds, share=st.floats(0.01, 0.99))
def test_ties_keeps_the_largest_entries(seed: int, share: float) -> None:
    source = torch.randn(200, generator=torch.Generator().manual_seed(seed))
    kept = merge_tensors("ties", [source], base=torch.zeros(200), density=share) != 0
    assert int(kept.sum()) == int(share * 200)
    assert source[kept].abs().min() >= source[~kept].abs().max()
