"""How easy the search problems are: what the sources themselves score on them, before the search."""

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


def ease_of_problems(
    opened: OpenStudy,
    sources: Mapping[str, Recipe],
    workbench: Bench,
    engine: Engine,
    task: Task,
    watch: Callable[[str], None],
) -> NDArray[np.float64] | None:
    """A number a search problem, which is the higher the easier it is: the mean score of the sources.

    What is found is kept with the study. Where several workers begin at once, what the first of them found holds for
    all: orders of problems must be the same everywhere, and scores of two machines may differ.

    Args:
        opened: The study.
        sources: Alias to the recipe that is the source alone.
        workbench: Makes candidates.
        engine: Answers.
        task: Asks and scores; its `ease` says which score counts.
        watch: Called with the alias of each source before it is asked.

    Returns:
        Shape (problems,), or None if no source can be run.
    """
    found: Mapping[str, Mapping[str, Encoded]] | None = opened.study.user_attrs.get(SOURCES)
    if found is None:
        scored = {alias: _scores(recipe, alias, workbench, engine, task, watch) for alias, recipe in sources.items()}
        known = {alias: scores for alias, scores in scored.items() if scores}
        found = opened.database.settle(opened.study_id, SOURCES, known)
    each = [decode(scores[task.ease]) for scores in found.values()]
    goal = task.objectives[0]
    sign = -1.0 if goal.name == task.ease and goal.direction == "minimize" else 1.0
    return sign * np.mean(each, axis=0) if each else None


def _scores(
    recipe: Recipe, alias: str, workbench: Bench, engine: Engine, task: Task, watch: Callable[[str], None]
) -> dict[str, Encoded]:
    """What a source scores; nothing if it cannot be run."""
    watch(alias)
    problems, evaluation = task.problems("search"), Evaluation()
    try:
        engine.mount(workbench.final(recipe))
        answer(engine, task, problems, range(len(problems)), evaluation)
    except OptmergeError:
        return {}
    return {metric: encode(scores) for metric, scores in evaluation.scores.items()}
