"""Sources whose tokenizers number their tokens differently: every row is found by its token."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, Fit, check_fit, companions, tokens_sha256, write_checkpoint

WORDS = ["<unk>", "<s>", "</s>", *(f"word{i}" for i in range(29))]  # those of conftest.py
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def fit(*folders: Path, tokenizer: str = "ja", base: str | None = None, pad: int | None = None) -> Fit:
    opened = {folder.name: Checkpoint.open(folder, folder.name) for folder in folders}
    return check_fit(opened, base=base, tokenizer=tokenizer, pad_vocabulary_to=pad)


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def row(folder: Path, words: list[str], word: str, name: str = EMBEDDING) -> Tensor:
    """A token's row, found as plainly as can be."""
    return weights(folder)[name][words.index(word)]


def aligned(found: Fit, alias: str, name: str = EMBEDDING) -> Tensor:
    return found.tensor(found.sources[alias], name)


def renumber(folder: Path, words: list[str], order: list[str]) -> None:
    """Give the tokens of a checkpoint other ids, and move their rows along: the same model, written otherwise."""
    tensors = weights(folder)
    for name in {EMBEDDING, HEAD} & set(tensors):
        tensors[name] = torch.stack([tensors[name][words.index(word)] for word in order])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] = {word: number for number, word in enumerate(order)}
    for added in tokenizer["added_tokens"]:
        added["id"] = order.index(added["content"])
    path.write_text(json.dumps(tokenizer))


def write(found: Fit, alias: str, folder: Path) -> Path:
    """The model that one source by itself merges to."""
    tensors = ((name, aligned(found, alias, name)) for name in found.names)
    dtype = found.sources[alias].dtype(EMBEDDING)
    write_checkpoint(folder, tensors, like=companions(found), shapes=found.shapes, dtype=dtype)
    return folder


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tied", [False, True])
def test_other_ids_for_the_same_tokens_change_nothing(make, seed, tied):
    ja, math = make("ja", tie_word_embeddings=tied), make("math", seed=1, tie_word_embeddings=tied)
    before = weights(math)
    order = random.Random(seed).sample(WORDS, len(WORDS))
    renumber(math, WORDS, order)
    assert not torch.equal(weights(math)[EMBEDDING], before[EMBEDDING])
    found = fit(ja, math, base="ja")
    assert found.notices == [
        "rows are matched by token to ja's vocabulary of 32 tokens in 32 rows: no source lacks any; nothing is filled"
    ]
    for name in found.names:
        assert torch.equal(aligned(found, "math", name), before[name])
        assert torch.equal(aligned(found, "ja", name), weights(ja)[name])


def test_equal_vocabularies_are_mapped_and_not_copied(make):
    found = fit(make("ja"), make("math", words=[*WORDS, "<step>"]))
    assert found.alignment is None
    math = found.sources["math"]
    assert aligned(found, "math").data_ptr() == math.tensor(EMBEDDING).data_ptr()


def test_source_in_the_right_order_is_mapped_where_another_is_not(make):
    ja, math = make("ja"), make("math")
    renumber(math, WORDS, WORDS[::-1])
    found = fit(ja, math)
    assert aligned(found, "ja").data_ptr() == found.sources["ja"].tensor(EMBEDDING).data_ptr()


def test_source_that_lacks_a_token_has_the_bases_row(make):
    ours, theirs = [*WORDS, "<pad>"], [*WORDS[:-1], "other"]
    ja, math, root = make("ja", words=ours), make("math", seed=1, words=theirs), make("root", seed=2, words=ours)
    found = fit(ja, math, root, base="root")
    (notice,) = found.notices
    assert notice.startswith("rows are matched by token to ja's vocabulary of 33 tokens in 33 rows: math lacks 2;")
    assert notice.endswith("; filled are 2 with root's row")
    for name in (EMBEDDING, HEAD):
        for number, word in enumerate(ours):
            expected = row(math, theirs, word, name) if word in theirs else row(root, ours, word, name)
            assert torch.equal(aligned(found, "math", name)[number], expected)
        assert torch.equal(aligned(found, "root", name), weights(root)[name])


@pytest.mark.parametrize("base", ["en", None])
def test_row_that_the_base_lacks_is_the_mean_of_those_that_have_it(make, base):
    ours = [*WORDS, "<pad>"]
    ja, math, en = make("ja", words=ours), make("math", seed=1, words=ours[::-1]), make("en", seed=2)
    found = fit(ja, math, en, base=base)
    mean = (row(ja, ours, "<pad>") + row(math, ours[::-1], "<pad>")) / 2
    assert torch.equal(aligned(found, "en")[32], mean)
    assert torch.equal(aligned(found, "ja")[32], row(ja, ours, "<pad>"))
    assert torch.equal(aligned(found, "math")[32], row(math, ours[::-1], "<pad>"))
    assert "en lacks 1; filled are 1 with the mean of the sources that have them" in found.notices[-1]


