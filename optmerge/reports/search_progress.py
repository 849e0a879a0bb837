"""How the search went: every trial, the best so far, and what the finalists score on problems that were held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optmerge.phrases import plural
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import BLACK, DARK, EDGE, FAINT, GOLD, ROSE, WIDTH, percent_axis
from optmerge.tasks import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        number: Its number.
        value: Its score by the goal; of a pruned one, its mean when it was stopped, None if it has none.
        complete: It answered every problem.
        feasible: It keeps all guards.
        answered: How many problems it answered.
    """

    number: int
    value: float | None
    complete: bool
    feasible: bool
    answered: int


@dataclass(frozen=True)
class Validated:
    """What a finalist scores on validation.

    Attributes:
        number: Its trial.
        mean: Over the problems that it answered.
        answered_all: It stayed in the race to the end.
        winner: It was chosen.
    """

    number: int
    mean: float
    answered_all: bool
    winner: bool


@dataclass(frozen=True)
class Step:
    """A trial that was better than all before it.

    Attributes:
        number: Its number.
        answered: Problems that were answered by then, by all trials.
        value: Its score.
    """

    number: int
    answered: int
    value: float


def best_so_far(outcomes: Sequence[Outcome], goal: Objective) -> list[Step]:
    """The trials that were better than all before them, of those that keep all guards."""
    steps: list[Step] = []
    answered = 0
    for one in outcomes:
        answered += one.answered
        if not one.complete or not one.feasible or one.value is None:
            continue
        if not steps or goal.sign * one.value > goal.sign * steps[-1].value:
            steps.append(Step(one.number, answered, one.value))
    return steps


def draw_progress(
    outcomes: Sequence[Outcome],
    goal: Objective,
    validated: Sequence[Validated] = (),
    sources: Mapping[str, float] | None = None,
) -> Drawing:
    """Draw trials over time, and the best so far over the problems that were answered.

    Args:
        outcomes: The trials, in the order of their numbers.
        goal: What they score.
        validated: The finalists.
        sources: Alias to the source's score on the search problems, where it is known.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    steps = best_so_far(outcomes, goal)
    _trials(left, outcomes, steps, validated)
    total = sum(one.answered for one in outcomes)
    if steps:
        right.step(
            [step.answered for step in steps] + [total],
            [step.value for step in steps] + [steps[-1].value],
            where="post",
            color=DARK,
            linewidth=2.4,
        )
    if sources:
        alias = max(sources, key=lambda alias: goal.sign * sources[alias])
        for axes in (left, right):
            axes.axhline(sources[alias], color=EDGE, linewidth=1, linestyle=":")
        right.annotate(
            f"best source, {alias}",
            (0.99, sources[alias]),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
        )
    left.set(xlabel="trial", ylabel=goal.name, title="Every trial")
    right.set(xlabel="problems answered", title="Best so far, by work done", xlim=(0, max(total, 1)))
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if goal.share:
        percent_axis(left.yaxis)
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    alt = _alt(outcomes, steps, goal, validated, sources, total)
    caption = (
        "Left: every trial; a pruned one at its mean when it was stopped, so on fewer problems than the others. Right: "
        "the best so far over the problems that all trials have answered by then."
    )
    if validated:
        caption += " Finalists stand at their trial, at what they score on the validation problems."
    return Drawing("progress", "How the search went", alt, caption, figure)


def _trials(axes: "Axes", outcomes: Sequence[Outcome], steps: Sequence[Step], validated: Sequence[Validated]) -> None:
    looks: list[tuple[str, bool, bool, dict[str, Any]]] = [
        ("pruned", False, False, {"s": 18, "marker": "x", "linewidths": 0.9, "color": FAINT}),
        ("complete", True, True, {"s": 14, "facecolors": "none", "edgecolors": "0.35"}),
        ("breaks a guard", True, False, {"s": 26, "marker": "+", "color": BLACK}),
    ]
    for label, complete, feasible, look in looks:
        found = [
            (one.number, one.value)
            for one in outcomes
            if (one.complete, one.feasible) == (complete, feasible) and one.value is not None
        ]
        if found:
            axes.scatter([number for number, _ in found], [value for _, value in found], label=label, **look)
    if steps:
        last = max(one.number for one in outcomes)
        axes.step(
            [step.number for step in steps] + [last],
            [step.value for step in steps] + [steps[-1].value],
            where="post",
            color=DARK,
            linewidth=2.4,
            label="best so far",
        )
    finalists = [one for one in validated if not one.winner]
    if finalists:
        axes.scatter(
            [one.number for one in finalists],
            [one.mean for one in finalists],
            s=44,
            marker="^",
            color=ROSE,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
            label="finalist on validation",
        )
    for one in validated:
        if one.winner:
            star: dict[str, Any] = {"marker": "*", "color": GOLD, "edgecolors": BLACK, "linewidths": 1.0}
            axes.scatter(one.number, one.mean, s=190, zorder=4, label="winner on validation", **star)


def _alt(
    outcomes: Sequence[Outcome],
    steps: Sequence[Step],
    goal: Objective,
    validated: Sequence[Validated],
    sources: Mapping[str, float] | None,
    total: int,
) -> str:
    pruned = sum(not one.complete for one in outcomes)
    text = f"Points and a rising line: {plural(len(outcomes), 'trial')}, {pruned} of them pruned, by {goal.name}. "
    if goal.direction == "minimize":
        text = text.replace("rising", "falling")
    if steps:
        first, last = steps[0], steps[-1]
        text += (
            f"The best so far goes from {goal.shown(first.value)} (trial {first.number}) to {goal.shown(last.value)} "
            f"(trial {last.number}), after {last.answered:,} of {total:,} problems answered. "
        )
        half = next(
            s for s in steps if goal.sign * (s.value - first.value) >= goal.sign * (last.value - first.value) / 2
        )
        if len(steps) > 2:
            text += f"Half of the way was done by trial {half.number}. "
    else:
        text += "No trial has answered every problem yet. "
    if sources:
        alias = max(sources, key=lambda alias: goal.sign * sources[alias])
        text += f"The best source, {alias}, scores {goal.shown(sources[alias])} on the same problems. "
    if validated:
        means = sorted(one.mean for one in validated)
        text += f"{plural(len(validated), 'finalist')} on validation: {goal.shown(means[0])} to {goal.shown(means[-1])}"
        winner = next((one for one in validated if one.winner), None)
        text += f"; the winner, trial {winner.number}, {goal.shown(winner.mean)}." if winner else "."
    return text.strip()
