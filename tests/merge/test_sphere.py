"""The spherical merge methods against the textbook's formulas, written on whole float64 tensors."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from optmerge.errors import OptmergeError, UsageError
from optmerge.merge import merge_tensors, sweep
from optmerge.merge.inputs import Inputs
from optmerge.merge.sphere import row_gram

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)
positions = st.floats(0.01, 0.99)
counts = st.integers(2, 5)
ways = st.sampled_from([{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}])

SPHERICAL: dict[str, dict[str, Any]] = {
    "slerp": {"sources": 2, "t": 0.3},
    "nuslerp": {"sources": 2, "weight": [0.3, 0.9]},
    "multislerp": {"sources": 3, "weight": [0.3, 0.9, 0.5]},
    "karcher": {"sources": 3, "weight": [0.3, 0.9, 0.5]},
}


def tensors(seed: int, count: int, dims: int | None = None) -> list[Tensor]:
    """Tensors that share a part, so that they lie within a half of the sphere, in a shape that the seed gives."""
    random = torch.Generator().manual_seed(seed)
    shape = torch.randint(2, 7, (int(torch.randint(1, 4, (), generator=random)) if dims is None else dims,))
    common = torch.randn(shape.tolist(), generator=random)
    return [common + 0.7 * torch.randn(shape.tolist(), generator=random) for _ in range(count)]


def weights(seed: int, count: int) -> list[float]:
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.05).tolist()


def merge(method: str, inputs: list[Tensor], **arguments: Any) -> Tensor:
    arguments.pop("sources", None)
    return merge_tensors(method, inputs, **arguments)


def close(merged: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(merged, wanted.float(), rtol=1e-5, atol=2e-6)


def arc(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Slerp along the last dimension, float64."""
    a, b = a.double(), b.double()
    unit = [v / v.norm(dim=-1, keepdim=True) for v in (a, b)]
    # Kahan's formula for the angle, which is exact where the cosine is not.
    angle = 2 * torch.atan2((unit[0] - unit[1]).norm(dim=-1), (unit[0] + unit[1]).norm(dim=-1)).unsqueeze(-1)
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()


def units(inputs: list[Tensor]) -> Tensor:
    flat = torch.stack([tensor.double().flatten() for tensor in inputs])
    return flat / flat.norm(dim=-1, keepdim=True)


# slerp


@few
@given(seed=seeds, t=positions, with_base=st.booleans())
def test_slerp_is_the_textbook_formula(seed: int, t: float, with_base: bool) -> None:
    a, b = tensors(seed, 2)
    cosine = torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0)
    assume(cosine.abs() < 0.9995)
    merged = merge("slerp", [b], base=a, t=t) if with_base else merge("slerp", [a, b], t=t)
    close(merged, arc(a.flatten(), b.flatten(), t).reshape(a.shape))


@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_of_nearly_collinear_tensors_is_a_straight_line(sign: int) -> None:
    a = torch.randn(50)
    b = sign * (a + 0.01 * torch.randn(50))
    close(merge("slerp", [a, b], t=0.3), 0.7 * a + 0.3 * b)


def test_slerp_keeps_the_length_of_unit_vectors() -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 40), dim=-1)
    assert merge("slerp", [a, b], t=0.4).norm().item() == pytest.approx(1, abs=1e-6)


def test_slerp_takes_the_first_alias_for_zero() -> None:
    a, b = tensors(1, 2)
    merged = merge_tensors("slerp", [a, b], aliases=["zebra", "ant"], t=0.2)
    close(merged, arc(b.flatten(), a.flatten(), 0.2).reshape(a.shape))


def test_slerp_of_a_zero_tensor_takes_a_quarter_of_the_circle() -> None:
    a = torch.randn(20)
    close(merge("slerp", [torch.zeros(20), a], t=0.5), a.double() * 0.5**0.5)
    assert not merge("slerp", [torch.zeros(20), torch.zeros(20)], t=0.5).any()


