"""How the winner is chosen: finalists race on validation, and the winner answers all of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest

from optmerge.engines import Request, Response
from optmerge.errors import OptmergeError
from optmerge.study.judge import Judge, final_responses
from optmerge.study.memory import Memory
from study.conftest import Target


@dataclass
class Solver:
    """Answers as the mounted 'recipe', a name, is told to: right on a share of the problems."""

    shares: dict[str, float]
    needs: Literal["weights"] = "weights"
    device: str = "cpu"
    mounted: str = ""
    asked: Counter[str] = field(default_factory=Counter)

    def mount(self, candidate: Any) -> None:
        if candidate == "broken":
            raise OptmergeError("not numbers")
        self.mounted = candidate

    def run(self, requests: Sequence[Request]) -> list[Response]:
        self.asked[self.mounted] += len(requests)
        share = self.shares[self.mounted]
        right = [(7 * int(request.prompt) % 100) < 100 * share for request in requests]  # type: ignore[union-attr,arg-type]
        return [Response("1" if one else "0", 1) for one in right]


@dataclass
class Named:
    """A stand-in for a recipe that is told by its name alone."""

    sha256: str


class Bench:
    def final(self, recipe: Named) -> str:
        return recipe.sha256


class Hundred(Target):
    """A hundred problems, right or wrong."""

    def score(self, problem: Any, response: Response) -> dict[str, float]:
        return {"near": float(response.text)}


def race(**shares: float) -> tuple[Any, Solver]:
    solver = Solver(shares)
    task = Hundred(sizes=tuple(range(100)))  # type: ignore[arg-type]
    judge = Judge(optuna.create_study(), Bench(), solver, task, lambda what: None)  # type: ignore[arg-type]
    return judge.best({name: Named(name) for name in shares}, "trial"), solver  # type: ignore[arg-type,misc]


def test_those_that_are_clearly_worse_leave_early_and_the_winner_answers_all() -> None:
    best, solver = race(a=0.2, b=0.9, c=0.1)
    assert (best.name, best.of, best.rivals) == ("b", 3, [])
    assert best.score == pytest.approx(0.9)
    assert solver.asked["b"] == 100
    assert solver.asked["a"] == solver.asked["c"] == 25


def test_those_that_cannot_be_told_apart_answer_all_and_are_named() -> None:
    best, solver = race(a=0.70, b=0.71, c=0.05)
    assert (best.name, best.rivals) == ("b", ["a"])
    assert solver.asked["a"] == solver.asked["b"] == 100


def test_of_equals_the_first_wins() -> None:
    assert race(a=0.5, b=0.5)[0].name == "a"


def test_one_that_cannot_be_run_is_left_out() -> None:
    best, _ = race(broken=0.9, b=0.3)
    assert (best.name, best.score) == ("b", pytest.approx(0.3))
    with pytest.raises(OptmergeError, match="none of trial could be scored"):
        race(broken=0.9)


@pytest.mark.parametrize("problems", [1, 2, 3])
def test_few_problems_are_enough_to_choose_by(problems: int) -> None:
    solver = Solver({"a": 0.0, "b": 1.0})
    task = Hundred(sizes=tuple(range(problems)))  # type: ignore[arg-type]
    judge = Judge(optuna.create_study(), Bench(), solver, task, lambda what: None)  # type: ignore[arg-type]
    best = judge.best({name: Named(name) for name in "ab"}, "trial")  # type: ignore[misc,arg-type]
    assert (best.name, best.score) == ("b", 1.0)


def test_scores_that_are_kept_are_not_asked_for_again() -> None:
    solver = Solver({"a": 0.5, "b": 0.2})
    task = Hundred(sizes=tuple(range(100)))  # type: ignore[arg-type]
    study = optuna.create_study()
    for _ in range(2):
        judge = Judge(study, Bench(), solver, task, lambda what: None)  # type: ignore[arg-type]
        judge.best({name: Named(name) for name in "ab"}, "trial")  # type: ignore[misc,arg-type]
    assert solver.asked["a"] == 100


def test_responses_are_kept_where_they_are_wanted_whatever_was_left_there(tmp_path: Path) -> None:
    solver, task = Solver({"a": 0.5}), Hundred(sizes=tuple(range(8)))  # type: ignore[arg-type]
    left = final_responses(tmp_path, "test:a")
    left.write_text('{"id": "old", "response": {"text": "old", "tokens": 1, "log_likelihoods": []}}\n')
    judge = Judge(optuna.create_study(), Bench(), solver, task, lambda what: None, tmp_path)  # type: ignore[arg-type]
    scores = judge.scores(Named("a"), "test", "a")  # type: ignore[arg-type]
    texts = Memory(left).texts()
    assert set(texts) == {problem.id for problem in task.problems("test")}
    assert [float(texts[problem.id]) for problem in task.problems("test")] == scores.tolist()
