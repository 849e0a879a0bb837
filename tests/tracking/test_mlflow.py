"""What a study leaves in MLflow: a real store, asked as a user asks it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState
from transformers import AutoModelForCausalLM

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, weights_sha256
from optmerge.study.slots import ERROR
from optmerge.study.trial_scores import PROBLEMS, RECIPE, SCORES, SECONDS, encode
from optmerge.tracking.mlflow import MlflowTracker, Options, build, command

SETTINGS = {"study": {"seed": 0}}


def trials() -> list[FrozenTrial]:
    """One that ran to the end, one that was pruned, one that failed."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    whole, partial = (encode(np.array(scores)) for scores in ([1.0, 1, 0, 0], [np.nan, 1, np.nan, np.nan]))
    for facts, state in (
        ({SCORES: {"acc": whole}, PROBLEMS: 4, RECIPE: "r" * 64, SECONDS: {"merge": 0.5}}, TrialState.COMPLETE),
        ({SCORES: {"acc": partial}, PROBLEMS: 1, RECIPE: "s" * 64}, TrialState.PRUNED),
        ({ERROR: "merging gives NaN"}, TrialState.FAIL),
    ):
        trial = study.ask({"layers/ja/weight": optuna.distributions.FloatDistribution(0, 1)})
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
    return study.trials


def result(weights: str) -> dict[str, Any]:
    return {
        "study": "mine",
        "winner": {
            "trial": 0,
            "recipe_sha256": "r" * 64,
            "weights_sha256": weights,
            "search": 0.5,
            "validation": 0.4,
            "test": {"score": 0.3, "low": 0.2, "high": 0.4},
        },
        "trials": {"complete": 1, "pruned": 1, "failed": 1},
        "problem_evaluations": 5,
        "problem_evaluations_unpruned": 8,
    }


def follow(options: Options, best: Path, ended: list[FrozenTrial], weights: str) -> MlflowTracker:
    """Follow a study from start to end, as one process does."""
    tracker = build(options)
    tracker.start("mine", "key of mine", SETTINGS)
    for trial in ended:
        tracker.trial(trial)
    tracker.finish(result(weights), best)
    return tracker


@dataclass(frozen=True)
class Followed:
    """A store in which a study was followed twice: to its second trial and stopped, then again to its end."""

    options: Options
    best: Path
    weights: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.options.uri)

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(self.options.experiment)
        return list(self.client.search_runs([experiment.experiment_id]))

    def parent(self) -> Run:
        (run,) = [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]
        return run

    def child(self, number: int) -> Run:
        (run,) = [run for run in self.runs() if run.info.run_name == f"trial {number}"]
        return run


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, zoo: Path) -> Followed:
    folder = tmp_path_factory.mktemp("tracking")
    options = Options(f"sqlite:///{folder / 'new' / 'mlflow.db'}", str(folder / "artifacts"), "merging", "evolved")
    best = Checkpoint.open(zoo / "ja", "ja")
    weights = weights_sha256((name, best.tensor(name)) for name in best.names())
    first = build(options)
    first.start("mine", "key of mine", SETTINGS)
    first.trial(trials()[0])
    first.stop("interrupted")
    follow(options, best.folder, trials(), weights)
    return Followed(options, best.folder, weights)


@pytest.fixture
def default_uri(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mlflow's own functions find the store, as a user's shell does."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", followed.options.uri)


