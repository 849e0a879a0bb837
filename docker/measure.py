#!/usr/bin/env python3
"""What a study costs its PostgreSQL: duration, statements and commits of all that a worker asks of it.

    python docker/measure.py            # on a server of its own, by TCP on the loopback
    python docker/measure.py URL        # on a server elsewhere; it makes studies named measure-... there

It says how long a claim takes, how claims share the lock on the study, and how reading grows with the trials that run.
The numbers in README.md are from here.
"""

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from native import Installation, image_environment, read_env
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from optmerge.study.database import Database
from optmerge.study.slots import Slot, Vacancy
from optmerge.study.storage import open_storage

GENES, REPEATS = 64, 200
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    f"layers.{i // 3:02d}/source{i % 3}/weight": FloatDistribution(0.0, 1.0) for i in range(GENES)
}
GENOME = dict.fromkeys(DISTRIBUTIONS, 0.5)
WORKER = {"host": "a-machine-with-a-name", "pid": 12345, "started": 1.7e9, "numbers": "pid:[4026531836]1a2b3c4d"}
# As a trial leaves them: hash, seconds, scores of 800 problems, compact.
LEFT = {"recipe": "0" * 64, "seconds": {"merge": 1.0, "run": 200.0}, "problems": 800, "scores": {"acc_ja": "A" * 140}}


def main() -> None:
    """Measure and print."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with contextlib.ExitStack() as stack:
        installation = None if len(sys.argv) > 1 else stack.enter_context(own_server())
        url = sys.argv[1] if installation is None else installation.environment("search")["OPTMERGE_STORAGE_URL"]
        one_worker(url)
        many_claims(url)
        size_of_study(url)
        reading(url)
        if installation is not None:
            recording(installation)


@contextlib.contextmanager
def own_server() -> Iterator[Installation]:
    """A PostgreSQL with the settings of compose.yaml."""
    with tempfile.TemporaryDirectory(prefix="optmerge-measure-") as folder:
        names = ("POSTGRES_PASSWORD", "OPTMERGE_PASSWORD", "MLFLOW_PASSWORD")
        settings = read_env("\n".join(f"{name}=measure" for name in names))
        installation = Installation(Path(folder), settings)
        try:
            installation.start_postgres()
            yield installation
        finally:
            installation.stop()


class Study:
    """A study to take trials of."""

    def __init__(self, url: str) -> None:
        self.database: Database = open_storage(url)
        self.optuna = optuna.create_study(study_name=f"measure-{uuid.uuid4().hex}", storage=self.database)
        self.id = self.optuna._study_id
        self._next = 0
        self.known = -1

    def claim(self, database: Database | None = None, member: int | None = None) -> int:
        """Take the next slot; gives the trial's id."""
        self._next += 1
        vacancy = Vacancy(Slot(0, self._next if member is None else member), None)
        claim = (database or self.database).claim(
            self.id, [vacancy], self.known, lambda _: GENOME, DISTRIBUTIONS, WORKER
        )
        assert claim is not None
        self.known = max(self.known, claim.trial_id)
        return claim.trial_id

    def fill(self, running: int = 0, ended: int = 0, genes: int = GENES) -> None:
        """Put in trials by the thousand."""
        text = next(iter(self.database._jsons.values()))
        with self.database.engine.begin() as connection:
            for state, count in (("COMPLETE", ended), ("RUNNING", running)):
                done = "now()" if state == "COMPLETE" else "NULL"
                connection.exec_driver_sql(
                    "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)"
                    f" SELECT n, {self.id}, '{state}', now(), {done} FROM generate_series(1, {count}) n"
                )
            connection.exec_driver_sql(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) SELECT trial_id,"
                f" 'layers.' || g || '/source/weight', 0.5, '{text}' FROM trials, generate_series(1, {genes}) g"
                f" WHERE study_id = {self.id} AND number > 0"
            )
            for key, value in (("optmerge:slot", "[0, 1]"), ("optmerge:worker", '{"host": "a", "pid": 1}')):
                connection.exec_driver_sql(
                    "INSERT INTO trial_system_attributes (trial_id, key, value_json) SELECT trial_id,"
                    f" '{key}', '{value}' FROM trials WHERE study_id = {self.id} AND number > 0"
                )
        with self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")


