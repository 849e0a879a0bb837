"""A recipe gives the weights that were scored, wherever it is and however it is written, or says why not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from end_to_end.conftest import assert_one_message
from end_to_end.studies import Search, run_process
from optmerge.__main__ import run
from optmerge.models import weights_sha256


@pytest.fixture
def recipe(search: Search, here: Path) -> Path:
    """The winner's recipe, copied to a folder of its own."""
    return Path(shutil.copy(search.recipe, here / "copied.yaml"))


def edit(recipe: Path, change: Callable[[Any], Any]) -> None:
    document = change(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    recipe.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")


def reversed_mappings(value: Any) -> Any:
    """The same content with every mapping written the other way round."""
    if isinstance(value, dict):
        return {key: reversed_mappings(value[key]) for key in reversed(value)}
    return [reversed_mappings(item) for item in value] if isinstance(value, list) else value


def with_another_weight(document: Any) -> Any:
    groups = document["nodes"][document["root"]]["groups"]
    groups["layers.00"]["parameters"]["ja"]["weight"] += 0.01
    return document


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    capsys.readouterr()
    assert run(["rebuild", *arguments]) == status
    message = capsys.readouterr().err
    assert_one_message(message)
    return message


def test_rebuilt_model_is_the_one_that_was_saved(search: Search, recipe: Path, here: Path) -> None:
    assert run(["rebuild", str(recipe), "again"]) == 0
    saved, again = search.folder / "best", here / "again"
    told = {
        "README.md",
        "test.png",
        "progress.png",
        "parameters.png",
    }  # of a search whose result does not lie beside the copied recipe
    assert {path.name: path.read_bytes() for path in again.iterdir() if path.name not in told} == {
        path.name: path.read_bytes() for path in saved.iterdir() if path.name not in told
    }


def test_card_of_a_rebuilt_model_has_the_results_where_they_lie_by_the_recipe(search: Search, here: Path) -> None:
    from huggingface_hub import ModelCard

    shutil.copytree(search.folder, here / "study")
    assert run(["rebuild", "study", "with-results"]) == 0
    shutil.copy(search.recipe, here / "alone.yaml")
    assert run(["rebuild", "alone.yaml", "alone"]) == 0
    known, alone = (ModelCard.load(here / folder / "README.md") for folder in ("with-results", "alone"))
    assert known.data.eval_results[0].metric_value == round(search.result()["winner"]["test"]["score"], 4)
    assert alone.data.eval_results is None and "## Results" not in alone.text and "nothing was measured" in alone.text
    assert (known.data.license, alone.data.license) == ("apache-2.0", "apache-2.0")


def test_export_of_a_study_has_its_name_and_results_on_the_card(search: Search, here: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    assert run(["export", str(search.folder), "folder", "format=gguf"]) == 0
    card = (here / "folder" / "README.md").read_text(encoding="utf-8")
    assert f"\n# {search.result()['study']} (GGUF, F32)\n" in card and "## Results" in card


def test_words_that_are_missing_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "RECIPE and OUT are missing; write" in refuse(capsys)
    assert "OUT is missing; write" in refuse(capsys, "recipe.yaml")
    assert "optmerge: RECIPE is missing; write" in refuse(capsys, "--check")


def test_check_passes_in_another_folder_with_the_sources_listed_the_other_way_round(
    search: Search, recipe: Path
) -> None:
    edit(recipe, reversed_mappings)
    done = run_process("rebuild", "--check", str(recipe), cwd=recipe.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert search.result()["winner"]["weights_sha256"] in done.stdout


def test_recipe_with_a_weight_changed_by_hand_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(recipe, with_another_weight)
    assert "was changed after it was written" in refuse(capsys, "--check", str(recipe))


def test_check_fails_where_the_recipe_names_other_weights(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(recipe, lambda document: document | {"weights_sha256": "0" * 64})
    assert "differ from those that were scored" in refuse(capsys, "--check", str(recipe), status=1)


def scored_so_far_off(search: Search, here: Path, steps: int, merged_on: str) -> Path:
    """The winner's folder, with some weights so many numbers of their type away, as if it had been scored like that."""
    folder = Path(shutil.copytree(search.folder / "best", here / "scored"))
    tensors = load_file(folder / "model.safetensors")
    norm = tensors["model.norm.weight"]
    whole = norm.view({2: torch.int16, 4: torch.int32}[norm.element_size()])
    whole[:3] += torch.tensor([1, 0, steps], dtype=whole.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = folder / "recipe.yaml"
    scored = {"weights_sha256": weights_sha256(sorted(tensors.items())), "merged_on": merged_on}
    edit(recipe, lambda document: document | scored)
    return recipe


def test_weights_merged_on_a_gpu_may_be_one_rounding_apart(
    search: Search, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scored_so_far_off(search, here, steps=-1, merged_on="cuda")
    for command in (["--check", str(recipe)], [str(recipe), str(here / "out")]):
        assert run(["rebuild", *command]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "the weights that were scored but for rounding, as they were merged on cuda: 2 of " in told
        assert "are one rounding off" in told and "model.norm.weight" in told


def test_weights_merged_on_a_cpu_may_not(search: Search, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = scored_so_far_off(search, here, steps=-1, merged_on="cpu")
    message = refuse(capsys, "--check", str(recipe), status=1)
    assert "differ from those that were scored" in message and "2 of " in message


def test_check_fails_where_weights_are_farther_apart(
    search: Search, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scored_so_far_off(search, here, steps=2, merged_on="cuda")
    message = refuse(capsys, "--check", str(recipe), status=1)
    assert "differ from those that were scored" in message
    assert "2 of " in message and "up to 2 roundings off (first so far off in model.norm.weight)" in message


def test_check_says_why_it_cannot_say_how_far_weights_are_apart(
    search: Search, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scored_so_far_off(search, here, steps=1, merged_on="cuda")
    edit(recipe, lambda document: document | {"weights_sha256": "0" * 64})
    message = refuse(capsys, "--check", str(recipe), status=1)
    assert "differ from those that were scored (000000000000)" in message
    assert "the model beside the recipe is another one" in message
    (recipe.parent / "model.safetensors").write_bytes(b"short")
    assert "the model beside the recipe cannot be read" in refuse(capsys, "--check", str(recipe), status=1)


def test_file_that_is_not_a_recipe_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "moon.yaml").write_text("colour: white\n")
    assert "moon.yaml is not a recipe" in refuse(capsys, "--check", "moon.yaml")


def test_recipe_that_is_not_there_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "moon.yaml" in refuse(capsys, "moon.yaml", "out")
    assert list(here.iterdir()) == []


def test_folder_that_is_taken_is_refused(recipe: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "taken").mkdir()
    (here / "taken" / "diary.txt").touch()
    assert "taken" in refuse(capsys, str(recipe), "taken")
    assert [path.name for path in (here / "taken").iterdir()] == ["diary.txt"]


def test_recipe_whose_source_is_gone_is_refused(recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text().replace(f"{zoo / 'ja'}\n", "/moon/ja\n"))
    message = refuse(capsys, "--check", str(recipe))
    assert "ja: there is no folder '/moon/ja'" in message and "sources.ALIAS=FOLDER" in message


def test_source_that_moved_is_found_where_the_command_says(recipe: Path, zoo: Path) -> None:
    recipe.write_text(recipe.read_text().replace(f"{zoo / 'ja'}\n", "/moon/ja\n"))
    assert run(["rebuild", "--check", str(recipe), f"sources.ja={zoo / 'ja'}"]) == 0


def test_recipe_whose_source_has_other_weights_is_refused(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "--check", str(recipe), f"sources.ja={zoo / 'math_add'}")
    assert "ja: " in message and "holds other weights" in message


def test_location_of_an_unknown_source_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sources.moon" in refuse(capsys, "--check", str(recipe), "sources.moon=moon")
