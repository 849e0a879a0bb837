"""Small studies, run as workers run them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.config import options_of
from optmerge.space import Gene, Value
from optmerge.study.charter import OpenStudy, found_study
from optmerge.study.charter import open_study as open_known_study
from optmerge.study.database import Database
from optmerge.study.sampler import Proposer, Sampler
from optmerge.study.slots import Ledger, Plan, Slot
from optmerge.study.storage import open_storage
from optmerge.study.worker import Evaluate, Outcome, Report, work

Genome = Mapping[str, Value]
NAME = "mine"


def sampler(name: str, **settings: Any) -> Sampler:
    return Sampler(*options_of("sampler", {"name": name, **settings}, "optmerge.study.samplers"))


def proposer(
    name: str, genes: Sequence[Gene], *, seed: int = 0, starts: Sequence[Genome] = (), **settings: Any
) -> Proposer:
    return sampler(name, **settings).proposer(genes, seed, starts)


def scored(function: Callable[[Genome], float]) -> Evaluate:
    """Trials that run to the end, with this value."""

    def evaluate(slot: Slot, genome: Genome, ledger: Ledger, report: Report) -> Outcome:
        return Outcome(TrialState.COMPLETE, function(genome), {})

    return evaluate


def begin(
    database: Database,
    proposing: Proposer,
    *,
    name: str = NAME,
    maximize: tuple[bool, ...] = (True,),
    starts: Sequence[Genome] = (),
    **plan: Any,
) -> OpenStudy:
    """The study as the command that starts a search would create it."""
    given: dict[str, Any] = {"population": proposing.population, "lag": proposing.lag, **plan}
    return found_study(database, name, identity={}, config={}, plan=Plan(maximize=maximize, **given), starts=starts)


def search(opened: OpenStudy, proposing: Proposer, evaluate: Evaluate, trials: int) -> list[FrozenTrial]:
    """Search as one worker does, until so many trials are finished; gives those that it ran."""
    since = len(opened.study.get_trials(deepcopy=False))
    opened.database.set_control(opened.study_id, trials=trials, stop=False, since=since)
    return list(work(opened.study, opened.database, opened.plan, proposing, evaluate))


@contextmanager
def opened_anew(url: str, name: str = NAME, **waiting: float) -> Iterator[OpenStudy]:
    """The study as another process would open it."""
    with connected(url, **waiting) as database:
        yield open_known_study(database, name)


@contextmanager
def connected(url: str, **waiting: float) -> Iterator[Database]:
    """A database of one's own."""
    database = open_storage(url, **waiting)
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


def genomes(trials: Sequence[FrozenTrial]) -> list[Genome]:
    return [trial.params for trial in trials]
