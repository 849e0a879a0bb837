"""Every trial's score of every search problem: which problems the search learnt to solve, and when."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from optmerge.phrases import plural
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import WIDTH, binned, shades
from optmerge.tasks import Objective

Scores = NDArray[np.float64]

_COLUMNS, _ROWS = 1500, 600  # more trials or problems than these are drawn as means of neighbours


def draw_problems_by_trial(
    matrix: Mapping[int, Scores], goal: Objective, best: int | None, sources: Mapping[str, Scores]
) -> Drawing | None:
    """Draw trials from left to right and problems upwards, those that few trials solve at the top.

    Args:
        matrix: Trial number to its score of every problem, NaN where unseen.
        goal: What the scores are; only shares can be drawn so.
        best: Number of the best trial.
        sources: Alias to the source's scores of the same problems.

    Returns:
        Nothing if there is nothing to see.
    """
    from matplotlib.figure import Figure

    if not matrix or not goal.share:
        return None
    table = np.array([matrix[number] for number in sorted(matrix)]).T  # problems, trials
    seen = ~np.isnan(table)
    table, asked = table[seen.any(axis=1)], seen.any(axis=1)
    greatest = float(np.nanmax(table))
    table = table / (greatest or 1.0)
    share = np.nanmean(table, axis=1)
    order = np.argsort(-share, kind="stable")
    drawn = binned(binned(table[order], _COLUMNS).T, _ROWS).T
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(
        drawn,
        aspect="auto",
        origin="lower",
        cmap=shades(),
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(-0.5, table.shape[1] - 0.5, 0, table.shape[0]),
    )
    axes.spines[["top", "right"]].set_visible(True)
    axes.set(xlabel="trial, in the order in which they began", ylabel="search problem, hard ones at the top")
    never = int((share == 0).sum())
    unasked, median = 1 - seen[asked].mean(), np.median(share)
    alt = (
        f"A matrix of {plural(table.shape[1], 'trial')} by {table.shape[0]} search problems, dark where a trial solves "
        f"a problem, white where it does not, grey where it was stopped before it was asked ({unasked:.0%} of all). "
        f"{plural(never, 'problem')} {'was' if never == 1 else 'were'} never solved; the median problem was solved by "
        f"{median:.0%} of the trials that saw it."
    )
    scores = None if best is None else matrix.get(best)
    if scores is not None and sources:
        by_source = np.nanmax(np.array(list(sources.values())), axis=0) > 0
        mine = scores > 0
        alt += (
            f" Trial {best}, the best, solves {int((mine & ~by_source).sum())} that no source solves, and fails at "
            f"{int((~mine & by_source & ~np.isnan(scores)).sum())} that one does."
        )
    caption = (
        "A column is a trial, a row is a problem, sorted by how many trials solve it: dark is solved, white is not, "
        "grey was not asked. Stripes across are problems that are easy or hard for all; columns that turn dark to the "
        "right are what the search has learnt."
    )
    return Drawing("problems", "Every trial on every search problem", alt, caption, figure)
