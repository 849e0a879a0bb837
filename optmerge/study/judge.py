"""Scores of recipes after a search, on validation and on test, each found once and kept with the study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from numpy.typing import NDArray

from optmerge.engines import Bench, Engine
from optmerge.errors import OptmergeError
from optmerge.recipe import Recipe
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.interval import Score, bootstrap
from optmerge.study.memory import Memory
from optmerge.study.paired_test import paired_p_value
from optmerge.study.trial_scores import decode, encode
from optmerge.tasks import Task

_LOOKS, _LEVEL = 4, 0.05  # at a race of finalists: how often, and the chance of dismissing an equal in all of them
EVALUATION = "evaluation"  # prefix of the study's user attributes that keep final scores


@dataclass(frozen=True)
class Best:
    """The best of several on validation.

    Attributes:
        name: Which it is.
        score: Its mean score.
        of: How many there were.
        rivals: Those that cannot be told from it by what they answered.
    """

    name: str
    score: float
    of: int
    rivals: Sequence[str]


@dataclass(frozen=True)
class Tested:
    """What a recipe scores on test: the goal with its interval, and the means of all its scores."""

    test: Score
    means: Mapping[str, float]
    recipe_sha256: str


class Judge:
    """Scores recipes on validation and test, each once: scores are kept with the study.

    Args:
        study: Where scores are kept.
        workbench: Makes candidates.
        engine: Answers.
        task: Scores.
        watch: Called with what is being judged, before each.
        responses: Folder where responses are kept, if they are wanted.
    """

    def __init__(
        self,
        study: optuna.Study,
        workbench: Bench,
        engine: Engine,
        task: Task,
        watch: Callable[[str], None],
        responses: Path | None = None,
    ) -> None:
        self._study = study
        self._workbench = workbench
        self._engine = engine
        self._task = task
        self._watch = watch
        self._responses = responses

    def scores(
        self, recipe: Recipe, split: Literal["validation", "test"], label: str, *, folded: bool = True
    ) -> NDArray[np.float64]:
        """The goal's score of every problem, in its own direction.

        Args:
            recipe: What is scored.
            split: On what.
            label: What it is called.
            folded: Score a path as the model that is kept, not over the sources' layers.
        """
        return self._scores(recipe, split, range(len(self._task.problems(split))), label, folded=folded)

    def _scores(
        self,
        recipe: Recipe,
        split: Literal["validation", "test"],
        positions: Sequence[int],
        label: str,
        *,
        folded: bool = True,
    ) -> NDArray[np.float64]:
        """As `scores`, NaN but for the problems at some positions, and others that were answered before."""
        metric, problems = self._task.goal.name, self._task.problems(split)
        key, kept = _key(split, recipe, folded=folded), self._kept(split, recipe, folded=folded)
        evaluation = Evaluation(kept)
        unseen = evaluation.unseen() if kept else np.ones(len(problems), dtype=bool)
        wanted = [i for i in positions if unseen[i]]
        if wanted:
            if not kept:  # at a race, once
                self._watch(f"{split}: {label}")
            self._engine.mount(self._workbench.final(recipe) if folded else self._workbench.candidate(recipe))
            answer(self._engine, self._task, problems, wanted, evaluation, self._memory(key, afresh=not kept))
            encoded = {name: encode(scores) for name, scores in evaluation.scores.items()}
            self._study.set_user_attr(key, encoded)
            kept = {name: decode(scores) for name, scores in encoded.items()}
        return kept.get(metric, np.full(len(problems), np.nan))

    def _memory(self, key: str, *, afresh: bool) -> Memory:
        """Where the responses go. What was left by a process that ended too early is not taken for this one's."""
        if self._responses is None:
            return Memory(None)
        path = final_responses(self._responses, key.removeprefix(f"{EVALUATION}:"))
        if afresh:
            path.unlink(missing_ok=True)
        return Memory(path)

    def best(self, recipes: Mapping[str, Recipe], what: str) -> "Best":
        """The recipe that is best on validation, the first of equals.

        They race: after every quarter of the problems those leave that are worse than the leader beyond chance. The
        winner answers all.

        Raises:
            OptmergeError: If none can be run.
        """
        count = len(self._task.problems("validation"))
        order = np.random.default_rng(count).permutation(count).tolist()
        seen: list[int] = []
        racing = dict(recipes)
        for look in range(_LOOKS):
            seen += order[count * look // _LOOKS : count * (look + 1) // _LOOKS]
            found = self._race(racing, seen, what)
            if not len(next(iter(found.values()))):  # few problems, or none but those of guards yet
                continue
            leader = max(found, key=lambda name: float(found[name].mean()))
            racing = {
                name: recipes[name]
                for name, scores in found.items()
                if name == leader or paired_p_value(scores, found[leader]) >= _LEVEL / _LOOKS
            }
            if len(racing) == 1:
                break
        mean = float(np.nanmean(self.scores(recipes[leader], "validation", f"{what} {leader}")))
        return Best(leader, mean, len(recipes), sorted(set(racing) - {leader}))

    def _race(self, recipes: Mapping[str, Recipe], seen: Sequence[int], what: str) -> dict[str, NDArray[np.float64]]:
        """The scores of those that can be run, turned so that higher is better."""
        sign = self._task.goal.sign
        found = {}
        for name, recipe in recipes.items():
            try:
                scores = sign * self._scores(recipe, "validation", seen, f"{what} {name}")[seen]
                found[name] = scores[~np.isnan(scores)]  # problems of guards have none
            except OptmergeError as error:  # one that cannot be run is not the best; the others go on
                self._watch(f"{what} {name} left out: {error}")
        if not found:
            raise OptmergeError(f"none of {what} could be scored on validation")
        return found

    def test(self, recipe: Recipe, label: str, *, folded: bool = True) -> Score:
        """The goal's mean on test, with its interval."""
        self.scores(recipe, "test", label, folded=folded)
        return bootstrap(self._kept("test", recipe, folded=folded), self._task.goal.name)

    def _kept(self, split: str, recipe: Recipe, *, folded: bool = True) -> dict[str, NDArray[np.float64]]:
        kept = self._study.user_attrs.get(_key(split, recipe, folded=folded), {})
        return {name: decode(scores) for name, scores in kept.items()}

    def tested(self, recipe: Recipe, label: str) -> Tested:
        """All that a recipe scores on test."""
        return Tested(self.test(recipe, label), self.means(recipe, "test"), recipe.sha256)

    def means(self, recipe: Recipe, split: Literal["validation", "test"]) -> dict[str, float]:
        """The mean of every score on a split that was answered before."""
        return {name: float(np.nanmean(scores)) for name, scores in self._kept(split, recipe).items()}


def _key(split: str, recipe: Recipe, *, folded: bool) -> str:
    """The study's user attribute that keeps what a recipe scores on a split."""
    return evaluation_key(split if folded else f"{split}:path", recipe.sha256)


def evaluation_key(split: str, recipe_sha256: str) -> str:
    """The study's user attribute that keeps what a recipe scores on a split, as the model that is kept."""
    return f"{EVALUATION}:{split}:{recipe_sha256}"


def final_responses(folder: Path, judged: str) -> Path:
    """The file of the responses of a model that was judged.

    Args:
        folder: Where a study keeps responses.
        judged: Split and recipe's hash, as in `test:9b1c...`.
    """
    return folder / f"{judged.replace(':', '-')}.jsonl"
