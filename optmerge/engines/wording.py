"""From requests to tokens and back, with a model's own tokenizer: the same for every engine that is given tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optmerge.engines.engine import Generate, LogLikelihood, Message, Response
from optmerge.engines.loops import repeats_itself
from optmerge.errors import OptmergeError

BETWEEN_LOOKS = 16  # tokens between two looks for repetitions
NOT_NUMBERS = "the merged model's logits are not numbers (NaN)"


class Wording:
    """A tokenizer, and how the models that share it end a response.

    Args:
        folder: Checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.generation = _generation_config(folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ends, padding = self.generation.eos_token_id, self.tokenizer.pad_token_id
        self.padding: int = self.tokenizer.eos_token_id if padding is None else padding
        # The pad token says nothing either; where the model has no end, only the limit ends a response.
        found = [*(ends if isinstance(ends, list) else [ends]), padding]
        self.ends: frozenset[int] = frozenset(token for token in found if token is not None)

    def prompt(self, prompt: str | tuple[Message, ...]) -> list[int]:
        """The tokens of a prompt; a chat template brings its own special ones.

        Raises:
            OptmergeError: If it has messages, and the tokenizer no chat template.
        """
        tokens: list[int]
        if isinstance(prompt, str):
            tokens = self.tokenizer(prompt)["input_ids"]
            return tokens or [self._start]
        if not self.tokenizer.chat_template:
            raise OptmergeError("the tokenizer has no chat template; set task.chat=false, or take another's tokenizer")
        messages = [message._asdict() for message in prompt]
        tokens = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return tokens

    def row(self, prompt: str, continuation: str) -> tuple[list[int], int]:
        """Tokens of a prompt with a continuation, and how many of them, the last ones, are scored.

        Both are cut into tokens together, as in generated text; white space at the prompt's end goes to the
        continuation, whose first token usually begins with it.
        """
        stem = prompt.rstrip()
        tokens: list[int] = self.tokenizer(prompt + continuation)["input_ids"]
        before = len(self.tokenizer(stem)["input_ids"]) if stem else self._leading(tokens)
        if not before:  # the first token follows from something
            tokens, before = [self._start, *tokens], 1
        return tokens, max(1, len(tokens) - before)

    def response(self, tokens: Sequence[int], request: Generate) -> Response:
        """What generated tokens say, up to the first that ends a response, the first stop string, or a loop."""
        length = next((i for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        looped = _looped(tokens[:length]) if request.stop_loops else None
        said = tokens[: length if looped is None else looped]
        # A vocabulary may be padded: rows of the output that stand for nothing say nothing.
        known = [token for token in said if token < len(self.tokenizer)]
        text: str = self.tokenizer.decode(known, skip_special_tokens=True)
        cut = cut_at(text, request.stop)
        if cut is not None:
            return Response(text[:cut], len(said), "stop")
        if looped is not None:
            return Response(text, len(said), "loop")
        return Response(text, len(said), "stop" if length < len(tokens) else "length")

    @property
    def _start(self) -> int:
        token = self.tokenizer.bos_token_id
        found: int = self.tokenizer.eos_token_id if token is None else token
        return found

    def _leading(self, tokens: Sequence[int]) -> int:
        """How many special tokens a text begins with by itself."""
        special = set(self.tokenizer.all_special_ids)
        return next((i for i, token in enumerate(tokens) if token not in special), len(tokens))


def cut_at(text: str, stop: Sequence[str]) -> int | None:
    """Where a response ends: at the first of its stop strings, if it has any."""
    return min((at for string in stop if (at := text.find(string)) >= 0), default=None)


def comparison(
    request: LogLikelihood, scored: Sequence[int], found: Sequence[float], greedy: Sequence[bool] = ()
) -> Response:
    """The response to a comparison of continuations.

    Args:
        request: What was asked.
        scored: How many tokens of each continuation were scored.
        found: Log-likelihood of each.
        greedy: Whether each is what the model would write by itself; empty if that is not known.
    """
    likeliest = max(range(len(found)), key=found.__getitem__)
    return Response(request.continuations[likeliest], sum(scored), log_likelihoods=tuple(found), greedy=tuple(greedy))


def _looped(tokens: Sequence[int]) -> int | None:
    """How long a response was when it was first seen to repeat itself."""
    lengths = [*range(BETWEEN_LOOKS, len(tokens), BETWEEN_LOOKS), len(tokens)]
    return next((length for length in lengths if repeats_itself(tokens[:length])), None)


def _generation_config(folder: Path) -> Any:
    """As the transformers library has it for a checkpoint: from its file, or from what its config.json says."""
    from transformers import AutoConfig, GenerationConfig

    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return GenerationConfig.from_model_config(config)
