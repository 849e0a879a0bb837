"""A worker that is told to leave hands its trial back first."""

import random
import signal
import time

import pytest

from end_to_end.faults.conftest import Founder
from end_to_end.faults.crew import wait_until
from end_to_end.faults.proof import trials_of
from end_to_end.faults.servers import PostgreSQL
from optmerge.study.slots import ERROR, HANDED_BACK

GRACE = 20.0  # seconds; clusters give 30

on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # no lock of a file serializes there


@pytest.mark.parametrize(
    "signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)], ids=["terminated", "interrupted and terminated"]
)
def test_preempted_worker_hands_its_trial_back(url: str, founder: Founder, signals: tuple[signal.Signals, ...]) -> None:
    study = founder(url, 24)
    worker = study.crew.start(seconds=60.0)
    wait_until(lambda: study.watch.is_running(worker), "the start of a trial", worker.says)
    told = time.monotonic()
    for number in signals:
        worker.send(number)
    worker.wait()
    assert time.monotonic() - told < GRACE
    assert worker.status() == 1
    assert [trial.user_attrs[ERROR] for trial in trials_of(study.url, study.name)] == [HANDED_BACK]
    study.crew.start_many(2)
    study.crew.wait()
    assert study.check().handed_back == 1


def test_worker_that_is_preempted_at_whatever_instant_leaves_no_trial_running(url: str, founder: Founder) -> None:
    study = founder(url, 72)
    for _ in range(2):
        workers = study.crew.start_many(6, seconds=0.02, grace=60.0)
        for worker in workers:
            time.sleep(random.uniform(0.0, 0.15))
            worker.send(signal.SIGTERM)
        for worker in workers:
            worker.wait()
            assert not study.watch.is_running(worker), worker.says()
    study.crew.start_many(2, grace=60.0)
    study.crew.wait()
    assert study.check().died == 0


@on_postgresql
def test_preempted_worker_leaves_although_its_trial_was_given_away(url: str, founder: Founder) -> None:
    study = founder(url, 24)
    worker = study.crew.start(seconds=3.0, reports=False, beat=60.0)
    wait_until(lambda: study.watch.is_running(worker), "the start of a trial", worker.says)
    worker.send(signal.SIGSTOP)
    successor = study.crew.start(seconds=1.0)
    wait_until(lambda: study.watch.last_state(worker) == "FAIL", "the end of a silent trial", worker.says)
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGCONT)
    worker.wait()
    assert worker.status() == 1
    assert len(study.watch.states_of(worker)) == 1
    study.crew.start_many(2)
    study.crew.wait()
    assert successor.status() == 0
    study.check()


def test_preempted_worker_leaves_although_the_server_is_away(
    postgresql: PostgreSQL, postgresql_url: str, founder: Founder
) -> None:
    study = founder(postgresql_url, 24)
    worker = study.crew.start(seconds=60.0, patience=600.0)
    wait_until(lambda: study.watch.is_running(worker), "the start of a trial", worker.says)
    postgresql.kill()
    told = time.monotonic()
    worker.send(signal.SIGTERM)
    worker.wait()
    postgresql.start()
    assert time.monotonic() - told < GRACE
    assert worker.status() == 1
    study.crew.start_many(2)
    study.crew.wait()
    study.check()
