"""A path as a mergekit `passthrough`: a slice for every hop, and filters that scale its last tensors.

mergekit can multiply tensors of a slice by a number, so it can write the folded model of every path whose fold
multiplies weights: the scales there are those of the fold, not of the recipe.
"""

from typing import Any

from optmerge.errors import UsageError
from optmerge.interchange.aliases import written
from optmerge.interchange.export import Export
from optmerge.recipe import CheckpointNode, PathNode


def passthrough(export: Export, node: PathNode) -> dict[str, Any]:
    """The configuration.

    Raises:
        UsageError: If mergekit has no words for it.
    """
    from optmerge.flow.families import family_of
    from optmerge.flow.fold import fold

    for alias, below in node.sources.items():
        if not isinstance(below, CheckpointNode) or below.over is not None:
            raise UsageError(
                f"{alias} is a recipe or an adapter: mergekit.yaml describes one merge; write {alias} first"
            )
    if node.tokenizer != node.hops[0].source:
        raise UsageError(f"the tokenizer is {node.tokenizer}'s, and mergekit would take that of the first hop's source")
    if export.bench.fit.alignment is not None:
        raise UsageError("the sources' vocabularies differ, and mergekit takes rows of one source as they are")
    folds = fold([hop.scale for hop in node.hops], node.scale_target)
    if any(folds.negative) or folds.negative_end:
        raise UsageError(
            "a negative scale turns the signs of norms' gains, for which mergekit has no words; use format=fold"
        )
    family = family_of(str(export.companions.config.get("model_type")))
    scaled = any(factor != 1 for factor in (*folds.attention, *folds.mlp))
    if scaled and family.ends_are_gains:
        raise UsageError("the blocks of this family end in norms whose gains are stored less one; use format=fold")
    if (node.embeddings, node.head) != (node.hops[0].source, node.hops[-1].source):
        raise UsageError(
            "mergekit takes the embeddings of the first hop's source and the head of the last one's, the recipe others"
        )
    models = {
        alias: written(export.locations[alias], source.revision)
        for alias, source in node.sources.items()
        if isinstance(source, CheckpointNode)
    }
    slices = []
    for hop, attention, mlp in zip(node.hops, folds.attention, folds.mlp, strict=True):
        source: dict[str, Any] = {"model": models[hop.source], "layer_range": [hop.layer, hop.layer + 1]}
        filters = [
            {"filter": names[0].removesuffix(".weight"), "value": factor}
            for names, factor in ((family.attention_ends, attention), (family.mlp_ends, mlp))
            if factor != 1
        ]
        if filters:
            source["parameters"] = {"scale": [*filters, {"value": 1.0}]}
        slices.append({"sources": [source]})
    document: dict[str, Any] = {"merge_method": "passthrough", "slices": slices, "dtype": "float32"}
    if node.dtype != "float32":
        document["out_dtype"] = node.dtype
    return document
