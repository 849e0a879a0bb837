"""A worker that is not heard of loses its trial; when it comes back, its late result does not count."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from end_to_end.faults.conftest import Faulty, Founder
from end_to_end.faults.crew import Worker, wait_until
from end_to_end.faults.servers import PostgreSQL, Proxy

LOST = "was given to another worker"


def sleeping_worker(study: Faulty, **settings: str) -> Worker:
    """A worker that sleeps in the middle of a trial, whose first word of that will be its result."""
    worker = study.crew.start(seconds=3.0, reports=False, beat=60.0, **settings)
    wait_until(lambda: study.watch.is_running(worker), "the start of a trial", worker.says)
    return worker


def given_away(study: Faulty, worker: Worker) -> None:
    """Start other workers, and wait until a worker's trial was given to one of them."""
    study.crew.start_many(3)
    wait_until(lambda: study.watch.last_state(worker) == "FAIL", "the end of a silent trial", worker.says)


def come_back(study: Faulty, worker: Worker) -> None:
    """Wait until a worker has been told that its trial was given away, and all have left."""
    wait_until(lambda: LOST in worker.says() or not worker.is_alive(), "a late result", worker.says)
    assert LOST in worker.says()
    study.crew.wait()
    assert set(study.crew.statuses()) == {0}


def test_late_result_of_a_stopped_worker_does_not_count(url: str, founder: Founder) -> None:
    study = founder(url, 24)
    worker = sleeping_worker(study)
    worker.send(signal.SIGSTOP)
    given_away(study, worker)
    worker.send(signal.SIGCONT)
    come_back(study, worker)
    study.check()


@pytest.fixture
def proxy(postgresql: PostgreSQL) -> Iterator[Proxy]:
    """A network between one worker and the server."""
    proxy = Proxy(postgresql.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("cut", [Proxy.stall, Proxy.break_off])
def test_late_result_from_a_network_that_was_cut_does_not_count(
    postgresql: PostgreSQL, postgresql_url: str, founder: Founder, proxy: Proxy, cut: Callable[[Proxy], None]
) -> None:
    study = founder(postgresql_url, 24)
    worker = sleeping_worker(study, url=postgresql_url.replace(str(postgresql.port), str(proxy.port)))
    cut(proxy)
    given_away(study, worker)
    proxy.restore()
    come_back(study, worker)
    study.check()


@pytest.mark.parametrize("ordinal", [1, 2, 5], ids=["claim", "report", "result"])
def test_worker_that_is_stopped_before_a_commit_delays_others_for_the_grace_alone(
    postgresql_url: str, founder: Founder, ordinal: int
) -> None:
    study = founder(postgresql_url, 24)
    worker = study.crew.start(seconds=0.03, at_commit=ordinal, sent=signal.SIGSTOP)
    wait_until(lambda: is_stopped(worker), "a worker that stops itself", worker.says)
    others = study.crew.start_many(2)
    for other in others:
        other.wait()
    assert not worker.says() and [other.status() for other in others] == [0, 0]
    worker.send(signal.SIGCONT)
    study.crew.wait()
    assert worker.status() == 0
    study.check()


@pytest.mark.parametrize("ordinal", [1, 5], ids=["claim", "result"])
def test_worker_that_is_stopped_before_a_commit_to_a_file_delays_others_until_it_goes_on(
    tmp_path: Path, founder: Founder, ordinal: int
) -> None:
    study = founder(f"sqlite:///{tmp_path / 'studies.db'}", 24)
    others = study.crew.start_many(2, seconds=0.3)
    worker = study.crew.start(seconds=0.03, at_commit=ordinal, sent=signal.SIGSTOP)
    wait_until(lambda: is_stopped(worker), "a worker that stops itself", worker.says)
    time.sleep(3)  # longer than the grace
    assert all(other.is_alive() for other in others)
    worker.send(signal.SIGCONT)
    study.crew.wait()
    assert study.crew.statuses() == [0, 0, 0]
    study.check()


def is_stopped(worker: Worker) -> bool:
    return bool(psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)


def test_workers_in_other_time_zones_do_not_take_each_other_for_dead(postgresql_url: str, founder: Founder) -> None:
    study = founder(postgresql_url, 12)
    for zone, seconds in (("America/New_York", 6.0), ("Asia/Tokyo", 0.05)):
        study.crew.start(seconds=seconds, grace=600.0, environment={"PGTZ": zone})
    study.crew.wait()
    assert study.check().died == 0
