"""A picture of a search for several objectives: all trials, and the best compromises between them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.tasks import Objective


def draw_front(result: Mapping[str, Any], trials: Sequence[FrozenTrial], path: Path) -> None:
    """Draw every pair of objectives: on the left as the search saw them, on the right on problems held out.

    Args:
        result: The contents of result.json, of several objectives.
        trials: The study's trials.
        path: PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    objectives = [Objective(**one) for one in result["objectives"]]
    pairs = list(itertools.combinations(range(len(objectives)), 2))
    figure, rows = pyplot.subplots(len(pairs), 2, figsize=(11, 4.6 * len(pairs)), layout="constrained", squeeze=False)
    for (left, right), (across, up) in zip(rows, pairs, strict=True):
        _draw_search(left, result, trials, objectives, across, up)
        _draw_held_out(right, result, objectives[across], objectives[up])
        for axes in (left, right):
            for axis, objective in ((axes.xaxis, objectives[across]), (axes.yaxis, objectives[up])):
                less = "" if objective.direction == "maximize" else " (less is better)"
                axis.set_label_text(f"{objective.name}{less}")
            axes.legend(fontsize=8)
    figure.suptitle(f"{result['study']}: compromises between {len(objectives)} objectives")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_search(
    axes: Any,
    result: Mapping[str, Any],
    trials: Sequence[FrozenTrial],
    objectives: Sequence[Objective],
    across: int,
    up: int,
) -> None:
    points = [(t.values[across], t.values[up]) for t in trials if t.state == TrialState.COMPLETE]
    axes.scatter(*zip(*points, strict=True), s=12, color="0.7", label="trials")
    names = objectives[across].name, objectives[up].name
    front = sorted((one["search"][names[0]], one["search"][names[1]]) for one in result["front"])
    axes.plot(*zip(*front, strict=True), "o-", color="tab:blue", markersize=5, label="Pareto front")
    for one in result["front"]:
        axes.annotate(str(one["trial"]), (one["search"][names[0]], one["search"][names[1]]), fontsize=7)
    axes.set(title="Search")


def _draw_held_out(axes: Any, result: Mapping[str, Any], across: Objective, up: Objective) -> None:
    validated = [one["validation"] for one in result["front"] if "validation" in one]
    if validated:
        points = [(means[across.name], means[up.name]) for means in validated]
        axes.scatter(*zip(*points, strict=True), s=24, color="tab:blue", label="front, on validation")
    for alias, entry in result["sources"].items():
        point = entry["means"][across.name], entry["means"][up.name]
        axes.scatter(*point, s=30, marker="s", color="0.5")
        axes.annotate(f"source {alias}", point, fontsize=7)
    for name, entry in result["baselines"].items():
        point = entry["means"][across.name], entry["means"][up.name]
        axes.scatter(*point, s=30, marker="^", color="0.75")
        axes.annotate(name, point, fontsize=7)
    means = result["winner"]["means"]
    axes.scatter(means[across.name], means[up.name], s=90, marker="*", color="black", label="winner, on test")
    axes.set(title="Held out; sources and naive merges on test")
