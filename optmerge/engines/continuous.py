"""Continuous batching of the transformers library: as soon as a response ends, another takes its place in the batch.

Keys and values lie in pages, which are made anew for every call, so nothing of a candidate is left for the next. What
the library cannot do there is for plain batches: stop strings and repetitions (responses would go on to their limit),
penalties that a generation config asks for, and paths over layers, whose copies would keep their own attention.
"""

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from optmerge.engines.wording import NOT_NUMBERS
from optmerge.errors import OptmergeError

_CPU_PAGE, _CPU_ROWS, _CPU_TOKENS = 32, 64, 512  # by itself the library would take all memory that a CPU has


def attention_for(model: Any) -> str | None:
    """The kernels with which continuous batching is fast; None if there are none.

    Others compare every token with those of all responses, and hide what is not its own: plain batches are faster.
    """
    import torch
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    if model.device.type != "cuda" or model.dtype == torch.float32 or not model._supports_flash_attn:
        return None
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else None


def can_generate(model: Any) -> bool:
    """Whether greedy responses need nothing but the model's logits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that there is no prompt
        return not model._get_logits_processor(_greedy(model))


def generate(model: Any, prompts: Sequence[list[int]], max_new_tokens: int, ends: Sequence[int]) -> list[list[int]]:
    """Greedy responses.

    Args:
        model: A causal language model of the transformers library.
        prompts: Their tokens.
        max_new_tokens: Most tokens of a response.
        ends: Tokens that end one.

    Raises:
        OptmergeError: If the model's logits are not numbers.
        RuntimeError: If the library fails, for lack of memory or otherwise.
    """
    from transformers.generation.configuration_utils import ContinuousBatchingConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    longest = max(map(len, prompts))
    settings: dict[str, Any] = {"return_logprobs": True, "auto_switch_to_flash": False}  # what is not there is fetched
    if model.device.type == "cpu":
        blocks = min(_CPU_ROWS, len(prompts)) * (math.ceil((longest + max_new_tokens) / _CPU_PAGE) + 1)
        settings |= {"page_size": _CPU_PAGE, "num_blocks": blocks, "max_batch_tokens": _CPU_TOKENS}
    found: dict[str, Any] = {}
    with _attention(model), _quiet():
        manager = model.init_continuous_batching(
            generation_config=_greedy(model, ends),
            continuous_batching_config=ContinuousBatchingConfig(**settings),
            workload_hints=WorkloadHints(longest, max_new_tokens, len(prompts)),
        )
        try:
            if model.device.type == "cuda":
                manager.warmup()
            manager.start()
            names = manager.add_requests(list(prompts), max_new_tokens=max_new_tokens)
            while len(found) < len(names):
                output = manager.get_result(timeout=1)
                if output is not None and output.error is None:
                    found[output.request_id] = output
                elif output is not None or not manager.is_running():
                    raise RuntimeError(output.error if output is not None else "the library's thread ended")
        finally:
            manager.stop(block=True, hard_stop=True)  # on ctrl-C too: it would go on to the last response
            manager.destroy()
    if any(math.isnan(value) for output in found.values() for value in output.logprobs):
        raise OptmergeError(NOT_NUMBERS)
    return [found[name].generated_tokens for name in names]


def _greedy(model: Any, ends: Sequence[int] = ()) -> Any:
    config = copy.deepcopy(model.generation_config)
    config.do_sample = False
    config.eos_token_id = list(ends) or config.eos_token_id
    return config


@contextlib.contextmanager
def _attention(model: Any) -> Iterator[None]:
    """Let the model use the fast kernels, if there are any, and then its own again."""
    own, fast = model.config._attn_implementation, attention_for(model)
    try:
        if fast is not None:
            model.set_attn_implementation(fast)
        yield
    finally:
        if fast is not None:
            model.set_attn_implementation(own)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from printing tracebacks: errors are raised here."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        logger.setLevel(level)
