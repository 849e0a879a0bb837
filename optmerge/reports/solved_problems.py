"""Which problems a merged model solves that its sources do or do not: inherited, new, lost (Akiba et al., Figure 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optmerge.phrases import listed, plural
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import EDGE, WIDTH, binned, shades
from optmerge.tasks import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scores = NDArray[np.float64]

NEW, INHERITED, LOST, NONE = BLOCKS = ("new", "inherited", "lost", "unsolved")
_MEANING = {
    NEW: "solved by the merged model alone",
    INHERITED: "solved by it and by a source",
    LOST: "solved by a source and not by it",
    NONE: "solved by neither",
}
_COLUMNS = 1200  # more problems than these are drawn as means of neighbours


@dataclass(frozen=True)
class Model:
    """A model's scores on the problems of a split.

    Attributes:
        name: What people call it.
        kind: `merged`, `source` or `baseline`.
        scores: One a problem, NaN where it has none.
    """

    name: str
    kind: str
    scores: Scores


@dataclass(frozen=True)
class Solved:
    """Who solves what.

    Attributes:
        models: The merged model first, then the sources, then others.
        shares: Of each model, how much of each problem it solves, from 0 to 1; NaN where it has no score.
        positions: Block to the positions of its problems.
        threshold: Said where a score between has to be called solved or not.
    """

    models: Sequence[Model]
    shares: NDArray[np.float64]
    positions: Mapping[str, NDArray[np.int64]]
    threshold: str

    def count(self, block: str) -> int:
        return len(self.positions[block])

    @property
    def problems(self) -> int:
        return sum(len(found) for found in self.positions.values())


def who_solves(
    models: Sequence[Model], goal: Objective, parts: Mapping[str, NDArray[np.bool_]] | None = None
) -> Solved:
    """Sort problems by who solves them.

    A score of 0 or 1 says it. Of graded scores that are shares, half of what can be had counts; of others, such as bits
    a byte, what is better than the sources' median.

    Args:
        models: The merged model first; of the others those of kind `source` are what it is held against.
        goal: What the scores are.
        parts: Of several tasks in one: name to where its problems are. The greatest score of a part is what can be had,
            as a part's weight is in its scores.
    """
    table = np.array([model.scores for model in models])
    sources = [row for row, model in enumerate(models) if model.kind == "source"]
    known = ~np.isnan(table[0])
    threshold = ""
    if goal.share:
        shares = table.copy()
        for where in (parts or {}).values():
            greatest = np.nanmax(table[:, where], initial=0.0)
            shares[:, where] /= greatest or 1.0
        solved = shares >= 0.5
        if not np.isin(shares[~np.isnan(shares)], (0, 1)).all():
            threshold = "A graded score counts as solved from half of what can be had."
    else:
        limit = float(np.nanmedian(table[sources] if sources else table))
        solved = goal.sign * table > goal.sign * limit
        low, high = np.nanpercentile(goal.sign * table, (2, 98))
        shares = np.clip((goal.sign * table - low) / ((high - low) or 1.0), 0, 1)
        word = "above" if goal.sign > 0 else "below"
        threshold = f"A problem counts as solved {word} {limit:.4g}, the sources' median."
    merged = solved[0]
    any_source = solved[sources].any(axis=0) if sources else np.zeros(len(merged), dtype=bool)
    masks = {
        NEW: merged & ~any_source,
        INHERITED: merged & any_source,
        LOST: ~merged & any_source,
        NONE: ~merged & ~any_source,
    }
    positions = {block: _sorted(np.flatnonzero(mask & known), solved, shares) for block, mask in masks.items()}
    return Solved(models, shares, positions, threshold)


def _sorted(positions: NDArray[np.int64], solved: NDArray[np.bool_], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Problems that the same models solve side by side, those that many solve first."""
    if not len(positions):
        return positions
    here = solved[:, positions]
    keys = [positions, -np.nan_to_num(shares[:, positions]).sum(axis=0)]
    keys += [~here[row] for row in range(len(here) - 1, -1, -1)]
    keys.append(-here.sum(axis=0))
    found: NDArray[np.int64] = positions[np.lexsort(keys)]
    return found