@pytest.mark.parametrize(("count", "base"), [(1, False), (2, True), (3, False)])
def test_slerp_refuses_other_numbers_of_sources(count: int, base: bool) -> None:
    inputs = tensors(0, count + 1)
    with pytest.raises(UsageError, match="slerp merges exactly"):
        merge("slerp", inputs[:count], base=inputs[-1] if base else None)


def test_slerp_remembers_pairs_with_and_without_a_base_apart() -> None:
    a, b, c = tensors(2, 3)
    facts: dict[Any, Any] = {}
    first = merge("slerp", [b, c], t=0.3, facts=facts)
    second = merge("slerp", [b], base=a, t=0.3, facts=facts)
    assert torch.equal(first, merge("slerp", [b, c], t=0.3))
    assert torch.equal(second, merge("slerp", [b], base=a, t=0.3))


# nuslerp


@few
@given(seed=seeds, with_base=st.booleans(), way=ways)
def test_nuslerp_is_slerp_by_weights(seed: int, with_base: bool, way: dict[str, bool]) -> None:
    a, b, base = tensors(seed, 3)
    weight = weights(seed, 2)
    origin = base.double() if with_base else torch.zeros_like(a).double()
    first, second = a - origin, b - origin
    if not way:
        first, second = first.flatten(), second.flatten()
    elif "nuslerp_row_wise" in way:
        first, second = first.transpose(0, -1), second.transpose(0, -1)
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1)
    assume(cosine.abs().max() < 0.999)
    wanted = arc(first, second, weight[1] / sum(weight))
    wanted = wanted.transpose(0, -1) if "nuslerp_row_wise" in way else wanted.reshape(a.shape)
    merged = merge("nuslerp", [a, b], base=base if with_base else None, weight=weight, **way)
    torch.testing.assert_close(merged, (origin + wanted).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [[0.5, -0.5], [0.0, 0.0], [1e-8, 1e-8]])
def test_nuslerp_goes_halfway_where_weights_sum_to_nothing(weight: list[float]) -> None:
    a, b = tensors(3, 2)
    assert torch.equal(merge("nuslerp", [a, b], weight=weight), merge("nuslerp", [a, b], weight=[1.0, 1.0]))


def test_nuslerp_refuses_weights_that_almost_cancel() -> None:
    with pytest.raises(OptmergeError, match=r"the weights cancel to 0\.0001"):
        merge("nuslerp", tensors(3, 2), weight=[1.0, -0.9999])


@few
@given(seed=seeds, noise=st.sampled_from([0.0, 1e-7, 1e-5, 1e-4]), sign=st.sampled_from([1, -1]), way=ways)
def test_nuslerp_of_collinear_tensors_stays_between_them(
    seed: int, noise: float, sign: int, way: dict[str, bool]
) -> None:
    (a,) = tensors(seed, 1, dims=2)
    b = sign * (a + noise * torch.randn(a.shape, generator=torch.Generator().manual_seed(seed)))
    merged = merge("nuslerp", [a, b], weight=[0.6, 0.4], **way)
    torch.testing.assert_close(merged, 0.6 * a + 0.4 * b, rtol=2e-3, atol=2e-3 * float(a.abs().max()))


@pytest.mark.parametrize("row_wise", [False, True])
@pytest.mark.parametrize("shape", [(300, 400), (2, 70000), (70000, 2), (3, 40, 50)])
def test_dot_products_by_rows_and_columns(shape: tuple[int, ...], row_wise: bool) -> None:
    sources = list(torch.randn(3, *shape))
    base, dim = torch.randn(shape), 0 if row_wise else -1
    vectors = torch.stack([source - base for source in sources]).double()
    wanted = (vectors.unsqueeze(0) * vectors.unsqueeze(1)).sum(2 if row_wise else -1, keepdim=True)
    torch.testing.assert_close(row_gram(Inputs(sources, base), dim), wanted, rtol=1e-12, atol=1e-10)


# multislerp