def test_mean_is_rounded_to_the_type_of_the_tensor(make):
    ours, options = [*WORDS, "<pad>"], {"dtype": torch.bfloat16}
    ja, math = make("ja", words=ours, **options), make("math", seed=1, words=ours, **options)
    en = make("en", seed=2, **options)
    found = fit(ja, math, en, base="en")
    mean = (row(ja, ours, "<pad>").float() + row(math, ours, "<pad>").float()) / 2
    assert torch.equal(aligned(found, "en")[32], mean.bfloat16())


def test_row_from_a_base_of_a_wider_type_is_exactly_the_bases(make):
    ours = [*WORDS, "<pad>"]
    found = fit(make("ja", words=ours), make("math", seed=1, dtype=torch.bfloat16), base="ja")
    assert aligned(found, "math").dtype == torch.float32
    assert torch.equal(aligned(found, "math")[32], aligned(found, "ja")[32])


def test_unused_rows_are_those_of_the_sources_that_do_not_use_them_either(make):
    ours = [*WORDS, "<step>"]
    ja, math = make("ja", vocab_size=36), make("math", seed=1, words=ours, vocab_size=36)
    found = fit(ja, math, base="ja")
    assert torch.equal(aligned(found, "math")[:32], weights(math)[EMBEDDING][:32])
    assert torch.equal(aligned(found, "math")[32], weights(ja)[EMBEDDING][32])  # <step>, which ja does not know
    assert torch.equal(aligned(found, "math")[33:], weights(math)[EMBEDDING][33:])


def test_padded_rows_that_nobody_has_are_the_mean_of_the_bases(make, tmp_path):
    ja, math = make("ja"), make("math", seed=1)
    found = fit(ja, math, base="math", pad=20)
    assert found.shapes[EMBEDDING] == found.shapes[HEAD] == (40, 16)
    assert found.notices == [
        "rows are matched by token to ja's vocabulary of 32 tokens in 40 rows: no source lacks any; filled are 8 with "
        "the mean of all rows of math"
    ]
    for alias, folder in (("ja", ja), ("math", math)):
        assert torch.equal(aligned(found, alias)[:32], weights(folder)[EMBEDDING])
        torch.testing.assert_close(aligned(found, alias)[32:], weights(math)[EMBEDDING].mean(0).expand(8, -1))
    model = AutoModelForCausalLM.from_pretrained(write(found, "ja", tmp_path / "out"))
    assert model.config.vocab_size == len(model.get_input_embeddings().weight) == 40


def test_padding_to_a_multiple_that_fits_already_changes_nothing(make):
    found = fit(make("ja"), make("math"), pad=16)
    assert (found.alignment, found.notices, found.shapes[EMBEDDING]) == (None, [], (32, 16))


def test_source_with_fewer_rows_for_the_same_tokens_fits(make):
    ja, math = make("ja", vocab_size=40), make("math", seed=1, vocab_size=36)
    found = fit(ja, math, base="ja")
    assert torch.equal(aligned(found, "math")[:36], weights(math)[EMBEDDING])
    assert torch.equal(aligned(found, "math")[36:], weights(ja)[EMBEDDING][36:])


def test_source_without_a_tokenizer_has_the_bases_tokens(make):
    ja, math, en = make("ja", words=WORDS[::-1]), make("math", seed=1), make("en", seed=2)
    for file in math.glob("tokenizer*"):
        file.unlink()
    found = fit(ja, math, en, base="en")
    assert found.notices[-1] == "math has no tokenizer: its tokens are taken to be those of en"
    assert torch.equal(aligned(found, "math"), weights(math)[EMBEDDING].flip(0))


def test_union_has_every_token_with_the_row_that_it_had(make, tmp_path):
    theirs, more = ["<unk>", "<s>", "</s>", "red", *WORDS[3:9], "blue"], ["</s>", "green", "<s>", "<unk>", "red"]
    en, ja, math = make("en"), make("ja", seed=1, words=theirs), make("math", seed=2, words=more)
    found = fit(en, ja, math, base="en", tokenizer="union")
    union = [*WORDS, "red", "blue", "green"]
    assert dict(found.vocabulary.ids) == {word: number for number, word in enumerate(union)}
    assert "the union vocabulary of 35 tokens in 35 rows: en lacks 3, ja lacks 24, math lacks 30" in found.notices[0]
    assert found.notices[1].startswith("union adds 3 tokens to en's tokenizer, first 'red'")
    written = write(found, "ja", tmp_path / "out")
    tokenizer, model = AutoTokenizer.from_pretrained(written), AutoModelForCausalLM.from_pretrained(written)
    assert tokenizer.get_vocab() == dict(found.vocabulary.ids)
    assert tokenizer("word1 red green blue word28", add_special_tokens=False)["input_ids"] == [4, 32, 34, 33, 31]
    assert tokenizer.decode([4, 32, 34]) == "word1 red green"
    assert model.config.vocab_size == len(union)
    for word, number in tokenizer.get_vocab().items():
        if word in theirs:
            expected = row(ja, theirs, word)
        elif word in WORDS:
            expected = row(en, WORDS, word)
        else:
            expected = row(math, more, word)
        assert torch.equal(model.get_input_embeddings().weight[number], expected), word


