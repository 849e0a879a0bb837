"""What MLflow is told of a trial."""

import json
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.study.slots import ERROR
from optmerge.study.trial_scores import PEAK_MEMORY, PROBLEMS, RECIPE, SCORES, SECONDS, TOKENS, decode, value_of
from optmerge.tasks import SORTING, Objective
from optmerge.tracking.problem_tables import plain

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


def tags_of(trial: FrozenTrial) -> dict[str, str]:
    """State, recipe, and why it failed."""
    facts = trial.user_attrs
    return {"state": trial.state.name.lower()} | {key: str(facts[key]) for key in (RECIPE, ERROR) if key in facts}


def metrics_of(trial: FrozenTrial, goal: Objective) -> dict[str, float]:
    """Fitness, the mean of every score, and what it took.

    The mean over the problems seen is the fitness only where the trial saw them all; the name says which.
    """
    facts = trial.user_attrs
    seconds = facts.get(SECONDS, {})
    values = {f"seconds/{phase}": spent for phase, spent in seconds.items()}
    values["problems"] = facts.get(PROBLEMS, 0)
    if TOKENS in facts:
        values["tokens"] = facts[TOKENS]
        if seconds.get("generate"):
            values["tokens_per_second"] = facts[TOKENS] / seconds["generate"]
    if PEAK_MEMORY in facts:
        values["peak_memory_mb"] = facts[PEAK_MEMORY] / 1e6
    fitness = value_of(trial, goal)
    if fitness is not None:
        values["fitness"] = fitness
    prefix = "" if trial.state == TrialState.COMPLETE else "partial/"
    for metric, encoded in facts.get(SCORES, {}).items():
        if metric != SORTING:
            scores = decode(encoded)
            values[prefix + metric] = float(scores[scores == scores].mean())
    return values


def params_of(trial: FrozenTrial, most: int) -> dict[str, str]:
    """The first genes, as many as are wanted: MLflow keeps each in a row, and shows each in a column."""
    return {name: repr(value) for name, value in list(trial.params.items())[:most]}


def document_of(trial: FrozenTrial) -> str:
    """All genes, and the score of every search problem, as JSON."""
    scores = {name: plain(decode(s)) for name, s in trial.user_attrs.get(SCORES, {}).items() if name != SORTING}
    document: dict[str, Any] = {"trial": trial.number, "genes": trial.params, "scores": scores}
    return json.dumps(document, ensure_ascii=False)
