"""Whoever is killed, and whenever: every slot gets one result, and it is that of an undisturbed run."""

import random
import signal
import time
from collections import Counter

import pytest

from end_to_end.faults.conftest import Founder
from end_to_end.faults.crew import Crew
from end_to_end.faults.proof import by_slot, is_finished, place, trials_of
from optmerge.study.slots import DIED, ERROR

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # what no database decides: the ledger does


def kill_some(crew: Crew, every: float) -> int:
    """Kill a random worker again and again and start another instead, until all have left; says how many were."""
    kills = 0
    while workers := crew.at_work():
        time.sleep(random.uniform(0.5, 1.5) * every)
        victim = random.choice(workers)
        victim.send(signal.SIGKILL)
        victim.wait()
        if victim.status() is None:  # it had not left by itself
            kills += 1
            crew.start()
    return kills


def test_killing_random_workers_loses_no_trial_and_doubles_none(url: str, founder: Founder) -> None:
    study = founder(url, 300)
    study.crew.start_many(8)
    assert kill_some(study.crew, every=0.8) > 0
    assert set(study.crew.statuses()) == {0, None}
    study.check()


@on_sqlite
def test_killing_workers_of_a_pipelined_search_changes_no_genome(url: str, founder: Founder) -> None:
    study = founder(url, 60, lag=1)
    study.crew.start_many(5)
    assert kill_some(study.crew, every=0.8) > 0
    study.check()


def test_workers_that_die_before_any_of_their_commits_lose_nothing(url: str, founder: Founder) -> None:
    study = founder(url, 24)
    # The first commit is that of a claim, the last of five that of a result; later ones are those of the next trial.
    for ordinal in (1, 2, 3, 4, 5, 6, 7, 9, 10):
        worker = study.crew.start(seconds=0.03, at_commit=ordinal, sent=signal.SIGKILL)
        worker.wait()
        assert worker.status() is None
    study.crew.start_many(2)
    study.crew.wait()
    study.check()


@on_sqlite
def test_slot_that_kills_its_workers_is_tried_so_often_and_no_more(url: str, founder: Founder) -> None:
    study = founder(url, 36, max_retries=2)
    while study.watch.finished() < study.budget:
        if len(study.crew.at_work()) < 3:
            study.crew.start(deadly=(1, 4), seconds=0.03)
    study.crew.wait()
    trials = trials_of(study.url, study.name)
    tried = [trial for trial in trials if place(trial) == (1, 4)]
    assert [trial.user_attrs[ERROR] for trial in tried] == [DIED] * 3
    assert len({repr(trial.params) for trial in tried}) == 1
    # It counts as a failure: the search takes one slot more.
    finished = Counter(place(trial) for trial in trials if is_finished(trial))
    assert set(finished) == {divmod(position, 12) for position in range(37)} - {(1, 4)}
    assert set(finished.values()) == {1}


@on_sqlite
def test_one_worker_makes_the_same_study_of_the_same_seed_bit_for_bit(url: str, founder: Founder) -> None:
    study = founder(url, 60)
    study.crew.start(seconds=0.01)
    study.crew.wait()
    trials = trials_of(study.url, study.name)
    assert [place(trial) for trial in trials] == [divmod(position, 12) for position in range(60)]
    assert by_slot(trials) == {slot: study.undisturbed[slot] for slot in by_slot(trials)}


@on_sqlite
def test_order_in_which_trials_end_does_not_change_what_is_searched(url: str, founder: Founder) -> None:
    study = founder(url, 60)
    for seconds in (0.0, 0.1, 0.3):
        study.crew.start(seconds=seconds)
    study.crew.wait()
    ends = [place(trial) for trial in sorted(trials_of(study.url, study.name), key=lambda t: t.datetime_complete)]
    assert ends != sorted(ends)
    study.check()
