"""A recipe as a configuration for mergekit-yaml.

Where all layers are merged alike it lists whole models; otherwise it has a slice for every run of layers that are.
What differs within a layer, the embeddings and the head are told apart by filters. What is written is read again first
and held against the recipe: it says the same of every tensor, or is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from optmerge.errors import UsageError
from optmerge.interchange.aliases import written
from optmerge.interchange.configuration import model_name, parse_configuration
from optmerge.interchange.export import Export
from optmerge.interchange.grouping import values_by_tensor
from optmerge.interchange.passthrough import passthrough
from optmerge.interchange.resolution import TensorValues, is_before_layers, resolve_tensors
from optmerge.interchange.runs import Run, runs_of, setting_for
from optmerge.interchange.their_methods import DROP_ALIKE, NEED_BASE, RANDOM, THEIR_METHODS, our_name
from optmerge.method import get_method
from optmerge.models.layers import depth, layer_in, layer_of, layers_of, stacked_names
from optmerge.recipe import UNION, CheckpointNode, MergeNode, PathNode

FILE = "mergekit.yaml"


def build(export: Export) -> None:
    """Write `mergekit.yaml`.

    Raises:
        UsageError: In one line: what mergekit has no words for.
    """
    root = export.recipe.root
    if isinstance(root, PathNode):
        _write(export, passthrough(export, root))
        return
    _refuse_what_has_no_words(root)
    node = _divided_by_density(_with_base(root))
    layers = node.layers or tuple(dict.fromkeys(node.sources, number) for number in range(depth(export.names)))
    names = stacked_names(export.names, layers_of(layers, min(node.sources)))
    defaults = {name: parameter.default for name, parameter in get_method(node.method).shared().items()}
    tensors = {
        name: TensorValues(values.parameters, {**defaults, **values.shared})
        for name, values in values_by_tensor(node.groups, names).items()
    }
    _refuse_values(node, tensors)
    writing = _Writing(export, node, layers, tensors)
    document = writing.document()
    _check_same(document, writing)
    for line in _notices(root, node, tensors):
        export.notice(line)
    _write(export, document)


def _write(export: Export, document: Mapping[str, Any]) -> None:
    heading = f"# mergekit-yaml {FILE} OUT\n# Written from recipe {export.recipe.sha256[:12]}.\n"
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    (export.folder / FILE).write_text(heading + text, encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Writes layer ranges and filters on one line each."""

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, all(isinstance(item, int) for item in data))

    def represent_dict(self, data: Any) -> yaml.MappingNode:
        return self.represent_mapping("tag:yaml.org,2002:map", data, flow_style="value" in data)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_representer(dict, _Dumper.represent_dict)


