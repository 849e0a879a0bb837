"""Several tasks at once: a weighted mean of them, or an objective each; and guards that must not fall.

    task:
      name: composite
      parts:
        ja: {weight: 0.7, task: {name: math_ja, ...}}
        en: {weight: 0.3, task: {name: gsm8k, ...}}
      guards:
        chat: {margin: 0.02, of: base, task: {name: choice_logprob, ...}}

Each has problems of its own in every split. A part's share of the fitness is its weight, however many problems it has.
With `objectives: parts` the search is for the best compromises between the parts, and the weights only decide which of
them is the winner.
A guard adds nothing to the fitness: a merge whose mean on it is more than the margin below that of a source is not
feasible, and ranks below every merge that is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from optmerge.engines import Request, Response
from optmerge.errors import UsageError
from optmerge.registered import source_sha256
from optmerge.tasks.task import APART, SORTING, SPLITS, Guard, Objective, Problem, Split, Task, sha256_of

SCORE = "score"  # the weighted mean


@dataclass
class Options:
    """What a configuration may set under `task`.

    Attributes:
        objectives: `mean`: the weighted mean of the parts is searched for; `parts`: each part is an objective.
        parts: Name to `weight` (1 by default) and `task`, the settings of a task.
        guards: Name to `margin` (0 by default), `of` (the alias of the source to be held against; `models.base` by
            default, or else the best), and `task`.
    """

    objectives: str = "mean"
    parts: dict[str, Any] = field(default_factory=dict)
    guards: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    name: str
    where: str  # in the configuration
    task: Task
    weight: float  # of all; 0 for a guard
    plugin: str | None  # the hash of its file, if that is not ours


def build(options: Options) -> "Composite":
    """The task, with the score `score`, and every score of its parts as NAME/SCORE.

    Raises:
        UsageError: If a part cannot be used; names the option.
    """
    if not options.parts:
        raise UsageError("task.parts is empty: name the tasks, as in task.parts.ja.task.name=math_ja")
    if options.objectives not in ("mean", "parts"):
        raise UsageError(f"task.objectives={options.objectives}: unknown; known are mean, parts")
    if options.objectives == "parts" and len(options.parts) < 2:
        raise UsageError("task.objectives=parts needs two parts or more; task.parts has one")
    both = set(options.parts) & set(options.guards)
    if both:
        raise UsageError(f"task: {', '.join(sorted(both))} is among the parts and the guards")
    weights = {name: _number(part, "weight", 1.0, f"task.parts.{name}") for name, part in options.parts.items()}
    for name, weight in weights.items():
        if not weight > 0:
            raise UsageError(f"task.parts.{name}.weight must be more than 0, got {weight:g}")
    total = sum(weights.values())
    parts = [_part(name, "parts", part, weights[name] / total) for name, part in options.parts.items()]
    guarding = [_part(name, "guards", part, 0.0) for name, part in options.guards.items()]
    guards = [
        _guard(part, _number(settings, "margin", 0.0, part.where), settings.get("of"))
        for part, settings in zip(guarding, options.guards.values(), strict=True)
    ]
    return Composite([*parts, *guarding], guards, several=options.objectives == "parts")


def _part(name: str, kind: str, settings: Any, weight: float) -> _Part:
    from optmerge.config import options_of  # not before: it is the way in for users' settings, and imports much

    where = f"task.{kind}.{name}"
    known = {"parts": {"weight", "task"}, "guards": {"margin", "of", "task"}}[kind]
    whole = isinstance(settings, Mapping) and set(settings) <= known and isinstance(settings.get("task"), Mapping)
    if not whole:
        raise UsageError(f"{where} needs `task`, the settings of a task, and may have {', '.join(sorted(known))}")
    with _named(where):
        module, options = options_of("task", settings["task"], "optmerge.tasks")
        task: Task = module.build(options)
    if len(task.objectives) != 1 or task.guards:
        raise UsageError(f"{where}: a task of several objectives or with guards cannot be part of another")
    return _Part(name, where, task, weight, source_sha256(module))


def _goal(part: _Part) -> Objective:
    """The score of a part, by its name among those of all."""
    goal = part.task.objectives[0]
    return replace(goal, name=f"{part.name}/{goal.name}")


def _guard(part: _Part, margin: float, of: str | None) -> Guard:
    if margin < 0:
        raise UsageError(f"{part.where}.margin must be at least 0, got {margin:g}")
    return Guard(part.name, _goal(part), margin, of)


def _number(settings: Any, key: str, default: float, where: str) -> float:
    value = settings.get(key, default) if isinstance(settings, Mapping) else default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{where}.{key} must be a number, got {value!r}")
    return float(value)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Let messages about a part's settings say whose they are."""
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error).replace("task.", f"{where}.task.", 1)) from error


