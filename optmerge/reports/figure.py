"""One picture of a study: how the search went, and how its winner compares on the test problems."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.reports.table import goal_of, winner_name
from optmerge.study.trial_scores import value_of
from optmerge.tasks import Objective


def draw_study(result: Mapping[str, Any], trials: Sequence[FrozenTrial], path: Path) -> None:
    """Draw progress and results side by side.

    Args:
        result: The contents of result.json.
        trials: The study's trials.
        path: PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), width_ratios=(1, 1), layout="constrained")
    goal = goal_of(result)
    _draw_progress(left, trials, goal)
    _draw_results(right, result, goal)
    figure.suptitle(f"{result['study']}: {winner_name(result)} against its sources and naive merges")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_progress(axes: Any, trials: Sequence[FrozenTrial], goal: Objective) -> None:
    complete = [(t.number, value) for t in trials if (value := value_of(t, goal)) is not None]
    pruned = [(t.number, list(t.intermediate_values.values())[-1]) for t in trials if t.state == TrialState.PRUNED]
    if pruned:
        axes.scatter(*zip(*pruned, strict=True), s=10, marker="x", color="0.7", label="pruned: mean when stopped")
    axes.scatter(*zip(*complete, strict=True), s=14, color="0.35", label="complete")
    better = max if goal.direction == "maximize" else min
    best = [(number, better(v for n, v in complete if n <= number)) for number, _ in complete]
    axes.step(*zip(*best, strict=True), where="post", color="tab:blue", linewidth=2, label="best so far")
    axes.set(xlabel="trial", ylabel=f"{goal.name} on the search problems", title="Search")
    if goal.share:
        axes.set(ylim=(0, 1))
    axes.legend(loc="lower right" if goal.direction == "maximize" else "upper right", fontsize=8)


def _draw_results(axes: Any, result: Mapping[str, Any], goal: Objective) -> None:
    bars = [(alias, entry["test"], "0.8") for alias, entry in result["sources"].items()]
    bars += [(name, entry["test"], "0.55") for name, entry in result["baselines"].items()]
    bars.append((winner_name(result), result["winner"]["test"], "tab:blue"))
    positions = range(len(bars), 0, -1)
    widest = 1.0 if goal.share else max(test["high"] for _, test, _ in bars)
    for position, (_, test, colour) in zip(positions, bars, strict=True):
        score = test["score"]
        spread = [[score - test["low"]], [test["high"] - score]]
        axes.barh(position, score, color=colour, xerr=spread, capsize=3, ecolor="0.2")
        axes.text(test["high"] + 0.02 * widest, position, goal.shown(score), va="center", fontsize=9)
    axes.set_yticks(list(positions), [name for name, _, _ in bars])
    axes.set(
        xlim=(0, 1.12 * widest),
        xlabel=f"{goal.name} on the test problems, with 95% interval",
        title="Test",
    )
    if goal.share:
        axes.set(xticks=(0, 0.2, 0.4, 0.6, 0.8, 1))