def test_union_without_a_base_begins_with_the_first_alias(make):
    ja, math = make("ja", words=WORDS[:20]), make("math", seed=1)
    found = fit(math, ja, tokenizer="union")
    assert list(found.vocabulary.ids) == WORDS
    mixed = aligned(found, "ja")
    assert torch.equal(mixed[:20], weights(ja)[EMBEDDING])
    assert torch.equal(mixed[20:], weights(math)[EMBEDDING][20:])


def test_union_is_padded(make):
    found = fit(make("ja"), make("math", words=[*WORDS, "red"]), base="ja", tokenizer="union", pad=64)
    assert found.shapes[EMBEDDING] == (64, 16)
    assert companions(found).config["vocab_size"] == 64


def test_union_has_no_more_rows_than_tokens(make):
    found = fit(make("ja", vocab_size=40), make("math", words=[*WORDS, "red"], vocab_size=48), tokenizer="union")
    assert found.shapes[EMBEDDING] == (33, 16)


def test_union_of_equal_vocabularies_is_mapped(make, tmp_path):
    found = fit(make("ja"), make("math"), base="ja", tokenizer="union")
    assert (found.alignment, found.notices) == (None, [])
    assert AutoTokenizer.from_pretrained(write(found, "math", tmp_path / "out")).get_vocab() == found.vocabulary.ids


def test_union_keeps_special_tokens_special_and_takes_what_the_base_lacks(make, tmp_path):
    en, ja = make("en"), make("ja", seed=1, words=[*WORDS, "<turn>", "<hole>"])
    tokenizer = AutoTokenizer.from_pretrained(ja)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"], "pad_token": "<hole>"})
    tokenizer.chat_template = "{{ messages[0].content }}<turn>"
    tokenizer.save_pretrained(ja)
    bare = AutoTokenizer.from_pretrained(en)
    bare.pad_token = None
    bare.save_pretrained(en)
    found = fit(en, ja, base="en", tokenizer="union")
    written = write(found, "ja", tmp_path / "out")
    again, config = AutoTokenizer.from_pretrained(written), AutoConfig.from_pretrained(written)
    assert (again.pad_token, again.pad_token_id, config.pad_token_id) == ("<hole>", 33, 33)
    assert (config.bos_token_id, config.eos_token_id) == (again.bos_token_id, again.eos_token_id) == (1, 2)
    assert again.decode([4, 32, 5], skip_special_tokens=True) == "word1 word2"
    assert again.apply_chat_template([{"role": "user", "content": "word3"}], tokenize=False) == "word3<turn>"
    assert again("word3<turn>", add_special_tokens=False)["input_ids"] == [6, 32]


def test_union_leaves_no_padding_id_without_a_row(make, tmp_path):
    ja = make("ja", vocab_size=40, pad_token_id=39)
    found = fit(ja, make("math", words=[*WORDS, "red"]), tokenizer="union")
    assert AutoConfig.from_pretrained(write(found, "ja", tmp_path / "out")).pad_token_id == WORDS.index("</s>")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_chat_template_and_special_tokens_are_those_of_the_tokenizers_source(make, tmp_path):
    ja, math = make("ja"), make("math", seed=1, words=WORDS[::-1])
    tokenizer = AutoTokenizer.from_pretrained(math)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(math)
    written = write(fit(ja, math, base="ja", tokenizer="math"), "ja", tmp_path / "out")
    again = AutoTokenizer.from_pretrained(written)
    assert again.chat_template == tokenizer.chat_template
    assert again.get_vocab() == {word: number for number, word in enumerate(WORDS[::-1])}
    assert (again.bos_token_id, again.eos_token_id) == (30, 29)


def test_tied_embeddings_stay_tied(make, tmp_path):
    tied = {"tie_word_embeddings": True}
    ja, math = make("ja", **tied), make("math", seed=1, words=[*WORDS[::-1], "red"], **tied)
    found = fit(ja, math, base="ja", tokenizer="union")
    assert HEAD not in found.names
    model = AutoModelForCausalLM.from_pretrained(write(found, "math", tmp_path / "out"))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[32], row(math, [*WORDS[::-1], "red"], "red"))


