"""The score of every problem, as it is kept and read back."""

import base64
import json

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optmerge.study.trial_scores import SCORES, decode, encode, finished_trials, kept, score_matrix


def test_right_and_wrong_are_kept_as_a_bit_a_problem() -> None:
    assert encode(np.array([1.0, 0.0, 1.0])) == "b:3:" + base64.b64encode(bytes([0b10100000])).decode()
    assert encode(np.array([1.0, 0.0, np.nan, 1.0])).split(":")[2:] == [
        base64.b64encode(bytes([bits])).decode() for bits in (0b10010000, 0b11010000)
    ]


@pytest.mark.parametrize("seen", [1.0, 0.4])
def test_a_trial_of_a_thousand_problems_takes_less_than_a_kilobyte(seen: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, 1000).astype(float)
    scores[rng.random(1000) > seen] = np.nan
    assert len(json.dumps({"acc": encode(scores), "acc_ja": encode(scores)})) < 1000


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan]), max_size=40))
def test_right_and_wrong_come_back_from_json_as_they_were(scores: list[float]) -> None:
    np.testing.assert_array_equal(decode(json.loads(json.dumps(encode(np.array(scores))))), scores)


@given(st.lists(st.one_of(st.just(np.nan), st.floats(-100, 100)), min_size=1, max_size=12))
def test_graded_scores_come_back_as_16_bits_hold_them(scores: list[float]) -> None:
    found = decode(encode(np.array([0.5, *scores])))
    np.testing.assert_allclose(found[1:], scores, rtol=2**-11, atol=2**-24)
    np.testing.assert_array_equal(kept(found), found)


def test_scores_beyond_16_bits_are_cut() -> None:
    assert decode(encode(np.array([1e9, -1e9]))).tolist() == [65504.0, -65504.0]


@pytest.fixture
def study() -> optuna.Study:
    """A complete trial, a pruned one, and one that failed before it saw anything."""
    study = optuna.create_study(direction="maximize")
    for scores, state, value in (
        ([1.0, 0.0], optuna.trial.TrialState.COMPLETE, 0.5),
        ([np.nan, 0.0], optuna.trial.TrialState.PRUNED, None),
        (None, optuna.trial.TrialState.FAIL, None),
    ):
        trial = study.ask()
        if scores:
            trial.set_user_attr(SCORES, {"acc": encode(np.array(scores))})
        study.tell(trial, value, state=state)
    return study


def test_only_trials_that_ran_to_the_end_are_finished(study: optuna.Study) -> None:
    (trial,) = finished_trials(study.trials, "acc", "maximize")
    assert (trial.number, trial.value, trial.scores().tolist()) == (0, 0.5, [1.0, 0.0])


def test_scores_to_minimize_are_turned_so_that_higher_is_better(study: optuna.Study) -> None:
    (trial,) = finished_trials(study.trials, "acc", "minimize")
    assert (trial.value, trial.scores().tolist()) == (-0.5, [-1.0, 0.0])


def test_matrix_has_every_trial_that_saw_a_problem(study: optuna.Study) -> None:
    matrix = score_matrix({t.number: t.user_attrs[SCORES] for t in study.trials if SCORES in t.user_attrs}, "acc")
    assert set(matrix) == {0, 1}
    np.testing.assert_array_equal(matrix[1], [np.nan, 0.0])
