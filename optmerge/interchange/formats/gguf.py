"""A model as a GGUF file for llama.cpp and all that is built on it, its weights as they are."""

from optmerge.interchange.export import Export
from optmerge.interchange.gguf import needed, write_and_ask
from optmerge.interchange.gguf_file import TYPES

ready = needed


def build(export: Export) -> None:
    """Write `model-TYPE.gguf` and `recipe.yaml`, and let llama.cpp answer as proof.

    Raises:
        UsageError: If llama.cpp has no such model, or no such tokenizer.
        OptmergeError: If llama.cpp answers otherwise; nothing is left then.
    """
    # Two ways to compute in float32 differ in its last digits; in 16 bits, by one rounding of every product.
    widest = 1e-3 if export.recipe.root.dtype == "float32" else 0.02
    write_and_ask(export, TYPES[export.recipe.root.dtype], least=0.9, widest=widest)