@few
@given(seed=seeds, count=counts, with_base=st.booleans(), normalize=st.booleans())
def test_multislerp_goes_through_the_tangent_space(seed: int, count: int, with_base: bool, normalize: bool) -> None:
    base, *inputs = tensors(seed, count + 1)
    w = torch.tensor(weights(seed, count), dtype=torch.float64)
    weight, w = w.tolist(), w / w.sum() if normalize else w
    origin = base.double() if with_base else torch.zeros_like(base).double()
    vectors = torch.stack([(tensor - origin).flatten() for tensor in inputs])
    lengths = vectors.norm(dim=-1)
    unit = vectors / lengths[:, None]
    mean = w @ unit
    assume(mean.norm() > 0.05 * w.sum())
    mean = mean / mean.norm()
    tangent = w @ (unit - (unit @ mean)[:, None] * mean)
    step = tangent.norm() + 1e-300
    result = (mean * step.cos() + tangent * step.sin() / step) * (w @ lengths)
    merged = merge("multislerp", inputs, base=base if with_base else None, weight=weight, normalize_weights=normalize)
    torch.testing.assert_close(merged, (origin + result.reshape(base.shape)).float(), rtol=1e-4, atol=1e-5)


def test_multislerp_of_two_opposite_tensors_is_a_straight_line() -> None:
    (a,) = tensors(5, 1)
    close(merge("multislerp", [a, -3 * a], weight=[0.5, 0.5]), 0.5 * a - 1.5 * a)


@pytest.mark.parametrize(
    ("scales", "weight", "message"),
    [
        ([1, 1, 1], [0.0, 0.0, 0.0], "all weights are 0"),
        ([1, 1, 1], [1.0, -0.5, -0.5], "the weights cancel to 0"),
        ([1, 1, -1], [0.5, 0.5, 1.0], "directions cancel, so"),
        ([1, 1, -1], [0.5, 0.5, 0.9999], "directions cancel to"),
    ],
)
def test_multislerp_refuses_what_cancels(scales: list[int], weight: list[float], message: str) -> None:
    (a,) = tensors(5, 1)
    with pytest.raises(OptmergeError, match=message):
        merge("multislerp", [scale * a for scale in scales], weight=weight)


def test_multislerp_keeps_a_tensor_that_no_source_changed() -> None:
    (base,) = tensors(6, 1)
    assert torch.equal(merge("multislerp", [base.clone() for _ in range(3)], base=base), base)


def test_multislerp_without_weight_gives_the_base() -> None:
    base, *sources = tensors(6, 3)
    assert torch.equal(merge("multislerp", sources, base=base, weight=0.0), base)


# karcher


@few
@given(seed=seeds, count=counts)
def test_arcs_from_the_karcher_mean_sum_to_zero(seed: int, count: int) -> None:
    inputs, weight = tensors(seed, count), weights(seed, count)
    unit, w = units(inputs), torch.tensor(weight, dtype=torch.float64) / sum(weight)
    assume((unit @ unit.T).min() > -0.5)
    merged = merge("karcher", inputs, weight=weight, max_iter=100, tol=1e-9).double().flatten()
    mean = merged / merged.norm()
    dot = (unit @ mean).clamp(-1, 1)
    angle = dot.acos()
    arcs = (angle / angle.sin().clamp(min=1e-12))[:, None] * (unit - dot[:, None] * mean)
    assert (w @ arcs).norm() < 1e-5
    lengths = torch.stack([tensor.double().norm() for tensor in inputs])
    assert merged.norm().item() == pytest.approx(float(w @ lengths), rel=1e-5)


@few
@given(seed=seeds, t=positions)
def test_the_karcher_mean_of_two_lies_on_their_arc(seed: int, t: float) -> None:
    a, b = (unit.float() for unit in units(tensors(seed, 2)))
    cosine = float(a @ b)
    assume(-0.9 < cosine < 0.999)
    close(merge("karcher", [a, b], weight=[1 - t, t], max_iter=100, tol=1e-9), arc(a, b, t))


def test_weight_zero_leaves_a_source_out_of_the_karcher_mean() -> None:
    a, b, c = tensors(7, 3)
    close(merge("karcher", [a, b, c], weight=[0.4, 0.0, 0.6]), merge("karcher", [a, c], weight=[0.4, 0.6]))


