import pytest

from optmerge.errors import UsageError
from optmerge.tasks import Problem, Split, check_disjoint
from optmerge.tasks.questions import question_id


def problems(*questions: str) -> list[Problem]:
    return [Problem(question_id(question), question, "1") for question in questions]


def test_splits_without_a_common_problem_are_accepted() -> None:
    check_disjoint({"search": problems("一", "二"), "validation": [], "test": problems("三")})


def test_shared_problems_are_refused_by_splits_count_and_first_question() -> None:
    splits: dict[Split, list[Problem]] = {
        "search": problems("一", "二", "三"),
        "validation": problems("四"),
        "test": problems("五", "三", "二"),
    }
    with pytest.raises(UsageError, match=r"search and test splits share 2 problems, first '三'"):
        check_disjoint(splits)


@pytest.mark.parametrize("copy", ["卵は 12個\nです", "卵は１２個です", "卵は12個です　"])
def test_copy_with_other_spacing_or_width_is_the_same_problem(copy: str) -> None:
    with pytest.raises(UsageError, match="share 1 problem,"):
        check_disjoint({"search": problems("卵は12個です"), "validation": problems(copy)})


def test_long_question_is_shortened_in_the_message() -> None:
    with pytest.raises(UsageError) as refusal:
        check_disjoint({"search": problems("長い" * 100), "test": problems("長い" * 100)})
    assert len(str(refusal.value)) < 160


def test_id_follows_from_the_normalised_question_alone() -> None:
    assert question_id("卵は 12個\nです") == question_id("卵は１２個です") != question_id("卵は13個です")
    assert len(question_id("卵")) == 16
