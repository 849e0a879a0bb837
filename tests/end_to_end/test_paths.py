"""Data-flow space from the command line: a search over paths, and one over the layers of another search's winner."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from huggingface_hub import ModelCard
from rich.console import Console

from end_to_end.conftest import assert_one_message, on
from end_to_end.studies import run_process
from optmerge.__main__ import run
from optmerge.commands.show import run_show
from optmerge.recipe import CheckpointNode, MergeNode, PathNode, load_recipe

URL = "sqlite:///studies/studies.db"
ORDER = ["models.base=null", "models.tokenizer=base", "space.path.order=[base,ja]"]


def searched(overrides: list[str], folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(overrides) == 0
    return folder


def path_search(zoo: Path) -> list[str]:
    return [
        "+experiment=demo_dfs",
        "models.maker=null",
        f"models.folder={zoo}",
        "tracking=none",
        "study.name=paths",
        "study.finalists=2",
        *ORDER,
    ]


@pytest.fixture(scope="module")
def paths(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search over paths."""
    return searched([*path_search(zoo), "study.trials=8"], tmp_path_factory.mktemp("paths"))


def result(folder: Path, study: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "studies" / study / "result.json").read_text())
    return found


def test_winner_is_an_ordinary_model_that_anyone_loads(paths: Path) -> None:
    """In a fresh process that knows nothing of us, by the task's own prompt."""
    best = paths / "studies" / "paths" / "best"
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M\n"
        "model = M.from_pretrained(sys.argv[1], trust_remote_code=False)\n"
        "logits = model(torch.tensor([[3, 4]])).logits\n"
        "print(type(model).__name__, model.config.num_hidden_layers, logits.isfinite().all())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(best)], capture_output=True, text=True, check=True)
    root = load_recipe(best / "recipe.yaml").root
    assert isinstance(root, PathNode)
    assert done.stdout.split() == ["LlamaForCausalLM", str(len(root.hops)), "tensor(True)"]


def test_winner_is_rebuilt_bit_for_bit(paths: Path) -> None:
    assert run(["rebuild", "--check", str(paths / "studies" / "paths" / "best" / "recipe.yaml")]) == 0


def test_result_names_the_recipe_the_path_and_the_folded_weights(paths: Path) -> None:
    winner = result(paths, "paths")["winner"]
    recipe = load_recipe(paths / "studies" / "paths" / "best" / "recipe.yaml")
    assert isinstance(recipe.root, PathNode)
    assert winner["recipe_sha256"] == recipe.sha256
    assert winner["path_sha256"] == recipe.root.path_sha256
    assert winner["weights_sha256"] == recipe.weights_sha256


def test_winner_is_loaded_again_and_held_against_its_path(paths: Path) -> None:
    winner = result(paths, "paths")["winner"]
    assert winner["agreement"]["holds"]
    assert winner["agreement"]["logits"] < 1e-3
    assert winner["agreement"]["texts"] == winner["agreement"]["prompts"] == 6
    assert winner["path_test"]["score"] == pytest.approx(winner["test"]["score"], abs=0.01)


def test_hand_made_edits_and_the_path_without_scales_are_judged_beside_it(paths: Path) -> None:
    found = result(paths, "paths")
    assert set(found["baselines"]) == {"best skip or swap"}
    assert found["baselines"]["best skip or swap"]["setting"]
    root = load_recipe(paths / "studies" / "paths" / "best" / "recipe.yaml").root
    assert isinstance(root, PathNode)
    scaled = any(hop.scale != 1 for hop in root.hops)
    assert set(found["ablations"]) == ({"all scales 1"} if scaled else set())
    assert {"base", "ja"} <= set(found["sources"])
    assert (paths / "studies" / "paths" / "report" / "path.png").stat().st_size > 5000


def test_search_over_paths_is_resumed_by_the_same_command(paths: Path, zoo: Path) -> None:
    before = optuna.load_study(study_name="paths", storage=f"sqlite:///{paths}/studies/studies.db").trials
    searched([*path_search(zoo), "study.trials=10"], paths)
    after = optuna.load_study(study_name="paths", storage=f"sqlite:///{paths}/studies/studies.db").trials
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]
    assert len(after) == 10


def test_paths_without_scales_are_evaluated_once(zoo: Path, tmp_path: Path) -> None:
    few = ["space.path.scales=none", "space.path.repeats=1", "space.path.max_hops=3", "study.trials=30"]
    searched([*path_search(zoo), *few, "study.baselines=false"], tmp_path)
    trials = optuna.load_study(study_name="paths", storage=f"sqlite:///{tmp_path}/studies/studies.db").trials
    answered = [trial.user_attrs["recipe_sha256"] for trial in trials if trial.user_attrs["problems"]]
    again = [trial for trial in trials if "same_recipe_as" in trial.user_attrs]
    assert again
    for trial in again:
        first = trials[trial.user_attrs["same_recipe_as"]]
        assert (trial.state, trial.value) == (first.state, first.value)
        assert trial.user_attrs["recipe_sha256"] == first.user_attrs["recipe_sha256"]
    complete = [
        t.user_attrs["recipe_sha256"] for t in trials if t.state.name == "COMPLETE" and t.user_attrs["problems"]
    ]
    assert len(set(complete)) == len(complete)
    assert len(answered) + len(again) == 30


