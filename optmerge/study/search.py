"""The search: trials of a study, one after the other, until the budget is spent."""

import hashlib
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
from optmerge.space import Gene, SearchSpace, Value
from optmerge.study.objective import Objective
from optmerge.study.trial_scores import ERROR

WORKER = "worker"  # user attribute of a trial: who runs it
_ALIKE = 3  # so many failures in a row for the same reason end the search


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
        for gene in genes:
            if gene.kind not in self.module.ACCEPTS:
                name = self.module.__name__.rpartition(".")[2]
                raise UsageError(f"sampler={name} cannot search {gene.name}, a gene of kind {gene.kind}")
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
        OptmergeError: If trials fail alike, one after the other.
    """
    fail_trials_of_dead_workers(study)
    genes = objective.space.genes
    distributions = {gene.name: gene.distribution() for gene in genes}
    reasons: list[str] = []
    while (done := len(finished(study))) < budget:
        study.sampler = sampler.for_trial(objective.space, objective.seed, done)
        try:
            trial = _next_trial(study, {gene.name: gene.start() for gene in genes} if done == 0 else {}, distributions)
        except BaseException:
            fail_trials_of(study, lambda worker: worker == _this_worker(), "interrupted")
            raise
        try:
            study.tell(trial, objective(trial, done))
            reasons.clear()
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            reasons.clear()
        except OptmergeError as error:
            _fail(study, trial, str(error))
            reasons.append(str(error))
            if len(reasons) == _ALIKE and len(set(reasons)) == 1:
                raise OptmergeError(f"{_ALIKE} trials in a row failed alike: {error}") from error
            reasons = reasons[-_ALIKE + 1 :]
        except BaseException as error:
            _fail(study, trial, "interrupted" if isinstance(error, KeyboardInterrupt) else repr(error))
            raise
        yield study.get_trials(deepcopy=False)[trial.number]


def _next_trial(
    study: optuna.Study, values: Mapping[str, Value], distributions: dict[str, BaseDistribution]
) -> optuna.Trial:
    """A new trial with these values, the sampler's where there are none, signed by this worker from the start."""
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(values), user_attrs={WORKER: _this_worker()})
    trial = study.ask(distributions)
    if trial.user_attrs[WORKER] != _this_worker():  # it was left waiting by one that died
        trial.set_user_attr(WORKER, _this_worker())
    return trial


def _fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> None:
    trial.set_user_attr(ERROR, reason)
    study.tell(trial, state=TrialState.FAIL)


def fail_trials_of_dead_workers(study: optuna.Study) -> None:
    """End the trials whose process on this machine was killed, so that they do not look as if they still ran."""
    here = socket.gethostname()
    fail_trials_of(study, lambda worker: worker["host"] == here and not _is_alive(worker), "its process died")


def fail_trials_of(study: optuna.Study, who: Callable[[Mapping[str, Any]], bool], reason: str) -> None:
    """End the running trials of some workers."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if WORKER in trial.user_attrs and who(trial.user_attrs[WORKER]):
            _fail(study, optuna.Trial(study, trial._trial_id), reason)


def _this_worker() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_alive(worker: Mapping[str, Any]) -> bool:
    try:
        # Process numbers are reused; the time of its start tells a successor apart.
        process = psutil.Process(worker["pid"])
        same = bool(abs(process.create_time() - worker["started"]) < 1)
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
