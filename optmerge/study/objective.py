"""What a trial does: decode the genome, mount the candidate, score it batch by batch, stop if it is beaten."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from optmerge.engines import Bench, Engine
from optmerge.errors import OptmergeError
from optmerge.recipe import Recipe
from optmerge.space import SearchSpace
from optmerge.space.gene import Value
from optmerge.study.batches import dealt
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.memory import Memory
from optmerge.study.peak_memory import peak_memory, watch_memory
from optmerge.study.slots import Ledger, Slot, slot_of, violation
from optmerge.study.trial_scores import (
    ESTIMATE,
    ESTIMATE_ERROR,
    PEAK_MEMORY,
    PROBLEMS,
    RECIPE,
    SAME_AS,
    SCORES,
    SECONDS,
    TOKENS,
    FinishedTrial,
    encode,
    finished_trials,
    kept,
)
from optmerge.study.worker import Outcome, Report, TrialFailedError
from optmerge.tasks import Task

Scores = NDArray[np.float64]

_ORDER = 1  # sets these random numbers apart from those that choose problems
_OF_THE_RECIPE = (RECIPE, SCORES, ESTIMATE, ESTIMATE_ERROR)


class Pruner(Protocol):
    """Says whether a trial is beaten; see `optmerge.study.pruners`."""

    def batch_sizes(self, problems: int) -> Sequence[int]:
        """How many problems a trial answers before each look at it."""

    def reference(self, survivors: Sequence[FinishedTrial], population: int) -> FinishedTrial | None:
        """Whom a trial races, of those of a closed generation that ran to the end."""

    def is_beaten(self, scores: Scores, reference: Scores, look: int) -> bool:
        """Whether a trial with these scores (higher is better, NaN where unseen) should stop after `look` batches."""

    def estimate(self, scores: Scores, reference: Scores) -> tuple[float, float]:
        """What the fitness of a beaten trial might have been, to order the beaten by, and its standard error."""


@dataclass(frozen=True)
class Objective:
    """The function that the study optimizes, and all it needs."""

    space: SearchSpace
    workbench: Bench
    engine: Engine
    task: Task
    pruner: Pruner
    seed: int
    sample: int | None = None  # so many problems, others in every generation
    ease: Scores | None = None  # a number a problem, which is the higher the easier it is
    memory: "RememberAs | None" = None
    floors: Mapping[str, float] = field(default_factory=dict)  # guard to the least mean, turned: higher is better

    def __call__(self, slot: Slot, genome: Mapping[str, Value], ledger: Ledger, report: Report) -> Outcome:
        """Score one genome on the search problems.

        Args:
            slot: Its slot; the order of problems depends on its generation.
            genome: The genome.
            ledger: Knows the closed generations; a trial races one of their members.
            report: Told how many problems were answered, and the mean score over them.

        Raises:
            TrialFailedError: If the candidate cannot be merged or run.
        """
        goal = self.task.objectives[0]
        sign = goal.sign
        problems = self.task.problems("search")
        recipe = self.space.decode(genome)
        known = self._same_recipe(recipe, slot, ledger)
        if known is not None:
            taken = {name: value for name, value in known.user_attrs.items() if name in _OF_THE_RECIPE}
            taken |= {PROBLEMS: 0, SAME_AS: known.number}
            return Outcome(known.state, known.values, taken, dict(known.constraints))
        evaluation, memory = Evaluation(), self.memory.of(recipe) if self.memory else Memory(None)
        left: dict[str, object] = {RECIPE: recipe.sha256}
        mounted = False

        def attributes() -> dict[str, object]:
            return left | {
                SCORES: {metric: encode(scores) for metric, scores in evaluation.scores.items()},
                PROBLEMS: evaluation.seen(),
                SECONDS: {phase: round(spent, 4) for phase, spent in evaluation.seconds.items()},
                TOKENS: evaluation.tokens,
                PEAK_MEMORY: peak_memory(self.engine.device),
            }

        def ready() -> None:
            nonlocal mounted
            if not mounted:
                began = time.perf_counter()
                self.engine.mount(self.workbench.candidate(recipe))
                evaluation.seconds["merge"] = time.perf_counter() - began
                mounted = True

        watch_memory(self.engine.device)
        reference = self._reference(slot, ledger)
        outcome = None
        try:
            for look, batch in enumerate(self._batches(len(problems), slot), start=1):
                answer(self.engine, self.task, problems, batch, evaluation, memory, ready)
                if len(self.task.objectives) > 1 or goal.name not in evaluation.scores:
                    continue  # Optuna has no reports of several; or there were only problems of guards
                report(evaluation.seen(), evaluation.mean(goal.name))
                if reference is None:
                    continue
                counting = ~np.isnan(reference)
                scores, rival = sign * kept(evaluation.scores[goal.name])[counting], reference[counting]
                if self.pruner.is_beaten(scores, rival, look):
                    estimate, error = self.pruner.estimate(scores, rival)
                    left |= {ESTIMATE: sign * estimate, ESTIMATE_ERROR: error}
                    outcome = Outcome(TrialState.PRUNED, None, attributes())
                    break
        except OptmergeError as error:
            memory.end(None)
            raise TrialFailedError(str(error), attributes()) from error
        memory.end(f"{slot.generation}-{slot.member}.jsonl" if self.memory and self.memory.keep else None)
        if outcome is not None:
            return outcome
        values = [evaluation.mean(objective.name) for objective in self.task.objectives]
        return Outcome(TrialState.COMPLETE, values, attributes(), self._constraints(evaluation))

    def _constraints(self, evaluation: Evaluation) -> dict[str, float]:
        """How far below its floor each guard's mean is; 0 or less where it is kept."""
        found = {}
        for guard in self.task.guards:
            mean = guard.goal.sign * float(np.nanmean(kept(evaluation.scores[guard.goal.name])))  # as floors are kept
            found[guard.name] = self.floors[guard.name] - mean
        return found

    def _same_recipe(self, recipe: Recipe, slot: Slot, ledger: Ledger) -> FrozenTrial | None:
        """A trial that has answered for the same recipe: different genomes may decode to one.

        Whether others have come so far already must not matter, so only two kinds are looked at: what ran to the end
        in a closed generation, and what has ended in this one, where the same recipe meets the same problems in the
        same order and the same rival.
        """
        closed = self._last_closed(slot, ledger)
        for trial in ledger.finished():
            generation = slot_of(trial).generation
            earlier = generation <= closed and trial.state == TrialState.COMPLETE and self.sample is None
            if trial.user_attrs.get(RECIPE) == recipe.sha256 and (earlier or generation == slot.generation):
                return trial
        return None

    def _last_closed(self, slot: Slot, ledger: Ledger) -> int:
        """The last generation that is closed for everyone who fills this slot."""
        lag = ledger.plan.lag
        return ledger.closed() - 1 if lag is None else slot.generation - 1 - lag

    def _reference(self, slot: Slot, ledger: Ledger) -> Scores | None:
        """The scores that a trial races, of the last generation that is closed for everyone who fills this slot."""
        last = self._last_closed(slot, ledger)
        if last < 0 or len(self.task.objectives) > 1:  # of several objectives, to be worse in one is no defeat
            return None
        goal = self.task.objectives[0]
        feasible = [trial for trial in ledger.generation(last) if not violation(trial)]
        survivors = finished_trials(feasible, goal.name, goal.direction)
        chosen = self.pruner.reference(survivors, ledger.plan.population)
        return chosen.scores() if chosen else None

    def _batches(self, count: int, slot: Slot) -> list[list[int]]:
        """Positions of problems, in the order of the slot's generation."""
        asked = np.arange(count)
        if self.sample is not None:
            asked = np.random.default_rng([self.seed, slot.generation]).permutation(count)[: self.sample]
        sizes = self.pruner.batch_sizes(len(asked)) if len(self.task.objectives) == 1 else [len(asked)]
        return dealt(asked, self.ease, sizes, np.random.default_rng([self.seed, slot.generation, _ORDER]))


@dataclass(frozen=True)
class RememberAs:
    """Where responses lie while a trial runs, and afterwards.

    Attributes:
        folder: A folder of the study's.
        key: What responses depend on beside the recipe: task and engine.
        keep: Keep them when the trial has ended.
    """

    folder: Path
    key: str
    keep: bool = False

    def of(self, recipe: Recipe) -> Memory:
        """What the candidate of a recipe has answered."""
        return Memory(self.folder / f".{recipe.sha256[:24]}-{self.key[:12]}.jsonl")