def draw_solved(solved: Solved, metric: str, what: str) -> Drawing:
    """Draw models downwards and problems across, sorted into blocks.

    Args:
        solved: Who solves what.
        metric: Name of the score.
        what: The problems, as in `test problems`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    models = solved.models
    order = np.concatenate([solved.positions[block] for block in BLOCKS])
    table = binned(solved.shares[:, order], _COLUMNS)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(models)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(
        table,
        aspect="auto",
        interpolation="nearest",
        cmap=shades(),
        vmin=0,
        vmax=1,
        extent=(0, len(order), len(models) - 0.5, -0.5),
    )
    for row in range(1, len(models)):
        axes.axhline(row - 0.5, color="white" if models[row - 1].kind == models[row].kind else EDGE, linewidth=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_yticks(range(len(models)), [model.name for model in models])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.spines[["top", "right"]].set_visible(True)
    axes.tick_params(axis="y", length=0)
    _mark_blocks(axes, solved, len(order))
    shade = "the darker the better" if solved.threshold else "dark is solved, white is not"
    axes.set_xlabel(f"{what}, sorted by who solves them ({metric}: {shade})")
    return Drawing(
        f"solved-{_file_name(metric)}",
        f"Who solves which of the {what} ({metric})",
        _alt(solved, metric, what),
        _caption(solved),
        figure,
    )


def _mark_blocks(axes: "Axes", solved: Solved, total: int) -> None:
    """Name the blocks above the picture, and draw lines between them."""
    start, labels = 0, []
    for block in BLOCKS:
        count = solved.count(block)
        if count:
            labels.append((start + count / 2, f"{block}\n{count}", count))
            if start:
                axes.axvline(start, color="black", linewidth=1.6)
        start += count
    # Labels of narrow blocks would lie on one another: each has the room that it needs, as near as that lets it.
    need = 0.1 * total
    places = [at for at, _, _ in labels]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + need)
    if places:
        places[-1] = min(places[-1], total - need / 3)
    for i in range(len(places) - 2, -1, -1):
        places[i] = min(places[i], places[i + 1] - need)
    for place, (at, label, _) in zip(places, labels, strict=True):
        axes.annotate(
            label,
            (at, -0.5),
            (place, 1.03),
            xycoords="data",
            textcoords=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": EDGE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )


def _file_name(metric: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in metric)


def _alt(solved: Solved, metric: str, what: str) -> str:
    merged = solved.models[0]
    counts = "; ".join(f"{solved.count(block)} {block}, {_MEANING[block]}" for block in BLOCKS)
    rows = ", ".join(
        f"{model.name} {np.nanmean(share[~np.isnan(solved.shares[0])]):.1%}"
        for model, share in zip(solved.models, solved.shares, strict=True)
    )
    return (
        f"A matrix of {plural(len(solved.models), 'model')} by {solved.problems} {what}, dark where a model solves a "
        f"problem by {metric}. Of the problems of {merged.name}: {counts}. Dark share of each row: {rows}."
    )


def _caption(solved: Solved) -> str:
    sources = [model.name for model in solved.models if model.kind == "source"]
    total = max(1, solved.problems)
    shares = ", ".join(f"{solved.count(block)} {block} ({solved.count(block) / total:.0%})" for block in BLOCKS)
    text = (
        f"A column is a problem. {shares}. New: {_MEANING[NEW]}. Inherited: {_MEANING[INHERITED]}. "
        f"Lost: {_MEANING[LOST]}. Unsolved: {_MEANING[NONE]}. Sources: {listed(sources, 8)}."
    )
    if total > _COLUMNS:
        text += f" Neighbouring problems are drawn as one column, {total / _COLUMNS:.1f} each on average."
    return f"{text} {solved.threshold}".strip()
