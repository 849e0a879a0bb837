"""What a report is told about: everything that is known of a study, finished or not, read without its models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from optmerge.recipe import Recipe
from optmerge.reports.table import goal_of, winner_name
from optmerge.study.charter import CONFIG, OpenStudy
from optmerge.study.ease import SOURCES
from optmerge.study.judge import evaluation_key, final_responses
from optmerge.study.memory import Memory
from optmerge.study.slots import counted
from optmerge.study.trial_scores import RECIPE, SCORES, Encoded, decode, score_matrix, value_of
from optmerge.tasks import Objective, Problem

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Ending:
    """What is known of a study's end beside its database.

    Attributes:
        result: The contents of result.json; None for a search that has not ended.
        recipe: The winner's.
        problems: The problems of the test split; empty where they cannot be had.
        responses: Recipe's hash to id of a test problem to what the model answered, where that was kept.
    """

    result: Mapping[str, Any] | None = None
    recipe: Recipe | None = None
    problems: Sequence[Problem] = ()
    responses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finalist:
    """A trial that answered validation problems.

    Attributes:
        trial: The trial.
        scores: Its score of each of them, NaN where it left the race before, and for problems of guards.
        problems: How many it would have answered without leaving.
    """

    trial: FrozenTrial
    scores: Scores
    problems: int

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.scores))

    @property
    def answered(self) -> int:
        return int((~np.isnan(self.scores)).sum())

    @property
    def answered_all(self) -> bool:
        return self.answered == self.problems


@dataclass(frozen=True)
class Findings:
    """All that is known of a study.

    Attributes:
        opened: The study.
        every: All its trials.
        trials: Those that count.
        budget: How many it is to have.
        at_work: How many are running, and were heard of lately.
        matrix: Trial number to its score of every search problem, NaN where unseen.
        ending: What is known of its end.
    """

    opened: OpenStudy
    every: Sequence[FrozenTrial]
    trials: Sequence[FrozenTrial]
    budget: int
    at_work: int
    matrix: Mapping[int, Scores]
    ending: Ending

    @property
    def name(self) -> str:
        return str(self.opened.study.study_name)

    @cached_property
    def goal(self) -> Objective:
        return _goal(self.opened, self.ending)

    @cached_property
    def objectives(self) -> Sequence[Objective]:
        """The scores that it searches for."""
        several = self.opened.objectives
        return several if len(several) > 1 else [self.goal]

    @property
    def result(self) -> Mapping[str, Any] | None:
        return self.ending.result

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration that the study carries."""
        found: Mapping[str, Any] = self._attributes.get(CONFIG, {})
        return found

    @cached_property
    def _attributes(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.opened.study.user_attrs
        return found

    @property
    def state(self) -> str:
        """Finished, running or stopped."""
        if self.result is not None:
            return "finished"
        return "running" if self.at_work else "stopped"

    @cached_property
    def complete(self) -> list[tuple[FrozenTrial, float]]:
        """Trials that answered every problem, with their score by the goal."""
        return [(trial, value) for trial in self.trials if (value := value_of(trial, self.goal)) is not None]

    @cached_property
    def best(self) -> tuple[FrozenTrial, float] | None:
        """The winner; while there is none, the best so far of the trials that keep all guards, or else of all."""
        if self.result is not None:
            winner = self.result["winner"]["trial"]
            return next((pair for pair in self.complete if pair[0].number == winner), None)
        feasible = [pair for pair in self.complete if self.opened.plan.fitness(pair[0]) is not None]
        return max(feasible or self.complete, key=lambda pair: self.goal.sign * pair[1], default=None)

    @property
    def best_name(self) -> str:
        """What the best is called."""
        if self.best is None:
            return "none yet"
        if self.result is None:
            return f"best so far (trial {self.best[0].number})"
        return f"{winner_name(self.result)} (trial {self.best[0].number})"

    def every_score_of_sources(self) -> dict[str, dict[str, Scores]]:
        """Alias to every score of every search problem, where the search asked the sources."""
        found: Mapping[str, Mapping[str, Encoded]] = self._attributes.get(SOURCES, {})
        return {alias: _decoded(scores) for alias, scores in sorted(found.items())}

    def sources_on_search(self) -> dict[str, Scores]:
        """Alias to its score of every search problem by the goal, where the search asked the sources."""
        every = self.every_score_of_sources()
        return {alias: scores[self.goal.name] for alias, scores in every.items() if self.goal.name in scores}

    def scores_of(self, trial: FrozenTrial) -> dict[str, Scores]:
        """Every score of every search problem of a trial, by name."""
        return _decoded(trial.user_attrs.get(SCORES, {}))

    def final_scores(self, split: str, recipe_sha256: str) -> dict[str, Scores]:
        """Every score of a model that was judged on a split, by name; empty if it was not."""
        return _decoded(self._attributes.get(evaluation_key(split, recipe_sha256), {}))

    @cached_property
    def finalists(self) -> list[Finalist]:
        """The trials that answered validation problems, best in the search first."""
        found: dict[str, tuple[FrozenTrial, Scores]] = {}
        for trial, _ in sorted(self.complete, key=lambda pair: -self.goal.sign * pair[1]):
            sha256 = str(trial.user_attrs.get(RECIPE))
            scores = self.final_scores("validation", sha256).get(self.goal.name)
            if scores is not None and not np.isnan(scores).all():
                found.setdefault(sha256, (trial, scores))
        # Who wins has answered all.
        most = max((int((~np.isnan(scores)).sum()) for _, scores in found.values()), default=0)
        return [Finalist(trial, scores, most) for trial, scores in found.values()]


def _goal(opened: OpenStudy, ending: Ending) -> Objective:
    """The score that results are told in; studies of earlier versions have it in their result alone."""
    return opened.goal if ending.result is None else goal_of(ending.result)


def _decoded(kept: Mapping[str, Encoded]) -> dict[str, Scores]:
    return {name: decode(scores) for name, scores in kept.items()}


def read_findings(opened: OpenStudy, ending: Ending) -> Findings:
    """Read a study, in a few queries.

    Args:
        opened: The study.
        ending: What is known of its end.
    """
    every = opened.study.get_trials(deepcopy=False)
    kept = opened.database.attributes(opened.study_id, SCORES)
    goal = _goal(opened, ending).name
    # A trial that failed early may have answered nothing but problems of guards.
    matrix = score_matrix({number: scores for number, scores in kept.items() if goal in scores}, goal)
    return Findings(
        opened=opened,
        every=every,
        trials=counted(every),
        budget=int(opened.database.control(opened.study_id).get("trials", 0)),
        at_work=sum(silent <= opened.database.grace for _, _, silent in opened.database.running(opened.study_id)),
        matrix=matrix,
        ending=ending,
    )


def read_responses(folder: Path, result: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What the winner and the sources answered to test problems, where that was kept.

    Args:
        folder: Where the study keeps responses.
        result: The contents of result.json.
    """
    judged = [result["winner"], *result["sources"].values()]
    hashes = [str(entry["recipe_sha256"]) for entry in judged if "recipe_sha256" in entry]
    found = {sha256: Memory(final_responses(folder, f"test:{sha256}")).texts() for sha256 in hashes}
    return {sha256: texts for sha256, texts in found.items() if texts}
