"""A path as a checkpoint of the published data-flow models: each layer once, and the hops over them.

What it takes custom code to run; `export format=fold` needs none.
"""

from collections.abc import Iterator
from dataclasses import replace

from optmerge.errors import UsageError
from optmerge.interchange.export import Export
from optmerge.models.evomistral import LAYERS, MODEL_TYPE, SCALES
from optmerge.recipe import RECIPE_KEY, PathNode


def build(export: Export) -> None:
    """Write the checkpoint.

    Raises:
        UsageError: If the recipe is no path over Mistral layers whose scales multiply branches.
    """
    import torch

    from optmerge.flow import PathCandidate
    from optmerge.models.shard import dtype_name
    from optmerge.models.write import copy_companions, write_json, write_weights

    node = export.recipe.root
    if not isinstance(node, PathNode):
        raise UsageError("format=evomistral is for paths over layers, and the recipe is a merge; rebuild writes it")
    model_type = export.companions.config.get("model_type")
    if model_type != "mistral":
        raise UsageError(f"format=evomistral is for Mistral models, and the recipe's are of model_type {model_type}")
    if node.scale_target != "branch" and any(hop.scale != 1 for hop in node.hops):
        raise UsageError(
            "the code of evomistral models scales what the last block adds, and the recipe's scales multiply all that "
            "reaches a hop: it has no such form; use format=fold"
        )
    candidate = export.bench.candidate(export.recipe)
    assert isinstance(candidate, PathCandidate)
    first: dict[tuple[str, int], int] = {}  # layer to the first hop that takes it
    for number, hop in enumerate(node.hops):
        first.setdefault((hop.source, hop.layer), number)
    places = {layer: place for place, layer in enumerate(first)}
    dtype = getattr(torch, node.dtype)
    path = {
        LAYERS: torch.tensor([places[hop.source, hop.layer] for hop in node.hops]),
        SCALES: torch.tensor([hop.scale for hop in node.hops], dtype=torch.float32),
    }
    stem, shapes = candidate.bench.stem, candidate.bench.workbench.fit.shapes
    names = {
        f"{stem}{places[layer]}.{rest}": (hop, rest) for layer, hop in first.items() for rest in candidate.bench.rests
    }
    layout = {name: (dtype_name(dtype), shapes[f"{stem}0.{rest}"]) for name, (_, rest) in names.items()}
    layout |= {name: (dtype_name(dtype), shapes[name]) for name in candidate.bench.outside}
    layout |= {name: (dtype_name(tensor.dtype), tuple(tensor.shape)) for name, tensor in path.items()}

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        outside = candidate.outside()
        for name in sorted(layout):
            if name in path:
                yield name, path[name]
            elif name in names:
                yield name, candidate.tensor(*names[name]).to(dtype)
            else:
                yield name, outside[name].to(dtype)

    copy_companions(export.companions.folder, export.folder)
    config = {key: value for key, value in export.companions.config.items() if key != "layer_types"}
    config |= {
        "model_type": MODEL_TYPE,
        "architectures": ["EvoMistralForCausalLM"],
        "num_hidden_layers": len(first),
        "num_hops": len(node.hops),
        "use_cache": False,
    }
    write_json(export.folder / "config.json", config)
    recipe = replace(export.recipe, weights_sha256=None, merged_on=None)  # those are of the folded model
    write_weights(export.folder, tensors(), layout, metadata=lambda _: {RECIPE_KEY: recipe.embedded()})
    export.notice("transformers runs it with the code published beside such models alone; format=fold needs none")
