"""The score of every problem, as it is kept and read back."""

import json

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optmerge.study.trial_scores import SCORES, decode, encode, finished_trials, score_matrix


def test_right_and_wrong_are_kept_as_a_character_a_problem() -> None:
    assert encode(np.array([1.0, 0.0, np.nan, 1.0])) == "10-1"


def test_graded_scores_are_kept_as_numbers() -> None:
    assert encode(np.array([0.5, np.nan, 1.0])) == [0.5, None, 1.0]


def test_nothing_seen_is_all_missing() -> None:
    assert encode(np.array([np.nan, np.nan])) == "--"


@given(st.lists(st.one_of(st.sampled_from([0.0, 1.0, np.nan]), st.floats(-10, 10)), max_size=12))
def test_scores_come_back_from_json_as_they_were(scores: list[float]) -> None:
    np.testing.assert_array_equal(decode(json.loads(json.dumps(encode(np.array(scores))))), scores)


@pytest.fixture
def study() -> optuna.Study:
    """A complete trial, a pruned one, and one that failed before it saw anything."""
    study = optuna.create_study(direction="maximize")
    for encoded, state, value in (
        ("10", optuna.trial.TrialState.COMPLETE, 0.5),
        ("-0", optuna.trial.TrialState.PRUNED, None),
        (None, optuna.trial.TrialState.FAIL, None),
    ):
        trial = study.ask()
        if encoded:
            trial.set_user_attr(SCORES, {"acc": encoded})
        study.tell(trial, value, state=state)
    return study


def test_only_trials_that_ran_to_the_end_are_finished(study: optuna.Study) -> None:
    (trial,) = finished_trials(study.trials, "acc", "maximize")
    assert (trial.number, trial.value, trial.scores().tolist()) == (0, 0.5, [1.0, 0.0])


def test_scores_to_minimize_are_turned_so_that_higher_is_better(study: optuna.Study) -> None:
    (trial,) = finished_trials(study.trials, "acc", "minimize")
    assert (trial.value, trial.scores().tolist()) == (-0.5, [-1.0, 0.0])


def test_matrix_has_every_trial_that_saw_a_problem(study: optuna.Study) -> None:
    matrix = score_matrix(study.trials, "acc")
    assert set(matrix) == {0, 1}
    np.testing.assert_array_equal(matrix[1], [np.nan, 0.0])
