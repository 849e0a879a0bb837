"""The published data-flow models as recipes: paths over the layers that their checkpoints store once."""

from pathlib import Path

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, scan
from optmerge.models.evomistral import read_path
from optmerge.models.layers import depth
from optmerge.recipe import CheckpointNode, Hop, PathNode, Recipe

ALIAS = "layers"


def import_published(folder: Path) -> Recipe:
    """The recipe of a checkpoint of `model_type: evomistral`, whose code scales the branch, not the stream.

    Raises:
        UsageError: If the folder is no such checkpoint, or its path leads over layers that it does not have.
    """
    path = read_path(folder, str(folder))
    checkpoint = Checkpoint.open(folder, str(folder))
    layers = depth(checkpoint.names())
    for number, (layer, _) in enumerate(path):
        if not 0 <= layer < layers:
            raise UsageError(f"{folder}: hop {number} is layer {layer}, and it has {layers}")
    source = CheckpointNode(str(folder.absolute()), scan(checkpoint).weights_sha256)
    hops = tuple(Hop(ALIAS, layer, scale) for layer, scale in path)
    dtype = str(checkpoint.dtype(checkpoint.names()[0])).removeprefix("torch.")
    return Recipe(PathNode({ALIAS: source}, hops, ALIAS, ALIAS, ALIAS, dtype, "branch"))
