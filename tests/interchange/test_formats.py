"""Exports as GGUF and in 8 bits: other programs load them and answer as the model does, or nothing is left."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from interchange.test_import import refused
from optmerge.__main__ import run
from optmerge.interchange import gguf_file
from optmerge.interchange.formats import int8
from optmerge.interchange.gguf_vocabulary import CUTS
from optmerge.models import Checkpoint, scan
from optmerge.models.product import embedded_recipe, recipe_of
from optmerge.models.source_licences import declared_in
from optmerge.recipe import (
    RECIPE,
    RECIPE_KEY,
    CheckpointNode,
    Group,
    Hop,
    MergeNode,
    Node,
    PathNode,
    Recipe,
    load_recipe,
)

needs_gguf = pytest.mark.skipif(
    not (importlib.util.find_spec("gguf") and importlib.util.find_spec("xllamacpp")),
    reason="optmerge[gguf] is not installed",
)
needs_int8 = pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="optmerge[int8] is not installed")

Problems = list[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def leaf(folder: Path) -> CheckpointNode:
    return CheckpointNode(str(folder), scan(Checkpoint.open(folder, folder.name)).weights_sha256)


def save(root: Node) -> Path:
    assert not isinstance(root, CheckpointNode)
    Recipe(root).save(Path("recipe.yaml"))
    return Path("recipe.yaml")


def merged(*folders: Path) -> Path:
    """The recipe of an average."""
    sources = {folder.name: leaf(folder) for folder in folders}
    group = Group(("*",), parameters={alias: {"weight": 1 / len(sources)} for alias in sources})
    return save(MergeNode("linear", sources, None, folders[0].name, "float32", {"all": group}))


@pytest.fixture
def recipe(zoo: Path) -> Path:
    return merged(zoo / "ja", zoo / "base")


@pytest.fixture
def problems(zoo: Path) -> Problems:
    lines = (zoo / "problems" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def places(zoo: Path) -> list[str]:
    """Where the sources of an average are."""
    return [f"sources.{name}={zoo / name}" for name in ("ja", "base")]


def said_of(card: str) -> str:
    """What a card says of the model in its form and as it was."""
    return next(line for line in card.splitlines() if "greedy responses are the same" in line)


def opened(folder: Path, **how: Any) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, **how)
    return model.eval()


def rebuilt(recipe: Path) -> Any:
    """The model that the recipe says, as `rebuild` writes it."""
    assert run(["rebuild", str(recipe), "rebuilt"]) == 0
    return opened(Path("rebuilt"))


def answer(model: Any, tokens: list[int]) -> list[int]:
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        found: list[int] = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0].tolist()
    return found[len(tokens) :]


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(60).reshape(2, 30)).logits
    return found


@needs_int8
def test_int8_loads_in_transformers_and_answers_alike(
    recipe: Path, zoo: Path, problems: Problems, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchao.quantization import Int8Tensor

    assert run(["export", str(recipe), "out", "format=int8"]) == 0
    printed = capsys.readouterr().out
    assert "of 38 greedy responses are the same" in printed and "of the greatest apart" in printed
    assert {path.suffix for path in Path("out").iterdir()} == {".json", ".md", ".safetensors", ".yaml"}
    card = ModelCard.load("out/README.md")
    assert card.data.library_name == "transformers" and "torchao" in (card.data.tags or [])
    assert "\n# out (int8, torchao)\n" in card.text and "pip install torchao" in card.text
    assert run(["push", "out", "me/merge-int8", "--dry-run", "licence=apache-2.0", "out=up"]) == 0
    assert {path.name for path in Path("up").iterdir()} == {path.name for path in Path("out").iterdir()}
    sent = ModelCard.load("up/README.md").text
    assert "\n# me/merge-int8 (int8, torchao)\n" in sent and said_of(sent) == said_of(card.text)
    model, wanted = opened(Path("out")), rebuilt(recipe)
    assert isinstance(model.model.layers[0].mlp.up_proj.weight, Int8Tensor)
    tokenizer = AutoTokenizer.from_pretrained("out")
    asked = [tokenizer(problem)["input_ids"] for problem in problems]
    same = sum(answer(model, tokens) == answer(wanted, tokens) for tokens in asked)
    assert same >= 0.8 * len(problems)
    far = float((logits(model) - logits(wanted)).abs().max() / logits(wanted).abs().max())
    assert 0 < far < 0.05
    capsys.readouterr()
    for place in ("out", "out/model.safetensors"):
        assert run(["show", place]) == 0
        assert capsys.readouterr().out.startswith(f"{place}: in 8 bits by torchao, made from: a merge by ")
    (out := Path("out") / RECIPE).rename("kept.yaml")
    found = recipe_of(Path("out"))  # in the weights' own metadata
    assert found is not None
    assert found[0].sha256 == load_recipe(recipe).sha256
    Path("kept.yaml").rename(out)
    assert run(["rebuild", "--check", "out/recipe.yaml", *places(zoo)]) == 0


@needs_int8
def test_int8_that_answers_otherwise_is_not_kept(
    recipe: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = int8._write
    monkeypatch.setattr(int8, "_write", lambda plain, out, dtype: write(zoo / "math_add", out, dtype))
    assert run(["export", str(recipe), "out", "format=int8"]) == 1
    assert "in 8 bits the model is another one" in capsys.readouterr().err
    assert not list(Path().glob("out*"))


@needs_gguf
def test_gguf_is_read_by_transformers_as_the_same_model(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import gguf

    assert run(["export", str(recipe), "out", "format=gguf"]) == 0
    assert "38 of 38 greedy responses are the same in llama.cpp" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == ["README.md", "model-f32.gguf", "recipe.yaml"]
    torch.testing.assert_close(logits(opened(Path("out"), gguf_file="model-f32.gguf")), logits(rebuilt(recipe)))
    field = gguf.GGUFReader("out/model-f32.gguf").get_field(RECIPE_KEY)
    assert field is not None
    assert embedded_recipe(field.contents(), "metadata").sha256 == load_recipe(recipe).sha256
    card = ModelCard.load("out/README.md")
    assert "merge" in (card.data.tags or []) and not card.data.eval_results
    assert "`model-f32.gguf` is a GGUF file for llama.cpp, its matrices in F32" in card.text
    assert card.data.library_name == "gguf" and "from_pretrained" not in card.text
    # It travels: no folder of this machine is named, and where the sources are must be said.
    for path in Path("out").iterdir():
        assert str(zoo).encode() not in path.read_bytes(), path.name
    assert run(["rebuild", "--check", "out/recipe.yaml"]) == 2
    missing = capsys.readouterr().err
    assert "sources.ALIAS=FOLDER" in missing and "ja: there is no folder './ja'" in missing
    assert run(["rebuild", "--check", "out/recipe.yaml", *places(zoo)]) == 0


@needs_gguf
def test_gguf_is_shown_and_pushed(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ja", "base"):
        shutil.copytree(zoo / name, Path("sources") / name)
        (Path("sources") / name / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    recipe = merged(Path("sources/ja"), Path("sources/base"))
    assert run(["export", str(recipe), "out", "format=gguf"]) == 0
    card = Path("out/README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    family = []
    for place in ("out", "out/model-f32.gguf"):
        assert run(["show", place]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{place}: GGUF, F32, made from: a merge by ") and ", weights " not in lines[1]
        family.append(lines[2:])
    assert family[0] == family[1] and any(" ja" in line for line in family[0])
    # Where it goes the sources' cards are not at hand, and their licences are known nevertheless.
    assert run(["push", "out", "me/merge", "--dry-run"]) == 0
    assert {path.name for path in Path("me--merge").iterdir()} == {"README.md", "model-f32.gguf", "recipe.yaml"}
    assert Path("me--merge/model-f32.gguf").samefile("out/model-f32.gguf")
    sent = Path("me--merge/README.md").read_text(encoding="utf-8")
    assert declared_in(sent).text == declared_in(card).text == "mit"
    assert load_recipe(Path("me--merge/recipe.yaml")).to_yaml().count("licence: mit") == 2
    assert "\n# me/merge (GGUF, F32)\n" in sent and said_of(sent) == said_of(card)
    assert 'Llama.from_pretrained("me/merge", "model-f32.gguf")' in sent
    sent_recipe = Path("me--merge/recipe.yaml").read_bytes()
    Path("out/recipe.yaml").unlink()  # it is in the file, too
    assert run(["push", "out", "me/again", "--dry-run"]) == 0
    assert Path("me--again/recipe.yaml").read_bytes() == sent_recipe
    Path("half.gguf").write_bytes(Path("out/model-f32.gguf").read_bytes()[:999])
    assert "half.gguf is no whole GGUF file" in refused(capsys, "show", "half.gguf")


@needs_gguf
@pytest.mark.parametrize("form", ["gguf", "gguf_q8_0"])
def test_llama_cpp_answers_the_zoos_problems_alike(recipe: Path, zoo: Path, problems: Problems, form: str) -> None:
    from optmerge.interchange.llama_cpp import ask_llama_cpp

    asking = f"prompts={zoo / 'problems' / 'test.jsonl'}"
    assert run(["export", str(recipe), "out", f"format={form}", asking]) == 0
    (path,) = Path("out").glob("*.gguf")
    model, tokenizer = rebuilt(recipe), AutoTokenizer.from_pretrained("rebuilt")
    asked = [tokenizer(problem)["input_ids"] for problem in problems]
    cut, responses = ask_llama_cpp(path, problems, asked, 12, 1)
    assert cut == asked
    same = sum(answer(model, tokens) == response for tokens, response in zip(asked, responses, strict=True))
    assert same >= (len(problems) if form == "gguf" else 0.8 * len(problems))


@needs_gguf
def test_llama_cpp_python_computes_the_same_logits(recipe: Path, problems: Problems) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python, compiled for many minutes, is not installed")
    import numpy as np

    assert run(["export", str(recipe), "out", "format=gguf"]) == 0
    wanted, tokenizer = rebuilt(recipe), AutoTokenizer.from_pretrained("rebuilt")
    exact = {"type_k": 0, "type_v": 0, "flash_attn": False}  # keys and values in float32
    model = llama_cpp.Llama("out/model-f32.gguf", n_ctx=128, logits_all=True, n_threads=1, verbose=False, **exact)
    for problem in problems:
        tokens = tokenizer(problem)["input_ids"]
        assert model.tokenize(problem.encode(), add_bos=True) == tokens
        model.reset()
        model.eval(tokens)
        with torch.inference_mode():
            expected = wanted(torch.tensor([tokens])).logits[0].numpy()
        np.testing.assert_allclose(model.scores[: len(tokens)], expected, atol=1e-4)
    model.close()


@needs_gguf
def test_a_path_is_folded_first(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hops = (Hop("base", 0), Hop("ja", 1, 0.9), Hop("base", 1, 1.1))
    sources = {name: leaf(zoo / name) for name in ("base", "ja")}
    path = save(PathNode(sources, hops, "base", "base", "base", "float32"))
    assert run(["export", str(path), "out", "format=gguf"]) == 0
    printed = capsys.readouterr().out
    assert "reloaded and held against the path" in printed
    assert opened(Path("out"), gguf_file="model-f32.gguf").config.num_hidden_layers == 3


@needs_gguf
def test_a_file_that_is_another_model_is_not_kept(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gguf_file, "neighbours_for_halves", lambda tensor, heads: tensor)
    assert run(["export", str(recipe), "out", "format=gguf"]) == 1
    assert "model-f32.gguf is not the model" in capsys.readouterr().err
    assert not list(Path().glob("out*"))


TEXTS = [
    "Natalia sold 48 clips in April, and half as many in May. It's 1234 + 5678 = 6912!",
    "the capital of France is Paris; they're told   it is\n\n\tlarge.",
    "太郎は りんごを5個 持って いました。日本で一番高い山は富士山です。",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
]


def sentencepiece() -> Tokenizer:
    """BPE with bytes to fall back on, as Llama 2 and Mistral have it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = described["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def byte_level(cut: str) -> Callable[[], Tokenizer]:
    """BPE on bytes, cut into words as a family does."""

    def make() -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut == "gpt-2")]
        if cut != "gpt-2":
            pattern = next(pattern for pattern, name in CUTS.items() if name == cut)
            steps.insert(0, pre_tokenizers.Split(Regex(pattern), "isolated"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
        tokenizer.train_from_iterator(TEXTS * 4, trainer)
        return tokenizer

    return make


def write(folder: Path, family: str, tokenizer: Tokenizer, **settings: Any) -> Path:
    """A checkpoint of random numbers."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2} | {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "vocab_size": 448,
    }
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape | settings))
    for name, tensor in model.named_parameters():
        if tensor.ndim == 1:
            torch.nn.init.normal_(tensor, mean=0.0 if name.endswith("bias") else 1.0, std=0.3)
    model.generation_config.eos_token_id = model.config.eos_token_id
    model.save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.save_pretrained(folder)
    return folder


LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@needs_gguf
@pytest.mark.parametrize(
    ("family", "make", "settings"),
    [
        ("mistral", sentencepiece, {"sliding_window": 256}),
        ("llama", byte_level("llama-bpe"), {"rope_parameters": LLAMA_3, "attention_bias": True, "head_dim": 16}),
        ("qwen2", byte_level("qwen2"), {"tie_word_embeddings": True}),
        ("qwen3", byte_level("gpt-2"), {"head_dim": 16}),
    ],
    ids=["mistral", "llama", "qwen2", "qwen3"],
)
def test_families_and_their_tokenizers(
    family: str, make: Callable[[], Tokenizer], settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from optmerge.interchange.likeness import before_special
    from optmerge.interchange.llama_cpp import ask_llama_cpp

    source = write(Path("source"), family, make(), **settings)
    assert run(["export", str(merged(source)), "out", "format=gguf"]) == 0
    printed = capsys.readouterr().out
    assert "38 of 38 greedy responses are the same in llama.cpp" in printed
    assert ("the model looks back over 256 tokens" in printed) == (family == "mistral")
    tokenizer, model = AutoTokenizer.from_pretrained(source), opened(source)
    asked = [tokenizer(text)["input_ids"] for text in TEXTS]
    cut, responses = ask_llama_cpp(Path("out/model-f32.gguf"), TEXTS, asked, 12, 1)
    assert cut == asked
    special = set(tokenizer.all_special_ids)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert [before_special(response, special) for response in responses] == [
        before_special(answer(model, tokens), special) for tokens in asked
    ]


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram([("<s>", 0.0), ("</s>", 0.0), ("▁a", -1.0)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def own_cut() -> Tokenizer:
    tokenizer = byte_level("gpt-2")()
    steps = [pre_tokenizers.Split(Regex("a"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


@needs_gguf
@pytest.mark.parametrize(
    ("family", "make", "settings", "message"),
    [
        (
            "gemma",
            byte_level("gpt-2"),
            {},
            "knows the families llama, mistral, qwen2, qwen3; the recipe's model is gemma",
        ),
        ("llama", metaspace, {}, "llama.cpp has no tokenizer like this Unigram one"),
        ("llama", own_cut, {}, "cuts texts by a rule that is none of GPT-2's, Llama 3's and Qwen 2's"),
        ("llama", byte_level("gpt-2"), {"hidden_act": "gelu"}, "has the activation silu, not gelu"),
        (
            "llama",
            byte_level("gpt-2"),
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
            "rotary positions of type dynamic are not known here",
        ),
    ],
    ids=["family", "tokenizer", "cut", "activation", "rotary"],
)
def test_what_llama_cpp_would_not_run_is_refused(
    family: str,
    make: Callable[[], Tokenizer],
    settings: Any,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = merged(write(Path("source"), family, make(), **settings))
    assert message in refused(capsys, "export", str(recipe), "out", "format=gguf")
    assert not list(Path().glob("out*"))


@pytest.mark.parametrize(
    ("form", "library", "extra"),
    [("gguf", "xllamacpp", "gguf"), ("gguf_q8_0", "gguf", "gguf"), ("int8", "torchao", "int8")],
)
def test_a_library_that_is_missing_is_named_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str, library: str, extra: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == library else find(name) or "of this test no matter"
    )
    message = refused(capsys, "export", "no-recipe.yaml", "out", f"format={form}")
    assert library in message and f"pip install 'optmerge[{extra}]'" in message


def test_a_gguf_file_is_pushed_but_not_looked_into_without_the_library(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    Path("out").mkdir()
    Path("out/mine.gguf").touch()
    for place in ("out", "out/mine.gguf"):
        assert "mine.gguf: gguf reads such files, and is not there; pip install" in refused(capsys, "show", place)
    shutil.copy(recipe, "out/recipe.yaml")
    assert run(["push", "out", "me/merge", "--dry-run", "licence=mit"]) == 0
    assert "# me/merge (GGUF)\n" in Path("me--merge/README.md").read_text(encoding="utf-8")


@needs_int8
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are none in it"),
        ('{"asked": 1}\n', "every line must be a JSON object with a prompt or a question"),
        (None, "No such"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(
    capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    if text is not None:
        Path("prompts.jsonl").write_text(text, encoding="utf-8")
    asking = ["format=int8", "prompts=prompts.jsonl"]
    assert f"prompts=prompts.jsonl: {message}" in refused(capsys, "export", "recipe.yaml", "out", *asking)
