"""A picture of a winner, as in Akiba et al. (2025): its path over hops, or its parameters by source and group."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optmerge.recipe import MergeNode, PathNode, Recipe


def draw_winner(recipe: Recipe, path: Path) -> None:
    """Draw what a recipe does with its sources.

    Args:
        recipe: The recipe.
        path: PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    root = recipe.root
    figure = _path(root, pyplot) if isinstance(root, PathNode) else _parameters(root, pyplot)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _path(node: PathNode, pyplot: Any) -> Any:
    """Hops from left to right, the layer that each takes upwards, coloured by source, the paler the smaller."""
    width = max(6.0, 2 + 0.2 * len(node.hops))
    figure, (axes, below) = pyplot.subplots(
        2, 1, figsize=(width, 4.8), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    colours = pyplot.get_cmap("tab10").colors
    scales = [abs(hop.scale) for hop in node.hops]
    low, high = min(scales), max(scales)
    numbers = range(len(node.hops))
    axes.plot(numbers, [hop.layer for hop in node.hops], color="0.8", linewidth=1, zorder=1)
    for order, alias in enumerate(sorted({hop.source for hop in node.hops})):
        at = [number for number in numbers if node.hops[number].source == alias]
        strength = [1.0 if high == low else 0.25 + 0.75 * (scales[n] - low) / (high - low) for n in at]
        axes.scatter(at, [node.hops[n].layer for n in at], s=70, color=colours[order % 10], alpha=strength, zorder=2)
        axes.scatter([], [], s=70, color=colours[order % 10], label=alias)
    axes.set(ylabel="layer of its source", title="Path: the paler a hop, the smaller its scale")
    axes.legend(fontsize=9)
    # The scales as numbers below: intensity alone cannot be read off.
    below.bar(numbers, [hop.scale for hop in node.hops], color="0.5", width=0.7)
    below.axhline(1, color="0.2", linewidth=0.8)
    below.set(ylabel="scale", xlabel="hop")
    return figure


def _parameters(node: MergeNode, pyplot: Any) -> Any:
    """A panel for each parameter: groups upwards, sources to the right."""
    groups = [name for name, group in node.groups.items() if group.parameters]
    aliases = sorted({alias for name in groups for alias in node.groups[name].parameters})
    names = sorted({p for name in groups for values in node.groups[name].parameters.values() for p in values})
    width, height = 2 + len(names) * (1.2 + 0.7 * len(aliases)), 1.6 + 0.28 * len(groups)
    figure, panels = pyplot.subplots(
        1, max(1, len(names)), figsize=(width, height), squeeze=False, sharey=True, layout="constrained"
    )
    for axes, parameter in zip(panels[0], names, strict=False):
        table = [[_value(node, name, alias, parameter) for alias in aliases] for name in groups]
        _heat(axes, table, groups, aliases)
        axes.set_title(parameter)
    if not names:
        panels[0][0].axis("off")
        panels[0][0].text(0.5, 0.5, "no parameters differ by source", ha="center")
    figure.suptitle(f"Evolved {node.method}")
    return figure


def _value(node: MergeNode, group: str, alias: str, parameter: str) -> float:
    return node.groups[group].parameters.get(alias, {}).get(parameter, float("nan"))


def _heat(axes: Any, table: Sequence[Sequence[float]], groups: Sequence[str], aliases: Sequence[str]) -> None:
    axes.imshow(table, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(aliases)), aliases, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(groups)), groups, fontsize=8)
    known = [value for row in table for value in row if value == value]
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            if value == value:
                colour = "black" if value > middle else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
