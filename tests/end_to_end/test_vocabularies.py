"""Sources whose tokenizers number their tokens differently, from the search to the model that is rebuilt."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from end_to_end.conftest import assert_one_message
from end_to_end.studies import trials, values
from optmerge.__main__ import run
from optmerge.recipe import Group, MergeNode, Recipe, load_recipe

EMBEDDING = "model.embed_tokens.weight"
RECIPE = "studies/demo-seed0/best/recipe.yaml"


@pytest.fixture(scope="session")
def renumbered(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Japanese specialist with other ids for its words, and its rows moved along."""
    folder = Path(shutil.copytree(zoo / "ja", tmp_path_factory.mktemp("renumbered") / "ja"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    first = 1 + max(added["id"] for added in tokenizer["added_tokens"])
    ids = list(range(first, len(words)))
    moved = dict(zip(ids, random.Random(0).sample(ids, len(ids)), strict=True))
    tokenizer["model"]["vocab"] = {word: moved.get(number, number) for word, number in words.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    tensors = load_file(folder / "model.safetensors")
    order = torch.arange(len(words))
    order[list(moved.values())] = torch.tensor(list(moved))
    tensors[EMBEDDING] = tensors[EMBEDDING][order].contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def search(here: Path, small: list[str]) -> Callable[..., Path]:
    """Runs a small search and gives the winner's folder."""

    def search(*overrides: str) -> Path:
        assert run([*small, *overrides]) == 0
        return here / "studies/demo-seed0/best"

    return search


def with_a_new_word(zoo: Path, folder: Path) -> Path:
    """A source one of whose words is another."""
    shutil.copytree(zoo / "ja", folder)
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    words = json.loads(text)["model"]["vocab"]
    assert "卵" in words
    tokenizer = json.loads(text)
    tokenizer["model"]["vocab"] = {("たまご" if word == "卵" else word): number for word, number in words.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a model, but for what is told of the search that found it."""
    told = ("README.md", "result.json", "test.png", "progress.png", "parameters.png")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in told}


def refused_rebuild(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["rebuild", "--check", RECIPE, *arguments]) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    return message


def test_search_does_not_depend_on_how_a_source_numbers_its_tokens(
    search: Callable[..., Path],
    renumbered: Path,
    zoo: Path,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = search(f"models.sources.ja.path={renumbered}")
    assert "rows are matched by token to base's vocabulary" in capsys.readouterr().out
    found = values(trials(best.parents[2]))
    assert run(["rebuild", "--check", RECIPE]) == 0
    assert run(["rebuild", RECIPE, "again"]) == 0
    assert contents(Path("again")) == contents(best)
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert run(small) == 0
    assert values(trials(other)) == found
    theirs = load_file(other / RECIPE.replace("recipe.yaml", "model.safetensors"))
    ours = load_file(best / "model.safetensors")
    for name in theirs:
        assert torch.equal(theirs[name], ours[name]), name


def test_rebuild_refuses_a_source_whose_tokenizer_is_another(
    search: Callable[..., Path], renumbered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ja = Path(shutil.copytree(renumbered, tmp_path / "ja"))
    search(f"models.sources.ja.path={ja}")
    path = ja / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words["りんご"], words["卵"] = words["卵"], words["りんご"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    message = refused_rebuild(capsys)
    assert "ja: the tokenizer in" in message and "has other tokens or ids than the recipe's" in message


def test_rebuild_refuses_a_tokenizer_that_came_to_differ(
    search: Callable[..., Path], zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search()
    other = with_a_new_word(zoo, tmp_path / "ja")
    message = refused_rebuild(capsys, f"sources.ja={other}")
    assert "the recipe's sources had one vocabulary when it was scored" in message


@pytest.mark.parametrize("method", ["dare_ties", "linear"])
def test_union_that_is_padded_is_searched_saved_and_rebuilt(
    search: Callable[..., Path], zoo: Path, tmp_path: Path, method: str
) -> None:
    ja = with_a_new_word(zoo, tmp_path / "ja")
    best = search(
        f"models.sources.ja.path={ja}", "models.tokenizer=union", "models.pad_vocabulary_to=64", f"method={method}"
    )
    tokenizer, model = AutoTokenizer.from_pretrained(best), AutoModelForCausalLM.from_pretrained(best)
    words = len(AutoTokenizer.from_pretrained(zoo / "base"))
    assert len(tokenizer) == words + 1
    assert tokenizer.convert_tokens_to_ids("たまご") == words
    assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == -(-(words + 1) // 64) * 64
    assert run(["rebuild", RECIPE, "again"]) == 0
    assert contents(Path("again")) == contents(best)


def test_recipe_of_a_recipe_follows_the_vocabulary_of_its_root(search: Callable[..., Path], renumbered: Path) -> None:
    best = search(f"models.sources.ja.path={renumbered}")
    inner = load_recipe(best / "recipe.yaml").root
    sources = {"inner": inner, "ja": inner.sources["ja"]}
    group = Group(("*",), {"inner": {"weight": 0.0}, "ja": {"weight": 1.0}})
    for tokenizer, same in (("inner", False), ("ja", True)):
        node = MergeNode("task_arithmetic", sources, "inner", tokenizer, "float32", {"model": group})
        Recipe(node).save(Path("outer.yaml"))
        assert run(["rebuild", "outer.yaml", tokenizer]) == 0
        embedding = load_file(Path(tokenizer) / "model.safetensors")[EMBEDDING]
        theirs = load_file(renumbered / "model.safetensors")[EMBEDDING]
        assert torch.allclose(embedding, theirs, atol=1e-6) == same
        assert torch.allclose(embedding.sum(0), theirs.sum(0), atol=1e-4)


def test_word_base_means_what_models_base_names(search: Callable[..., Path], zoo: Path) -> None:
    first = f"+models.sources.first.path={zoo / 'base'}"
    best = search(first, "models.base=first", "models.tokenizer=base", "~models.sources.base")
    assert "tokenizer: first" in (best / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+models.sources.union.path=folder"], "models.sources.union: the word stands for the vocabulary of all"),
        (["models.pad_vocabulary_to=0"], "models.pad_vocabulary_to must be at least 1, got 0"),
        (["models.tokenizer=unoin"], "models.tokenizer=unoin: no such source"),
    ],
)
def test_settings_that_mean_nothing_are_refused(refuse: Callable[..., str], overrides: list[str], told: str) -> None:
    assert told in refuse(*overrides)
