"""What the sources themselves score on the search problems: how easy these are, and what guards hold merges against."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from optmerge.engines import Bench, Engine
from optmerge.errors import OptmergeError
from optmerge.recipe import Recipe
from optmerge.study.charter import OpenStudy
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.trial_scores import Encoded, decode, encode
from optmerge.tasks import Task

SOURCES = "optmerge:sources_on_search"  # user attribute of a study: alias to metric to encoded scores

Found = Mapping[str, Mapping[str, Encoded]]


def scores_of_sources(
    opened: OpenStudy,
    sources: Mapping[str, Recipe],
    workbench: Bench,
    engine: Engine,
    task: Task,
    watch: Callable[[str], None],
) -> Found:
    """Alias to metric to encoded scores of the search problems.

    What is found is kept with the study. Where several workers begin at once, what the first of them found holds for
    all: orders of problems must be the same everywhere, and scores of two machines may differ.

    Args:
        opened: The study.
        sources: Alias to the recipe that is the source alone.
        workbench: Makes candidates.
        engine: Answers.
        task: Asks and scores.
        watch: Called with the alias of each source before it is asked.

    Raises:
        OptmergeError: If a source cannot be run.
    """
    known: Found | None = opened.study.user_attrs.get(SOURCES)
    if known is None:
        found = {alias: _scores(recipe, alias, workbench, engine, task, watch) for alias, recipe in sources.items()}
        known = opened.database.settle(opened.study_id, SOURCES, found)
    return known


def ease_of_problems(found: Found, task: Task) -> NDArray[np.float64]:
    """A number a search problem, which is the higher the easier it is: the mean of the sources' scores `task.ease`.

    Returns:
        Shape (problems,).
    """
    each = [decode(scores[task.ease]) for scores in found.values()]
    goal = task.goal
    sign = goal.sign if goal.name == task.ease else 1.0
    mean: NDArray[np.float64] = sign * np.mean(each, axis=0)
    return mean


def floors_of_guards(found: Found, task: Task, base: str | None) -> dict[str, float]:
    """Guard to the least mean that keeps it, turned so that higher is better.

    Args:
        found: What the sources score.
        task: Has the guards.
        base: Alias of the base, if there is one.
    """
    floors = {}
    for guard in task.guards:
        means = {
            alias: guard.goal.sign * float(np.nanmean(decode(scores[guard.goal.name])))
            for alias, scores in found.items()
        }
        floors[guard.name] = means[guard.of or base or max(means, key=means.__getitem__)] - guard.margin
    return floors


def _scores(
    recipe: Recipe, alias: str, workbench: Bench, engine: Engine, task: Task, watch: Callable[[str], None]
) -> dict[str, Encoded]:
    """What a source scores."""
    watch(alias)
    problems, evaluation = task.problems("search"), Evaluation()
    try:
        engine.mount(workbench.final(recipe))
        answer(engine, task, problems, range(len(problems)), evaluation)
    except OptmergeError as error:
        raise OptmergeError(f"the source {alias} cannot be scored on the search problems: {error}") from error
    return {metric: encode(scores) for metric, scores in evaluation.scores.items()}