def test_a_study_is_a_run_with_a_run_for_each_trial_below_it(followed: Followed) -> None:
    parent = followed.parent()
    children = [run for run in followed.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.run_name == "mine"
    assert sorted(run.info.run_name for run in children) == ["trial 0", "trial 1", "trial 2"]


def test_a_resumed_study_has_no_run_twice(followed: Followed) -> None:
    assert len(followed.runs()) == 1 + 3


def test_the_state_of_a_trial_is_that_of_its_run(followed: Followed) -> None:
    assert [followed.child(i).info.status for i in range(3)] == ["FINISHED", "KILLED", "FAILED"]


def test_a_complete_trial_has_its_fitness_genome_and_recipe(followed: Followed) -> None:
    run = followed.child(0).data
    assert run.metrics == {"acc": 0.5, "problems": 4, "seconds/merge": 0.5}
    assert {name: float(value) for name, value in run.params.items()} == trials()[0].params
    assert run.tags[RECIPE] == "r" * 64


def test_the_mean_of_a_pruned_trial_is_called_partial(followed: Followed) -> None:
    assert followed.child(1).data.metrics == {"partial/acc": 1.0, "problems": 1}


def test_a_failed_trial_says_why(followed: Followed) -> None:
    assert followed.child(2).data.tags[ERROR] == "merging gives NaN"


def test_the_study_has_the_result(followed: Followed) -> None:
    metrics = followed.parent().data.metrics
    assert (metrics["test"], metrics["test/low"], metrics["validation"], metrics["trials/pruned"]) == (0.3, 0.2, 0.4, 1)
    assert followed.parent().info.status == "FINISHED"


def test_the_study_keeps_its_configuration_and_result_as_files(followed: Followed) -> None:
    files = {item.path for item in followed.client.list_artifacts(followed.parent().info.run_id)}
    assert {"config.json", "result.json"} <= files
    assert [name for name in files if name.startswith("model-")]


@pytest.mark.usefixtures("default_uri")
def test_the_champion_is_a_folder_that_transformers_loads(followed: Followed, tmp_path: Path) -> None:
    folder = mlflow.artifacts.download_artifacts("models:/evolved@champion", dst_path=str(tmp_path))
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    best = Checkpoint.open(followed.best, "best")
    assert weights_sha256((name, loaded[name]) for name in best.names()) == followed.weights


def test_the_champion_names_its_recipe_weights_and_study(followed: Followed) -> None:
    version = followed.client.get_model_version_by_alias("evolved", "champion")
    assert version.tags == {
        "recipe_sha256": "r" * 64,
        "weights_sha256": followed.weights,
        "study": "mine",
        "test": "0.3",
    }


def test_the_same_result_again_registers_nothing_new(followed: Followed) -> None:
    versions = followed.client.search_model_versions("name = 'evolved'")
    follow(followed.options, followed.best, trials(), followed.weights)
    assert len(followed.client.search_model_versions("name = 'evolved'")) == len(versions) == 1
    assert len(followed.runs()) == 1 + 3


def test_another_winner_becomes_the_champion(tmp_path: Path, followed: Followed) -> None:
    options = Options(followed.options.uri, None, "merging", "rivals")
    best = tmp_path / "best"
    best.mkdir()
    (best / "config.json").write_text("{}")
    for weights in ("1" * 64, "2" * 64):
        follow(options, best, [], weights)
    champion = followed.client.get_model_version_by_alias("rivals", "champion")
    assert champion.tags["weights_sha256"] == "2" * 64
    first = followed.client.get_model_version("rivals", "1")
    assert first.source != champion.source  # an earlier version keeps its weights


def test_a_study_that_went_on_is_no_longer_called_stopped(tmp_path: Path, followed: Followed) -> None:
    options = Options(followed.options.uri, str(tmp_path / "artifacts"), "stopping", "stopping")
    for reason in ("interrupted", None):
        tracker = build(options)
        tracker.start("mine", "key of mine", SETTINGS)
        if reason:
            tracker.stop(reason)
    experiment = followed.client.get_experiment_by_name("stopping")
    assert experiment is not None
    (parent,) = followed.client.search_runs([experiment.experiment_id])
    assert parent.info.status == "RUNNING"
    assert "stopped" not in parent.data.tags


def test_a_file_that_is_no_store_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("no database " * 200)
    with pytest.raises(UsageError, match="tracking.uri=.*MLflow cannot use it"):
        build(Options(f"sqlite:///{path}"))


def test_a_store_that_cannot_be_used_is_a_usage_error_without_the_password() -> None:
    with pytest.raises(UsageError, match="tracking.uri=.*MLflow cannot use it") as caught:
        build(Options("nonsuch://user:secret@host/db"))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_that_shows_runs_hides_the_password() -> None:
    shown = command(Options("postgresql://user:secret@host/db"))
    assert shown is not None and "secret" not in shown and shown.startswith("mlflow ui")


def test_a_server_needs_no_command() -> None:
    assert command(Options("https://mlflow.example.org")) is None
