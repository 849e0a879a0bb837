"""The search: trials of a study, one after the other, until the budget is spent."""

import hashlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import optuna
import psutil
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import OptmergeError, UsageError
from optmerge.registered import find, names
from optmerge.space import Gene, SearchSpace, Value
from optmerge.study.objective import Objective
from optmerge.study.trial_scores import ERROR

WORKER = "worker"  # user attribute of a trial: who runs it
DIED, INTERRUPTED = "its process died", "interrupted"  # failures that are no fault of the genome
_ALIKE_AT_FIRST, _ALIKE = 3, 20  # so many failures in a row for the same reason end the search
_IN_A_ROW = 100  # and so many for whatever reasons

Worker = Mapping[str, Any]  # host, process number and time of its start

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampler:
    """A registered sampler with its options."""

    module: ModuleType
    options: Any

    def check(self, genes: Sequence[Gene]) -> None:
        """Refuse genes that the sampler cannot handle, and options that have no meaning.

        Raises:
            UsageError: Naming the first such gene and its kind, or the option.
        """
        kinds = {gene.kind for gene in genes}
        for gene in genes:
            if gene.kind not in self.module.ACCEPTS:
                package, _, name = self.module.__name__.rpartition(".")
                able = [other for other in names(package) if kinds <= find(package, other, "sampler").ACCEPTS]
                raise UsageError(
                    f"sampler={name} cannot search {gene.name}, a gene of kind {gene.kind}; these can: "
                    f"{', '.join(able) or 'none'}"
                )
        self.module.build(self.options, genes, 0)

    def for_trial(self, space: SearchSpace, seed: int, genome_index: int) -> optuna.samplers.BaseSampler:
        """The sampler of one genome: its seed follows from the study's and the genome's place alone."""
        digest = hashlib.sha256(f"{seed}\0{genome_index}".encode()).digest()
        sampler = self.module.build(self.options, space.genes, int.from_bytes(digest[:4], "little") % (2**31 - 1))
        assert isinstance(sampler, optuna.samplers.BaseSampler)
        return sampler


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the budget: complete or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def search(study: optuna.Study, objective: Objective, sampler: Sampler, budget: int) -> Iterator[FrozenTrial]:
    """Run trials until `budget` are finished, giving each as it ends.

    A trial that fails is recorded with its reason and does not count.

    Raises:
        OptmergeError: If the first trials of the study, or very many in a row, fail alike.
    """
    fail_trials_of_dead_workers(study)
    genes = objective.space.genes
    distributions = {gene.name: gene.distribution() for gene in genes}
    reasons: list[str] = []
    while len(finished(study)) < budget:
        genome_index = _genomes_tried(study)
        study.sampler = sampler.for_trial(objective.space, objective.seed, genome_index)
        start = {gene.name: gene.start() for gene in genes} if genome_index == 0 else {}
        value: float | None = None
        try:
            trial = _next_trial(study, start, distributions)
            value = objective(trial, genome_index)
        except optuna.TrialPruned:
            pass
        except Exception as error:  # whatever it is, such as exhausted memory: the next candidate may do better
            log.debug("trial failed", exc_info=True)
            reason = str(error) if isinstance(error, OptmergeError) else f"{type(error).__name__}: {_first_line(error)}"
            fail_trials_of(study, _is_this_worker, reason)
            reasons.append(reason)
            most = _ALIKE if finished(study) else _ALIKE_AT_FIRST
            if len(reasons) >= most and len(set(reasons[-most:])) == 1:
                raise OptmergeError(f"{most} trials in a row failed alike: {reason}") from error
            if len(reasons) >= _IN_A_ROW:
                raise OptmergeError(f"{_IN_A_ROW} trials in a row failed, the last for: {reason}") from error
            yield study.get_trials(deepcopy=False)[-1]
            continue
        except BaseException:
            fail_trials_of(study, _is_this_worker, INTERRUPTED)
            raise
        reasons.clear()
        if value is None:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
        yield study.get_trials(deepcopy=False)[trial.number]


def _genomes_tried(study: optuna.Study) -> int:
    """How many genomes met their fate: the next one's place, on which its chance depends.

    One that failed by itself is not tried again; one whose process was stopped is.
    """
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return sum(trial.user_attrs.get(ERROR) not in (INTERRUPTED, DIED) for trial in ended)


def _next_trial(
    study: optuna.Study, values: Mapping[str, Value], distributions: dict[str, BaseDistribution]
) -> optuna.Trial:
    """A new trial with these values, the sampler's where there are none, signed by this worker from the start."""
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(values), user_attrs={WORKER: _this_worker()})
    trial = study.ask(distributions)
    if not _is_this_worker(trial.user_attrs.get(WORKER)):  # it was left waiting by one that died
        trial.set_user_attr(WORKER, _this_worker())
    return trial


def fail_trials_of_dead_workers(study: optuna.Study) -> None:
    """End the trials whose process on this machine was killed, so that they do not look as if they still ran."""
    here = socket.gethostname()
    fail_trials_of(study, lambda worker: worker is not None and worker["host"] == here and not _is_alive(worker), DIED)


def fail_trials_of(study: optuna.Study, who: Callable[[Worker | None], bool], reason: str) -> None:
    """End the running trials of some workers."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if who(trial.user_attrs.get(WORKER)):
            running = optuna.Trial(study, trial._trial_id)
            running.set_user_attr(ERROR, reason)
            study.tell(running, state=TrialState.FAIL)


def _this_worker() -> Worker:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_this_worker(worker: Worker | None) -> bool:
    return worker == _this_worker()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _is_alive(worker: Worker) -> bool:
    try:
        # Process numbers are reused; the time of its start tells a successor apart.
        process = psutil.Process(worker["pid"])
        same = bool(abs(process.create_time() - worker["started"]) < 1)
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
