"""The merge methods against examples worked by hand, and what is refused."""

import pytest
import torch
from torch import Tensor

from optmerge.errors import OptmergeError, UsageError
from optmerge.merge import merge_tensors

# Kept at density 0.5: (4, 0, -3, 0), (0, 3, -5, 0), (0, -6, 0, 3). With weights 1, 2, 0.5 the entries sum to
# 4, 3, -13, 1.5, so the signs are +, +, -, +; of the weighted entries, 4 | 6 | -3 and -10 | 1.5 agree.
TASK_VECTORS = ([4.0, 1.0, -3.0, 2.0], [-2.0, 3.0, -5.0, 1.0], [1.0, -6.0, 2.0, 3.0])
WEIGHTS = [1.0, 2.0, 0.5]
BASE = torch.full((4,), 10.0)
SOURCES = [BASE + torch.tensor(task_vector) for task_vector in TASK_VECTORS]


def ties(**options: object) -> Tensor:
    return merge_tensors("ties", SOURCES, base=BASE, weight=WEIGHTS, density=0.5, **options) - BASE


def test_ties_takes_the_mean_of_entries_that_agree() -> None:
    torch.testing.assert_close(ties(), torch.tensor([4.0, 6 / 2, -13 / 3, 1.5 / 0.5]))


def test_ties_without_normalize_takes_their_sum() -> None:
    torch.testing.assert_close(ties(normalize=False), torch.tensor([4.0, 6.0, -13.0, 1.5]))


def test_lambda_scales_the_merged_task_vector() -> None:
    torch.testing.assert_close(ties(lambda_=0.5), ties() / 2)


def test_trimmed_task_vectors_can_get_their_l1_norm_back() -> None:
    # Norms are 10, 11, 12 and of the trimmed ones 7, 8, 9; entries that agree are those of the trimmed vectors.
    restored = [10 / 7, 11 / 8, 12 / 9]
    expected = [
        4 * restored[0],
        6 * restored[1] / 2,
        (-3 * restored[0] - 10 * restored[1]) / 3,
        1.5 * restored[2] / 0.5,
    ]
    torch.testing.assert_close(ties(rescale="l1_norm"), torch.tensor(expected))


def test_ties_keeps_all_entries_that_tie_at_the_threshold() -> None:
    source = torch.tensor([2.0, -1.0, 1.0, 0.5])
    merged = merge_tensors("ties", [source], base=torch.zeros(4), density=0.5)
    torch.testing.assert_close(merged, torch.tensor([2.0, -1.0, 1.0, 0.0]))


def test_an_exact_tie_of_signs_goes_positive() -> None:
    merged = merge_tensors("ties", [torch.tensor([1.0]), torch.tensor([-1.0])], base=torch.zeros(1), density=1.0)
    assert merged.item() == 1.0


def test_linear_is_the_weighted_mean() -> None:
    merged = merge_tensors("linear", [torch.tensor([1.0]), torch.tensor([5.0])], weight=[1.0, 3.0])
    assert merged.item() == (1 * 1 + 3 * 5) / 4


def test_linear_without_normalize_is_the_weighted_sum() -> None:
    merged = merge_tensors("linear", [torch.tensor([1.0]), torch.tensor([5.0])], weight=[1.0, 3.0], normalize=False)
    assert merged.item() == 1 * 1 + 3 * 5


def test_task_arithmetic_adds_weighted_task_vectors() -> None:
    merged = merge_tensors(
        "task_arithmetic", [torch.tensor([3.0]), torch.tensor([5.0])], base=torch.tensor([2.0]), weight=[0.5, 2.0]
    )
    assert merged.item() == 2 + 0.5 * 1 + 2 * 3


def dare(rescale: str, density: float = 0.25, weight: float = 0.5) -> Tensor:
    """A task vector of ones, dropped."""
    size = 4096
    return merge_tensors(
        "dare_linear", [torch.ones(size)], base=torch.zeros(size), weight=weight, density=density, rescale=rescale
    )


def test_dare_divides_kept_entries_by_the_density() -> None:
    assert set(dare("inverse_density").tolist()) == {0.0, 0.5 * 1 / 0.25}


def test_dare_can_restore_the_l1_norm() -> None:
    torch.testing.assert_close(dare("l1_norm").sum(), torch.tensor(0.5 * 4096))


