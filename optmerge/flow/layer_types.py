"""Which attention mask each layer of a model takes."""

from collections.abc import Mapping
from typing import Any


def layer_types(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """One for each layer, such as `sliding_attention`; None where all layers take the same.

    A config.json may leave them out and mean the defaults of its model_type, which the transformers library knows.

    Args:
        config: A config.json.
    """
    from transformers import AutoConfig

    known = AutoConfig.for_model(**config)
    listed = getattr(known, "layer_types", None)
    return None if listed is None else tuple(listed)
