"""A picture of a search for several objectives: all trials, and the best compromises between them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.phrases import listed, plural
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import BLACK, DARK, EDGE, FAINT, GOLD, PALE, ROSE, percent_axis
from optmerge.tasks import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Means = Mapping[str, float]

_NAMED = 12  # of more compromises only the ends are named


@dataclass(frozen=True)
class HeldOut:
    """What models score on problems that the search did not see, by objective.

    Attributes:
        front: Trial number to its means on validation.
        sources: Alias to its means on validation.
        baselines: Name to its means on validation.
        winner: The winner's means on validation.
    """

    front: Mapping[int, Means] = field(default_factory=dict)
    sources: Mapping[str, Means] = field(default_factory=dict)
    baselines: Mapping[str, Means] = field(default_factory=dict)
    winner: Means | None = None


def held_out_of(result: Mapping[str, Any]) -> HeldOut | None:
    """What result.json says of them; nothing where the winner was not chosen on validation."""
    if "others_on_validation" not in result:
        return None
    front = {one["trial"]: one["validation"] for one in result["front"] if "validation" in one}
    others = result["others_on_validation"]
    return HeldOut(
        front,
        {name.removeprefix("source "): means for name, means in others.items() if name.startswith("source ")},
        {name: means for name, means in others.items() if not name.startswith("source ")},
        front.get(result["winner"]["trial"]),
    )


def points_of(trials: Sequence[FrozenTrial]) -> list[Sequence[float]]:
    """The values of the trials that ran to the end."""
    return [trial.values for trial in trials if trial.state == TrialState.COMPLETE and trial.values]


def pareto_front(
    objectives: Sequence[Objective],
    points: Sequence[Sequence[float]],
    front: Mapping[int, Sequence[float]],
    held_out: HeldOut | None = None,
) -> Drawing:
    """Draw every pair of objectives: on the left as the search saw them, on the right on problems held out.

    Args:
        objectives: What is searched for.
        points: Values of all trials that ran to the end.
        front: Trial number to the values of a compromise.
        held_out: What models score on problems held out, if that is known.
    """
    from matplotlib.figure import Figure

    pairs = list(itertools.combinations(range(len(objectives)), 2))
    columns = 1 if held_out is None else 2
    figure = Figure(figsize=(5.2 * columns, 4.4 * len(pairs)), layout="constrained")
    rows = figure.subplots(len(pairs), columns, squeeze=False)
    for row, (across, up) in zip(rows, pairs, strict=True):
        _search(row[0], points, front, across, up)
        if held_out is not None:
            _held_out(row[1], held_out, objectives[across].name, objectives[up].name)
        for axes in row:
            for axis, goal in ((axes.xaxis, objectives[across]), (axes.yaxis, objectives[up])):
                less = "" if goal.direction == "maximize" else " (less is better)"
                axis.set_label_text(f"{goal.name}{less}")
                if goal.share:
                    percent_axis(axis)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8)
    caption = "Left: trials on the search problems; no trial is better than one on the line in everything." + (
        " Right: finalists of it, sources and naive merges on the validation problems." if held_out else ""
    )
    names = " and ".join(goal.name for goal in objectives)
    title = f"The best compromises between {names}"
    return Drawing("front", title, _alt(objectives, points, front, held_out), caption, figure)


def _search(
    axes: "Axes", points: Sequence[Sequence[float]], front: Mapping[int, Sequence[float]], across: int, up: int
) -> None:
    if points:
        axes.scatter([p[across] for p in points], [p[up] for p in points], s=12, color=FAINT, label="trials")
    order = sorted(front, key=lambda number: front[number][across])
    if order:
        line = [(front[number][across], front[number][up]) for number in order]
        axes.plot(*zip(*line, strict=True), "o-", color=DARK, markersize=6, label="Pareto front")
    for number in order if len(order) <= _NAMED else (order[0], order[-1]):
        axes.annotate(
            str(number),
            (front[number][across], front[number][up]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set(title="Search")


def _held_out(axes: "Axes", known: HeldOut, across: str, up: str) -> None:
    groups: list[tuple[str, Mapping[Any, Means], dict[str, Any], bool]] = [
        ("front", known.front, {"marker": "o", "color": DARK, "s": 34}, False),
        ("sources", known.sources, {"marker": "s", "color": ROSE, "s": 40, "edgecolors": EDGE}, True),
        ("naive merges", known.baselines, {"marker": "^", "color": PALE, "s": 44, "edgecolors": EDGE}, True),
    ]
    for label, means, look, named in groups:
        if means:
            axes.scatter([m[across] for m in means.values()], [m[up] for m in means.values()], label=label, **look)
        for name, m in means.items() if named else ():
            axes.annotate(str(name), (m[across], m[up]), xytext=(5, 3), textcoords="offset points", fontsize=8)
    if known.winner is not None:
        star: dict[str, Any] = {"marker": "*", "s": 190, "color": GOLD, "edgecolors": BLACK, "zorder": 4}
        axes.scatter(known.winner[across], known.winner[up], label="winner", **star)
    axes.set(title="Validation")


def _alt(
    objectives: Sequence[Objective],
    points: Sequence[Sequence[float]],
    front: Mapping[int, Sequence[float]],
    held_out: HeldOut | None,
) -> str:
    names = " against ".join(goal.name for goal in objectives)
    text = f"Points of {names}: {plural(len(points), 'trial')}, {len(front)} on the Pareto front. "
    for i, goal in enumerate(objectives):
        if front:
            number = max(front, key=lambda number: goal.sign * front[number][i])
            text += f"Best in {goal.name}: trial {number} with {_values(objectives, front[number])}. "
    if held_out is not None and held_out.winner is not None:
        means = [held_out.winner[goal.name] for goal in objectives]
        text += f"The winner on validation: {_values(objectives, means)}. "
        best = {
            goal.name: max(held_out.sources, key=lambda alias: goal.sign * held_out.sources[alias][goal.name])
            for goal in objectives
            if held_out.sources
        }
        shown = [
            f"{goal.name} {alias} {goal.shown(held_out.sources[alias][goal.name])}"
            for goal in objectives
            if (alias := best.get(goal.name))
        ]
        text += f"Best sources: {listed(shown)}. " if shown else ""
    return text.strip()


def _values(objectives: Sequence[Objective], values: Sequence[float]) -> str:
    return ", ".join(f"{goal.name} {goal.shown(value)}" for goal, value in zip(objectives, values, strict=True))
