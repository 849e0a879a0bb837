"""Small studies as a tracker is told of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from optmerge.recipe import RECIPE as RECIPE_FILE
from optmerge.recipe import CheckpointNode, Group, MergeNode, Recipe
from optmerge.study.judged import Finalist, Judged, ProblemSet
from optmerge.study.slots import ERROR
from optmerge.study.trial_scores import PEAK_MEMORY, PROBLEMS, RECIPE, SCORES, SECONDS, TOKENS, encode
from optmerge.tasks import Objective, Problem
from optmerge.tracking.mlflow import MlflowTracker, Options, build

GOAL = Objective("acc")
GENES = 30


def settings(seed: int = 0, folder: Path = Path("studies")) -> dict[str, Any]:
    sources = {"ja": {"path": "/models/ja"}, "base": {"path": "/models/base"}}
    task = {"name": "gsm8k", "validation": {"path": "problems.jsonl"}}
    return {
        "study": {"seed": seed, "folder": str(folder), "trials": 4},
        "models": {"sources": sources, "base": "base", "dtype": "bfloat16"},
        "method": {"name": "ties"},
        "space": {"groups": "blocks", "block_layers": 4, "kinds": "sublayers"},
        "sampler": {"name": "cmaes", "population": None},
        "pruner": {"name": "racing"},
        "task": task,
    }


def problem_set(name: str, count: int) -> ProblemSet:
    """Problems whose hash is that of their name."""
    problems = [Problem(f"{name}{i}", f"question {i} of {name}", str(i)) for i in range(count)]
    return ProblemSet((name.encode().hex() * 64)[:64], problems)


def trials() -> list[FrozenTrial]:
    """One that ran to the end, one that was pruned, one that failed, and a better one."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    genes = {f"layers.{i}/ja/weight": optuna.distributions.FloatDistribution(0, 1) for i in range(GENES)}
    lists = [1.0, 1, 0, 0], [np.nan, 1, np.nan, np.nan], [1.0, 1, 1, 0]
    whole, partial, better = (encode(np.array(scores)) for scores in lists)
    spent = {SECONDS: {"merge": 0.5, "generate": 2.0}, TOKENS: 300, PEAK_MEMORY: 5_000_000}
    for facts, value in (
        ({SCORES: {"acc": whole, "ease": whole}, PROBLEMS: 4, RECIPE: "r" * 64, **spent}, 0.5),
        ({SCORES: {"acc": partial}, PROBLEMS: 1, RECIPE: "s" * 64}, None),
        ({ERROR: "merging gives NaN"}, None),
        ({SCORES: {"acc": better}, PROBLEMS: 4, RECIPE: "t" * 64}, 0.75),
    ):
        trial = study.ask(genes)
        for name, found in facts.items():
            trial.set_user_attr(name, found)
        ended = TrialState.FAIL if ERROR in facts else TrialState.PRUNED if value is None else TrialState.COMPLETE
        study.tell(trial, value, state=ended)
    return study.trials


def result(weights: str, *, study: str = "mine", **winner: Any) -> dict[str, Any]:
    return {
        "study": study,
        "winner": {
            "trial": 0,
            "recipe_sha256": "r" * 64,
            "weights_sha256": weights,
            "search": 0.5,
            "validation": 0.4,
            "test": {"score": 0.3, "low": 0.2, "high": 0.4},
            "means": {"acc": 0.3, "length": 12.0},
        }
        | winner,
        "task": {"name": "gsm8k"},
        "trials": {"complete": 2, "pruned": 1, "failed": 1},
        "problem_evaluations": 5,
        "problem_evaluations_unpruned": 8,
        "seconds": 1.5,
    }


def model_folder(folder: Path, *, weights: bytes = b"weights") -> Path:
    """A folder with what a registry looks at: weights, a configuration, a recipe of two sources."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    recipe().save(folder / RECIPE_FILE)
    return folder


def recipe() -> Recipe:
    sources = {
        "ja": CheckpointNode("org/ja", "a" * 64, revision="main"),
        "base": CheckpointNode("/models/base", "b" * 64),
    }
    group = Group(("*",), {"ja": {"weight": 1.0}})
    return Recipe(MergeNode("task_arithmetic", sources, "base", "base", "float32", {"all": group}))


def judged(
    validation: Sequence[float] | None = (1, 0, 1, 1),
    *,
    finalists: Sequence[Finalist] = (),
    tested: Sequence[str] = ("r" * 64, "a" * 64, "b" * 64),
) -> Judged:
    winner: dict[Any, Any] = {"test": {"acc": np.array([1.0, 0, 0])}}
    if validation is not None:
        winner["validation"] = {"acc": np.array(validation, dtype=float)}
    return Judged(winner, list(finalists), tested)


def follow(
    options: Options,
    best: Path,
    ended: Sequence[FrozenTrial],
    document: dict[str, Any],
    answered: Judged | None = None,
    *,
    problems: str = "v",
    goal: Objective = GOAL,
) -> str | None:
    """Follow a study from start to end, as one process does; gives what it says of the winner."""
    tracker = started(options, document["study"], judged() if answered is None else answered, problems, goal)
    for trial in ended:
        tracker.trial(trial)
    return tracker.finish(document, best, judged() if answered is None else answered)


def started(
    options: Options, study: str, answered: Judged, problems: str = "v", goal: Objective = GOAL
) -> MlflowTracker:
    sets: dict[Any, Any] = {"test": problem_set("t", 3)}
    if "validation" in answered.winner:
        sets["validation"] = problem_set(problems, len(answered.winner["validation"]["acc"]))
    tracker = build(options)
    tracker.start(study, f"key of {study}", settings(), goal, sets)
    return tracker
