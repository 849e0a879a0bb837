"""Slots: the places that a search fills with trials, and what is known of each.

A slot is a generation and a member's index in it. Each gets one result, however many workers try it and whatever
becomes of them: that of its lowest-numbered trial that finished. What a slot's genome is depends on the study's seed,
the slot, and the results of closed generations alone, so workers may take slots in any order.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from optmerge.study.pareto import covers, front

SLOT = "optmerge:slot"  # system attribute of a trial: generation and index
WORKER = "optmerge:worker"  # another: who runs it
ERROR = "error"  # user attribute of a trial that failed: why

# Failures that are no fault of the genome.
DIED = "its worker died"
HANDED_BACK = "its worker was told to stop"

_ALIKE_AT_FIRST, _ALIKE = 3, 20  # so many failures in a row for the same reason end the search
_IN_A_ROW = 100  # and so many for whatever reasons
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Slot(NamedTuple):
    """A trial's place in the search."""

    generation: int
    member: int


@dataclass(frozen=True)
class Plan:
    """How a search proceeds.

    Attributes:
        population: Slots of a generation.
        lag: A generation may begin when all are closed but so many of those before it: 0 waits for the one before, 1
            for the last but one. None waits for nothing.
        maximize: Of each objective, whether higher values are better.
        max_retries: How often a slot is tried again whose worker died.
        stagnation: End after so many closed generations without a better value, or of several objectives without one
            that no other covers; None never does.
    """

    population: int
    lag: int | None = 0
    maximize: tuple[bool, ...] = (True,)
    max_retries: int = 3
    stagnation: int | None = None

    def taught_by(self, generation: int) -> int:
        """How many generations, from the first on, decide what the genomes of one are."""
        return max(0, generation - self.lag) if self.lag is not None else 0

    def fitness(self, trial: FrozenTrial) -> tuple[float, ...] | None:
        """The values of a trial that ran to the end and keeps all guards, turned so that higher is better."""
        if trial.state != TrialState.COMPLETE or trial.values is None or violation(trial):
            return None
        return tuple(value if higher else -value for value, higher in zip(trial.values, self.maximize, strict=True))

    def slot(self, position: int) -> Slot:
        return Slot(*divmod(position, self.population))

    def position(self, slot: Slot) -> int:
        return slot.generation * self.population + slot.member


class Vacancy(NamedTuple):
    """A slot that waits for a worker.

    Attributes:
        slot: The slot.
        heir_of: The trial whose genome it is to have, if an earlier worker died with it.
    """

    slot: Slot
    heir_of: FrozenTrial | None


@dataclass
class _State:
    result: FrozenTrial | None = None
    running: set[int] = field(default_factory=set)
    died: int = 0
    last: FrozenTrial | None = None  # the last trial that ended without a result