@dataclass(frozen=True)
class _Writing:
    """A recipe on its way into a configuration."""

    export: Export
    node: MergeNode
    layers: Sequence[Mapping[str, int]]
    tensors: Mapping[str, TensorValues]

    def document(self) -> dict[str, Any]:
        node = self.node
        runs = runs_of(self.tensors, [self._taking_part(number) for number in range(len(self.layers))])
        document: dict[str, Any] = {"merge_method": node.method}
        base = self._base_model()
        if base is not None:
            document["base_model"] = self.model(base)
        parameters = self._options()
        if len(runs) == 1 and not node.layers and self._can_list_models(base):
            document["models"] = [self._source(alias, runs[0], None) for alias in self._sources(runs[0], base)]
            parameters |= self._shared(runs[0])
        else:
            document["slices"] = [self._slice(run) for run in runs]
        if parameters:
            document["parameters"] = parameters
        document["dtype"] = "float32"  # as here: computed in float32 and rounded once
        if node.dtype != "float32":
            document["out_dtype"] = node.dtype
        if self._needs_tokenizer(base):
            source = UNION if node.tokenizer == UNION else self.model(node.tokenizer)
            padding = {"pad_to_multiple_of": node.pad_vocabulary_to} if node.pad_vocabulary_to else {}
            document["tokenizer"] = {"source": source, **padding}
        return document

    def _taking_part(self, layer: int) -> dict[str, int]:
        """Alias to layer, of those sources that have a part in a layer, or in what belongs to its slice."""
        members = [name for name in self.tensors if self._slice_layer(name) == layer]
        aliases = {alias for name in members for alias in self.tensors[name].parameters} | self._measured_from()
        return {alias: layer_in(self.layers[layer], alias) for alias in aliases}

    def _slice_layer(self, name: str) -> int:
        layer = layer_of(name)
        if layer is not None:
            return layer
        return 0 if is_before_layers(name) else len(self.layers) - 1

    def _measured_from(self) -> set[str]:
        return {self.node.base} if self.node.base is not None else set()

    def _base_model(self) -> str | None:
        """The base; where the method has none, the source that gives configuration and tokenizer is called so."""
        if self.node.base is not None:
            return self.node.base
        if get_method(self.node.method).base != "ignored":
            return None
        return self.node.vocabulary_base or (self.node.tokenizer if self.node.tokenizer != UNION else None)

    def _needs_tokenizer(self, base: str | None) -> bool:
        node = self.node
        differing = any(isinstance(leaf, CheckpointNode) and leaf.tokens_sha256 for leaf in node.sources.values())
        return differing or node.pad_vocabulary_to is not None or node.tokenizer != base

    def _can_list_models(self, base: str | None) -> bool:
        """Whether the base that mergekit adds to a list of models by itself does not change the merge."""
        taking_part = set(self._taking_part(0))
        return base is None or base in taking_part or "weight" in get_method(self.node.method).parameters

    def _sources(self, run: Run, base: str | None) -> list[str]:
        return sorted(set(run.layers) | ({base} if base else set()))

    def _source(self, alias: str, run: Run, layers: Mapping[str, int] | None) -> dict[str, Any]:
        source: dict[str, Any] = {"model": self.model(alias)}
        if layers is not None:
            source["layer_range"] = [layers[alias], layers[alias] + run.count]
        if alias == self.node.base:
            return source
        parameters = {}
        for theirs, known in THEIR_METHODS[self.node.method].items():
            ours = our_name(theirs)
            if known.scope == "shared" or not known.effect or ours not in get_method(self.node.method).parameters:
                continue
            values = {
                name: float(values[ours]) if values is not None else 0.0
                for name in self._of_run(run)
                if (values := self.tensors[name].parameters.get(alias)) is not None or ours == "weight"
            }
            if values:
                parameters[theirs] = setting_for(values)
        return source | ({"parameters": parameters} if parameters else {})

    def _slice(self, run: Run) -> dict[str, Any]:
        sources = [self._source(alias, run, run.layers) for alias in sorted(run.layers)]
        shared = self._shared(run)
        return {"sources": sources} | ({"parameters": shared} if shared else {})

    def _shared(self, run: Run) -> dict[str, Any]:
        """What all sources share in a run."""
        found = {}
        for theirs, known in THEIR_METHODS[self.node.method].items():
            ours = our_name(theirs)
            parameter = get_method(self.node.method).parameters.get(ours)
            if known.scope == "shared" and known.effect and parameter is not None:
                values = {name: self.tensors[name].shared.get(ours, parameter.default) for name in self._of_run(run)}
                found[theirs] = setting_for(values)
        return found

    def _of_run(self, run: Run) -> list[str]:
        """The tensors that a run's settings are for: one layer stands for all."""
        last = run.first + run.count == len(self.layers)
        return [
            name
            for name in self.tensors
            if layer_of(name) == run.first
            or (layer_of(name) is None and (run.first == 0 if is_before_layers(name) else last))
        ]

    def _options(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for theirs, known in THEIR_METHODS[self.node.method].items():
            if known.effect and our_name(theirs) in self.node.options:
                value = self.node.options[our_name(theirs)]
                found[theirs] = value == "l1_norm" if theirs == "rescale" else value
        return found

    def model(self, alias: str) -> Any:
        """How a source is written; as a mapping where signs in its path would be misread."""
        node = self.node.sources[alias]
        assert isinstance(node, CheckpointNode)
        whole = written(self.export.locations[alias], node.revision)
        if node.over is None:
            return whole
        below = written(self.export.locations[f"{alias}.over"], node.over.revision)
        if isinstance(whole, str) and isinstance(below, str):
            return f"{below}+{whole}"
        return {"model": below, "lora": whole}


def _with_base(node: MergeNode) -> MergeNode:
    """The same merge with a base, where mergekit's method wants one and ours can do without.

    The first source by alias then is what the base is otherwise: the model at t = 0.
    """
    if node.method not in NEED_BASE or node.base is not None:
        return node
    base = min(alias for group in node.groups.values() for alias in group.parameters)
    groups = {
        name: replace(group, parameters={alias: own for alias, own in group.parameters.items() if alias != base})
        for name, group in node.groups.items()
    }
    return replace(node, base=base, groups=groups)


def _divided_by_density(node: MergeNode) -> MergeNode:
    """The same merge without the option to divide what is kept by its density, where the weights can do that.

    They can where nothing else looks at them, which normalizing does.
    """
    if node.method not in DROP_ALIKE or node.options.get("rescale") != "inverse_density" or node.options["normalize"]:
        return node
    groups = {
        name: replace(group, parameters={alias: _with_divided_weight(own) for alias, own in group.parameters.items()})
        for name, group in node.groups.items()
    }
    return replace(node, groups=groups, options={**node.options, "rescale": "none"})


def _with_divided_weight(values: Mapping[str, float]) -> dict[str, float]:
    # Nothing is kept at density 0, whatever the weight.
    return {**values, "weight": values["weight"] / values["density"] if values["density"] else 0.0}


def _refuse_what_has_no_words(node: MergeNode) -> None:
    for alias, source in node.sources.items():
        if isinstance(source, MergeNode):
            raise UsageError(f"{alias} is a merge itself: mergekit.yaml describes one merge; write {alias} first")
    known = THEIR_METHODS.get(node.method)
    if known is None:
        raise UsageError(f"mergekit has no method {node.method!r}; it has {', '.join(sorted(THEIR_METHODS))}")
    pairs = {frozenset(group.parameters) for group in node.groups.values()}
    if node.method in NEED_BASE and node.base is None and len(pairs) > 1:
        raise UsageError(f"mergekit's {node.method} needs a base, and the recipe's groups have different sources")
    for name, group in node.groups.items():
        if group.source is not None:
            raise UsageError(f"group {name} takes the tensors of {group.source} as they are; mergekit merges them all")
    method, ours = get_method(node.method), {our_name(theirs) for theirs in known}
    for option, value in node.options.items():
        if option not in ours and value != method.options.get(option):
            raise UsageError(f"options.{option}={value}: mergekit's {node.method} has no such option")


def _refuse_values(node: MergeNode, tensors: Mapping[str, TensorValues]) -> None:
    """Refuse values that mergekit's method does not have or cannot use."""
    if node.options.get("rescale") == "inverse_density" and _drops(tensors):
        raise UsageError(
            f"options.rescale=inverse_density: mergekit restores the L1 norm, or nothing; it cannot divide by the "
            f"density in a {node.method} that normalizes, or drops by magnitude"
        )
    known = THEIR_METHODS[node.method]
    ours = {our_name(theirs) for theirs, parameter in known.items() if parameter.effect}
    declared = get_method(node.method).parameters
    for name, tensor in tensors.items():
        for whose, values in [*tensor.parameters.items(), ("all sources", tensor.shared)]:
            for parameter, value in values.items():
                if parameter not in ours and value != declared[parameter].default:
                    raise UsageError(
                        f"{name}: the {parameter} of {whose} is {value:g}, but mergekit's {node.method} has no such "
                        "parameter"
                    )


def _drops(tensors: Mapping[str, TensorValues]) -> bool:
    return any(values.get("density", 1.0) < 1 for t in tensors.values() for values in t.parameters.values())


def _check_same(document: Mapping[str, Any], writing: _Writing) -> None:
    """Read a configuration as mergekit does, and refuse it unless it says of every tensor what the recipe says.

    Raises:
        UsageError: Naming a tensor or a layer of which it does not.
    """
    aliases = {model_name(writing.model(alias), alias): alias for alias in writing.node.sources}
    try:
        resolved = resolve_tensors(parse_configuration(document), writing.export.names, aliases)
    except UsageError as error:
        raise UsageError(f"mergekit's slices and filters cannot say how this model is merged: {error}") from error
    for name, values in writing.tensors.items():
        if _that_count(values) != _that_count(resolved.tensors[name]):
            raise UsageError(f"{name}: mergekit's slices and filters cannot say how this tensor is merged")
    for number, layer in enumerate(resolved.layers):
        if any(layers_of(writing.layers, alias)[number] != own for alias, own in layer.items()):
            raise UsageError(f"layer {number}: mergekit's slices cannot say which layers it is made of")


def _that_count(values: TensorValues) -> object:
    """Without sources whose weight is 0, which is as good as not to take part."""
    counting = {alias: own for alias, own in values.parameters.items() if own.get("weight") != 0}
    return TensorValues(counting or values.parameters, values.shared).key()


def _notices(recipe: MergeNode, node: MergeNode, tensors: Mapping[str, TensorValues]) -> list[str]:
    notices = []
    if node.options != recipe.options:
        notices.append("weights are divided by their densities, as mergekit does not rescale by these")
    if node.method in RANDOM and _drops(tensors):
        notices.append("mergekit drops other entries at random than the recipe does, and others on every run")
    if node.tokenizer == UNION or any(isinstance(n, CheckpointNode) and n.tokens_sha256 for n in node.sources.values()):
        notices.append("the vocabularies differ: mergekit may order tokens otherwise, and cuts rows beyond them")
    if node.base is None and get_method(node.method).base == "optional":
        notices.append(
            f"without a base mergekit takes the configuration of any of the models, not surely that of {node.tokenizer}"
        )
    return notices
