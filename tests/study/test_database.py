"""Taking, reporting and finishing trials: on a file, and on a real PostgreSQL server."""

import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, text

from optmerge.space import Gene
from optmerge.study.database import Claim, Database, StorageError, TrialLostError, beating
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, SLOT, WORKER, Slot, Vacancy
from optmerge.study.worker import Outcome, work
from study.studies import begin, connected, proposer

WEIGHT: dict[str, BaseDistribution] = {"weight": FloatDistribution(0, 1)}
ME = {"host": "here", "pid": 1}
NOBODY = 10**9  # more trials than there are


def new_study(database: Database, name: str = "mine") -> int:
    return database.get_study_id_from_name(
        optuna.create_study(study_name=name, storage=database, direction="maximize").study_name
    )


def vacancies(count: int) -> list[Vacancy]:
    return [Vacancy(Slot(0, member), None) for member in range(count)]


def take(
    database: Database, study_id: int, open_slots: Sequence[Vacancy] | None = None, known: int = -1
) -> Claim | None:
    """Claim one of these slots, with a genome that tells them apart."""
    return database.claim(
        study_id,
        vacancies(5) if open_slots is None else open_slots,
        known,
        lambda vacancy: {"weight": (vacancy.slot.member + 1) / 100},
        WEIGHT,
        ME,
    )


def taken(database: Database, study_id: int) -> Claim:
    claim = take(database, study_id)
    assert claim is not None
    return claim


@pytest.fixture
def study_id(either: Database) -> int:
    return new_study(either)


def only_trial(database: Database, study_id: int) -> FrozenTrial:
    (trial,) = database.get_all_trials(study_id)
    return trial


# Taking


def test_a_claim_is_a_running_trial_with_genome_slot_and_worker(either: Database, study_id: int) -> None:
    claim = taken(either, study_id)
    assert (claim.number, claim.slot, claim.genome) == (0, (0, 0), {"weight": 0.01})
    trial = only_trial(either, study_id)
    assert (trial.state, trial._trial_id, trial.params) == (TrialState.RUNNING, claim.trial_id, claim.genome)
    assert trial.system_attrs[SLOT] == [0, 0] and trial.system_attrs[WORKER] == ME


def test_slots_that_were_taken_meanwhile_are_passed_over(either: Database, study_id: int) -> None:
    claims = [take(either, study_id, vacancies(3)) for _ in range(4)]
    assert [claim and claim.slot.member for claim in claims] == [0, 1, 2, None]
    assert [claim.number for claim in claims if claim] == [0, 1, 2]


def test_a_slot_whose_worker_is_known_to_have_died_is_taken_again(either: Database, study_id: int) -> None:
    first = taken(either, study_id)
    second = take(either, study_id, vacancies(1), known=first.trial_id)
    assert second is not None and (second.number, second.slot) == (1, (0, 0))


