"""What a trial does: decode the genome, mount the candidate, score it batch by batch, stop if it is beaten."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import optuna
from numpy.typing import NDArray

from optmerge.engines import Engine
from optmerge.merge import Workbench
from optmerge.space import SearchSpace
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.trial_scores import PROBLEMS, RECIPE, SCORES, SECONDS, FinishedTrial, encode, finished_trials
from optmerge.tasks import Task


class Pruner(Protocol):
    """Says whether a trial is beaten; see `optmerge.study.pruners`."""

    def batch_sizes(self, problems: int) -> Sequence[int]:
        """How many problems a trial answers before each look at it."""

    def is_beaten(self, scores: NDArray[np.float64], finished: Sequence[FinishedTrial], look: int) -> bool:
        """Whether a trial with these scores (higher is better, NaN where unseen) should stop after `look` batches."""


@dataclass(frozen=True)
class Objective:
    """The function that the study optimizes, and all it needs."""

    space: SearchSpace
    workbench: Workbench
    engine: Engine
    task: Task
    pruner: Pruner
    seed: int

    def __call__(self, trial: optuna.Trial, genome_index: int) -> float:
        """Score one genome on the search problems.

        Args:
            trial: Holds the genome, and is told the recipe, scores and timings.
            genome_index: How many genomes of the study met their fate before, failed ones included; the order of
                problems depends on it.

        Raises:
            optuna.TrialPruned: If the trial is beaten.
            OptmergeError: If the candidate cannot be merged or run.
        """
        goal = self.task.objectives[0]
        sign = 1.0 if goal.direction == "maximize" else -1.0
        problems = self.task.problems("search")
        recipe = self.space.decode(trial.params)
        trial.set_user_attr(RECIPE, recipe.sha256)
        began = time.perf_counter()
        self.engine.mount(self.workbench.candidate(recipe))
        evaluation = Evaluation(seconds={"merge": time.perf_counter() - began})
        finished = finished_trials(trial.study.get_trials(deepcopy=False), goal.name, goal.direction)
        try:
            for look, batch in enumerate(self._batches(len(problems), genome_index), start=1):
                answer(self.engine, self.task, problems, batch, evaluation)
                trial.report(evaluation.mean(goal.name), step=evaluation.seen())
                if self.pruner.is_beaten(sign * evaluation.scores[goal.name], finished, look):
                    raise optuna.TrialPruned
        finally:
            trial.set_user_attr(SCORES, {metric: encode(scores) for metric, scores in evaluation.scores.items()})
            trial.set_user_attr(PROBLEMS, evaluation.seen())
            trial.set_user_attr(SECONDS, {phase: round(spent, 4) for phase, spent in evaluation.seconds.items()})
        return evaluation.mean(goal.name)

    def _batches(self, count: int, genome_index: int) -> Iterator[list[int]]:
        """Positions of problems, in an order of this trial's own: a fixed first batch would be overfitted."""
        order = np.random.default_rng([self.seed, genome_index]).permutation(count).tolist()
        start = 0
        for size in self.pruner.batch_sizes(count):
            yield order[start : start + size]
            start += size
