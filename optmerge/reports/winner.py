"""Pictures of a winner, as in Akiba et al. (2025): its path over hops, or its parameters by source and group."""

from optmerge.recipe import MergeNode, PathNode, Recipe
from optmerge.reports.drawing import Drawing
from optmerge.reports.evolved_parameters import draw_parameters, parameters_of
from optmerge.reports.evolved_path import draw_path


def drawings_of(recipe: Recipe, whose: str) -> list[Drawing]:
    """Pictures of a recipe: of its root, and of the merges that are sources of it.

    Args:
        recipe: The recipe.
        whose: Whose it is, as in `the winner, trial 207`.
    """
    return _of_node(recipe.root, whose, "")


def _of_node(node: MergeNode | PathNode, whose: str, within: str) -> list[Drawing]:
    suffix = f"-{within}" if within else ""
    drawn = (
        draw_path(node, whose, f"path{suffix}")
        if isinstance(node, PathNode)
        else draw_parameters(parameters_of(node), whose, f"parameters{suffix}")
    )
    found = [drawn] if drawn else []
    for alias, source in sorted(node.sources.items()):
        if isinstance(source, MergeNode | PathNode):
            below = f"{within}.{alias}" if within else alias
            found += _of_node(source, f"{alias}, a source of {whose}", below)
    return found
