"""What a study leaves in MLflow: a real store, asked as a user asks it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from transformers import AutoModelForCausalLM

from optmerge.errors import UsageError
from optmerge.models import Checkpoint, weights_sha256
from optmerge.study.judged import Finalist
from optmerge.study.slots import ERROR
from optmerge.study.trial_scores import RECIPE
from optmerge.tracking.mlflow import Options, build, experiment_of
from tracking.followed import GENES, GOAL, follow, judged, model_folder, recipe, result, settings, started, trials


@dataclass(frozen=True)
class Followed:
    """A store in which a study was followed twice: to its second trial and stopped, then again to its end."""

    options: Options
    best: Path
    weights: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.options.uri)

    def runs(self, experiment: str = "merging") -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None
        return list(self.client.search_runs([found.experiment_id]))

    def parent(self, experiment: str = "merging") -> Run:
        (run,) = [run for run in self.runs(experiment) if "mlflow.parentRunId" not in run.data.tags]
        return run

    def child(self, number: int) -> Run:
        (run,) = [run for run in self.runs() if run.info.run_name == f"trial {number}"]
        return run

    def artifact(self, run: Run, name: str, folder: Path) -> Any:
        return json.loads(Path(self.client.download_artifacts(run.info.run_id, name, str(folder))).read_text())

    def names(self, experiment: str) -> list[str]:
        """Of the runs of trials in an experiment."""
        return sorted(str(run.info.run_name) for run in self.runs(experiment) if "mlflow.parentRunId" in run.data.tags)


def finalists() -> list[Finalist]:
    """Of the trials, the two that ran to the end; one left the race early."""
    found = trials()
    scores = {3: np.array([1.0, 0, 1, 1]), 0: np.array([np.nan, 0, np.nan, 1])}
    return [Finalist(found[number], {"acc": seen}) for number, seen in scores.items()]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, zoo: Path, uri: str) -> Followed:
    folder = tmp_path_factory.mktemp("tracking")
    options = Options(uri, str(folder / "artifacts"), "merging", "evolved")
    study = folder / "study" / "best"
    study.mkdir(parents=True)
    for path in (zoo / "ja").iterdir():
        (study / path.name).write_bytes(path.read_bytes())
    recipe().save(study / "recipe.yaml")
    (study.parent / "report").mkdir()
    (study.parent / "report" / "test.png").write_bytes(b"a picture")
    best = Checkpoint.open(study, "ja")
    weights = weights_sha256((name, best.tensor(name)) for name in best.names())
    first = started(options, "mine", judged())
    first.trial(trials()[0])
    first.stop("interrupted")
    follow(options, study, trials(), result(weights), judged(finalists=finalists()))
    return Followed(options, study, weights)


@pytest.fixture
def default_uri(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mlflow's own functions find the store, as a user's shell does."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", followed.options.uri)


def test_a_study_is_a_run_with_a_run_for_each_trial_below_it(followed: Followed) -> None:
    parent = followed.parent()
    children = [run for run in followed.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.run_name == "mine"
    assert sorted(str(run.info.run_name) for run in children) == [f"trial {i}" for i in range(4)]


def test_a_resumed_study_has_no_run_twice(followed: Followed) -> None:
    assert len(followed.runs()) == 1 + 4


def test_a_run_that_a_dead_process_left_is_made_anew(followed: Followed) -> None:
    options = replace(followed.options, experiment="dying", model="dying")
    tracker = started(options, "mine", judged())
    tracker.trial(trials()[0])
    (child,) = [run for run in followed.runs("dying") if "mlflow.parentRunId" in run.data.tags]
    followed.client.update_run(child.info.run_id, status="RUNNING")  # as it is until its last request
    started(options, "mine", judged()).trial(trials()[0])
    assert sorted(run.info.status for run in followed.runs("dying")) == ["FINISHED", "RUNNING", "RUNNING"]


def test_the_state_of_a_trial_is_that_of_its_run(followed: Followed) -> None:
    assert [followed.child(i).info.status for i in range(3)] == ["FINISHED", "KILLED", "FAILED"]


def test_a_complete_trial_has_fitness_scores_and_what_it_took(followed: Followed) -> None:
    run = followed.child(0).data
    assert {name: value for name, value in run.metrics.items() if "validation" not in name} == {
        "fitness": 0.5,
        "acc": 0.5,
        "problems": 4,
        "seconds/merge": 0.5,
        "seconds/generate": 2.0,
        "tokens": 300,
        "tokens_per_second": 150,
        "peak_memory_mb": 5,
    }
    assert run.tags[RECIPE] == "r" * 64


def test_runs_say_seed_sources_and_code(followed: Followed) -> None:
    for run in (followed.parent(), followed.child(1)):
        tags = run.data.tags
        assert (tags["seed"], tags["sources"]) == ("0", "base, ja")
        assert tags["optmerge.version"]


def test_the_first_genes_are_parameters_and_all_are_in_a_file(followed: Followed, tmp_path: Path) -> None:
    run, genes = followed.child(0), trials()[0].params
    assert {name: float(value) for name, value in run.data.params.items()} == dict(list(genes.items())[:10])
    document = followed.artifact(run, "trial.json", tmp_path)
    assert len(genes) == GENES and document["genes"] == genes
    assert document["scores"] == {"acc": [1, 1, 0, 0]}


def test_studies_can_be_compared_by_what_is_settled_of_them(followed: Followed) -> None:
    assert followed.parent().data.params == {
        "sources": "base, ja",
        "base": "./base",
        "task": "gsm8k",
        "objective": "acc",
        "seed": "0",
        "problems/validation": "4",
        "problems/test": "3",
        "genes": str(GENES),
        "method": "ties",
        "space": "blocks of 4, sublayers",
        "sampler": "cmaes",
        "pruner": "racing",
        "dtype": "bfloat16",
    }
    assert followed.parent().data.metrics["trials/budget"] == 4


def test_the_study_describes_what_is_searched_and_its_winner(followed: Followed) -> None:
    what, how, winner = followed.parent().data.tags["mlflow.note.content"].split("\n\n")
    assert (
        what == "Searched are merges by ties (parameters by blocks of 4, sublayers) of base, ja, for acc (task gsm8k)."
    )
    assert how == "Its report: `python -m optmerge report study.name=mine`"
    assert winner.startswith("Winner of study mine. acc: 40.0% on validation")


def test_what_people_add_to_the_description_stays(followed: Followed, tmp_path: Path) -> None:
    options = replace(followed.options, experiment="described", model="described")
    best = model_folder(tmp_path / "best")
    follow(options, best, trials(), result("1" * 64))
    run = followed.parent("described")
    note = f"Mine.\n\n{run.data.tags['mlflow.note.content']}\n\nMine too."
    followed.client.set_tag(run.info.run_id, "mlflow.note.content", note)
    follow(options, best, trials(), result("2" * 64, validation=0.9))
    parts = followed.parent("described").data.tags["mlflow.note.content"].split("\n\n")
    assert (parts[0], parts[-2]) == ("Mine.", "Mine too.") and len(parts) == 5
    assert "90.0% on validation" in parts[-1]


def test_problems_that_a_trial_has_not_seen_have_no_score(followed: Followed, tmp_path: Path) -> None:
    assert followed.artifact(followed.child(1), "trial.json", tmp_path)["scores"] == {"acc": [None, 1, None, None]}


def test_the_mean_of_a_pruned_trial_is_called_partial(followed: Followed) -> None:
    assert followed.child(1).data.metrics == {"partial/acc": 1.0, "problems": 1}


def test_a_failed_trial_says_why(followed: Followed) -> None:
    assert followed.child(2).data.tags[ERROR] == "merging gives NaN"


def test_a_finalist_has_its_scores_on_validation(followed: Followed, tmp_path: Path) -> None:
    run = followed.child(3)
    assert (run.data.metrics["validation/acc"], run.data.tags["finalist"]) == (0.75, "true")
    table = followed.artifact(run, "validation.json", tmp_path)
    assert table["columns"] == ["id", "question", "answer", "acc"]
    assert table["data"][1] == ["v1", "question 1 of v", "1", 0]


def test_a_finalist_that_left_early_has_a_partial_mean(followed: Followed) -> None:
    found = {name: value for name, value in followed.child(0).data.metrics.items() if "validation" in name}
    assert found == {"partial/validation/acc": 0.5}


def test_the_study_has_the_result(followed: Followed) -> None:
    metrics = followed.parent().data.metrics
    assert (metrics["test"], metrics["test/low"], metrics["validation"], metrics["trials/pruned"]) == (0.3, 0.2, 0.4, 1)
    assert metrics["test/mean/length"] == 12
    assert followed.parent().info.status == "FINISHED"


def test_the_study_shows_how_its_best_rose(followed: Followed) -> None:
    history = followed.client.get_metric_history(followed.parent().info.run_id, "best")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (3, 0.75)]


def test_the_study_keeps_configuration_result_pictures_and_scores_as_files(followed: Followed) -> None:
    files = {item.path for item in followed.client.list_artifacts(followed.parent().info.run_id)}
    short = followed.weights[:12]
    assert files == {"config.json", "result.json", "report", f"model-{short}", f"problems-{short}"}


def test_the_study_names_its_data_sets(followed: Followed) -> None:
    inputs = followed.parent().inputs.dataset_inputs
    (validation,) = [one for one in inputs if [tag.value for tag in one.tags] == ["validation"]]
    assert (validation.dataset.name, validation.dataset.profile) == ("gsm8k validation", '{"num_rows": 4}')
    assert json.loads(validation.dataset.source) == {"path": "problems.jsonl"}


@pytest.mark.usefixtures("default_uri")
def test_the_champion_is_a_folder_that_transformers_loads(followed: Followed, tmp_path: Path) -> None:
    folder = mlflow.artifacts.download_artifacts("models:/evolved@champion", dst_path=str(tmp_path))
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    best = Checkpoint.open(followed.best, "best")
    assert weights_sha256((name, loaded[name]) for name in best.names()) == followed.weights


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ("best", ["trial 0", "trial 3"]),  # each was the best when it ended
        ("finalists", ["trial 0", "trial 3"]),
        ("all", ["trial 0", "trial 1", "trial 2", "trial 3"]),
    ],
)
def test_trials_that_have_runs_are_chosen(followed: Followed, tmp_path: Path, runs: str, names: list[str]) -> None:
    options = replace(followed.options, experiment=runs, model=runs, runs=runs)
    best, answered = model_folder(tmp_path / "best"), judged(finalists=finalists())
    tracker = started(options, "mine", answered)
    for trial in trials():
        tracker.trial(trial)
    assert followed.names(runs) == ([] if runs == "finalists" else names)
    follow(options, best, trials(), result("1" * 64), answered)  # as when it is resumed
    assert followed.names(runs) == names


def test_a_trial_that_is_worse_than_one_before_a_resumption_is_not_the_best(followed: Followed) -> None:
    options = replace(followed.options, experiment="resumed", model="resumed", runs="best")
    started(options, "mine", judged()).trial(trials()[3])
    started(options, "mine", judged()).trial(trials()[0])
    assert followed.names("resumed") == ["trial 3"]


@pytest.mark.parametrize(
    ("study", "seed", "experiment"),
    [
        ("demo-seed0", 0, "demo"),
        ("demo-ties-seed12", 12, "demo-ties"),
        ("demo_hybrid-seed0-evolved", 0, "demo_hybrid-evolved"),
        ("demo-seed10", 1, "demo-seed10"),
        ("short", 0, "short"),
        ("-seed0", 0, "-seed0"),
    ],
)
def test_the_seeds_of_a_search_share_an_experiment(study: str, seed: int, experiment: str) -> None:
    assert experiment_of(study, settings(seed)) == experiment


def test_without_a_server_artifacts_lie_with_the_studies(tmp_path: Path, uri: str) -> None:
    tracker = build(Options(uri))
    tracker.start("placed-seed0", "key", settings(folder=tmp_path / "studies"), GOAL, {})
    assert list((tmp_path / "studies" / "mlartifacts").rglob("config.json"))


def test_what_the_machine_does_is_recorded_where_asked(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    tracker = started(replace(followed.options, experiment="watched", system_metrics=True), "mine", judged())
    for _ in range(100):
        metrics = followed.parent("watched").data.metrics
        if "system/cpu_utilization_percentage" in metrics:
            break
    tracker.stop("seen enough")
    assert metrics["system/system_memory_usage_megabytes"] > 0


def test_a_study_that_went_on_is_no_longer_called_stopped(followed: Followed) -> None:
    for reason in ("interrupted", None):
        tracker = started(replace(followed.options, experiment="stopping"), "mine", judged())
        if reason:
            tracker.stop(reason)
    parent = followed.parent("stopping")
    assert parent.info.status == "RUNNING"
    assert "stopped" not in parent.data.tags


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"runs": "fianlists"}, "tracking.runs=fianlists: unknown .did you mean 'finalists'"),
        ({"level": 1.5}, "tracking.level must be between 0 and 1, got 1.5"),
        ({"keep": 0}, "tracking.keep must be at least 1, got 0"),
        ({"params": -1}, "tracking.params must be at least 0, got -1"),
        ({"model": "org/name"}, "tracking.model='org/name': use letters"),
    ],
)
def test_settings_out_of_range_are_usage_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**wrong)


def test_a_file_that_is_no_store_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("no database " * 200)
    with pytest.raises(UsageError, match="tracking.uri=.*MLflow cannot use it"):
        build(Options(f"sqlite:///{path}"))


def test_a_store_that_cannot_be_used_is_a_usage_error_without_the_password() -> None:
    with pytest.raises(UsageError, match="tracking.uri=.*MLflow cannot use it") as caught:
        build(Options("nonsuch://user:secret@host/db"))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