def test_aligned_model_computes_what_its_source_does(make, tmp_path):
    ja, math = make("ja"), make("math", seed=1)
    order = random.Random(0).sample(WORDS, len(WORDS))
    renumber(math, WORDS, order)
    written = write(fit(ja, math), "math", tmp_path / "out")
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(math)(torch.tensor([[order.index(w) for w in WORDS[3:13]]]))
        ours = AutoModelForCausalLM.from_pretrained(written)(torch.tensor([list(range(3, 13))]))
    torch.testing.assert_close(ours.logits, theirs.logits[..., [order.index(word) for word in WORDS]])


def test_sentencepiece_tokenizers_are_aligned_and_united(opened, tmp_path):
    import sentencepiece

    pieces = {}
    for name, text in (("old", "the number"), ("new", "a cat and the bird")):
        checkpoint = opened(name, seed=len(pieces), words=[*WORDS, *"abcdefgh"])
        lines = tmp_path / "text.txt"
        lines.write_text("\n".join(f"{text} {i} comes before {i + 1}" for i in range(200)))
        sentencepiece.SentencePieceTrainer.train(
            input=str(lines), model_prefix=str(checkpoint.folder / "tokenizer"), vocab_size=40, minloglevel=2,
            model_type="bpe",
        )  # fmt: skip
        (checkpoint.folder / "tokenizer.json").unlink()
        (checkpoint.folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
        model = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint.folder / "tokenizer.model"))
        pieces[name] = [model.id_to_piece(i) for i in range(40)]
    old, new = (Checkpoint.open(tmp_path / name, name) for name in ("old", "new"))
    assert pieces["old"] != pieces["new"]
    found = check_fit({"old": old, "new": new}, base="old", tokenizer="old")
    for number, piece in enumerate(pieces["old"]):
        place = pieces["new"].index(piece) if piece in pieces["new"] else None
        expected = old.tensor(EMBEDDING)[number] if place is None else new.tensor(EMBEDDING)[place]
        assert torch.equal(found.tensor(new, EMBEDDING)[number], expected), piece
    union = check_fit({"old": old, "new": new}, base="old", tokenizer="union")
    beside = companions(union)
    written = AutoTokenizer.from_pretrained(beside.folder)
    assert written.get_vocab() == dict(union.vocabulary.ids)
    assert set(pieces["old"]) | set(pieces["new"]) == set(written.get_vocab())


def test_byte_level_vocabularies_are_united(make, tmp_path):
    from tokenizers import ByteLevelBPETokenizer

    folders = []
    for name, text in (("ja", "1たす2は3です。"), ("math", "one and two are three")):
        trained = ByteLevelBPETokenizer()
        trained.train_from_iterator([text] * 20, vocab_size=270, special_tokens=["<s>"], show_progress=False)
        folders.append(make(name, vocab_size=trained.get_vocab_size()))
        for file in folders[-1].glob("tokenizer*"):
            file.unlink()
        trained.save_model(str(folders[-1]))  # vocab.json and merges.txt
        (folders[-1] / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "unk_token": "<s>"}')
    found = fit(*folders, tokenizer="union")
    beside = companions(found)
    written = AutoTokenizer.from_pretrained(beside.folder)
    assert written.get_vocab() == dict(found.vocabulary.ids)
    alone = AutoTokenizer.from_pretrained(folders[0])
    assert set(alone.get_vocab()) < set(written.get_vocab())
    assert written("1たす2は").input_ids == alone("1たす2は").input_ids
    assert written.decode(written("one and two").input_ids) == "one and two"


def test_gaps_in_the_ids_of_a_union_are_refused(make):
    ja = make("ja", vocab_size=48)
    path = ja / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["far"] = 40
    path.write_text(json.dumps(tokenizer))
    found = fit(ja, make("math", words=[*WORDS, "red"]), base="ja", tokenizer="union")
    with pytest.raises(UsageError, match=r"ja's tokenizer gives 'red' the id \d+, not 41, as its ids have gaps"):
        companions(found)


def test_source_called_union_is_refused(make):
    with pytest.raises(UsageError, match="a source is called 'union'"):
        fit(make("union"), make("math"), tokenizer="union")


def test_hash_of_tokens_follows_their_ids_only(make):
    ja, math, other = make("ja"), make("math", seed=1), make("other", words=WORDS[::-1])
    hashes = [tokens_sha256(Checkpoint.open(folder, "source")) for folder in (ja, math, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    for file in ja.glob("tokenizer*"):
        file.unlink()
    assert tokens_sha256(Checkpoint.open(ja, "source")) is None