def test_the_karcher_mean_counts_a_zero_tensor_by_its_length_alone() -> None:
    (a,) = tensors(7, 1)
    close(merge("karcher", [a, torch.zeros_like(a)], weight=[1.0, 3.0]), a.double() / 4)
    assert not merge("karcher", [torch.zeros_like(a), torch.zeros_like(a)]).any()


@pytest.mark.parametrize(
    ("scales", "weight", "message"),
    [([1, 1], [0.0, 0.0], "all weights are 0"), ([1, -1], [0.9, 0.1], "points away"), ([1, -2], 1.0, "points away")],
)
def test_the_karcher_mean_must_exist(scales: list[int], weight: Any, message: str) -> None:
    (a,) = tensors(7, 1)
    with pytest.raises(OptmergeError, match=message):
        merge("karcher", [scale * a for scale in scales], weight=weight)


def test_karcher_refuses_negative_weights() -> None:
    with pytest.raises(UsageError, match="weight must be a number in"):
        merge("karcher", tensors(7, 2), weight=[1.0, -1.0])


# model_stock


def stock(base: Tensor, inputs: list[Tensor], rows: bool = False) -> Tensor:
    """Equations of section 4, by loops over rows and pairs."""
    count, columns = len(inputs), base.shape[-1] if rows else base.numel()
    origin = base.double().reshape(-1, columns)
    vectors = [tensor.double().reshape(-1, columns) - origin for tensor in inputs]
    merged = origin.clone()
    for row in range(len(origin)):
        found = [
            torch.nn.functional.cosine_similarity(vectors[i][row], vectors[j][row], dim=0, eps=1e-300)
            for i in range(count)
            for j in range(i)
        ]
        cosine = sum(found) / len(found)
        merged[row] += count * cosine / (1 + (count - 1) * cosine) * sum(vector[row] for vector in vectors) / count
    return merged.reshape(base.shape)


