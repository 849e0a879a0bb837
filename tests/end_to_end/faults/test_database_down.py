"""The server is killed or stopped, and comes back: workers wait, and go on."""

import signal
import time
from collections.abc import Callable

import pytest

from end_to_end.faults.conftest import Founder
from end_to_end.faults.crew import wait_until
from end_to_end.faults.proof import account, trials_of
from end_to_end.faults.servers import PostgreSQL


@pytest.mark.parametrize("end", [PostgreSQL.kill, PostgreSQL.shut_down])
def test_workers_wait_for_a_server_that_was_restarted(
    postgresql: PostgreSQL, postgresql_url: str, founder: Founder, end: Callable[[PostgreSQL], None]
) -> None:
    study = founder(postgresql_url, 72)
    workers = study.crew.start_many(6)
    wait_until(lambda: study.watch.finished() >= 24, "some trials")
    end(postgresql)
    time.sleep(3)  # longer than the grace
    assert study.crew.at_work() == workers
    postgresql.start()
    study.crew.wait()
    assert study.crew.statuses() == [0] * 6
    study.check()


def test_trials_outlive_an_outage_longer_than_the_grace(
    postgresql: PostgreSQL, postgresql_url: str, founder: Founder
) -> None:
    study = founder(postgresql_url, 12)
    # After an outage these are heard of again within three seconds; the other looks for dead workers at once.
    workers = study.crew.start_many(2, seconds=3.0, beat=3.0, grace=6.0)
    study.crew.start(seconds=0.1, grace=6.0)
    wait_until(lambda: all(study.watch.is_running(worker) for worker in workers), "trials at work")
    postgresql.kill()
    time.sleep(7)
    postgresql.start()
    study.crew.wait()
    assert study.check().died == 0


def test_workers_that_waited_in_vain_say_so_and_lose_nothing(
    postgresql: PostgreSQL, postgresql_url: str, founder: Founder
) -> None:
    study = founder(postgresql_url, 36)
    workers = study.crew.start_many(3, patience=1.0)
    wait_until(lambda: study.watch.finished() >= 12, "some trials")
    postgresql.kill()
    study.crew.wait()
    postgresql.start()
    for worker in workers:
        assert worker.status() == 1
        assert "optmerge: the study database has not answered for 1 s" in worker.says()
    study.crew.start_many(3)
    study.crew.wait()
    study.check()


def test_samplers_that_ask_the_database_themselves_wait_too(
    postgresql: PostgreSQL, postgresql_url: str, founder: Founder
) -> None:
    study = founder(postgresql_url, 72, sampler="nsgaii")
    first, *others = study.crew.start_many(5, sampler="nsgaii", seconds=0.0)
    wait_until(lambda: study.watch.finished() >= 12, "some trials")
    first.send(signal.SIGKILL)  # what it leaves is not drawn again, but run again
    while all(other.is_alive() for other in others):
        postgresql.kill()
        postgresql.start()
        time.sleep(0.3)
    study.crew.wait()
    assert study.crew.statuses() == [None, 0, 0, 0, 0]
    found = account(trials_of(study.url, study.name), study.budget)
    assert (found.finished, found.lost, found.doubled, found.running) == (study.budget, 0, 0, 0)
    assert (found.failed, found.changed) == (0, 0)
