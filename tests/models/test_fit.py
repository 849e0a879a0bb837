import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, check_fit
from optmerge.models.vocabulary import tokens

# The word list of conftest.py with a token more, as fine-tunes add them.
WORDS = ["<unk>", "<s>", "</s>", *(f"word{i}" for i in range(29))]
EMBEDDING = "model.embed_tokens.weight"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def fit(*folders, tokenizer="ja", base=None):
    return check_fit({f.name: Checkpoint.open(f, f.name) for f in folders}, base=base, tokenizer=tokenizer)


def test_equal_models_fit(make):
    ja, math = make("ja"), make("math", seed=1)
    found = fit(ja, math, base="math")
    checkpoint = Checkpoint.open(ja, "ja")
    assert found.names == checkpoint.names()
    assert found.shapes == {name: checkpoint.shape(name) for name in found.names}
    assert found.notices == []


@pytest.mark.parametrize(("base", "tokenizer", "told"), [("mth", "ja", "'math'"), (None, "jaa", "'ja'")])
def test_unknown_alias_is_refused_with_a_hint(make, base, tokenizer, told):
    with pytest.raises(UsageError, match=told):
        fit(make("ja"), make("math"), base=base, tokenizer=tokenizer)


def test_added_rows_are_cut_with_a_notice(make):
    ja, math = make("ja"), make("math", seed=1, words=[*WORDS, "<pad>", "<step>"])
    found = fit(ja, math)
    assert found.notices == [
        "math has 34 vocabulary rows, ja 32: the rows of ja's tokens are merged, 2 dropped",
    ]
    assert found.shapes[EMBEDDING] == found.shapes["lm_head.weight"] == (32, 16)
    checkpoint = Checkpoint.open(math, "math")
    for name in (EMBEDDING, "lm_head.weight"):
        assert torch.equal(found.tensor(checkpoint, name), checkpoint.tensor(name)[:32])


def test_differing_shapes_are_refused(make):
    with pytest.raises(
        UsageError, match=r"^ja and math do not fit: 6 shapes differ: .*\[24, 16\] and \[28, 16\].* and 3"
    ):
        fit(make("ja"), make("math", intermediate_size=28))


def test_differing_heads_of_the_same_shapes_are_refused(make):
    with pytest.raises(UsageError, match=r"^ja and math do not fit: num_attention_heads is 4 and 2"):
        fit(make("ja"), make("math", num_attention_heads=2, num_key_value_heads=1, head_dim=8))


@pytest.mark.parametrize(("lacking", "layers"), [("ja", 3), ("math", 1)])
def test_missing_tensors_are_refused(make, lacking, layers):
    with pytest.raises(UsageError, match=rf"^ja and math do not fit: {lacking} lacks 9 of .* and 6 more$"):
        fit(make("ja"), make("math", num_hidden_layers=layers))


@pytest.mark.parametrize(
    "changes", [{"model_type": "mistral"}, {"architectures": ["MistralForCausalLM"]}], ids=lambda c: next(iter(c))
)
def test_differing_architectures_are_refused(make, changes):
    math = make("math")
    change_config(math, **changes)
    with pytest.raises(UsageError, match=rf"^ja and math do not fit: {next(iter(changes))} is .*lama.* and .*istral"):
        fit(make("ja"), math)


def test_quantized_source_is_refused(make):
    math = make("math")
    change_config(math, quantization_config={"quant_method": "gptq"})
    with pytest.raises(UsageError, match=r"^math: .* is quantized"):
        fit(make("ja"), math)


@pytest.mark.parametrize("changes", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}])
def test_differing_rotary_base_is_a_notice(make, changes):
    ja, math = make("ja"), make("math")
    change_config(ja, rope_theta=1e4)
    change_config(math, **changes)
    config = json.loads((math / "config.json").read_text())
    assert config.get("rope_theta", 5e5) == 5e5
    assert any(
        notice.startswith("rope_theta is 10000.0 in ja and 500000.0 in math") for notice in fit(ja, math).notices
    )


def test_token_beyond_the_rows_of_every_source_is_a_notice(make):
    ja = make("ja")
    (ja / "added_tokens.json").write_text('{"<new>": 32}')
    found = fit(ja, make("math"))
    assert found.notices == ["ja's tokenizer knows 1 tokens that no source has a row for"]
    assert found.shapes[EMBEDDING] == (32, 16)


@pytest.mark.parametrize("tied", ["ja", "math"])
def test_tied_and_untied_sources_are_refused(make, tied):
    folders = [make(name, tie_word_embeddings=name == tied) for name in ("ja", "math")]
    with pytest.raises(UsageError, match=rf"^ja and math do not fit: {tied} ties its output head to its embedding"):
        fit(*folders)


def test_unigram_tokenizer_numbers_its_tokens_in_order(make):
    ja, math = make("ja"), make("math")
    tokenizer = json.loads((math / "tokenizer.json").read_text())
    tokenizer["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[word, -1.0] for word in WORDS]}
    (math / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert fit(ja, math).notices == []


def test_damaged_tokenizer_is_named(make):
    ja = make("ja")
    (ja / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"^ja: the tokenizer in .*ja cannot be read"):
        fit(ja, make("math"))


@pytest.mark.parametrize("without", ["ja", "math"])
def test_only_the_chosen_source_needs_a_tokenizer(make, without):
    folders = [make("ja"), make("math")]
    for file in (folders[0].parent / without).glob("tokenizer*"):
        file.unlink()
    if without == "ja":
        with pytest.raises(UsageError, match=r"^ja: .* has no tokenizer"):
            fit(*folders)
    else:
        assert fit(*folders).notices == ["math has no tokenizer: its tokens are taken to be those of ja"]


@pytest.mark.parametrize("with_copy", ["ja", "math"])
def test_copy_of_a_tied_embedding_does_not_count(make, with_copy):
    folders = [make("ja", tie_word_embeddings=True), make("math", tie_word_embeddings=True)]
    change_weights(
        folders[0].parent / with_copy, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()})
    )
    assert "lm_head.weight" not in fit(*folders).names


def test_stored_rotary_frequencies_do_not_count(make):
    ja, math = make("ja"), make("math")
    change_weights(math, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}))
    assert fit(ja, math).names == Checkpoint.open(ja, "ja").names()


def test_tokenizers_without_tokenizer_json_are_read(opened, tmp_path):
    import sentencepiece

    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the number {i} comes before {i + 1}" for i in range(200)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=32, model_type="bpe", minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    old, new = opened("old"), opened("new")
    for checkpoint in (old, new):
        (checkpoint.folder / "tokenizer.json").unlink()
        (checkpoint.folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
        (checkpoint.folder / "tokenizer.model").write_bytes((tmp_path / "tokenizer.model").read_bytes())
    read = tokens(old)
    assert read is not None
    assert {pieces.id_to_piece(i): i for i in range(32)}.items() <= read.items()
    assert check_fit({"old": old, "new": new}, base="old", tokenizer="new").notices == []