@few
@given(seed=seeds, count=counts, rows=st.booleans())
def test_model_stock_follows_the_angles(seed: int, count: int, rows: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    dims = int(torch.randint(1, 4, (), generator=random))
    base = tensors(seed + 1, 1, dims=dims)[0].repeat_interleave(4, -1)
    common = torch.randn(base.shape, generator=random)
    inputs = [base + common + torch.randn(base.shape, generator=random) for _ in range(count)]
    wanted = stock(base, inputs, rows)
    assume((wanted - base).abs().max() < 20)
    merged = merge("model_stock", inputs, base=base, filter_wise=rows)
    torch.testing.assert_close(merged, wanted.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [False, True])
def test_model_stock_takes_the_average_of_parallel_task_vectors(rows: bool) -> None:
    base, vector = torch.randn(2, 5, 6)
    merged = merge("model_stock", [base + vector, base + 2 * vector, base + 6 * vector], base=base, filter_wise=rows)
    torch.testing.assert_close(merged, base + 3 * vector, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("second", [[0.0, 1.0], [-1.0, 0.0], [-1.0, 0.01]])
def test_model_stock_takes_the_base_where_task_vectors_are_orthogonal_or_opposed(
    second: list[float], rows: bool
) -> None:
    base = torch.zeros(3, 2)
    inputs = [base + torch.tensor([1.0, 0.0]), base + torch.tensor(second)]
    assert torch.equal(merge("model_stock", inputs, base=base, filter_wise=rows), base)


def test_model_stock_is_indifferent_to_the_size_of_task_vectors() -> None:
    vectors = torch.randn(3, 40) + torch.randn(40)
    whole, small = (
        merge("model_stock", list(scale * vectors), base=torch.zeros(40)) / scale for scale in (1.0, 2.0**-20)
    )
    assert torch.equal(whole, small)


def test_model_stock_needs_two_sources() -> None:
    with pytest.raises(UsageError, match="at least 2 sources beside the base, got 1"):
        merge("model_stock", [torch.ones(2)], base=torch.zeros(2))


# What holds for all of them


@pytest.mark.parametrize(
    ("method", "count", "base", "parameters", "source"),
    [
        ("slerp", 1, True, {"t": 0.0}, "base"),
        ("slerp", 1, True, {"t": 1.0}, 0),
        ("slerp", 2, False, {"t": 0.0}, 0),
        ("slerp", 2, False, {"t": 1.0}, 1),
        ("nuslerp", 2, False, {"weight": [2.0, 0.0]}, 0),
        ("nuslerp", 2, True, {"weight": [0.0, 0.3], "nuslerp_flatten": False}, 1),
        ("multislerp", 1, True, {"weight": 0.3}, 0),
        ("multislerp", 3, True, {"weight": [0.0, 0.3, 0.0]}, 1),
        ("multislerp", 2, False, {"weight": [1.0, 0.0], "normalize_weights": False}, 0),
        ("karcher", 1, False, {}, 0),
        ("karcher", 3, False, {"weight": [0.0, 0.0, 0.3]}, 2),
    ],
)
@few
@given(seed=seeds)
def test_one_source_alone_is_given_bit_for_bit(
    seed: int, method: str, count: int, base: bool, parameters: dict[str, Any], source: int | str
) -> None:
    first, *inputs = tensors(seed, count + 1)
    merged = merge(method, inputs, base=first if base else None, **parameters)
    assert torch.equal(merged, first if source == "base" else inputs[int(source)])


@pytest.mark.parametrize("method", ["multislerp", "karcher", "nuslerp", "model_stock"])
@few
@given(seed=seeds)
def test_names_of_sources_do_not_matter(method: str, seed: int) -> None:
    count = 2 if method == "nuslerp" else 3
    base, *inputs = tensors(seed, count + 1)
    parameters = {} if method == "model_stock" else {"weight": weights(seed, count)}
    renamed = [f"{9 - i}" for i in range(count)]
    merged = merge(method, inputs, base=base, **parameters)
    torch.testing.assert_close(merged, merge(method, inputs, base=base, aliases=renamed, **parameters))


@pytest.mark.parametrize("method", SPHERICAL)
@few
@given(seed=seeds, exponent=st.integers(-20, 20))
def test_scaling_the_sources_scales_the_result(method: str, seed: int, exponent: int) -> None:
    arguments = SPHERICAL[method] | ({"eps": 0.0} if method == "multislerp" else {})
    inputs = tensors(seed, arguments["sources"])
    scaled = merge(method, [tensor * 2.0**exponent for tensor in inputs], **arguments)
    assert torch.equal(scaled, merge(method, inputs, **arguments) * 2.0**exponent)


@pytest.mark.parametrize("method", [*SPHERICAL, "model_stock"])
def test_stored_types_only_matter_for_what_they_store(method: str) -> None:
    arguments = SPHERICAL.get(method, {"sources": 3})
    base, *inputs = (tensor.to(torch.bfloat16) for tensor in tensors(8, arguments["sources"] + 1))
    centre: dict[str, Any] = {} if method == "slerp" else {"base": base}
    wide = {"base": base.float()} if centre else {}
    merged = merge(method, inputs, **centre, **arguments)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, merge(method, [tensor.float() for tensor in inputs], **wide, **arguments))


@pytest.mark.parametrize("shape", [(300,), (90, 31), (4, 5, 60)])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("slerp", {}),
        ("nuslerp", {}),
        ("nuslerp", {"nuslerp_flatten": False}),
        ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
        ("multislerp", {}),
        ("karcher", {}),
        ("model_stock", {"filter_wise": False}),
        ("model_stock", {"filter_wise": True}),
    ],
)
def test_the_size_of_pieces_does_not_matter(
    method: str, options: dict[str, bool], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = SPHERICAL.get(method, {"sources": 3}) | options
    random = torch.Generator().manual_seed(9)
    base, *inputs = torch.randn(arguments["sources"] + 1, *shape, generator=random)
    centre: dict[str, Any] = {} if method == "slerp" else {"base": base}
    whole = merge(method, inputs, **centre, **arguments)
    monkeypatch.setattr(sweep, "PIECE", 37)
    monkeypatch.setattr(sweep, "SUMMED", 37)
    assert torch.equal(whole, merge(method, inputs, **centre, **arguments))