class Ledger:
    """What has become of the slots of a study.

    Args:
        plan: How the search proceeds.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._slots: dict[Slot, _State] = {}
        self._ended: set[int] = set()  # numbers of the trials that can change no more
        self._open_counts: dict[int, int] = {}  # results of a generation
        self._failures: list[tuple[int, str]] = []  # number and reason of trials that failed by themselves

    def update(self, trials: Iterable[FrozenTrial]) -> "Ledger":
        """Take note of trials; those that ended are looked at once.

        Args:
            trials: All of a study, in the order of their numbers.
        """
        for trial in trials:
            if trial.number in self._ended or SLOT not in trial.system_attrs:
                continue
            slot = slot_of(trial)
            state = self._slots.setdefault(slot, _State())
            if not trial.state.is_finished():
                state.running.add(trial.number)
                continue
            self._ended.add(trial.number)
            state.running.discard(trial.number)
            self._note_end(slot, state, trial)
        return self

    def _note_end(self, slot: Slot, state: _State, trial: FrozenTrial) -> None:
        reason = trial.user_attrs.get(ERROR)
        if trial.state == TrialState.FAIL:
            if reason in (DIED, HANDED_BACK, None):  # none was given by someone else's tool that cleaned up
                state.died += reason != HANDED_BACK
                state.last = trial
                if reason == HANDED_BACK or state.died <= self.plan.max_retries:
                    return
            else:
                self._failures.append((trial.number, str(reason)))
        if state.result is None:
            self._open_counts[slot.generation] = self._open_counts.get(slot.generation, 0) + 1
        if state.result is None or trial.number < state.result.number:
            state.result = trial

    def result(self, slot: Slot) -> FrozenTrial | None:
        """The trial that counts for a slot, if it has one; it may have failed."""
        state = self._slots.get(slot)
        return state.result if state else None

    def results(self) -> list[FrozenTrial]:
        """The trials that count, in the order of their slots."""
        return [state.result for _, state in sorted(self._slots.items()) if state.result is not None]

    def finished(self) -> list[FrozenTrial]:
        """The trials that count towards the budget: complete or pruned, in the order of their slots."""
        return [trial for trial in self.results() if trial.state in _FINISHED]

    def is_closed(self, generation: int) -> bool:
        """Whether all slots of a generation have a result."""
        return self._open_counts.get(generation, 0) == self.plan.population

    def closed(self) -> int:
        """How many generations are closed, from the first on without a gap."""
        generation = 0
        while self.is_closed(generation):
            generation += 1
        return generation

    def generation(self, generation: int) -> list[FrozenTrial]:
        """The results of a closed generation, by index."""
        results = (self.result(Slot(generation, index)) for index in range(self.plan.population))
        return [trial for trial in results if trial is not None]

    def running(self) -> int:
        """How many slots without a result have a worker."""
        return sum(bool(state.running) and state.result is None for state in self._slots.values())

    def end(self, budget: int) -> int:
        """The position at which the search ends: the budget, one more for each failure, or less on stagnation."""
        failed = sum(trial.state == TrialState.FAIL for trial in self.results())
        end = budget + failed
        if self.plan.stagnation is not None:
            stagnant = self._stagnant_from(self.plan.stagnation)
            if stagnant is not None:
                end = min(end, stagnant * self.plan.population)
        return end

    def _stagnant_from(self, patience: int) -> int | None:
        """After how many generations none has been better than the best for `patience` of them."""
        best: list[tuple[float, ...]] = []
        since = 0
        for generation in range(self.closed()):
            found = [self.plan.fitness(trial) for trial in self.generation(generation)]
            new = [one for one in found if one is not None and not any(covers(known, one) for known in best)]
            if new:
                best = [known for known in best if not any(covers(one, known) for one in new)] + new
                since = 0
            elif best:
                since += 1
            if since >= patience:
                # Those that had been allowed to begin by then are finished.
                return generation + 1 + (self.plan.lag or 0)
        return None

    def is_done(self, budget: int) -> bool:
        """Whether every slot up to the end has a result."""
        end = self.end(budget)
        return all(self.result(self.plan.slot(position)) for position in range(end))

    def vacancies(self, budget: int) -> Iterator[Vacancy]:
        """The slots that a worker may take, in the order in which they should be taken."""
        end, closed = self.end(budget), self.closed()
        start = closed * self.plan.population if self.plan.lag is not None else 0
        for position in range(start, end):
            slot = self.plan.slot(position)
            if self.plan.lag is not None and slot.generation > closed + self.plan.lag:
                return
            state = self._slots.get(slot)
            if state is None:
                yield Vacancy(slot, None)
            elif state.result is None and not state.running:
                yield Vacancy(slot, state.last)

    def failing(self, since: int = 0) -> str | None:
        """Why the search should end: the first trials, or very many in a row, failed alike.

        Args:
            since: The number of the first trial to look at: whoever starts a search again has mended what failed.
        """
        last_success = max((trial.number for trial in self.finished()), default=-1)
        reasons = [reason for number, reason in sorted(self._failures) if number > last_success and number >= since]
        most = _ALIKE_AT_FIRST if last_success < 0 else _ALIKE
        if len(reasons) >= most and len(set(reasons[-most:])) == 1:
            return f"{most} trials in a row failed alike: {reasons[-1]}"
        if len(reasons) >= _IN_A_ROW:
            return f"{_IN_A_ROW} trials in a row failed, the last for: {reasons[-1]}"
        return None


def slot_of(trial: FrozenTrial) -> Slot:
    """The slot of a trial that has one."""
    generation, index = trial.system_attrs[SLOT]
    return Slot(int(generation), int(index))


def violation(trial: FrozenTrial) -> float:
    """By how much a trial breaks its constraints, all together; 0 if it keeps them."""
    return sum(max(0.0, value) if value == value else math.inf for value in trial.constraints.values())


def front_of(trials: Sequence[FrozenTrial], plan: Plan) -> list[FrozenTrial]:
    """The trials of a search for several objectives that none is better than; those that break guards are left out."""
    feasible = [(trial, fitness) for trial in trials if (fitness := plan.fitness(trial)) is not None]
    return [feasible[i][0] for i in front([fitness for _, fitness in feasible])]


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: of those that finished for a slot, the lowest-numbered; in the order of their numbers."""
    first: dict[Slot, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state in _FINISHED and SLOT in trial.system_attrs:
            first.setdefault(slot_of(trial), trial)
    return sorted(first.values(), key=lambda trial: trial.number)
