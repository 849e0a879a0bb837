"""Trials that break a guard: they rank below those that keep it, whoever looks."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import OptmergeError
from optmerge.study.database import Database
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.result import ranked as finalists
from optmerge.study.samplers.cmaes import ranked
from optmerge.study.slots import Ledger, Plan, Slot, violation
from optmerge.study.trial_scores import ESTIMATE
from optmerge.study.worker import Outcome, Report
from optmerge.tasks import Objective as Goal
from study.conftest import Scale, Target
from study.studies import begin, proposer, search
from study.test_cmaes_sampler import GENES, trial


def one(member: int, value: float | None, constraints: Mapping[str, float], **attributes: Any) -> FrozenTrial:
    state = TrialState.COMPLETE if value is not None else TrialState.PRUNED
    made = trial(member, Slot(0, member), GENES, {}, state=state, value=value, user_attrs=attributes)
    made.system_attrs |= {f"constraints:{name}": number for name, number in constraints.items()}
    return made


def test_those_that_break_a_guard_come_after_all_survivors_and_before_the_beaten() -> None:
    members = [
        one(0, 0.9, {"chat": 0.3}),
        one(1, 0.2, {"chat": -0.1}),
        one(2, None, {}, **{ESTIMATE: 0.99}),
        one(3, 0.5, {"chat": 0.0}),
        one(4, 0.8, {"chat": 0.1, "code": 0.1}),
    ]
    assert [member.number for member in ranked(members, Plan(5))] == [3, 1, 4, 0, 2]


def test_a_constraint_that_is_no_number_is_broken() -> None:
    assert violation(one(0, 0.9, {"chat": math.nan})) == math.inf


def test_constraints_are_stored_as_optuna_has_them_and_decide_who_is_a_finalist(database: Database) -> None:
    def evaluate(slot: Slot, genome: Mapping[str, Any], ledger: Ledger, report: Report) -> Outcome:
        value = float(genome["g0"])
        return Outcome(TrialState.COMPLETE, value, {}, {"chat": value - 0.5})

    proposing = proposer("cmaes", GENES)
    opened = begin(database, proposing)
    trials = search(opened, proposing, evaluate, 20)
    assert all(trial.constraints == {"chat": float(trial.value or 0) - 0.5} for trial in trials)
    feasible = sorted((float(t.value or 0) for t in trials if float(t.value or 0) <= 0.5), reverse=True)
    found = [float(t.value or 0) for t in finalists(opened.study, Goal("value"))]
    assert found[: len(feasible)] == feasible
    assert found[len(feasible) :] == sorted(found[len(feasible) :])
    assert 0 < len(feasible) < 20


def test_an_infeasible_best_does_not_end_a_search_that_stagnates() -> None:
    plan = Plan(2, stagnation=2)
    values = [(9.0, 1.0), (0.1, -1.0), (8.0, 1.0), (0.2, -1.0), (7.0, 1.0), (0.3, -1.0)]
    trials = []
    for number, (value, broken) in enumerate(values):
        made = one(number, value, {"chat": broken})
        made.system_attrs["optmerge:slot"] = [number // 2, number % 2]
        trials.append(made)
    assert Ledger(plan).update(trials).end(100) == 100


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_fails_the_candidate(value: float) -> None:
    class Broken(Target):
        def score(self, problem: Any, response: Any) -> Mapping[str, float]:
            return {"near": value}

    engine, task = Scale(size=1.0), Broken()
    with pytest.raises(OptmergeError, match=r"near of a problem is (nan|-?inf): the merge's answers cannot be scored"):
        answer(engine, task, task.problems("search"), range(3), Evaluation())
