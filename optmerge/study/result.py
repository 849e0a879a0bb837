"""How a study ends: finalists on validation; winner, sources and baselines once on test."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from optmerge.engines import Bench, Engine
from optmerge.errors import OptmergeError
from optmerge.recipe import PathNode, Recipe
from optmerge.space import SearchSpace
from optmerge.study.ease import SOURCES
from optmerge.study.evaluation import Evaluation, answer
from optmerge.study.interval import Score, bootstrap
from optmerge.study.memory import Memory
from optmerge.study.paired_test import paired_p_value
from optmerge.study.pareto import spread
from optmerge.study.slots import DIED, ERROR, HANDED_BACK, Plan, counted, slot_of, violation
from optmerge.study.trial_scores import PROBLEMS, decode, encode, value_of
from optmerge.tasks import Objective, Task

log = logging.getLogger(__name__)

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