def test_dare_can_leave_kept_entries_as_they_are() -> None:
    assert set(dare("none").tolist()) == {0.0, 0.5}


def test_dare_at_density_zero_drops_everything() -> None:
    assert not dare("inverse_density", density=0.0).any()


def test_dare_ties_elects_signs_among_what_was_kept() -> None:
    size = 4096
    merged = merge_tensors(
        "dare_ties",
        [torch.ones(size), -3 * torch.ones(size)],
        base=torch.zeros(size),
        weight=[1.0, 1.0],
        density=0.5,
        rescale="none",
    )
    # Neither kept, only the first, the second alone or outvoting the first: never a mixture such as -2.
    assert set(merged.tolist()) == {0.0, 1.0, -3.0}


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("tis", {}, "did you mean 'ties'"),
        ("ties", {"base": None}, "needs a base"),
        ("ties", {"normalise": True}, "ties.normalise.*did you mean 'normalize'"),
        ("ties", {"normalize": 1.0}, "expected bool"),
        ("ties", {"density": 1.5}, r"density must be a number in \[0, 1\], got 1.5"),
        ("ties", {"weight": float("nan")}, "weight must be a number"),
        ("dare_ties", {"rescale": "l2"}, "rescale: unknown 'l2'"),
    ],
)
def test_wrong_arguments_are_usage_errors(method: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        merge_tensors(method, SOURCES, **{"base": BASE, **arguments})  # type: ignore[arg-type]


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values for 3 sources"):
        merge_tensors("ties", SOURCES, base=BASE, weight=[1.0, 2.0])


@pytest.mark.parametrize(
    ("method", "sources", "message"),
    [
        ("slerp", 1, "slerp merges exactly 2 sources, got 1"),
        ("nuslerp", 3, "nuslerp merges exactly 2 sources, got 3"),
        ("passthrough", 2, "passthrough merges exactly 1 source, got 2"),
        ("model_stock", 2, "model_stock needs a base"),
        ("linear", 0, "linear merges at least 1 source"),
    ],
)
def test_a_number_of_sources_that_the_method_does_not_merge_is_a_usage_error(
    method: str, sources: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        merge_tensors(method, SOURCES[:sources])


def test_a_method_of_one_source_says_that_the_base_does_not_count() -> None:
    with pytest.raises(UsageError, match="nearswap merges exactly 1 source beside the base, got 3"):
        merge_tensors("nearswap", SOURCES, base=BASE)


@pytest.mark.parametrize("base", [None, torch.zeros(3)])
def test_tensors_of_several_shapes_are_refused(base: Tensor | None) -> None:
    others = [torch.zeros(4), torch.zeros(4 if base is not None else 3)]
    with pytest.raises(ValueError, match=r"shapes differ: \(3,\), \(4,\)"):
        merge_tensors("linear", others, base=base)


def test_shapes_of_equal_size_differ_too() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        merge_tensors("linear", [torch.zeros(2, 3), torch.zeros(3, 2)])


def test_none_in_a_list_means_the_default() -> None:
    given = merge_tensors("ties", SOURCES, base=BASE, weight=[2.0, None, 0.5], density=[None, 1.0, None])
    assert torch.equal(given, merge_tensors("ties", SOURCES, base=BASE, weight=[2.0, 1.0, 0.5], density=[0.5, 1, 0.5]))


def test_values_follow_their_sources_whatever_the_aliases() -> None:
    merged = merge_tensors(
        "task_arithmetic", SOURCES, base=BASE, weight=[1.0, 10.0, 100.0], aliases=["zebra", "ant", "newt"]
    )
    expected = [10 + x + 10 * y + 100 * z for x, y, z in zip(*TASK_VECTORS, strict=True)]
    assert merged.tolist() == expected


# Weights that cancel

ADDED = ["task_arithmetic", "dare_linear", "breadcrumbs", "della_linear"]
ELECTED = ["ties", "dare_ties", "breadcrumbs_ties", "della"]
EXACT = [[1.0, -1.0], [0.3, -0.3], [0.1, 0.6, -0.7], [0.1, 0.2, -0.3], [0.7, 0.1, -0.8], [1e-9, -1e-9]]
NEAR = [[1.0, -1 + 1e-6], [0.5, -0.5 + 1e-6], [-1.0, 1.0004], [0.1, 0.6, -0.700001], [1e-9, -1.0001e-9]]


def whole(method: str) -> dict[str, float]:
    """Settings by which a method drops nothing."""
    return {} if method in ("linear", "task_arithmetic") else {"density": 1.0}


@pytest.mark.parametrize("weight", EXACT, ids=str)
@pytest.mark.parametrize("method", ADDED)
def test_weights_that_cancel_exactly_are_not_normalized(method: str, weight: list[float]) -> None:
    sources = SOURCES[: len(weight)]
    merged, added = (
        merge_tensors(method, sources, base=BASE, weight=weight, normalize=normalize, **whole(method))
        for normalize in (True, False)
    )
    assert torch.equal(merged, added)


@pytest.mark.parametrize("weight", NEAR, ids=str)
@pytest.mark.parametrize("method", [*ADDED, "linear"])
def test_weights_that_almost_cancel_are_an_error(method: str, weight: list[float]) -> None:
    with pytest.raises(OptmergeError, match="weights cancel to .* normalize=false adds them"):
        merge_tensors(method, SOURCES[: len(weight)], base=BASE, weight=weight, normalize=True, **whole(method))


@pytest.mark.parametrize("weight", [*EXACT, [1.0, -1.0, 1e-17]], ids=str)
def test_linear_of_weights_that_cancel_is_an_error(weight: list[float]) -> None:
    with pytest.raises(OptmergeError, match="cancel"):
        merge_tensors("linear", SOURCES[: len(weight)], weight=weight)
    assert merge_tensors("linear", SOURCES[: len(weight)], weight=weight, normalize=False).isfinite().all()


@pytest.mark.parametrize("weight", [[1e-9, 3e-9], [1e-30, 3e-30]], ids=str)
@pytest.mark.parametrize("method", ["linear", *ADDED])
def test_small_weights_of_one_sign_are_normalized_like_others(method: str, weight: list[float]) -> None:
    merged = merge_tensors(method, SOURCES[:2], base=BASE, weight=weight, normalize=True, **whole(method))
    torch.testing.assert_close(merged, 0.25 * SOURCES[0] + 0.75 * SOURCES[1])


@pytest.mark.parametrize("weight", EXACT, ids=str)
@pytest.mark.parametrize("method", ELECTED)
def test_entries_whose_weights_cancel_exactly_are_divided_by_one(method: str, weight: list[float]) -> None:
    # Weighted entries all agree: the task vectors have the signs of the weights.
    sources = [torch.full((3,), 1.0 if w > 0 else -1.0) for w in weight]
    merged = merge_tensors(method, sources, base=torch.zeros(3), weight=weight, normalize=True, density=1.0)
    torch.testing.assert_close(merged, torch.full((3,), sum(map(abs, weight))))


@pytest.mark.parametrize("weight", NEAR, ids=str)
@pytest.mark.parametrize("method", ELECTED)
def test_agreeing_entries_whose_weights_almost_cancel_are_an_error(method: str, weight: list[float]) -> None:
    signs = torch.tensor([1.0 if w > 0 else -1.0 for w in weight])
    # At two of the five entries all sources agree; at the others, the weights of one sign alone are added.
    sources = [torch.stack([sign, sign.abs(), 3 * sign, -sign.abs(), sign.abs()]) for sign in signs]
    with pytest.raises(OptmergeError, match="weights cancel to almost nothing at 2 entries"):
        merge_tensors(method, sources, base=torch.zeros(5), weight=weight, normalize=True, density=1.0)


@pytest.mark.parametrize("method", ELECTED)
def test_weights_that_almost_cancel_where_no_entries_agree_are_no_error(method: str) -> None:
    sources = [torch.tensor([3.0, -1.0]), torch.tensor([1.0, -2.0])]
    merged = merge_tensors(method, sources, base=torch.zeros(2), weight=[1.0, -1 + 1e-6], normalize=True, density=1.0)
    # Weighted: 3 against -1, then -1 against 2.
    torch.testing.assert_close(merged, torch.tensor([3.0, -2.0]))


def test_linear_of_nothing_is_an_error() -> None:
    with pytest.raises(OptmergeError, match="all weights are 0"):
        merge_tensors("linear", [torch.ones(3), torch.ones(3)], weight=0.0)
