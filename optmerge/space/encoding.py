"""From a recipe back to a genome, so that a search can begin from what is known."""

import fnmatch
import statistics
from collections.abc import Mapping, Sequence

from optmerge.errors import UsageError
from optmerge.recipe import Group, MergeNode, Recipe, node_sha256
from optmerge.space.gene import Gene, Value
from optmerge.space.parameter_space import ParameterSpace
from optmerge.space.searched import METHOD, SOURCES


def genome_of(recipe: Recipe, space: ParameterSpace, names: Sequence[str]) -> dict[str, Value]:
    """The genome of a space that is nearest to a recipe.

    A recipe of the same space is met exactly (but for rounding, where anchors lie between layers). Where its groups are
    others, a gene is the mean over its tensors; what lies outside a gene's range is moved to its end.

    Args:
        recipe: The recipe, of any grouping.
        space: The space.
        names: Names of the model's tensors.

    Raises:
        UsageError: If the recipe merges by a method, or of sources, that the space does not have.
    """
    root = recipe.root
    if not isinstance(root, MergeNode):
        raise UsageError("study.warm_start: a recipe is a path over layers, and this search merges weights")
    genes = {gene.name: gene for gene in space.genes}
    if root.method not in space.methods():
        raise UsageError(
            f"study.warm_start: a recipe merges by {root.method}, this search by {', '.join(space.methods())}"
        )
    aliases = {"": "", **_aliases(root, space)}
    values = _values(root, names)
    alone: dict[str, list[float]] = {}
    between: list[tuple[Mapping[str, float], float]] = []
    for (tensor, alias, parameter), shares in sorted(space.shares(root.method, names).items()):
        value = values.get((tensor, aliases[alias], parameter)) if alias in aliases else None
        if value is not None and len(shares) > 1:
            between.append((shares, value))
        elif value is not None:
            alone.setdefault(next(iter(shares)), []).append(value)
    found = {name: _mean(of_tensors) for name, of_tensors in alone.items()}
    found |= _fitted(between, found)
    genome: dict[str, Value] = {name: _within(value, genes[name]) for name, value in found.items() if name in genes}
    if METHOD in genes:
        genome[METHOD] = root.method
    if SOURCES in genes:
        theirs = {theirs: ours for ours, theirs in aliases.items()}
        taking_part = {alias for group in root.groups.values() for alias in group.parameters}
        chosen = "+".join(sorted(theirs[alias] for alias in taking_part if alias in theirs))
        if chosen not in genes[SOURCES].choices:
            raise UsageError(f"study.warm_start: a recipe merges {chosen}, which this search may not choose")
        genome[SOURCES] = chosen
    return {gene.name: genome.get(gene.name, gene.start()) for gene in space.genes}


def _aliases(root: MergeNode, space: ParameterSpace) -> dict[str, str]:
    """Alias of a source in the space, to that of the same weights in the recipe."""
    theirs = {node_sha256(node): alias for alias, node in sorted(root.sources.items())}
    found = {alias: theirs[sha256] for alias, sha256 in space.source_hashes().items() if sha256 in theirs}
    known = set(found.values())
    strange = sorted({alias for group in root.groups.values() for alias in group.parameters} - known)
    if strange:
        raise UsageError(
            f"study.warm_start: {strange[0]} of a recipe is none of the sources of this search: "
            f"{', '.join(sorted(space.source_hashes()))}"
        )
    return found


def _values(root: MergeNode, names: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """Tensor, alias (empty where sources share it) and parameter, to the recipe's value."""
    values: dict[tuple[str, str, str], float] = {}
    for group in root.groups.values():
        for tensor in _tensors(group, names):
            for alias, parameters in {**group.parameters, "": group.shared}.items():
                values |= {(tensor, alias, parameter): value for parameter, value in parameters.items()}
    return values


def _tensors(group: Group, names: Sequence[str]) -> set[str]:
    return {name for pattern in group.tensors for name in fnmatch.filter(names, pattern)}


def _mean(values: Sequence[float]) -> float:
    """The mean; of equal values exactly their own."""
    return values[0] if len(set(values)) == 1 else statistics.fmean(values)


def _fitted(between: Sequence[tuple[Mapping[str, float], float]], known: Mapping[str, float]) -> dict[str, float]:
    """The values of those not known whose weighted means are nearest to what they should be.

    Args:
        between: Names with their weights, and what their weighted mean should be.
        known: Names to values.
    """
    import numpy as np

    names = sorted({name for shares, _ in between for name in shares if name not in known})
    if not names:
        return {}
    weights = np.array([[shares.get(name, 0.0) for name in names] for shares, _ in between])
    wanted = [
        value - sum(share * known[name] for name, share in shares.items() if name in known) for shares, value in between
    ]
    fitted: list[float] = np.linalg.lstsq(weights, np.array(wanted), rcond=None)[0].tolist()
    return dict(zip(names, fitted, strict=True))


def _within(value: float, gene: Gene) -> Value:
    inside = min(gene.high, max(gene.low, value))
    return round(inside) if gene.kind == "int" else inside
