"""GGUF files, written and proven: llama.cpp cuts texts and answers as the model does, or nothing is left."""

import importlib.util

from optmerge.errors import OptmergeError, UsageError
from optmerge.interchange.export import Export
from optmerge.models.vocabulary import vocabulary_size
from optmerge.phrases import shown_bytes
from optmerge.recipe import RECIPE, RECIPE_KEY, load_recipe

# What tokenizers like to disagree on: white space, digits, signs, scripts.
_AWKWARD = (
    "\n \n\n \t\tone  two   three\n    four ",
    "I've 'told' you: it'll cost $3.50, or 1,234,567 yen!!! (33 333 3333)",
    "日本語の文章、とカタカナ。ＡＢＣ１２３ 한국어 Ελληνικά нещо 我想在apple工作1314151天～",
    "🚀 (normal) 😶‍🌫️ ✅ 🦙🦙 ------======= ''''```",
)


def needed() -> None:
    """Refuse before any work starts where a library is not installed.

    Raises:
        UsageError: If so.
    """
    for library in ("gguf", "xllamacpp"):
        if importlib.util.find_spec(library) is None:
            raise UsageError(f"format=gguf needs {library}, which is not there; pip install 'optmerge[gguf]'")


def write_and_ask(export: Export, kind: str, *, least: float, widest: float) -> None:
    """Write the file and the recipe, load the file in llama.cpp, and hold it against the model.

    Args:
        export: What to write, and where.
        kind: How matrices are stored, see `write_gguf`.
        least: What share of greedy responses must be the same.
        widest: How far apart logits may be where responses part, in units of the greatest.

    Raises:
        UsageError: If llama.cpp has no such model, or no such tokenizer.
        OptmergeError: If llama.cpp says otherwise.
    """
    import torch

    from optmerge.flow.agreement import PROMPTS
    from optmerge.interchange.gguf_file import check_config, sliding_window, write_gguf
    from optmerge.interchange.gguf_vocabulary import WORDS, gguf_vocabulary
    from optmerge.interchange.likeness import NEW_TOKENS, ask, before_special, likeness, prompts_for
    from optmerge.interchange.llama_cpp import ask_llama_cpp
    from optmerge.interchange.plain import open_model, open_tokenizer, plain_model
    from optmerge.models import Checkpoint
    from optmerge.models.form import Form

    check_config(export.companions.config)
    tokenizer = open_tokenizer(export.companions.folder)
    vocabulary = gguf_vocabulary(tokenizer, vocabulary_size(export.companions.config) or len(tokenizer))
    path = export.folder / f"model-{kind.lower()}.gguf"
    special = set(tokenizer.all_special_ids)
    with plain_model(export) as folder:
        texts = {
            "general.name": f"optmerge {export.recipe.sha256[:12]}",
            RECIPE_KEY: load_recipe(export.folder / RECIPE).embedded(),
        }
        halves = write_gguf(path, Checkpoint.open(folder, "model", kept=False), kind, vocabulary, texts)
        model = open_model(folder, export.recipe.root.dtype)
        wanted = ask(model, prompts_for(model, tokenizer, export.prompts), special)
    del model
    to_cut = [*PROMPTS, *export.prompts]
    if vocabulary["tokenizer_model"] == WORDS:
        export.notice("llama.cpp cuts texts into the fewest words, the tokenizer takes the longest first")
    else:
        to_cut += _AWKWARD
    cut, responses = ask_llama_cpp(path, to_cut, wanted.prompts, NEW_TOKENS, torch.get_num_threads())
    otherwise = [text for text, tokens in zip(to_cut, cut, strict=True) if tokenizer(text)["input_ids"] != tokens]
    if otherwise:
        raise OptmergeError(
            f"llama.cpp cuts {len(otherwise)} of {len(to_cut)} texts otherwise than the tokenizer, "
            f"first {otherwise[0]!r}: it has no such tokenizer"
        )
    found = likeness(wanted, [before_special(response, special) for response in responses])
    said = f"{found.summary} in llama.cpp"
    if not found.holds(least, widest):
        raise OptmergeError(
            f"{path.name} is not the model: {said} "
            f"(at least {least:.0%} must be the same, and others part within {widest:g})"
        )
    window = sliding_window(export.companions.config)
    if window is not None:
        export.notice(f"the model looks back over {window} tokens, llama.cpp over all: longer texts may differ")
    if halves:
        export.notice(f"{halves} matrices are stored in float16, as their rows are no multiple of Q8_0's 32 entries")
    export.write_papers(Form("gguf", kind, (path.name,), said))
    export.notice(f"loaded and held against the model: {said}; {shown_bytes(path.stat().st_size)}")