def test_nothing_is_written_where_no_genome_can_be_made(either: Database, study_id: int) -> None:
    def fail(vacancy: Vacancy) -> Mapping[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        either.claim(study_id, vacancies(1), -1, fail, WEIGHT, ME)
    assert either.get_all_trials(study_id) == []


def test_eight_threads_never_take_the_same_slot(url: str) -> None:
    with connected(url) as database:
        study_id = new_study(database)
    claims: list[Claim] = []
    together = threading.Barrier(8)

    def keep_taking() -> None:
        with connected(url) as own:
            together.wait()
            while (claim := take(own, study_id, vacancies(40))) is not None:
                claims.append(claim)

    threads = [threading.Thread(target=keep_taking) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claim.slot.member for claim in claims) == list(range(40))
    assert sorted(claim.number for claim in claims) == list(range(40))


TAKER = """
import sys
from optuna.distributions import FloatDistribution
from optmerge.study.slots import Slot, Vacancy
from optmerge.study.storage import open_storage

database = open_storage(sys.argv[1])
study = database.get_study_id_from_name("mine")
vacancies = [Vacancy(Slot(0, member), None) for member in range(30)]
print("ready", flush=True)
sys.stdin.readline()
distributions = {"weight": FloatDistribution(0, 1)}
while claim := database.claim(study, vacancies, -1, lambda vacancy: {"weight": 0.5}, distributions, {}):
    print(claim.slot.member, claim.number)
"""


def test_processes_never_take_the_same_slot(url: str) -> None:
    with connected(url) as database:
        new_study(database)
    processes = [
        subprocess.Popen([sys.executable, "-c", TAKER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [line for process in processes for line in process.communicate(timeout=60)[0].splitlines()]
    slots, numbers = zip(*(map(int, line.split()) for line in lines), strict=True)
    assert sorted(slots) == sorted(numbers) == list(range(30))


def test_trials_of_other_tools_are_numbered_with_ours(either: Database, study_id: int) -> None:
    taken(either, study_id)
    other = optuna.load_study(study_name="mine", storage=either).ask()
    claim = take(either, study_id)
    assert claim is not None and (other.number, claim.number) == (1, 2)


def test_studies_of_one_database_do_not_touch_each_other(either: Database, study_id: int) -> None:
    second = new_study(either, "other")
    for one in (study_id, second):
        claim = taken(either, one)
        assert (claim.number, claim.slot) == (0, (0, 0))
    either.set_control(second, stop=True)
    assert either.control(study_id) == {}
    assert len(either.running(study_id)) == 1


def test_a_genome_may_follow_later(either: Database, study_id: int) -> None:
    claim = either.claim(study_id, vacancies(1), -1, lambda vacancy: None, WEIGHT, ME)
    assert claim is not None and claim.genome is None
    assert only_trial(either, study_id).params == {}
    either.set_genome(claim.trial_id, {"weight": 0.25}, WEIGHT)
    assert only_trial(either, study_id).params == {"weight": 0.25}


# Answers that are lost


@contextmanager
def answer_lost(database: Database) -> Iterator[list[int]]:
    """The next commit takes place, but whoever asked for it is told that the connection broke."""
    dialect = database.engine.dialect
    commit, commits = dialect.do_commit, list[int]()
    broken = {
        "sqlite": lambda: sqlite3.OperationalError("database is locked"),
        "postgresql": lambda: dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly"),
    }[dialect.name]

    def commit_and_break(connection: Any) -> None:
        commit(connection)
        commits.append(1)
        if len(commits) == 1:
            raise broken()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "do_commit", commit_and_break)
        yield commits


def test_a_claim_whose_answer_was_lost_is_not_made_twice(either: Database, study_id: int) -> None:
    with answer_lost(either) as commits:
        claim = taken(either, study_id)
    assert len(commits) == 2
    assert only_trial(either, study_id)._trial_id == claim.trial_id
    assert (claim.number, claim.slot, claim.genome) == (0, (0, 0), {"weight": 0.01})


def test_a_claim_without_a_genome_whose_answer_was_lost_still_waits_for_one(either: Database, study_id: int) -> None:
    with answer_lost(either):
        claim = either.claim(study_id, vacancies(1), -1, lambda vacancy: None, WEIGHT, ME)
    assert claim is not None and claim.genome is None
    assert only_trial(either, study_id)._trial_id == claim.trial_id


WRITES: dict[str, Callable[[Database, int], None]] = {
    "genome": lambda database, trial: database.set_genome(trial, {"weight": 0.75}, WEIGHT),
    "report": lambda database, trial: database.report(trial, 40, 0.5),
    "beat": lambda database, trial: database.record_beat(trial),
    "finish": lambda database, trial: database.finish(
        trial, TrialState.COMPLETE, 0.5, {"scores": {"acc": "1-0"}, "seconds": {"merge": 0.1 + 0.2}}
    ),
    "prune": lambda database, trial: database.finish(trial, TrialState.PRUNED, None, {"estimate": float("nan")}),
    "fail": lambda database, trial: database.finish(trial, TrialState.FAIL, None, {ERROR: "no memory"}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_twice_as_its_answer_was_lost_is_there_once(
    either: Database, study_id: int, write: Callable[[Database, int], None]
) -> None:
    def written(name: str, lost: bool) -> FrozenTrial:
        study = new_study(either, name)
        claim = either.claim(study, vacancies(1), -1, lambda vacancy: None, WEIGHT, ME)
        assert claim is not None
        if lost:
            with answer_lost(either) as commits:
                write(either, claim.trial_id)
            assert len(commits) >= 1
        else:
            write(either, claim.trial_id)
        return only_trial(either, study)

    plainly, lost = written("plainly", lost=False), written("lost", lost=True)
    for field in ("state", "values", "params", "intermediate_values"):
        assert getattr(lost, field) == getattr(plainly, field)
    assert repr(lost.user_attrs) == repr(plainly.user_attrs)  # NaN is not equal to itself


def test_dead_workers_are_reaped_once_where_the_answer_was_lost(either: Database, study_id: int) -> None:
    taken(either, study_id)
    with answer_lost(either):
        either.reap(study_id, lambda worker: True, DIED)
    trial = only_trial(either, study_id)
    assert (trial.state, trial.user_attrs) == (TrialState.FAIL, {ERROR: DIED})


# Trials that were given to another worker


@pytest.fixture
def lost(either: Database, study_id: int) -> int:
    """A trial whose worker was thought dead."""
    claim = taken(either, study_id)
    assert either.reap(study_id, lambda worker: worker == ME, DIED) == 1
    return claim.trial_id


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_late_result_is_refused_and_changes_nothing(
    either: Database, study_id: int, lost: int, write: Callable[[Database, int], None]
) -> None:
    before = only_trial(either, study_id)
    with pytest.raises(TrialLostError):
        write(either, lost)
    after = only_trial(either, study_id)
    assert after == before
    assert (after.state, after.user_attrs) == (TrialState.FAIL, {ERROR: DIED})


def test_a_finished_trial_is_not_finished_again_with_another_result(either: Database, study_id: int) -> None:
    claim = taken(either, study_id)
    either.finish(claim.trial_id, TrialState.COMPLETE, 0.5, {"problems": 3})
    with pytest.raises(TrialLostError):
        either.finish(claim.trial_id, TrialState.COMPLETE, 0.5, {"problems": 4})
    assert only_trial(either, study_id).user_attrs == {"problems": 3}


def test_a_finished_trial_is_never_reaped(either: Database, study_id: int) -> None:
    claim = taken(either, study_id)
    either.finish(claim.trial_id, TrialState.COMPLETE, 0.5, {})
    silence(either, claim.trial_id, 1000)
    assert either.reap(study_id, lambda worker: True, DIED) == 0


# Signs of life


def silence(database: Database, trial_id: int, seconds: float) -> None:
    """Let the last sign of life of a trial be so long ago."""
    then = {
        "sqlite": f"datetime('now', '-{seconds} seconds')",
        "postgresql": f"now() - interval '{seconds} seconds'",
    }[database.engine.dialect.name]
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE trial_heartbeats SET heartbeat = {then} WHERE trial_id = {trial_id}"))


def silent_for(database: Database, study_id: int) -> float:
    ((_, worker, seconds),) = database.running(study_id)
    assert worker == ME
    return seconds


@pytest.mark.parametrize(("seconds", "reaped"), [(0, 0), (50, 0), (70, 1), (4000, 1)])
def test_a_worker_of_which_nothing_is_known_is_dead_after_the_grace(
    either: Database, study_id: int, seconds: float, reaped: int
) -> None:
    either.grace = 60
    claim = taken(either, study_id)
    silence(either, claim.trial_id, seconds)
    assert silent_for(either, study_id) == pytest.approx(seconds, abs=5)
    assert either.reap(study_id, lambda worker: False, DIED) == reaped
    assert only_trial(either, study_id).state == (TrialState.FAIL if reaped else TrialState.RUNNING)


def test_a_worker_that_is_known_to_be_dead_has_no_grace(either: Database, study_id: int) -> None:
    taken(either, study_id)
    assert either.reap(study_id, lambda worker: worker == {"host": "there"}, DIED) == 0
    assert either.reap(study_id, lambda worker: worker == ME, DIED) == 1


@pytest.mark.parametrize("sign", [WRITES["beat"], WRITES["report"]], ids=["beat", "report"])
def test_a_sign_of_life_ends_the_silence(
    either: Database, study_id: int, sign: Callable[[Database, int], None]
) -> None:
    claim = taken(either, study_id)
    silence(either, claim.trial_id, 100)
    sign(either, claim.trial_id)
    assert silent_for(either, study_id) < 5


def test_a_worker_that_is_heard_of_just_before_it_is_given_up_keeps_its_trial(either: Database, study_id: int) -> None:
    claim = taken(either, study_id)
    silence(either, claim.trial_id, 100)

    def looked_at(worker: Mapping[str, Any]) -> bool:
        either.record_beat(claim.trial_id)  # after it was suspected
        return False

    assert either.reap(study_id, looked_at, DIED) == 0
    assert only_trial(either, study_id).state == TrialState.RUNNING


def test_whoever_was_held_up_by_the_database_does_not_judge_by_silence(either: Database, study_id: int) -> None:
    """Others were held up too, and it takes a while until they are heard of again."""
    claim = taken(either, study_id)
    either.beat, either.patience = 0.1, 30
    with away(either) as come_back:
        timer = threading.Timer(0.5, come_back)
        timer.start()
        either.record_beat(claim.trial_id)
        timer.join()
    silence(either, claim.trial_id, 1000)
    assert either.reap(study_id, lambda worker: False, DIED) == 0
    assert either.reap(study_id, lambda worker: True, DIED) == 1  # but it does by what is known


def test_silence_is_the_same_in_whatever_time_zone_a_worker_lives(server_url: str) -> None:
    tokyo = {"options": "-c timezone=Asia/Tokyo"}
    far = sqlalchemy.make_url(server_url).update_query_dict(tokyo).render_as_string(hide_password=False)
    with connected(server_url) as here, connected(far) as there:
        study_id = new_study(here)
        claim = taken(there, study_id)
        assert silent_for(here, study_id) < 5 and silent_for(there, study_id) < 5
        here.record_beat(claim.trial_id)
        assert silent_for(there, study_id) < 5


def test_a_worker_that_hangs_in_the_middle_of_a_transaction_holds_up_no_others(server_url: str) -> None:
    with connected(server_url, grace=0.5) as hanging, connected(server_url) as other:
        study_id = new_study(other)
        connection = hanging.engine.connect()
        hanging._lock(connection, study_id)
        began = time.monotonic()
        assert taken(other, study_id).slot == (0, 0)
        assert 0.3 < time.monotonic() - began < 10
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="idle-in-transaction timeout"):
            connection.execute(text("SELECT 1"))
        connection.invalidate()


def test_a_worker_hands_back_its_own_trials_alone(either: Database, study_id: int) -> None:
    mine, ended = taken(either, study_id), taken(either, study_id)
    either.finish(ended.trial_id, TrialState.COMPLETE, 0.5, {})
    other = either.claim(study_id, vacancies(5), -1, lambda vacancy: {"weight": 0.5}, WEIGHT, {"host": "there"})
    either.hand_back(study_id, ME, HANDED_BACK)
    either.hand_back(study_id, ME, HANDED_BACK)
    trials = {trial._trial_id: trial for trial in either.get_all_trials(study_id)}
    assert other is not None and trials[other.trial_id].state == TrialState.RUNNING
    assert trials[ended.trial_id].state == TrialState.COMPLETE
    handed = trials[mine.trial_id]
    assert (handed.state, handed.user_attrs) == (TrialState.FAIL, {ERROR: HANDED_BACK})


def test_a_trial_beats_as_long_as_it_lasts(url: str) -> None:
    with connected(url, beat=0.05) as database:
        study_id = new_study(database)
        claim = taken(database, study_id)
        with beating(database, claim.trial_id):
            silence(database, claim.trial_id, 100)
            wait_until(lambda: silent_for(database, study_id) < 5)
        time.sleep(0.1)  # the last beat may be on its way
        silence(database, claim.trial_id, 100)
        time.sleep(0.3)
        assert silent_for(database, study_id) > 50


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Control


def test_control_keeps_what_is_not_changed(either: Database, study_id: int) -> None:
    assert either.control(study_id) == {}
    either.set_control(study_id, trials=9, stop=False)
    either.set_control(study_id, stop=True)
    assert either.control(study_id) == {"trials": 9, "stop": True}


# Reading


@pytest.fixture
def tokyo() -> Iterator[None]:
    """Time that is not that of the database."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


KINDS: dict[str, BaseDistribution] = {
    "z/float": FloatDistribution(-1.0, 2.0),
    "a/log": FloatDistribution(1e-6, 1.0, log=True),
    "step": FloatDistribution(0.0, 1.0, step=0.25),
    "int": IntDistribution(1, 9),
    "switch": CategoricalDistribution([False, True]),
    "choice": CategoricalDistribution(["ties", "dare_ties", "線形"]),
}
GENOME = {"z/float": 0.1 + 0.2, "a/log": 1e-3, "step": 0.75, "int": 7, "switch": True, "choice": "線形"}


@pytest.fixture
def all_kinds(either: Database, study_id: int, tokyo: None) -> list[FrozenTrial]:
    """Trials with all that a trial can have, by our transactions and by Optuna's, as Optuna reads them."""
    open_slots = vacancies(9)

    def claim() -> int:
        found = either.claim(study_id, open_slots, -1, lambda vacancy: GENOME, KINDS, ME)
        assert found is not None
        return found.trial_id

    attributes = {"scores": {"acc": "10-1"}, "graded": [0.5, None, 1.0], "text": 'quote " and 線', "nested": {"a": [1]}}
    for value in (0.1, math.inf, -math.inf, -0.0, 5e-324):
        trial_id = claim()
        for step, partial in enumerate((0.1, math.inf, -math.inf, math.nan)):
            either.report(trial_id, step, partial)
        either.finish(trial_id, TrialState.COMPLETE, value, attributes)
    either.finish(claim(), TrialState.PRUNED, None, {"estimate": 0.25})
    either.finish(claim(), TrialState.FAIL, None, {ERROR: "NaN"})
    claim()
    study = optuna.load_study(study_name="mine", storage=either)
    study.enqueue_trial({"int": 3}, user_attrs={"by": "hand"})
    study.tell(study.ask(KINDS), 0.5)
    study.add_trial(optuna.trial.create_trial(value=0.5, params=GENOME, distributions=KINDS))
    study.enqueue_trial({"int": 4})
    theirs = RDBStorage(str(either.engine.url.render_as_string(hide_password=False)))
    try:
        return theirs.get_all_trials(study_id)
    finally:
        theirs.remove_session()
        theirs.engine.dispose()


FIELDS = [
    "number",
    "_trial_id",
    "state",
    "values",
    "params",
    "distributions",
    "user_attrs",
    "system_attrs",
    "datetime_start",
    "datetime_complete",
]


def assert_same(ours: Sequence[FrozenTrial], theirs: Sequence[FrozenTrial]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for field in FIELDS:
            assert getattr(mine, field) == getattr(other, field), field
            assert repr(getattr(mine, field)) == repr(getattr(other, field)) or field.endswith("attrs"), field
        # NaN is not equal to itself; the order of steps means nothing.
        assert repr(sorted(mine.intermediate_values.items())) == repr(sorted(other.intermediate_values.items()))


def test_trials_read_as_optuna_reads_them(either: Database, study_id: int, all_kinds: list[FrozenTrial]) -> None:
    assert [trial.state.name for trial in all_kinds] == [*["COMPLETE"] * 5, "PRUNED", "FAIL", "RUNNING"] + [
        "COMPLETE",
        "COMPLETE",
        "WAITING",
    ]
    assert all_kinds[0].params == GENOME and list(all_kinds[0].params) == list(GENOME)
    assert [trial.value for trial in all_kinds[:3]] == [0.1, math.inf, -math.inf]
    assert_same(either.get_all_trials(study_id), all_kinds)


def test_times_are_those_of_the_clock_here(either: Database, study_id: int, all_kinds: list[FrozenTrial]) -> None:
    now = time.time()
    for trial in either.get_all_trials(study_id)[:3]:
        assert trial.datetime_start is not None and trial.datetime_complete is not None
        assert now - 60 < trial.datetime_start.timestamp() <= trial.datetime_complete.timestamp() <= now + 1


@pytest.mark.usefixtures("all_kinds")
def test_parts_of_a_study_read_as_optuna_reads_them(either: Database, study_id: int) -> None:
    ids = [trial._trial_id for trial in either.get_all_trials(study_id)]
    for states in (None, (TrialState.COMPLETE,), (TrialState.RUNNING, TrialState.WAITING), ()):
        for newer_than in (-1, ids[3], ids[-1]):
            for included in (set(), {ids[1]}, {ids[1], ids[-1]}):
                asked = (study_id, states, included, newer_than)
                assert_same(either._get_trials(*asked), RDBStorage._get_trials(either, *asked))


def test_a_study_is_read_as_of_one_moment_whatever_others_write_meanwhile(url: str) -> None:
    distributions: dict[str, BaseDistribution] = {f"g{i}": FloatDistribution(0, 1) for i in range(50)}
    genome = dict.fromkeys(distributions, 0.5)
    with connected(url) as reader, connected(url) as writer:
        study_id = new_study(reader)

        def write() -> None:
            for _ in range(60):
                claim = writer.claim(study_id, vacancies(60), -1, lambda vacancy: genome, distributions, ME)
                assert claim is not None
                writer.finish(claim.trial_id, TrialState.COMPLETE, 0.5, {"problems": 3})

        thread = threading.Thread(target=write)
        thread.start()
        while thread.is_alive():
            for trial in reader.get_all_trials(study_id):
                assert trial.params == genome and SLOT in trial.system_attrs
                done = trial.state == TrialState.COMPLETE
                assert (trial.value == 0.5, trial.user_attrs == {"problems": 3}) == (done, done)
        thread.join()


def test_a_study_that_is_not_there_is_a_key_error_as_in_optuna(either: Database) -> None:
    with pytest.raises(KeyError):
        either.get_all_trials(NOBODY)


# How much a trial asks of the database

_COPY = """
INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
    SELECT n.number, t.study_id, 'COMPLETE', t.datetime_start, t.datetime_start
    FROM trials t, (WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < {last})
                    SELECT number FROM n) n WHERE t.number = 0;
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT t.trial_id, p.param_name, ((t.number * 31 + p.param_id * 17) % 1009) / 1009.0, p.distribution_json
    FROM trials t, trial_params p JOIN trials first ON first.trial_id = p.trial_id
    WHERE first.number = 0 AND t.number > 0;
INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial_id, 0, (number * 7 % 101) / 101.0, 'FINITE' FROM trials WHERE number > 0;
INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT trial_id, '{slot}', '[' || (number / {population}) || ', ' || (number % {population}) || ']'
    FROM trials WHERE number > 0;
INSERT INTO trial_user_attributes (trial_id, key, value_json)
    SELECT trial_id, 'scores', '{{"acc": "' || '{scores}' || '"}}' FROM trials WHERE number > 0
"""


@pytest.fixture
def long_study(either: Database) -> Any:
    """A study of 400 genes with 1000 trials behind it, and what proposes its genomes."""
    proposing = proposer("cmaes", [Gene(f"layers.{i:03}/ja/weight") for i in range(400)])
    opened = begin(either, proposing)
    first = either.claim(
        opened.study_id,
        [Vacancy(Slot(0, 0), None)],
        -1,
        lambda vacancy: {gene.name: gene.start() for gene in proposing.genes},
        proposing.distributions,
        ME,
    )
    assert first is not None
    either.finish(first.trial_id, TrialState.COMPLETE, 0.5, {})
    statements = _COPY.format(last=999, slot=SLOT, population=proposing.population, scores="10" * 100)
    with either.engine.begin() as connection:
        for statement in statements.split(";\n"):
            connection.execute(text(statement))
        connection.execute(text("ANALYZE"))  # as databases do by themselves where rows come one by one
    either.set_control(opened.study_id, trials=1006)
    return opened, proposing


def test_a_trial_of_a_long_study_takes_few_transactions(
    either: Database, long_study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, proposing = long_study
    counts = {"commit": 0, "statement": 0}

    def evaluate(slot: Slot, genome: Mapping[str, Any], ledger: Any, report: Callable[[int, float], None]) -> Outcome:
        for batch in range(1, 5):
            report(40 * batch, 0.5)
        return Outcome(TrialState.COMPLETE, 0.5, {"scores": {"acc": "10" * 100}, "problems": 200})

    working = work(opened.study, either, opened.plan, proposing, evaluate)
    assert next(working).number == 1000  # reads all that is behind it
    event.listen(either.engine, "commit", lambda connection: counts.update(commit=counts["commit"] + 1))
    event.listen(either.engine, "before_cursor_execute", lambda *call: counts.update(statement=counts["statement"] + 1))
    began = time.process_time()
    numbers = [trial.number for trial in working]
    spent = (time.process_time() - began) / len(numbers)
    each = {name: count / len(numbers) for name, count in counts.items()}
    with capsys.disabled():
        print(
            f"\n  {either.engine.dialect.name}: {each['commit']:.1f} commits, {each['statement']:.1f} statements, "
            f"{spent * 1000:.0f} ms of CPU a trial"
        )
    assert numbers == [1001, 1002, 1003, 1004, 1005]
    assert each["commit"] < 10
    assert each["statement"] < 60
    assert len(opened.study.trials[-1].params) == 400


# Waiting


@contextmanager
def away(database: Database) -> Iterator[Callable[[], None]]:
    """The database cannot be reached, until the function is called or the context is left."""
    if database.engine.dialect.name == "sqlite":
        event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=20"))
        database.engine.dispose()
        other = sqlite3.connect(str(database.engine.url.database), isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield lambda: other.execute("ROLLBACK") and None
        finally:
            other.close()
        return
    name = database.engine.url.database
    server = sqlalchemy.create_engine(database.engine.url.set(database="template1"), isolation_level="AUTOCOMMIT")

    def let_in(whether: bool) -> None:
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {whether}"))
            if not whether:
                connection.execute(
                    text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'")
                )

    let_in(False)
    try:
        yield lambda: let_in(True)
    finally:
        let_in(True)
        server.dispose()


def test_a_database_that_is_away_is_waited_for(either: Database, study_id: int) -> None:
    either.patience = 30
    with away(either) as come_back:
        timer = threading.Timer(0.5, come_back)
        timer.start()
        began = time.monotonic()
        claim = taken(either, study_id)
        timer.join()
    assert 0.4 < time.monotonic() - began < 15
    assert only_trial(either, study_id)._trial_id == claim.trial_id


def test_a_database_that_stays_away_is_a_storage_error_in_one_line(either: Database, study_id: int) -> None:
    either.patience = 0.3
    with away(either), pytest.raises(StorageError, match="the study database has not answered for 0 s: .+") as caught:
        taken(either, study_id)
    assert "\n" not in str(caught.value)
    taken(either, study_id)


def test_what_optuna_itself_writes_is_waited_for_too(either: Database, study_id: int) -> None:
    either.patience = 0.3
    study = optuna.load_study(study_name="mine", storage=either)
    with away(either), pytest.raises(StorageError, match="has not answered"):
        study.set_user_attr("key", "value")


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    study_id = new_study(database)
    taken(database, study_id)
    with away(database):
        assert len(database.get_all_trials(study_id)) == 1
        assert database.control(study_id) == {}
        assert len(database.running(study_id)) == 1


def test_a_full_disk_is_not_waited_for(database: Database) -> None:
    study_id = new_study(database)
    claim = taken(database, study_id)
    event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
    database.engine.dispose()
    began = time.monotonic()
    with pytest.raises(StorageError, match="the study database failed: database or disk is full"):
        database.finish(claim.trial_id, TrialState.COMPLETE, 0.5, {"scores": "1" * 100_000})
    assert time.monotonic() - began < 5
    assert only_trial(database, study_id).state == TrialState.RUNNING


def test_no_message_holds_the_password(server_url: str) -> None:
    address = sqlalchemy.make_url(server_url).set(password="sesame")
    with connected(address.render_as_string(hide_password=False), patience=0.2) as database:
        study_id = new_study(database)
        with away(database), pytest.raises(StorageError) as caught:
            taken(database, study_id)
    told: BaseException | None = caught.value
    while told is not None:
        assert "sesame" not in str(told)
        told = told.__cause__
