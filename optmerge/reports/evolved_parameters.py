"""What a search chose for every source and group of tensors (Akiba et al., 2025, Figure 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optmerge.phrases import plural
from optmerge.recipe import MergeNode
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_NUMBERED = 44  # more groups than these are drawn without numbers
_SHARED = "all"  # stands for the sources where they share a value
_TALLEST = 11.0  # inches


@dataclass(frozen=True)
class Parameters:
    """Values by parameter, group and source.

    Attributes:
        method: The merge method.
        groups: Names of the groups of tensors, in the model's order.
        aliases: Names of the sources, and `all` where some value is shared.
        values: Parameter to a table of groups by sources, NaN where there is none.
    """

    method: str
    groups: Sequence[str]
    aliases: Sequence[str]
    values: Mapping[str, NDArray[np.float64]]


def parameters_of(node: MergeNode) -> Parameters:
    """What a recipe's node says; what is the same everywhere and for all sources is left out."""
    groups = [name for name, group in node.groups.items() if group.source is None]
    named = {
        (parameter, name, alias): value
        for name in groups
        for alias, values in node.groups[name].parameters.items()
        for parameter, value in values.items()
    }
    shared = {
        (parameter, name, _SHARED): value for name in groups for parameter, value in node.groups[name].shared.items()
    }
    varying = {p for p, *_ in shared if len({value for (q, *_), value in shared.items() if q == p}) > 1}
    return _tabulated(node.method, groups, named | {key: v for key, v in shared.items() if key[0] in varying})


def parameters_of_genome(method: str, genome: Mapping[str, object]) -> Parameters:
    """What a genome says, by the names of its genes: `group/source/parameter`, or `group/parameter` if shared."""
    named: dict[tuple[str, str, str], float] = {}
    for name, value in genome.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or name.count("/") not in (1, 2):
            continue
        group, *middle, parameter = name.split("/")
        named[parameter, group, middle[0] if middle else _SHARED] = float(value)
    return _tabulated(method, list(dict.fromkeys(group for _, group, _ in named)), named)


def _tabulated(method: str, groups: Sequence[str], named: Mapping[tuple[str, str, str], float]) -> Parameters:
    aliases = sorted({alias for *_, alias in named}, key=lambda alias: (alias == _SHARED, alias))
    values = {
        parameter: np.array([[named.get((parameter, group, alias), np.nan) for alias in aliases] for group in groups])
        for parameter in sorted({parameter for parameter, *_ in named})
    }
    return Parameters(method, groups, aliases, values)


def draw_parameters(found: Parameters, whose: str, name: str = "parameters") -> Drawing | None:
    """Draw a panel for each parameter: groups upwards, sources to the right, and the means above.

    Args:
        found: The values.
        whose: Whose they are, as in `the winner, trial 207`.
        name: What the file is to be called.

    Returns:
        Nothing if there are none.
    """
    from matplotlib.figure import Figure

    if not found.values:
        return None
    having = {parameter: np.flatnonzero(~np.isnan(table).all(axis=0)) for parameter, table in found.values.items()}
    panels = {parameter: table[:, having[parameter]] for parameter, table in found.values.items()}
    aliases = {parameter: [found.aliases[int(column)] for column in columns] for parameter, columns in having.items()}
    columns = sum(len(names) for names in aliases.values())
    numbered = len(found.groups) <= _NUMBERED
    height = min(_TALLEST, 1.5 + 0.26 * len(found.groups)) if numbered else _TALLEST * 0.8
    width = min(1.6 * WIDTH, max(5.0, 2.2 + 1.15 * columns + 0.5 * len(panels)))
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(
        1, len(panels), squeeze=False, sharey=True, width_ratios=[len(aliases[parameter]) for parameter in panels]
    )
    for axes, (parameter, table) in zip(grid[0], panels.items(), strict=True):
        image = _heat(axes, table, found.groups, aliases[parameter], numbered=numbered)
        axes.set_title(parameter)
        if not numbered:
            figure.colorbar(image, ax=axes, shrink=0.5)
    alt = f"Evolved {found.method} of {whose}: a table of {plural(len(found.groups), 'group')} of tensors by source. "
    alt += " ".join(_told(parameter, panels[parameter], aliases[parameter], found.groups) for parameter in panels)
    caption = (
        "A row is a group of tensors, from the first layers at the bottom to the last, a column is a source; the "
        "brighter, the greater the value."
    )
    return Drawing(name, f"What evolved: {found.method}, {whose}", alt, caption, figure)


def _heat(
    axes: "Axes", table: NDArray[np.float64], groups: Sequence[str], aliases: Sequence[str], *, numbered: bool
) -> "AxesImage":
    axes.set_facecolor("0.85")  # where there is no value
    image = axes.imshow(table, aspect="auto", cmap="cividis", origin="lower", interpolation="nearest")
    axes.set_xticks(range(len(aliases)), aliases, rotation=30 if max(map(len, aliases)) > 12 else 0)
    axes.xaxis.set_tick_params(length=0)
    step = 1 if numbered else max(1, len(groups) // 30)
    axes.set_yticks(range(0, len(groups), step), list(groups)[::step], fontsize=9 if numbered else 8)
    axes.spines[:].set_visible(False)
    if not numbered:
        return image
    low, high = np.nanmin(table), np.nanmax(table)
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            bright = high > low and (value - low) / (high - low) > 0.5
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color="black" if bright else "white"
            )
    return image


def _told(parameter: str, table: NDArray[np.float64], aliases: Sequence[str], groups: Sequence[str]) -> str:
    means = [
        f"{alias} {np.nanmean(column):.2f} on average ({np.nanmin(column):.2f} to {np.nanmax(column):.2f})"
        for alias, column in zip(aliases, table.T, strict=True)
    ]
    row, column = (int(place) for place in np.unravel_index(np.nanargmax(table), table.shape))
    text = f"{parameter}: {', '.join(means)}; greatest for {aliases[column]} in {groups[row]}"
    if len(aliases) > 1 and parameter == "weight":
        text += f"; the sources' weights add up to {np.nanmean(np.nansum(table, axis=1)):.2f} on average"
    return f"{text}."
