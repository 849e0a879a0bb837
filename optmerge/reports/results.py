"""What a study found, as rows of tables, and a picture of the test scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optmerge.reports.drawing import Drawing, shown_difference
from optmerge.reports.findings import Findings
from optmerge.reports.style import BLACK, DARK, EDGE, FAINT, GOLD, PALE, ROSE, WIDTH, percent_axis
from optmerge.reports.table import winner_name
from optmerge.study.interval import Score, bootstrap
from optmerge.study.trial_scores import SCORES, decode
from optmerge.tasks import Objective

_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
WINNER, SOURCE, BASELINE, ABLATION = "winner", "source", "naive merge", "ablation"


@dataclass(frozen=True)
class Tested:
    """A model on the test problems.

    Attributes:
        name: What people call it.
        kind: Winner, source, naive merge, or ablation of the winner.
        test: Its score with its interval.
        recipe_sha256: Its recipe's hash; empty in results of earlier versions.
        means: Of all its scores; empty in results of earlier versions.
    """

    name: str
    kind: str
    test: Score
    recipe_sha256: str
    means: Mapping[str, float]


@dataclass(frozen=True)
class Seen:
    """What the best model scores on a split.

    Attributes:
        split: Which.
        score: Its score with its interval.
        problems: How many problems.
        fallen: How far it is below its score in the search, as people read it.
    """

    split: str
    score: Score
    problems: int
    fallen: str


@dataclass(frozen=True)
class Placed:
    """A finalist, as a row of a table."""

    trial: int
    search: str
    validation: str
    answered: str
    verdict: str


def tested_models(result: Mapping[str, Any]) -> list[Tested]:
    """All models on test, the winner first."""
    winner = result["winner"]
    name = f"{winner_name(result)} (trial {winner['trial']})"
    rows = [_tested(name, WINNER, winner)]
    rows += [_tested(f"the same, {name}", ABLATION, entry) for name, entry in result.get("ablations", {}).items()]
    rows += [_tested(alias, SOURCE, entry) for alias, entry in result["sources"].items()]
    rows += [
        _tested(f"{name} ({entry['setting']})" if entry["setting"] else name, BASELINE, entry)
        for name, entry in result["baselines"].items()
    ]
    return rows


def _tested(name: str, kind: str, entry: Mapping[str, Any]) -> Tested:
    return Tested(name, kind, Score(**entry["test"]), entry.get("recipe_sha256", ""), entry.get("means", {}))


def tested_table(models: Sequence[Tested], goal: Objective, objectives: Sequence[Objective]) -> list[list[str]]:
    """Head and rows of the test scores; of several objectives the mean of each is behind the score that weighs them.

    Args:
        models: A row each.
        goal: The score.
        objectives: What was searched for.
    """
    several = objectives if len(objectives) > 1 else ()
    less = {one.name: "" if one.sign > 0 else " (less is better)" for one in several}
    rows = [["model", goal.name if several else "score", "95% interval", *(f"{name}{less[name]}" for name in less)]]
    for model in models:
        label = f"{model.kind} {model.name}" if model.kind == SOURCE else model.name
        means = [one.shown(model.means[one.name]) if one.name in model.means else "" for one in several]
        rows.append([label, goal.shown(model.test.score), shown_range(model.test, goal), *means])
    return rows


def weighing(goal: Objective, objectives: Sequence[Objective], task: Mapping[str, Any]) -> str:
    """What the score of several objectives is, in a sentence; empty where there is but one.

    Args:
        goal: The score.
        objectives: What was searched for.
        task: Settings of the task; those of `composite` say how much each part weighs.
    """
    if len(objectives) < 2:
        return ""
    parts = task.get("parts", {})
    names = [one.name.partition("/")[0] for one in objectives]
    if not set(names) <= set(parts):
        return f"The score that the winner was chosen by, {goal.name}, weighs the objectives."
    weights = [float(parts[name].get("weight", 1.0)) for name in names]
    terms = [
        f"{'+' if one.sign > 0 else _MINUS} {weight / sum(weights):.3g} {_TIMES} {one.name}"
        for one, weight in zip(objectives, weights, strict=True)
    ]
    percent = ", with shares as numbers from 0 to 1" if any(one.share for one in objectives) else ""
    formula = " ".join(terms).removeprefix("+ ")
    return f"The score that the winner was chosen by weighs the objectives{percent}: {goal.name} = {formula}."


def winners_gap(findings: Findings) -> list[Seen]:
    """The best model's scores in the search, on validation and on test, and how far they fall.

    The search chose it among many for its score there, which is therefore too high: the winner's curse.
    """
    if findings.best is None:
        return []
    trial, value = findings.best
    goal = findings.goal
    found = [("search", {name: decode(kept) for name, kept in trial.user_attrs.get(SCORES, {}).items()})]
    if findings.result is not None:
        sha256 = findings.result["winner"]["recipe_sha256"]
        found += [(split, dict(findings.final_scores(split, sha256))) for split in ("validation", "test")]
    rows = []
    for split, scores in found:
        known = int((~np.isnan(scores[goal.name])).sum()) if goal.name in scores else 0
        if not known:
            continue
        score = bootstrap(scores, goal.name)
        fallen = "" if split == "search" else shown_difference(score.score - value, share=goal.share)
        rows.append(Seen(split, score, known, fallen))
    return rows


def placed_finalists(findings: Findings) -> list[Placed]:
    """The finalists, best on validation first."""
    goal, result = findings.goal, findings.result
    winner = result["winner"] if result is not None else {}
    selection = winner.get("selection")  # where finalists did not race, there is none
    best = max((goal.sign * one.mean for one in findings.finalists), default=0.0)

    def verdict(number: int) -> str:
        if number == winner.get("trial"):
            return "chosen"
        if selection is None:
            return ""
        return "cannot be told from it" if number in selection["not_separated"] else "worse beyond chance"

    values = {trial.number: value for trial, value in findings.complete}
    # Those that left the race stand behind those that ran it to the end: their means are of fewer problems.
    order = sorted(
        findings.finalists,
        key=lambda one: (one.trial.number != winner.get("trial"), not one.answered_all, best - goal.sign * one.mean),
    )
    return [
        Placed(
            one.trial.number,
            goal.shown(values[one.trial.number]),
            goal.shown(one.mean),
            f"{one.answered} of {one.problems}",
            verdict(one.trial.number),
        )
        for one in order
    ]


_LOOKS: Mapping[str, Mapping[str, Any]] = {
    WINNER: {"marker": "*", "s": 230, "color": GOLD, "edgecolors": BLACK},
    ABLATION: {"marker": "P", "s": 70, "color": DARK, "edgecolors": EDGE},
    SOURCE: {"marker": "s", "s": 50, "color": ROSE, "edgecolors": EDGE},
    BASELINE: {"marker": "^", "s": 60, "color": PALE, "edgecolors": EDGE},
}


def draw_tested(models: Sequence[Tested], goal: Objective) -> Drawing:
    """Draw the test score of every model with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(models)), layout="constrained")
    axes = figure.add_subplot()
    labelled: set[str] = set()
    for row, model in enumerate(models):
        test = model.test
        axes.plot([test.low, test.high], [row, row], color=BLACK, linewidth=1.4, zorder=2)
        for end in (test.low, test.high):
            axes.plot([end, end], [row - 0.16, row + 0.16], color=BLACK, linewidth=1.4, zorder=2)
        label = model.kind if model.kind not in labelled else None
        labelled.add(model.kind)
        axes.scatter(test.score, row, zorder=3, label=label, linewidths=0.8, **_LOOKS[model.kind])
        right = max(test.low, test.high)
        axes.annotate(goal.shown(test.score), (right, row), (10, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(models)), [model.name for model in models])
    axes.invert_yaxis()
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    if goal.share:
        axes.set_xlim(-0.02, 1.08)
        percent_axis(axes.xaxis)
    else:
        axes.margins(x=0.12)
    axes.set_xlabel(f"{goal.name} on the test problems, with 95% interval")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    shown = [f"{m.name} {goal.shown(m.test.score)} ({shown_range(m.test, goal)})" for m in models]
    alt = f"Test scores with 95% intervals, by {goal.name}: {'; '.join(shown)}."
    caption = (
        "Intervals are by the bootstrap over problems: they say how sure a score is, not how sure a difference is."
    )
    return Drawing("test", "Scores on the test problems", alt, caption, figure)


def shown_range(score: Score, goal: Objective) -> str:
    """An interval, for people."""
    low, high = sorted((score.low, score.high))
    return f"{goal.shown(low)} to {goal.shown(high)}"