def hybrid_search(zoo: Path) -> list[str]:
    first = ",".join(f"'{word}'" for word in [*on(zoo), "study.trials=3", "study.finalists=1", "study.baselines=false"])
    return [
        *path_search(zoo),
        "study.trials=5",
        f"+models.sources.evolved.search=[{first}]",
        "models.tokenizer=evolved",
        "space.path.order=[evolved,ja]",
    ]


@pytest.fixture(scope="module")
def hybrid(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search over the layers of another search's winner."""
    return searched(hybrid_search(zoo), tmp_path_factory.mktemp("hybrid"))


def test_hybrid_is_two_studies_and_a_recipe_of_a_recipe(hybrid: Path) -> None:
    names = set(optuna.get_all_study_names(f"sqlite:///{hybrid}/studies/studies.db"))
    assert names == {"paths", "paths-evolved"}
    root = load_recipe(hybrid / "studies" / "paths" / "best" / "recipe.yaml").root
    assert isinstance(root, PathNode)
    assert isinstance(root.sources["evolved"], MergeNode)
    assert root.sources["evolved"] == load_recipe(hybrid / "studies" / "paths-evolved" / "best" / "recipe.yaml").root
    assert all(isinstance(node, CheckpointNode) for alias, node in root.sources.items() if alias != "evolved")


def test_family_of_a_hybrid_is_told_by_its_weights_alone_and_by_its_card(hybrid: Path, capfd: Any) -> None:
    best = hybrid / "studies" / "paths" / "best"
    run_show([str(best / "model.safetensors"), "--json"], Console())
    told = json.loads(capfd.readouterr().out)
    recipe = load_recipe(best / "recipe.yaml")
    assert (told["recipe_sha256"], told["licence"]) == (recipe.sha256, "apache-2.0")
    evolved = next(source for source in told["root"]["sources"] if source["alias"] == "evolved")
    assert evolved["kind"] == "merge" and {one["location"][:2] for one in evolved["sources"]} == {"./"}
    card = ModelCard.load(best / "README.md")
    assert card.data.tags == ["merge", "optmerge", "data-flow"] and "evolved / ja" in card.text
    assert str(hybrid) not in str(card) and "/tmp" not in str(card)


def test_hybrid_is_rebuilt_from_the_checkpoints_alone(hybrid: Path) -> None:
    """The merge is made again: what the first search wrote is not needed."""
    best = hybrid / "studies" / "paths-evolved" / "best"
    best.rename(best.with_name("away"))
    assert run(["rebuild", "--check", str(hybrid / "studies" / "paths" / "best" / "recipe.yaml")]) == 0


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str], str], None]:
    """Holds that a command is refused in one message, before anything is written."""

    def refuse(overrides: list[str], said: str) -> None:
        monkeypatch.chdir(tmp_path)
        assert run(overrides) == 2
        message = capsys.readouterr().err
        assert_one_message(message)
        assert said in message
        assert not (tmp_path / "studies").exists()

    return refuse


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["space.path.order=[evolved,nobody]"], "nobody, named by order, is no source"),
        (["space.path.max_hops=0"], "allows no path"),
        (["sampler=tpe", "sampler.startup_trials=0"], "sampler.startup_trials"),
        (["task.validation=[]"], "task.validation"),
    ],
)
def test_what_is_wrong_with_the_last_search_of_a_hybrid_is_found_before_the_first(
    zoo: Path, settings: list[str], said: str, refused: Callable[[list[str], str], None]
) -> None:
    refused([*hybrid_search(zoo), *settings], said)


def test_hybrids_of_several_seeds_are_one_command(zoo: Path, tmp_path: Path) -> None:
    swept = ["study.seed=0,1", "study.name=paths-${study.seed}", "study.trials=3", "study.baselines=false"]
    done = run_process("-m", *hybrid_search(zoo), *swept, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("paths-0", "paths-0-evolved", "paths-1", "paths-1-evolved"):
        assert result(tmp_path, name)["winner"]


def test_hybrid_makes_the_zoo_first_where_it_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "optmerge", "+experiment=demo_hybrid", f"models.folder={tmp_path / 'zoo'}"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        making = next((line for line in process.stdout if "making" in line), None)
        rest = ""
        while process.poll() is None:  # once may be lost where Python passes over exceptions
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                rest, _ = process.communicate(timeout=10)
    assert making is not None
    assert process.returncode == 1 and "Traceback" not in rest


def test_dry_run_plans_both_searches_of_a_hybrid(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["--dry-run", *hybrid_search(zoo)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Nothing was started.") == 2
    assert "stand in for those winners" in printed
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["space.path.repeats=0"], "repeats must be at least 1"),
        (["space.path.max_hops=0"], "allows no path"),
        (["space.path.low=-1"], "includes 0"),
        (["space.path.order=[base,nobody]"], "nobody, named by order, is no source"),
        (["space.path.first=math_add"], "not in space.path.order"),
    ],
)
def test_paths_that_cannot_be_are_refused_before_the_start(
    zoo: Path, settings: list[str], said: str, refused: Callable[[list[str], str], None]
) -> None:
    refused([*path_search(zoo), *settings], said)
