"""A model as a GGUF file for llama.cpp and all that is built on it, its matrices in 8 bits."""

from optmerge.interchange.export import Export
from optmerge.interchange.gguf import needed, write_and_ask

ready = needed


def build(export: Export) -> None:
    """Write `model-q8_0.gguf` and `recipe.yaml`, and let llama.cpp answer as proof.

    Raises:
        UsageError: If llama.cpp has no such model, or no such tokenizer.
        OptmergeError: If llama.cpp answers too differently; nothing is left then.
    """
    write_and_ask(export, "Q8_0", least=0.5, widest=0.1)
