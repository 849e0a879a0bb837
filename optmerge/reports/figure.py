"""One picture of a study: how the search went, and how its winner compares on the test problems."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.reports.table import winner_name


def draw_study(result: Mapping[str, Any], trials: Sequence[FrozenTrial], metric: str, path: Path) -> None:
    """Draw progress and results side by side.

    Args:
        result: The contents of result.json.
        trials: The study's trials.
        metric: Name of the objective.
        path: PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.6), width_ratios=(1, 1), layout="constrained")
    _draw_progress(left, trials, metric)
    _draw_results(right, result, metric)
    figure.suptitle(f"{result['study']}: {winner_name(result)} against its sources and naive merges")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_progress(axes: Any, trials: Sequence[FrozenTrial], metric: str) -> None:
    complete = [(t.number, t.value) for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    pruned = [(t.number, list(t.intermediate_values.values())[-1]) for t in trials if t.state == TrialState.PRUNED]
    if pruned:
        axes.scatter(*zip(*pruned, strict=True), s=10, marker="x", color="0.7", label="pruned: mean when stopped")
    axes.scatter(*zip(*complete, strict=True), s=14, color="0.35", label="complete")
    best = [(number, max(v for n, v in complete if n <= number)) for number, _ in complete]
    axes.step(*zip(*best, strict=True), where="post", color="tab:blue", linewidth=2, label="best so far")
    axes.set(xlabel="trial", ylabel=f"{metric} on the search problems", ylim=(0, 1), title="Search")
    axes.legend(loc="lower right", fontsize=8)


def _draw_results(axes: Any, result: Mapping[str, Any], metric: str) -> None:
    bars = [(alias, entry["test"], "0.8") for alias, entry in result["sources"].items()]
    bars += [(name, entry["test"], "0.55") for name, entry in result["baselines"].items()]
    bars.append((winner_name(result), result["winner"]["test"], "tab:blue"))
    positions = range(len(bars), 0, -1)
    for position, (_, test, colour) in zip(positions, bars, strict=True):
        score = test["score"]
        spread = [[score - test["low"]], [test["high"] - score]]
        axes.barh(position, score, color=colour, xerr=spread, capsize=3, ecolor="0.2")
        axes.text(test["high"] + 0.02, position, f"{score:.1%}", va="center", fontsize=9)
    axes.set_yticks(list(positions), [name for name, _, _ in bars])
    axes.set(
        xlim=(0, 1.12),
        xticks=(0, 0.2, 0.4, 0.6, 0.8, 1),
        xlabel=f"{metric} on the test problems, with 95% interval",
        title="Test",
    )
