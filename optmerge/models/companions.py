"""What lies beside a merged model's weights: config, generation config and tokenizer, made to suit its vocabulary."""

import copy
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optmerge.errors import UsageError
from optmerge.models.alignment import Vocabulary
from optmerge.models.checkpoint import Checkpoint
from optmerge.models.fit import Fit
from optmerge.models.vocabulary import has_tokenizer, vocabulary_size
from optmerge.models.write import copy_companions, with_rows, write_json

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, eq=False)
class Companions:
    """A folder that lacks nothing of a checkpoint but its weights.

    Attributes:
        folder: Holds config.json and the tokenizer.
        config: The config.json.
    """

    folder: Path
    config: Mapping[str, Any]
    _kept: Any = field(default=None, repr=False)  # a temporary folder goes away with the object that stands for it


def companions(fit: Fit) -> Companions:
    """Config and tokenizer of what is merged from fitted checkpoints.

    They are those of the source that gives the vocabulary, where they lie, if nothing has to be changed. Otherwise they
    are in a temporary folder that lasts as long as the result. A union's tokenizer is the giver's with the tokens of
    the others added whole, special ones as special; a chat template or a special token (bos, eos, unk, pad) that the
    giver lacks comes from the first source, in the order of aliases, that has one.

    Raises:
        UsageError: If no tokenizer can be written that gives the tokens these ids.
    """
    vocabulary = fit.vocabulary
    giver = fit.sources[vocabulary.giver]
    padded = vocabulary_size(giver.config) not in (None, vocabulary.rows) and fit.alignment is not None
    # An adapter's folder is no model, though it may hold a tokenizer and a config.
    whole = (giver.folder / "config.json").is_file() and not (giver.folder / "adapter_config.json").is_file()
    if not vocabulary.union and not padded and whole:
        return Companions(giver.folder, giver.config)
    kept = tempfile.TemporaryDirectory(prefix="optmerge-")
    folder = Path(kept.name)
    copy_companions(giver.folder, folder)
    config = with_rows(copy.deepcopy(dict(giver.config)), vocabulary.rows)
    if vocabulary.union:
        special = _write_union(folder, fit)
        if (config.get("pad_token_id") or 0) >= vocabulary.rows:  # a row that no token used, and which is cut
            del config["pad_token_id"]
        _complete(config, special)
        _complete_generation(folder / "generation_config.json", special)
    write_json(folder / "config.json", config)
    return Companions(folder, config, kept)


def _write_union(folder: Path, fit: Fit) -> dict[str, int]:
    """Add to the giver's tokenizer, which lies in `folder`, what it lacks; give the ids of its special tokens."""
    from transformers import AddedToken

    vocabulary = fit.vocabulary
    tokenizer = _load(fit.sources[vocabulary.giver])
    others = {alias: found for alias in sorted(fit.sources) if (found := _load(fit.sources[alias])) is not None}
    declared = {
        alias: {added.content: added for added in found.added_tokens_decoder.values()}
        for alias, found in others.items()
    }
    tokenizer.add_tokens(
        [declared[alias].get(token, AddedToken(token, normalized=True)) for token, alias in vocabulary.added.items()]
    )
    for name in SPECIAL:
        if getattr(tokenizer, name) is None:
            token = next((getattr(found, name) for found in others.values() if getattr(found, name)), None)
            if token in vocabulary.ids:
                setattr(tokenizer, name, token)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = next((found.chat_template for found in others.values() if found.chat_template), None)
    _check_ids(tokenizer.get_vocab(), vocabulary)
    for old in folder.iterdir():
        if old.name != "generation_config.json":
            old.unlink()
    tokenizer.save_pretrained(folder)
    numbers = {name: getattr(tokenizer, f"{name}_id") for name in SPECIAL}
    return {name: number for name, number in numbers.items() if number is not None and number < vocabulary.rows}


def _load(checkpoint: Checkpoint) -> Any:
    """A source's tokenizer; None if it has none."""
    from transformers import AutoTokenizer

    if not has_tokenizer(checkpoint.folder):
        return None
    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        where = f"{checkpoint.alias}: the tokenizer in {checkpoint.folder}"
        raise UsageError(f"{where} cannot be read: {str(error).splitlines()[0]}") from error


def _check_ids(written: Mapping[str, int], vocabulary: Vocabulary) -> None:
    """A tokenizer numbers added tokens itself: where the giver's ids have gaps, it may do so otherwise."""
    for token, number in vocabulary.ids.items():
        if written.get(token, None if token in vocabulary.added else number) != number:
            raise UsageError(
                f"models.tokenizer=union: {vocabulary.giver}'s tokenizer gives {token!r} the id {written.get(token)}, "
                f"not {number}, as its ids have gaps: name the source whose vocabulary is to be used"
            )


def _complete(settings: dict[str, Any], special: Mapping[str, int]) -> None:
    """Name the special tokens that a config leaves open; those that it names keep their ids in a union."""
    for name in ("bos_token", "eos_token", "pad_token"):
        if settings.get(f"{name}_id") is None and name in special:
            settings[f"{name}_id"] = special[name]


def _complete_generation(path: Path, special: Mapping[str, int]) -> None:
    if path.is_file():
        settings = json.loads(path.read_bytes())
        _complete(settings, special)
        write_json(path, settings)
