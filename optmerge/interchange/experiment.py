"""An experiment, as in conf/experiment, that searches around an imported recipe and starts from its values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optmerge.errors import UsageError
from optmerge.interchange.grouping import values_by_tensor
from optmerge.interchange.importing import Imported
from optmerge.method import Method, Parameter, get_method
from optmerge.models.layers import layer_of
from optmerge.models.vocabulary import is_token_tensor
from optmerge.recipe import CheckpointNode, MergeNode
from optmerge.space import Grouping, group_tensors


def _groupings(names: Sequence[str]) -> Iterator[Grouping]:
    """Ways to group tensors, coarsest first: the first in which every group has one value is searched."""
    yield Grouping(by="model", embeddings="join")
    yield Grouping(by="layers")
    yield Grouping(by="layers", kinds="sublayers")
    yield Grouping(by="layers", kinds="kinds")
    # Gradients begin anew after the layers, where the final norm is, which otherwise goes with the last layer's norms.
    outside = [name for name in names if layer_of(name) is None and not is_token_tensor(name)]
    if outside:
        yield Grouping(by="layers", kinds="kinds", patterns={"final_norm": outside})


def experiment(imported: Imported, path: Path) -> tuple[str, list[str]]:
    """The text of an experiment file, and what people should know of it, one line each.

    Args:
        imported: The recipe to start from.
        path: Where the file goes.

    Raises:
        UsageError: If the recipe moves layers, or its method has nothing to search.
    """
    node = imported.recipe.root
    assert isinstance(node, MergeNode)  # nothing else is imported from a configuration
    method = get_method(node.method)
    if node.layers:
        raise UsageError(f"{path}: this configuration moves layers, and a search merges every layer with its namesakes")
    if not any(parameter.search for parameter in method.parameters.values()):
        raise UsageError(f"{path}: {method.name} has no parameter to search")
    starts, grouping, notices = _starts(node, method, imported.names)
    parameters, genes = _ranges(method, starts)
    document: dict[str, Any] = {
        "defaults": [{"override /models": "own"}, {"override /space": "layers"}, {"override /method": method.name}],
        "models": _models(node),
        "space": _space(grouping),
        "method": {"parameters": parameters, **({"genes": genes} if genes else {}), "options": dict(node.options)},
    }
    heading = (
        "# @package _global_\n"
        f"# A search around recipe {imported.recipe.sha256[:12]}, from its values.\n"
        f"#   python -m optmerge --config-dir FOLDER +experiment={path.stem} task=TASK\n"
        f"# FOLDER/experiment/{path.name} is this file.\n"
    )
    return heading + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), notices


@dataclass(frozen=True)
class _Start:
    """Where a gene starts: its group, source (None where sources share it), parameter and value."""

    group: str
    alias: str | None
    parameter: str
    value: float

    @property
    def gene(self) -> str:
        return "/".join(part for part in (self.group, self.alias, self.parameter) if part is not None)


def _starts(node: MergeNode, method: Method, names: Sequence[str]) -> tuple[list[_Start], Grouping, list[str]]:
    """The starts of all genes, and in which grouping: the coarsest that tells the recipe's values apart."""
    values = values_by_tensor(node.groups, names)
    aliases = [alias for alias in sorted(node.sources) if alias != node.base]

    def found(tensor: str) -> Iterator[tuple[str | None, str, float]]:
        for alias in aliases:
            own = values[tensor].parameters.get(alias)
            for name, parameter in method.per_source().items():
                if own is None and "weight" not in method.parameters:
                    raise UsageError(f"{tensor}: {alias} takes no part in it, and a search merges all sources")
                yield alias, name, own[name] if own is not None else 0.0 if name == "weight" else parameter.default
        yield from ((None, name, values[tensor].shared[name]) for name in method.shared())

    for grouping in _groupings(names):
        starts, exact = [], True
        for group, tensors in group_tensors(names, grouping).items():
            members = _matching(names, tensors.tensors)
            listed = [list(found(tensor)) for tensor in members]
            exact = exact and all(one == listed[0] for one in listed)
            for number, (alias, parameter, _) in enumerate(listed[0]):
                mean = sum(one[number][2] for one in listed) / len(listed)
                starts.append(_Start(group, alias, parameter, listed[0][number][2] if exact else mean))
        if exact:
            return starts, grouping, []
    return starts, grouping, ["the configuration tells more tensors apart than the search: it starts from their means"]


def _space(grouping: Grouping) -> dict[str, Any]:
    found: dict[str, Any] = {"groups": grouping.by, "kinds": grouping.kinds, "embeddings": grouping.embeddings}
    patterns = {name: list(patterns) for name, patterns in grouping.patterns.items()}
    return found | ({"patterns": patterns} if patterns else {})


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    import fnmatch

    return sorted({name for pattern in patterns for name in fnmatch.filter(names, pattern)})


def _ranges(method: Method, starts: Sequence[_Start]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`method.parameters` and, where genes start differently, `method.genes`."""
    parameters: dict[str, Any] = {}
    genes: dict[str, Any] = {}
    for name, declared in method.parameters.items():
        own = [start for start in starts if start.parameter == name]
        values = {start.value for start in own}
        key = "initial" if declared.search else "value"
        if declared.search:
            parameters[name] = _widened(declared, values)
        if len(values) == 1:
            value = own[0].value
            if declared.search or value != declared.default:
                parameters.setdefault(name, {})[key] = value
            continue
        by_source: dict[str | None, list[_Start]] = {}
        for start in own:
            by_source.setdefault(start.alias, []).append(start)
        for alias, listed in by_source.items():
            if alias is not None and len({start.value for start in listed}) == 1:
                genes[f"*/{alias}/{name}"] = {key: listed[0].value}
            else:
                genes.update({start.gene: {key: start.value} for start in listed})
    return parameters, genes


def _widened(parameter: Parameter, values: set[float]) -> dict[str, float]:
    assert parameter.search is not None
    low, high = parameter.search
    return {"low": min(low, *values), "high": max(high, *values)}


def _models(node: MergeNode) -> dict[str, Any]:
    sources: dict[str, Any] = {}
    for alias, source in sorted(node.sources.items()):
        assert isinstance(source, CheckpointNode)
        sources[alias] = _source(source)
        if source.over is not None:
            below = [other for other, leaf in node.sources.items() if leaf.content() == source.over.content()]
            if not below:
                raise UsageError(
                    f"{alias} is an adapter over {source.over.location}, which a search would merge as a source; list "
                    "it in the configuration"
                )
            sources[alias]["over"] = below[0]
    found: dict[str, Any] = {"sources": sources, "base": node.base, "tokenizer": node.tokenizer}
    if node.pad_vocabulary_to is not None:
        found["pad_vocabulary_to"] = node.pad_vocabulary_to
    return found | {"dtype": node.dtype}


def _source(source: CheckpointNode) -> dict[str, Any]:
    return {"path": source.location} | ({"revision": source.revision} if source.revision else {})
