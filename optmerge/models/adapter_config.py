"""What PEFT's adapter_config.json says of a LoRA adapter, and whether its tensors are all there is to it."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optmerge.errors import UsageError
from optmerge.models.checkpoint import Checkpoint, read_entries, read_object

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"

PREFIX = "base_model.model."  # what PEFT puts before the base's own names
FACTOR = re.compile(r"(?P<module>.+)\.(?P<factor>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_[AB])")
# Settings that decide what an adapter comes to; everything else that is set must be one that does not matter here.
_READ = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
_IMMATERIAL = {
    # where it came from, and which modules it was put on: the file says which tensors there are
    "auto_mapping", "base_model_name_or_path", "base_model_class", "revision", "peft_version", "task_type",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "megatron_core",
    # training only
    "inference_mode", "lora_dropout", "runtime_config", "velora_config",
    # how it began; whether the base was changed for it is what init_lora_weights says
    "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    # read from the tensors themselves
    "bias", "lora_bias", "fan_in_fan_out", "ensure_weight_tying",
    "qalora_group_size",  # has a default, and matters only with use_qalora
}  # fmt: skip
_REFUSED = {
    "use_dora": "DoRA rescales the rows of the merged weights",
    "use_qalora": "QA-LoRA pools the inputs of the adapter",
    "alora_invocation_tokens": "activated LoRA applies only after certain tokens",
    "layer_replication": "its model has other layers than the base",
    "trainable_token_indices": "single token rows are trained beside the LoRA factors",
    "target_parameters": "it lies on parameters, not on modules",
    "arrow_config": "Arrow chooses among adapters for every token",
    "use_bdlora": "its factors are block-diagonal",
    "monteclora_config": "its factors are random",
    "kasa_config": "KaSA truncates the base's weights",
    "megatron_config": "its layers are Megatron's",
}
# Initialisations that take something out of the base's weights, which the adapter then adds back.
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


def open_weights(folder: Path, alias: str) -> Checkpoint:
    """The tensors of an adapter, by the names in its file, with adapter_config.json as their configuration.

    Raises:
        UsageError: If something is missing, damaged, or not in safetensors form.
    """
    settings = read_object(folder / ADAPTER_CONFIG, alias)
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        if (folder / ADAPTER_PICKLE).is_file():
            raise UsageError(f"{alias}: {only_bin(str(folder))}")
        raise UsageError(f"{alias}: {folder} has {ADAPTER_CONFIG}, and no {ADAPTER_WEIGHTS}")
    return Checkpoint(alias, folder, settings, (file,), read_entries([file], alias))


def only_bin(location: str) -> str:
    """What to say of an adapter in pickle form, and how to convert it."""
    return (
        f"{location} has only {ADAPTER_PICKLE}, and adapters are read from safetensors: convert it with "
        f"`safetensors.torch.save_file(torch.load('{ADAPTER_PICKLE}', weights_only=True), '{ADAPTER_WEIGHTS}')`"
    )


def refuse_inexact(weights: Checkpoint) -> None:
    """Refuse an adapter whose settings make more of it than tensors added and replaced.

    Raises:
        UsageError: Naming the setting.
    """
    alias, settings = weights.alias, weights.config
    if settings.get("peft_type") != "LORA":
        raise UsageError(f"{alias}: {weights.folder} is a {settings.get('peft_type')} adapter: only LORA can be merged")
    for key in sorted(settings):
        if not settings[key] or key in _READ or key in _IMMATERIAL:
            continue
        reason = _REFUSED.get(key, "it is not known what that does to the weights")
        raise UsageError(f"{alias}: {weights.folder} cannot be merged exactly, because of {key}: {reason}")
    beginning = str(settings.get("init_lora_weights")).lower()
    if beginning.startswith(_CHANGE_THE_BASE):
        raise UsageError(
            f"{alias}: {weights.folder} began with init_lora_weights={beginning}, which changes the base's weights: "
            "save it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...), where PEFT can do that"
        )


def scalings_of(weights: Checkpoint) -> dict[str, float]:
    """What the product of a module's LoRA factors is multiplied by, for every module that has some.

    Raises:
        UsageError: If the settings do not say it.
    """
    found = (FACTOR.fullmatch(key) for key in weights.names())
    modules = sorted({match["module"] for match in found if match})
    settings = weights.config
    try:
        return {
            module.removeprefix(PREFIX): _scaling(settings, *rank_and_alpha(settings, module.removeprefix(PREFIX)))
            for module in modules
        }
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError, OverflowError, re.error) as error:
        raise UsageError(f"{weights.alias}: {weights.folder / ADAPTER_CONFIG} cannot be used: {error!r}") from error


def rank_and_alpha(settings: Mapping[str, Any], module: str) -> tuple[int, float]:
    """What a module's rank and alpha are: of the patterns that match the end of its name, the first counts."""
    values = []
    for default, patterns in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        found: Mapping[str, Any] = settings.get(patterns) or {}
        matching = (value for key, value in found.items() if re.match(rf"(.*\.)?({key})$", module))
        values.append(next(matching, settings[default]))
    return values[0], values[1]


def _scaling(settings: Mapping[str, Any], rank: int, alpha: float) -> float:
    scaling = alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank
    if not math.isfinite(scaling):
        raise ValueError(f"lora_alpha={alpha} and r={rank}")
    return scaling