def quick_ms(act: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Milliseconds that something takes: what a tenth of many times stayed below, as other programs run here too."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.quantiles(taken, n=10)[0]


def counted(engine: sqlalchemy.Engine, act: Callable[[], Any]) -> tuple[int, int]:
    """Statements and commits of something."""
    counts = {"statements": 0, "commits": 0}

    def statement(*_: Any) -> None:
        counts["statements"] += 1

    def commit(*_: Any) -> None:
        counts["commits"] += 1

    sqlalchemy.event.listen(engine, "after_cursor_execute", statement)
    sqlalchemy.event.listen(engine, "commit", commit)
    act()
    sqlalchemy.event.remove(engine, "after_cursor_execute", statement)
    sqlalchemy.event.remove(engine, "commit", commit)
    return counts["statements"], counts["commits"]


def one_worker(url: str) -> None:
    """What one worker's requests cost on a server that does nothing else."""
    study = Study(url)
    ids: list[int] = []
    steps = iter(range(10**9))
    database = study.database
    acts: dict[str, Callable[[], Any]] = {
        "claim": lambda: ids.append(study.claim()),
        "report": lambda: database.report(ids[-1], next(steps), 0.5),
        "beat": lambda: database.record_beat(ids[-1]),
        "finish": lambda: database.finish(ids.pop(), TrialState.COMPLETE, 0.5, LEFT),
        "control": lambda: database.control(study.id),
        "read trials": lambda: study.optuna.get_trials(deepcopy=False),
        "find silent": lambda: database.running(study.id),
    }
    print(f"one worker, {GENES} genes             ms  statements  commits")
    study.claim()
    database.finish(study.known, TrialState.COMPLETE, 0.5, LEFT)
    for name, act in acts.items():
        statements, commits = counted(database.engine, act)
        print(f"  {name:24} {quick_ms(act, REPEATS - 1):9.2f} {statements:11} {commits:8}", flush=True)


def many_claims(url: str) -> None:
    """How many claims of one study the server grants a second, however many ask."""
    print("claims a second of one study, by processes that ask")
    for asking in (1, 2, 4, 8):
        study = Study(url)
        command = [sys.executable, __file__, "--claim", url, study.optuna.study_name]
        start = str(time.time() + 2 + 2 * asking)  # by then all have started
        processes = [
            subprocess.Popen([*command, str(number), start], stdout=subprocess.PIPE, text=True)
            for number in range(asking)
        ]
        rates = [[float(rate) for rate in process.communicate()[0].split()] for process in processes]
        # The best of the seconds, each summed over all processes.
        print(f"  {asking:3} {max(sum(second) for second in zip(*rates, strict=True)):28.0f}", flush=True)


def claim_for_a_while(url: str, name: str, number: int, start: float) -> None:
    """Claim for ten seconds from some time on; prints how many in each."""
    study = Study.__new__(Study)
    study.database = open_storage(url)
    study.optuna = optuna.load_study(study_name=name, storage=study.database)
    study.id, study.known, study._next = study.optuna._study_id, 10**9, 0
    seconds = 10
    time.sleep(max(0.0, start - time.time()))  # all at once
    counts = [0] * seconds
    while (second := int(time.time() - start)) < seconds:
        study.claim(member=number * 10**6 + sum(counts))
        counts[second] += 1
    print(*counts)


def size_of_study(url: str) -> None:
    """How a claim's duration grows with the trials that a study has."""
    print("ms of a claim, by trials that the study has")
    for ended in (0, 1000, 10000, 100000):
        study = Study(url)
        study.claim()
        study.fill(ended=ended, genes=0)
        study.known = 10**9
        print(f"  {ended:6} {quick_ms(study.claim):25.2f}", flush=True)


def reading(url: str) -> None:
    """How reading a study grows with the trials that run, as each worker does it before and after each trial."""
    print("running trials     ms to read the study again")
    for running in (1, 10, 100, 1000):
        study = Study(url)
        study.claim()
        study.fill(running=running)
        study.database.finish(study.claim(), TrialState.COMPLETE, 0.5, LEFT)  # those that run are older
        again = optuna.load_study(study_name=study.optuna.study_name, storage=open_storage(url))
        again.get_trials(deepcopy=False)
        ms = quick_ms(partial(again.get_trials, deepcopy=False), 5)
        print(f"  {running:6} {ms:25.1f}", flush=True)


def recording(installation: Installation) -> None:
    """How long the search takes to record a trial with the MLflow server."""
    from optmerge.tracking.mlflow import MlflowTracker, Options

    os.environ |= image_environment()
    installation.start("mlflow")
    installation.wait_until_healthy("mlflow")
    tracker = MlflowTracker(Options(uri=f"http://127.0.0.1:{installation.port('mlflow')}", artifacts=None))
    tracker.start("measure", uuid.uuid4().hex, {})
    now, numbers = datetime.now(), itertools.count()

    def record() -> None:
        trial = create_trial(value=0.5, params=GENOME, distributions=DISTRIBUTIONS)
        trial.number, trial.datetime_start, trial.datetime_complete = next(numbers), now, now
        tracker.trial(trial)

    print(f"ms to record a trial of {GENES} genes with the MLflow server {quick_ms(record, 50):12.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--claim"]:
        claim_for_a_while(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
    else:
        main()
