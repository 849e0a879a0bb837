"""A tokenizer as llama.cpp knows it: one of its three algorithms, its tokens, and what it adds around a text.

What a tokenizer adds is read from what it does, not from its many settings. llama.cpp has the rules by which byte-level
tokenizers first cut a text built in, under names; those of three wide-spread families are recognised here. Whether
llama.cpp then cuts texts as the tokenizer does is seen on the file that was written, see `optmerge.interchange.gguf`.
"""

import json
from collections.abc import Mapping
from typing import Any

from optmerge.errors import UsageError

SPACE = "▁"
WORDS = "t5"
"""What llama.cpp calls the tokenizer that whole words are given to: its unigram one."""

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS = {_WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe", _WORDS + r"\p{N}" + _REST: "qwen2"}
"""How byte-level tokenizers cut texts into words, and what llama.cpp calls it."""


def gguf_vocabulary(tokenizer: Any, rows: int) -> dict[str, Any]:
    """What `gguf.GGUFWriter.add_NAME` is to be told of a tokenizer, by name.

    Args:
        tokenizer: A tokenizer of transformers.
        rows: How many rows the embeddings have; there may be more than tokens.

    Raises:
        UsageError: If llama.cpp has no such tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"format=gguf: the tokenizer, a {type(tokenizer).__name__}, has no tokenizer.json")
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] == "BPE" and model.get("byte_fallback"):
        said = _sentencepiece(model)
    elif model["type"] == "BPE" and "ByteLevel" in _types(described["pre_tokenizer"]):
        said = _byte_level(described)
    elif model["type"] == "WordLevel" and described["normalizer"] is None:
        said = _words(described)
    else:
        raise UsageError(
            f"format=gguf: llama.cpp has no tokenizer like this {model['type']} one; known here are BPE on bytes, BPE "
            "with bytes to fall back on (as sentencepiece makes), and whole words"
        )
    said["token_list"], said["token_types"] = _tokens(tokenizer, model, rows, spaced="token_scores" in said)
    if "token_scores" in said:
        said["token_scores"] = [float(said["token_scores"].get(token, -1e6)) for token in said["token_list"]]
    return said | _added_around(tokenizer) | _special(tokenizer)


def _types(part: Any) -> set[str]:
    """The types of all steps of a pre-tokenizer."""
    if part is None:
        return set()
    inner = part.get("pretokenizers", [])
    return {part["type"]}.union(*(_types(one) for one in inner))


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ", 1)) for pair in model["merges"]]


def _sentencepiece(model: Mapping[str, Any]) -> dict[str, Any]:
    """llama.cpp joins whichever neighbours make the token with the highest score: the one that was merged first."""
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(_merges(model)):
        scores.setdefault(left + right, -rank)
    return {"tokenizer_model": "llama", "tokenizer_pre": "default", "token_scores": scores}


def _byte_level(described: Mapping[str, Any]) -> dict[str, Any]:
    steps = described["pre_tokenizer"].get("pretokenizers", [described["pre_tokenizer"]])
    patterns = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    plain = [step for step in steps if step["type"] == "ByteLevel" and step["use_regex"]]
    known = "gpt-2" if plain and not patterns else CUTS.get(patterns[0]) if len(patterns) == 1 else None
    if known == "llama-bpe" and not described["model"].get("ignore_merges"):
        known = "smaug-bpe"  # cuts alike, and joins words that are tokens as it joins others
    if known is None:
        raise UsageError(
            "format=gguf: the tokenizer cuts texts by a rule that is none of GPT-2's, Llama 3's and Qwen 2's; "
            "llama.cpp's convert_hf_to_gguf.py knows more"
        )
    # A space within a token is written as byte-level tokenizers write it.
    merges = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in _merges(described["model"])]
    return {"tokenizer_model": "gpt2", "tokenizer_pre": known, "token_merges": merges}


def _words(described: Mapping[str, Any]) -> dict[str, Any]:
    """Whole words, as llama.cpp's unigram tokenizer with one score for all: the fewest words that make the text."""
    if "Split" not in _types(described["pre_tokenizer"]) or (described["decoder"] or {}).get("type") != "Fuse":
        raise UsageError("format=gguf: words that are cut at spaces, or joined by them, llama.cpp has no tokenizer for")
    scores = {token.replace(" ", SPACE): -1.0 for token in described["model"]["vocab"]}
    return {
        "tokenizer_model": WORDS,
        "tokenizer_pre": "default",
        "token_scores": scores,
        "remove_extra_whitespaces": False,
    }


def _tokens(tokenizer: Any, model: Mapping[str, Any], rows: int, *, spaced: bool) -> tuple[list[str], list[int]]:
    """Text and type of every row; those that no token uses are named after their number."""
    from gguf import TokenType

    tokens, types = [f"[PAD{row}]" for row in range(rows)], [int(TokenType.UNUSED)] * rows
    for token, number in model["vocab"].items():
        is_byte = bool(model.get("byte_fallback")) and len(token) == 6 and token[:3] == "<0x" and token[5] == ">"
        kind = TokenType.BYTE if is_byte else TokenType.NORMAL
        kind = TokenType.UNKNOWN if token == model.get("unk_token") else kind
        tokens[number], types[number] = token.replace(" ", SPACE) if spaced else token, int(kind)
    for number, added in tokenizer.added_tokens_decoder.items():
        tokens[number] = added.content
        if types[number] != TokenType.UNKNOWN:
            types[number] = int(TokenType.CONTROL if added.special else TokenType.USER_DEFINED)
    return tokens, types


def _added_around(tokenizer: Any) -> dict[str, bool]:
    """Whether the tokenizer puts a beginning, an end, or a space around a text."""
    with_all = tokenizer("x")["input_ids"]
    (first, *_) = tokenizer.convert_ids_to_tokens(tokenizer("x", add_special_tokens=False)["input_ids"])
    return {
        "add_bos_token": tokenizer.bos_token_id is not None and with_all[0] == tokenizer.bos_token_id,
        "add_eos_token": tokenizer.eos_token_id is not None and with_all[-1] == tokenizer.eos_token_id,
        "add_space_prefix": first.startswith(SPACE),
    }


def _special(tokenizer: Any) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            said[f"{name}_token_id"] = number
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return said | ({"chat_template": template} if template else {})
