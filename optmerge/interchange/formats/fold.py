"""A path as an ordinary model, its scales folded into the weights, and held against the path before it is kept."""

from optmerge.errors import OptmergeError, UsageError
from optmerge.interchange.export import Export
from optmerge.recipe import RECIPE, RECIPE_KEY, PathNode


def build(export: Export) -> None:
    """Write the model and its `recipe.yaml`, load it as anyone would, and compare it with the path.

    Raises:
        UsageError: If the recipe is no path.
        OptmergeError: If the model does not say what the path says; nothing is left then.
    """
    import torch

    from optmerge.flow import agreement
    from optmerge.models import Companions
    from optmerge.models.shard import dtype_name
    from optmerge.models.write import fill_folder

    node = export.recipe.root
    if not isinstance(node, PathNode):
        raise UsageError("format=fold is for paths over layers, and the recipe is a merge; rebuild writes it")
    candidate, dtype = export.bench.final(export.recipe), getattr(torch, node.dtype)
    like = Companions(export.companions.folder, candidate.config(export.companions.config), export.companions)
    layout = {name: (dtype_name(dtype), shape) for name, shape in candidate.shapes().items()}
    device = export.bench.device.type
    sha256 = fill_folder(
        export.folder,
        candidate.tensors(),
        like,
        layout,
        dtype,
        metadata=lambda sha256: {RECIPE_KEY: export.recipe.with_weights(sha256, device).embedded()},
    )
    recipe = export.recipe.with_weights(sha256, device)
    (export.folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    export.write_papers(None)
    found = agreement(export.folder, export.bench.candidate(export.recipe), dtype)
    if not found.holds:
        raise OptmergeError(f"the folded model is not the path: {found.summary}; scales near 1 fold better")
    export.notice(f"reloaded and held against the path: {found.summary}")
