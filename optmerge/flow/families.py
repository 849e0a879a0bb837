"""What the layers of each family of models are made of, as far as scales are folded into them."""

from dataclasses import dataclass

from optmerge.errors import UsageError


@dataclass(frozen=True)
class Family:
    """Names of tensors; those within a layer without its number, see `optmerge.models.layers.rest_of`.

    A layer is two blocks: attention, then MLP. Each reads the residual stream through a norm and adds what it makes of
    it to the stream, so that whatever multiplies `attention_ends` and `mlp_ends` multiplies what the blocks add.

    Attributes:
        attention_ends: The last tensors of the attention block, weight and bias.
        mlp_ends: The last tensors of the MLP.
        input_norms: The gains of the norms through which the two blocks read the stream.
        final_norm: How the name of the gain of the norm before the output head ends.
        offset: What is added to a gain before it multiplies: 1 in Gemma, which stores gains less one.
        ends_are_gains: Whether the blocks end in a norm, so that their ends are gains too.
        mlp_module: The module of a layer whose output is what the MLP adds.
    """

    attention_ends: tuple[str, ...] = ("self_attn.o_proj.weight", "self_attn.o_proj.bias")
    mlp_ends: tuple[str, ...] = ("mlp.down_proj.weight", "mlp.down_proj.bias")
    input_norms: tuple[str, ...] = ("input_layernorm.weight", "post_attention_layernorm.weight")
    final_norm: str = "norm.weight"
    offset: float = 0.0
    ends_are_gains: bool = False
    mlp_module: str = "mlp"


_LLAMA = Family()
_GEMMA = Family(offset=1.0)
_GEMMA_2 = Family(
    attention_ends=("post_attention_layernorm.weight",),
    mlp_ends=("post_feedforward_layernorm.weight",),
    input_norms=("input_layernorm.weight", "pre_feedforward_layernorm.weight"),
    offset=1.0,
    ends_are_gains=True,
    mlp_module="post_feedforward_layernorm",
)
_GPT_2 = Family(
    attention_ends=("attn.c_proj.weight", "attn.c_proj.bias"),
    mlp_ends=("mlp.c_proj.weight", "mlp.c_proj.bias"),
    input_norms=("ln_1.weight", "ln_2.weight"),
    final_norm="ln_f.weight",
)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": _LLAMA,
    "gemma": _GEMMA,
    "gemma2": _GEMMA_2,
    "gemma3_text": _GEMMA_2,
    "gpt2": _GPT_2,
}
"""`model_type` of a config.json to family."""

_POST_NORM = ("olmo2", "olmo3")


def family_of(model_type: str) -> Family:
    """The family of a `model_type`.

    Raises:
        UsageError: If paths over its layers cannot be written as an ordinary model, or nobody has looked.
    """
    if model_type in _POST_NORM:
        raise UsageError(
            f"model_type {model_type}: its blocks read the residual stream without a norm, so that scales cannot be "
            "folded into its weights; data-flow space is not for it"
        )
    if model_type not in FAMILIES:
        raise UsageError(f"model_type {model_type}: unknown to data-flow space; known are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
