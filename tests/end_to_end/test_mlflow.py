"""A search that MLflow follows."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from end_to_end.studies import run_process


@pytest.fixture(scope="module")
def tracked(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of two trials with `tracking=mlflow`."""
    cwd = tmp_path_factory.mktemp("tracked")
    done = run_process(*small, "tracking=mlflow", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return cwd


@pytest.fixture
def client(tracked: Path) -> MlflowClient:
    uri = f"sqlite:///{tracked / 'studies' / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_study_and_every_trial_are_a_run_that_finished(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("optmerge")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [
        ("demo-seed0", "FINISHED"),
        ("trial 0", "FINISHED"),
        ("trial 1", "FINISHED"),
    ]


def test_winner_is_registered_as_champion(client: MlflowClient, tracked: Path) -> None:
    champion = client.get_model_version_by_alias("optmerge", "champion")
    recipe = (tracked / "studies/demo-seed0/best/recipe.yaml").read_text(encoding="utf-8")
    assert champion.tags["study"] == "demo-seed0"
    assert f"weights_sha256: {champion.tags['weights_sha256']}" in recipe


def test_artifacts_lie_with_the_studies(tracked: Path) -> None:
    assert [path.name for path in tracked.iterdir()] == ["studies"]
    assert list((tracked / "studies").rglob("mlartifacts/**/model.safetensors"))