class Composite:
    """Several tasks as one; see `build`."""

    def __init__(self, parts: Sequence[_Part], guards: Sequence[Guard], *, several: bool) -> None:
        self._parts = parts
        self.guards = guards
        goals = [_goal(part) for part in parts if part.weight]
        shares = all(goal.share and goal.direction == "maximize" for goal in goals)
        self.goal = Objective(SCORE, share=shares)
        self.objectives: Sequence[Objective] = goals if several else (self.goal,)
        self.ease = SORTING
        self._read: dict[Split, Sequence[Problem]] = {}
        self._owners: dict[str, tuple[int, Problem, float]] = {}  # id to its part, the part's own problem, its factor

    @property
    def facts(self) -> Mapping[str, object]:
        return {f"{part.name}/{name}": fact for part in self._parts for name, fact in part.task.facts.items()}

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of all parts, read once, one part after the other; their ids begin with the part's name."""
        if split not in self._read:
            self._read[split] = self._together(split)
        return self._read[split]

    def _together(self, split: Split) -> Sequence[Problem]:
        each = [self._of_part(part, lambda task: task.problems(split)) for part in self._parts]
        count = sum(len(problems) for part, problems in zip(self._parts, each, strict=True) if part.weight)
        found = []
        for number, (part, problems) in enumerate(zip(self._parts, each, strict=True)):
            for problem in problems:
                renamed = replace(problem, id=f"{part.name}/{problem.id}")
                # So that the mean over all problems is the weighted mean of the parts' means.
                self._owners[renamed.id] = (number, problem, part.weight * count / len(problems))
                found.append(renamed)
        return tuple(found)

    def _of_part(self, part: _Part, ask: Callable[[Task], Any]) -> Any:
        with _named(part.where):
            return ask(part.task)

    def missing(self) -> list[str]:
        lines = []
        for part in self._parts:
            lines += [line.replace("task.", f"{part.where}.task.", 1) for line in part.task.missing()]
        return lines

    def request(self, problem: Problem) -> Request:
        number, own, _ = self._owners[problem.id]
        return self._parts[number].task.request(own)

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        """The part's scores under its name; `score`, unless it is a guard; and how easy the problem was."""
        number, own, factor = self._owners[problem.id]
        part = self._parts[number]
        found, goal = part.task.score(own, response), part.task.objectives[0]
        named = {f"{part.name}/{name}": value for name, value in found.items()}
        fitness = {SCORE: goal.sign * factor * found[goal.name]} if part.weight else {}
        return {**fitness, **named, SORTING: APART * number + found[part.task.ease]}

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> dict[str, str]:
        found = {
            f"{part.name}.{name}": sha256
            for part in self._parts
            for name, sha256 in self._of_part(part, lambda task: task.fingerprint(splits)).items()
        }
        found |= {f"{part.name}.plugin": part.plugin for part in self._parts if part.plugin}
        weights = {part.name: round(part.weight, 12) for part in self._parts}
        objectives = sha256_of([goal.name for goal in self.objectives])
        guards = sha256_of([str(guard) for guard in self.guards])
        return found | {"weights": sha256_of(weights), "objectives": objectives, "guards": guards}
