"""What a tensor is for, as its name tells: attention, MLP, norm, embedding, head."""

import re
from typing import Literal

TensorKind = Literal["attention", "mlp", "norms"]

EMBEDDINGS = re.compile(r"\b(embed_tokens|embed_positions|wte|wpe|embed_in|tok_embeddings|word_embeddings\w*)\b")
HEAD = re.compile(r"\b(lm_head|embed_out)\b|^output\.")
NORM = re.compile(r"(norm[^.]*|\bln[^.]*)(\.(weight|bias))?$")

_MLP = re.compile(r"mlp|feed_?forward|ffn|moe|expert|\bfc\d\b|\bnorm_2\b|\bln_2\b|\bfinal_layer_norm\b")
_BEFORE_MLP = re.compile(r"post_attention")


def kind_of(name: str, *, norms: bool, sandwiched: bool) -> TensorKind:
    """The kind of a tensor in a layer.

    Args:
        name: Its name after the layer's number, such as `mlp.down_proj.weight`.
        norms: Whether norms are a kind of their own; otherwise they go with the attention or MLP that they stand
            before, or after.
        sandwiched: Whether the MLP has norms of its own: one that follows the attention belongs to that then.
    """
    if norms and NORM.search(name):
        return "norms"
    if _MLP.search(name) or (_BEFORE_MLP.search(name) and not sandwiched):
        return "mlp"
    return "attention"
