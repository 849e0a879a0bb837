"""Tokens: which a checkpoint's tokenizer knows, and which tensors have a row for each."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optmerge.errors import UsageError
from optmerge.models.checkpoint import Checkpoint, read_object

INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
OUTPUT_HEADS = ("lm_head.weight", "lm_head.bias", "embed_out.weight")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
_WITH_TOKENS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Rows of the embeddings as config.json says, also where it nests the language model's part."""
    for part in (config, config.get("text_config")):
        if isinstance(part, Mapping) and isinstance(part.get("vocab_size"), int):
            return int(part["vocab_size"])
    return None


def has_token_rows(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the first dimension of a tensor counts the vocabulary."""
    shape = checkpoint.shape(name)
    return bool(shape) and shape[0] == vocabulary_size(checkpoint.config) and is_token_tensor(name)


def is_token_tensor(name: str) -> bool:
    """Whether a tensor is called like an input embedding or an output head."""
    return any(name == known or name.endswith(f".{known}") for known in INPUT_EMBEDDINGS + OUTPUT_HEADS)


def redundant_heads(checkpoint: Checkpoint) -> set[str]:
    """Output heads that only repeat the tied input embedding, bit for bit.

    Files hold such copies or not, as the program that wrote them liked; loading ties the two again.
    """
    import torch

    if not checkpoint.config.get("tie_word_embeddings"):
        return set()
    names = checkpoint.names()
    heads = [name for name in names if name.endswith(OUTPUT_HEADS)]
    embeddings = [name for name in names if name.endswith(INPUT_EMBEDDINGS)]
    return {
        head
        for head in heads
        for embedding in embeddings
        if checkpoint.shape(head) == checkpoint.shape(embedding)
        and torch.equal(checkpoint.tensor(head), checkpoint.tensor(embedding))
    }


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in _WITH_TOKENS)


def tokens(checkpoint: Checkpoint) -> dict[str, int] | None:
    """The id of every token that a checkpoint's tokenizer knows, added ones included; None if it has no tokenizer.

    Raises:
        UsageError: If there are tokenizer files but they cannot be read.
    """
    folder, alias = checkpoint.folder, checkpoint.alias
    if not has_tokenizer(folder):
        return None
    fast = folder / "tokenizer.json"
    try:
        known = _fast_tokens(fast, alias) if fast.is_file() else _slow_tokens(folder)
        return known | _added_tokens(folder, alias)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, ImportError) as error:
        raise UsageError(f"{alias}: the tokenizer in {folder} cannot be read: {error}") from error


def tokens_sha256(checkpoint: Checkpoint) -> str | None:
    """SHA-256 of which token has which id; None if the checkpoint has no tokenizer.

    Raises:
        UsageError: If there are tokenizer files but they cannot be read.
    """
    known = tokens(checkpoint)
    if known is None:
        return None
    return hashlib.sha256(json.dumps(known, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _fast_tokens(path: Path, alias: str) -> dict[str, int]:
    tokenizer = read_object(path, alias)
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram: tokens with their scores, in the order of their ids
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{added["content"]: added["id"] for added in tokenizer.get("added_tokens", [])}}


def _slow_tokens(folder: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return dict(tokenizer.get_vocab())


def _added_tokens(folder: Path, alias: str) -> dict[str, int]:
    """Tokens that transformers adds from the files beside the tokenizer."""
    known: dict[str, int] = {}
    if (folder / "added_tokens.json").is_file():
        known.update(read_object(folder / "added_tokens.json", alias))
    if (folder / "tokenizer_config.json").is_file():
        decoder = json.loads((folder / "tokenizer_config.json").read_bytes()).get("added_tokens_decoder", {})
        known.update({added["content"]: int(number) for number, added in decoder.items()})
    return known
