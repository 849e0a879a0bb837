"""A search whose pruner stops trials."""

from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from end_to_end.studies import Search, values
from optmerge.__main__ import run
from optmerge.study.trial_scores import ESTIMATE, PROBLEMS

SEARCH_PROBLEMS = 24
# Lenient to the point of nonsense: a trial stops when it has lost more problems than it has won.
RACING = [
    "pruner=racing",
    "pruner.batch=12",
    "pruner.rank=1",
    "pruner.level=0.99",
    "sampler.population=4",
    "study.trials=12",
]


def race(small: list[str], cwd: Path) -> Search:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert run([*small, *RACING]) == 0
    return Search(cwd, (), "")


@pytest.fixture(scope="module")
def raced(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Search:
    return race(small, tmp_path_factory.mktemp("raced"))


def of_state(search: Search, state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in search.trials() if trial.state == state]


def test_beaten_trials_are_stopped_before_the_last_problem(raced: Search) -> None:
    pruned = of_state(raced, TrialState.PRUNED)
    assert pruned
    assert all(trial.user_attrs[PROBLEMS] < SEARCH_PROBLEMS for trial in pruned)


def test_nothing_is_stopped_before_a_generation_is_closed(raced: Search) -> None:
    assert [trial.state.name for trial in raced.trials()[:4]] == ["COMPLETE"] * 4


def test_what_the_beaten_might_have_come_to_is_kept_to_order_them(raced: Search) -> None:
    for trial in raced.trials():
        assert (ESTIMATE in trial.user_attrs) == (trial.state == TrialState.PRUNED)


def test_pruned_trials_count_towards_the_budget(raced: Search) -> None:
    counts = raced.result()["trials"]
    assert counts["pruned"] == len(of_state(raced, TrialState.PRUNED))
    assert (counts["complete"] + counts["pruned"], counts["failed"]) == (12, 0)


def test_winner_is_among_the_trials_that_answered_every_problem(raced: Search) -> None:
    complete = of_state(raced, TrialState.COMPLETE)
    winner = raced.result()["winner"]
    assert winner["search"] == max(trial.value for trial in complete)
    assert winner["trial"] in [trial.number for trial in complete]


def test_problems_that_pruning_saved_are_not_counted_and_those_of_the_sources_are(raced: Search) -> None:
    result = raced.result()
    answered = sum(trial.user_attrs[PROBLEMS] for trial in raced.trials())
    assert answered < result["problem_evaluations_unpruned"]
    assert result["problem_evaluations"] == answered + len(result["sources"]) * SEARCH_PROBLEMS
    assert result["problem_evaluations_unpruned"] == 12 * SEARCH_PROBLEMS


def test_same_seed_prunes_the_same_trials(raced: Search, small: list[str], tmp_path: Path) -> None:
    assert values(race(small, tmp_path).trials()) == values(raced.trials())
