"""What a registry is told of a winner."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from optmerge.recipe import CheckpointNode, Node, Recipe
from optmerge.study.judged import Judged, ProblemSet
from optmerge.study.touched import model_id
from optmerge.tasks import Objective, Split

# Tags of versions.
VALIDATION, TEST = "validation_sha256", "test_sha256"  # hashes of problems and of what decides their scores
TESTED = "tested"  # what its study had tested when it was registered, see `optmerge.study.touched`
OBJECTIVE = "objective"
PROBLEMS = "problems"  # where the tables of scores are, among the run's artifacts
MODEL = "model"  # where the folder is
WEIGHTS_SHA256 = "weights_sha256"
BROKEN = "broken_guards"


def scores_of(result: Mapping[str, Any]) -> dict[str, float]:
    """What a winner scored: in the search, on validation, on test with its interval, and by every other score."""
    winner = result["winner"]
    found = {name: winner[name] for name in ("search", "validation") if winner[name] is not None}
    found |= {"test": winner["test"]["score"], "test/low": winner["test"]["low"], "test/high": winner["test"]["high"]}
    found |= {f"test/mean/{name}": mean for name, mean in winner.get("means", {}).items()}
    return {name: float(value) for name, value in found.items()}


def winner_tags(
    result: Mapping[str, Any],
    recipe: Recipe,
    judged: Judged,
    goal: Objective,
    problems: Mapping[Split, ProblemSet],
) -> dict[str, str]:
    """The tags of a winner's version.

    Args:
        result: The contents of result.json.
        recipe: The winner's.
        judged: What was answered problem by problem.
        goal: The score that it was chosen by.
        problems: The problems of the task's splits.
    """
    winner = result["winner"]
    tags = {name: f"{value:.10g}" for name, value in scores_of(result).items()}
    tags |= {
        "study": str(result["study"]),
        "trial": str(winner["trial"]),
        "task": str(result.get("task", {}).get("name", "")),
        OBJECTIVE: json.dumps(asdict(goal)),
        "recipe_sha256": winner["recipe_sha256"],
        WEIGHTS_SHA256: winner["weights_sha256"],
        TESTED: ",".join(model_id(sha256) for sha256 in judged.tested),
    }
    tags |= {f"{split}_sha256": problems[split].sha256 for split in judged.winner}
    if winner.get("broken"):
        tags[BROKEN] = ", ".join(sorted(winner["broken"]))
    licence = result.get("licence")
    if licence is not None:
        tags["licence"] = licence if isinstance(licence, str) else json.dumps(licence, ensure_ascii=False)
    return tags | {f"source/{alias}": told for alias, told in _sources(recipe.root)}


def described(result: Mapping[str, Any], goal: Objective) -> str:
    """A winner in a sentence."""
    winner = result["winner"]
    test = winner["test"]
    low, high = sorted((test["low"], test["high"]))
    validation = "" if winner["validation"] is None else f"{goal.shown(winner['validation'])} on validation, "
    return (
        f"Winner of study {result['study']}. {goal.name}: {validation}{goal.shown(test['score'])} "
        f"({goal.shown(low)} to {goal.shown(high)}) on test."
    )


def _sources(node: Node) -> Iterator[tuple[str, str]]:
    """Alias and whereabouts of every checkpoint that a recipe begins with."""
    if isinstance(node, CheckpointNode):
        return
    for alias, source in sorted(node.sources.items()):
        if isinstance(source, CheckpointNode):
            at = f"@{source.revision}" if source.revision else ""
            yield alias, f"{source.location}{at} (weights {source.weights_sha256[:12]})"
        else:
            yield from _sources(source)
