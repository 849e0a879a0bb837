"""A path over layers of several sources, and the scales of its hops (Akiba et al., 2025, Figure 4)."""

from typing import TYPE_CHECKING

from optmerge.phrases import plural
from optmerge.recipe import PathNode
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import EDGE, FAINT, colour, hatch, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_path(node: PathNode, whose: str, name: str = "path") -> Drawing:
    """Draw hops from left to right, the layer that each takes upwards, and its scale below.

    Args:
        node: The path.
        whose: Whose it is, as in `the winner, trial 207`.
        name: What the file is to be called.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    hops = node.hops
    figure = Figure(figsize=(min(16.0, max(7.0, 2.5 + 0.22 * len(hops))), 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
    upper.plot(range(len(hops)), [hop.layer for hop in hops], color=FAINT, linewidth=1, zorder=1)
    aliases = sorted({hop.source for hop in hops})
    for order, alias in enumerate(aliases):
        _hops_of(upper, lower, node, order, alias)
    upper.set(ylabel="layer of its source")
    upper.yaxis.set_major_locator(MaxNLocator(integer=True))
    upper.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=len(aliases))
    lower.axhline(1, color=EDGE, linewidth=1)
    lower.set(ylabel="scale", xlabel="hop")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = (
        "A token passes the hops from left to right; above, which layer of which source each is; below, what its "
        "input is multiplied by."
    )
    return Drawing(name, f"What evolved: the path of {whose}", _alt(node), caption, figure)


def _hops_of(upper: "Axes", lower: "Axes", node: PathNode, order: int, alias: str) -> None:
    at = [number for number, hop in enumerate(node.hops) if hop.source == alias]
    upper.scatter(
        at,
        [node.hops[number].layer for number in at],
        s=64,
        marker=marker(order),
        color=colour(order),
        edgecolors=EDGE,
        linewidths=0.6,
        zorder=2,
        label=alias,
    )
    lower.bar(
        at,
        [node.hops[number].scale for number in at],
        color=colour(order),
        hatch=hatch(order),
        edgecolor=EDGE,
        linewidth=0.6,
        width=0.8,
    )


def _alt(node: PathNode) -> str:
    hops = node.hops
    counts = {alias: sum(hop.source == alias for hop in hops) for alias in sorted({hop.source for hop in hops})}
    layers = len({(hop.source, hop.layer) for hop in hops})
    changes = sum(a.source != b.source for a, b in zip(hops, hops[1:], strict=False))
    scales = [hop.scale for hop in hops]
    stretches: list[list[int | str]] = []
    for hop in hops:
        if stretches and stretches[-1][0] == hop.source and stretches[-1][2] == hop.layer - 1:
            stretches[-1][2] = hop.layer
        else:
            stretches.append([hop.source, hop.layer, hop.layer])
    shown = [f"{s} {a}" if a == b else f"{s} {a} to {b}" for s, a, b in stretches]
    listed = ", ".join(shown[:30]) + (", and so on" if len(shown) > 30 else "")
    return (
        f"A path of {plural(len(hops), 'hop')} over {plural(layers, 'layer')} "
        f"({', '.join(f'{count} of {alias}' for alias, count in counts.items())}), "
        f"with {plural(changes, 'change')} of source: {listed}. "
        f"Scales from {min(scales):.2f} to {max(scales):.2f}, on average {sum(scales) / len(scales):.2f}."
    )
