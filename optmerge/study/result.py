"""How a study ends: finalists on validation; winner, sources and baselines once on test."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optmerge.errors import OptmergeError
from optmerge.recipe import PathNode, Recipe
from optmerge.space import SearchSpace
from optmerge.study.ease import SOURCES
from optmerge.study.interval import Score
from optmerge.study.judge import Best, Judge, Tested
from optmerge.study.pareto import spread
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, Plan, counted, slot_of, violation
from optmerge.study.trial_scores import PROBLEMS, decode, value_of
from optmerge.tasks import Objective

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compromise:
    """A trial that none is better than in everything, in a search for several objectives.

    Attributes:
        trial: Its number.
        recipe: Its recipe.
        search: Objective to its value in the search.
        validation: Score to its mean on validation, the goal's too; empty for those that were no finalists.
    """

    trial: int
    recipe: Recipe
    search: Mapping[str, float]
    validation: Mapping[str, float]


@dataclass(frozen=True)
class Winner:
    """The model that the search found.

    Attributes:
        trial: Number of its trial.
        recipe: Its recipe.
        search: Its goal in the search; of the best of many, it is too good.
        validation: Its score on validation, or none where the best trial is taken as it is.
        test: Its score on test.
        best: How it was chosen among the finalists on validation.
        means: Of all its scores on test.
        broken: Guard to how far the trial was below its floor; empty unless no trial kept all.
        path_test: Of a path: its score on test when it is run over the sources' layers, and not folded.
    """

    trial: int
    recipe: Recipe
    search: float
    validation: float | None
    test: Score
    best: Best | None = None
    means: Mapping[str, float] = field(default_factory=dict)
    broken: Mapping[str, float] = field(default_factory=dict)
    path_test: Score | None = None


@dataclass(frozen=True)
class Baseline:
    """A naive merge: which of its settings was best on validation, and its scores on test."""

    setting: str
    test: Score
    means: Mapping[str, float]
    recipe_sha256: str


@dataclass(frozen=True)
class Result:
    """All that a study found."""

    winner: Winner
    sources: Mapping[str, Tested]
    baselines: Mapping[str, Baseline]
    ablations: Mapping[str, Tested]
    front: Sequence[Compromise] = ()
    others_on_validation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def ranked(study: optuna.Study, goal: Objective) -> list[FrozenTrial]:
    """The trials that count and answered every problem, best first; of equals the one whose slot comes first.

    Those that keep all guards come before those that do not.
    """
    trials = counted(study.get_trials(deepcopy=False))
    complete = [(trial, value) for trial in trials if (value := value_of(trial, goal)) is not None]
    order = sorted(complete, key=lambda pair: (violation(pair[0]), -goal.sign * pair[1], slot_of(pair[0])))
    return [trial for trial, _ in order]


def compromises(front: Sequence[FrozenTrial], plan: Plan, goal: Objective, most: int) -> list[FrozenTrial]:
    """So many trials of a Pareto front, far apart, the best by the goal among them; none if all break guards."""
    if not front:
        return []
    best = max(range(len(front)), key=lambda i: goal.sign * (value_of(front[i], goal) or 0.0))
    return [front[i] for i in spread([plan.fitness(trial) or () for trial in front], most, first=best)]


def judge_front(
    judge: Judge,
    space: SearchSpace,
    goals: Sequence[Objective],
    front: Sequence[FrozenTrial],
    finalists: Sequence[FrozenTrial],
) -> list[Compromise]:
    """The Pareto front of a search for several objectives, its finalists on validation.

    Args:
        judge: Scores.
        space: Decodes.
        goals: The objectives.
        front: All trials of the front.
        finalists: Those that are scored on validation; one that cannot be run is left out.
    """
    judged = []
    for trial in front:
        recipe, found = space.decode(trial.params), dict[str, float]()
        if trial in finalists:
            try:
                judge.scores(recipe, "validation", f"trial {trial.number}")
            except OptmergeError as error:
                log.warning("trial %d is left out: %s", trial.number, error)
                continue
            found = judge.means(recipe, "validation")
        search = {goal.name: value for goal, value in zip(goals, trial.values, strict=True)}
        judged.append(Compromise(trial.number, recipe, search, found))
    return judged


def choose_winner(
    study: optuna.Study,
    judge: Judge,
    space: SearchSpace,
    goal: Objective,
    finalists: int,
    *,
    by_validation: bool,
    front: Sequence[Compromise] = (),
) -> Winner:
    """The winner: of so many finalists the one best on validation, or simply the best trial of the search.

    Args:
        study: The study.
        judge: Scores.
        space: Decodes.
        goal: What the winner is best at.
        finalists: How many there are.
        by_validation: Not simply the best trial.
        front: Of several objectives, the compromises, of which those that were scored on validation are the finalists.

    Raises:
        OptmergeError: If no trial answered every problem.
    """
    order = ranked(study, goal)
    if not order:
        raise OptmergeError("no trial ran to the end, so there is no winner; raise study.trials and run again")
    number, best, validation = order[0].number, None, None
    validated = [one for one in front if one.validation]
    if validated:  # to trade one objective for another is no defeat, so they do not race
        highest = max(validated, key=lambda one: goal.sign * one.validation[goal.name])
        number, validation = highest.trial, highest.validation[goal.name]
    elif by_validation:
        # Of trials with the same recipe one is enough.
        recipes: dict[str, Recipe] = {}
        feasible = [trial for trial in order if not violation(trial)]
        for trial in feasible or order[:1]:  # none keeps all guards: the one that breaks them least
            recipe = space.decode(trial.params)
            if recipe.sha256 not in {known.sha256 for known in recipes.values()}:
                recipes[str(trial.number)] = recipe
            if len(recipes) == finalists:
                break
        best = judge.best(recipes, "trial")
        number, validation = int(best.name), best.score
    trial = next(trial for trial in order if trial.number == number)
    recipe = space.decode(trial.params)
    path_test = None
    if isinstance(recipe.root, PathNode):
        path_test = judge.test(recipe, "winner, not folded", folded=False)
    test = judge.test(recipe, "winner")
    broken = {name: value for name, value in trial.constraints.items() if value > 0}
    search, means = value_of(trial, goal) or 0.0, judge.means(recipe, "test")
    return Winner(number, recipe, search, validation, test, best, means, broken, path_test)


def judge_sources(judge: Judge, sources: Mapping[str, Recipe]) -> dict[str, Tested]:
    """Every source on test."""
    return {alias: judge.tested(recipe, alias) for alias, recipe in sources.items()}


def judge_baselines(judge: Judge, baselines: Mapping[str, Mapping[str, Recipe]]) -> dict[str, Baseline]:
    """Every baseline on test, at its setting best on validation; one that cannot be run is left out."""
    judged = {}
    for name, settings in baselines.items():
        try:
            setting = judge.best(settings, name).name if len(settings) > 1 else next(iter(settings))
            found = judge.tested(settings[setting], f"{name} {setting}".strip())
            judged[name] = Baseline(setting, found.test, found.means, found.recipe_sha256)
        except OptmergeError as error:
            log.warning("%s is left out: %s", name, error)
    return judged


def as_json(
    result: Result, study: optuna.Study, weights_sha256: str, search_problems: int, seconds: float
) -> dict[str, Any]:
    """The contents of result.json."""
    trials = counted(study.get_trials(deepcopy=False))
    root = result.winner.recipe.root
    states = {
        name: sum(trial.state == state for trial in trials)
        for name, state in (
            ("complete", TrialState.COMPLETE),
            ("pruned", TrialState.PRUNED),
        )
    }
    # A trial whose worker died was run again: it is no failure of the search.
    states["failed"] = sum(
        trial.state == TrialState.FAIL and trial.user_attrs.get(ERROR) not in (DIED, HANDED_BACK)
        for trial in study.get_trials(deepcopy=False)
    )
    return {
        "study": study.study_name,
        "winner": {
            "trial": result.winner.trial,
            "recipe_sha256": result.winner.recipe.sha256,
            **({"path_sha256": root.path_sha256} if isinstance(root, PathNode) else {}),
            "weights_sha256": weights_sha256,
            "search": result.winner.search,
            "validation": result.winner.validation,
            "test": asdict(result.winner.test),
            "means": dict(result.winner.means),
            **({"broken": dict(result.winner.broken)} if result.winner.broken else {}),
            **({"selection": _selection(result.winner.best)} if result.winner.best else {}),
            **({"path_test": asdict(result.winner.path_test)} if result.winner.path_test else {}),
        },
        "sources": {alias: asdict(tested) for alias, tested in result.sources.items()},
        "baselines": {name: asdict(baseline) for name, baseline in result.baselines.items()},
        "ablations": {name: asdict(tested) for name, tested in result.ablations.items()},
        **({"front": [_compromise(one) for one in result.front]} if result.front else {}),
        **({"others_on_validation": dict(result.others_on_validation)} if result.others_on_validation else {}),
        "trials": states,
        "problem_evaluations": sum(trial.user_attrs.get(PROBLEMS, 0) for trial in trials) + asked_of_sources(study),
        "problem_evaluations_unpruned": (states["complete"] + states["pruned"]) * search_problems,
        "seconds": round(seconds, 1),
    }


def asked_of_sources(study: optuna.Study) -> int:
    """How many search problems the sources answered, so that they could be told easy from hard."""
    found = study.user_attrs.get(SOURCES, {})
    return sum(max(len(decode(scores)) for scores in metrics.values()) for metrics in found.values())


def _compromise(one: Compromise) -> dict[str, Any]:
    known = {"validation": dict(one.validation)} if one.validation else {}
    return {"trial": one.trial, "recipe_sha256": one.recipe.sha256, "search": dict(one.search), **known}


def _selection(best: Best) -> dict[str, Any]:
    return {"finalists": best.of, "not_separated": [int(name) for name in best.rivals]}


def trial_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Time spent in trials that were finished, over all processes that ever worked on the study."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)  # one that was killed seems to last until the study is resumed
    return sum(trial.duration.total_seconds() for trial in trials if trial.duration and trial.state in done)
