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


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "dare_linear"])
@pytest.mark.parametrize("excess", [0.0, 1e-9, -1e-8])
def test_normalized_weights_that_cancel_are_an_error(method: str, excess: float) -> None:
    with pytest.raises(OptmergeError, match="cancel"):
        merge_tensors(method, SOURCES[:2], base=BASE, weight=[1.0, -1.0 + excess], normalize=True)


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
@pytest.mark.parametrize("excess", [0.0, 1e-9, -1e-8])
def test_agreeing_entries_whose_weights_cancel_do_not_explode(method: str, excess: float) -> None:
    sources = [torch.ones(8), -torch.ones(8)]
    merged = merge_tensors(
        method, sources, base=torch.zeros(8), weight=[1.0, -1.0 + excess], density=1.0, normalize=True
    )
    assert (merged.abs() <= 2).all()


def test_linear_of_nothing_is_an_error() -> None:
    with pytest.raises(OptmergeError, match="all weights are 0"):
        merge_tensors("linear", [torch.ones(3), torch.ones(3)], weight=0.0)
