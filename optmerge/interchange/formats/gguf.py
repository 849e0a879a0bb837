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
    # Two ways to compute in float32 differ in its last digits. In 16 bits every product is rounded, each way its own.
    exact = export.recipe.root.dtype == "float32"
    least, widest = (0.9, 1e-3) if exact else (0.5, 0.1)
    write_and_ask(export, TYPES[export.recipe.root.dtype], least=least, widest=widest)
