"""Tables and the progress line."""

import io
from dataclasses import asdict
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from optmerge.reports.progress import ProgressLine
from optmerge.reports.table import print_comparison, print_result
from optmerge.study.slots import Plan
from optmerge.tasks import Objective

ACC_JA, BITS = Objective("acc_ja"), Objective("bits_per_byte", "minimize", share=False)


def scored(score: float) -> dict[str, Any]:
    return {"score": score, "low": score - 0.1, "high": score + 0.1}


def result(study: str = "mine", winner: float = 0.6, validation: float | None = 0.55) -> dict[str, Any]:
    return {
        "study": study,
        "objective": asdict(ACC_JA),
        "winner": {"trial": 7, "search": 0.65, "validation": validation, "test": scored(winner)},
        "sources": {"ja": {"test": scored(0.123)}, "math_add": {"test": scored(0.2)}},
        "baselines": {
            "average": {"setting": "", "test": scored(0.345)},
            "best shared weight": {"setting": "0.6", "test": scored(0.4)},
        },
        "trials": {"complete": 5, "pruned": 3, "failed": 1},
        "problem_evaluations": 321,
        "problem_evaluations_unpruned": 1600,
        "seconds": 90.0,
    }


def trials(pruned: int = 2) -> list[FrozenTrial]:
    study = optuna.create_study(direction="maximize")
    for value in (0.2, 0.5, 0.4):
        study.tell(study.ask(), value)
    for _ in range(pruned):
        trial = study.ask()
        trial.report(0.1, step=40)
        study.tell(trial, state=TrialState.PRUNED)
    study.tell(study.ask(), state=TrialState.FAIL)
    return study.trials


def printed(show: Any, *arguments: Any) -> str:
    file = io.StringIO()
    show(Console(file=file, width=160), *arguments)
    return file.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "source ja",
        "source math_add",
        "average",
        "best shared weight (0.6)",
        "evolved merge (trial 7)",
        "12.3%",
        "34.5%",
        "60.0%",
        "50.0% to 70.0%",
        "acc_ja on the test problems",
        "65.0% in the search, 55.0% on validation, 60.0% on test",
        "5 complete, 3 pruned, 1 failed",
        "321 problems answered of 1600",
    ],
)
def test_the_table_shows_every_model_and_number(text: str) -> None:
    assert text in printed(print_result, result())


def test_the_table_is_silent_about_a_validation_that_was_not_done() -> None:
    assert "validation" not in printed(print_result, result(validation=None))


def test_a_comparison_has_every_study_with_its_best_source_and_naive_merge() -> None:
    text = printed(print_comparison, [result("first", 0.5), result("second", 0.7)])
    for expected in ("first", "second", "50.0%", "70.0%", "20.0%", "40.0%", "best shared weight"):
        assert expected in text


def test_a_comparison_without_baselines_is_printed_too() -> None:
    assert "mine" in printed(print_comparison, [{**result(), "baselines": {}}])


def test_the_last_line_of_progress_says_what_was_found() -> None:
    def show(console: Console) -> None:
        with ProgressLine(console, 5, [], ACC_JA, Plan(5)) as line:
            for trial in trials():
                line.show(trial)

    assert "trial 5/5, best so far 50.0%, pruned 40%" in printed(show)


def test_progress_counts_what_was_finished_before() -> None:
    def show(console: Console) -> None:
        *earlier, last = trials()[:5]
        with ProgressLine(console, 5, earlier, BITS, Plan(5, maximize=(False,))) as line:
            line.show(last)

    assert "trial 5/5, best so far 0.2, " in printed(show)


def test_what_is_no_share_is_no_percentage_and_less_may_be_better() -> None:
    document = {**result(), "objective": asdict(BITS)}
    text = printed(print_result, document)
    assert "0.65 in the search, 0.55 on validation, 0.6 on test" in text
    assert "%" not in text.replace("95%", "")
    (row,) = [line for line in printed(print_comparison, [document]).splitlines() if "mine" in line]
    assert "0.123" in row and "0.345 average" in row


@pytest.mark.parametrize(
    ("rivals", "text"),
    [
        ([], "better than the other 7 finalists beyond chance"),
        ([3, 5], "On validation 2 of the other 7 finalists cannot be told from it"),
    ],
)
def test_the_table_says_how_sure_the_choice_is(rivals: list[int], text: str) -> None:
    document = result()
    document["winner"]["selection"] = {"finalists": 8, "not_separated": rivals}
    assert text in printed(print_result, document)
