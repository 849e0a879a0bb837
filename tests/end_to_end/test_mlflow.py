"""Searches that MLflow follows: into a database, and through a server."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import mlflow
import pytest
from mlflow import MlflowClient
from rich.console import Console
from scipy.stats import binomtest
from tracking.followed import follow, judged, model_folder, result
from transformers import AutoModelForCausalLM

from end_to_end.studies import run_process
from optmerge.__main__ import run
from optmerge.commands.compare import run_compare
from optmerge.models import Checkpoint, weights_sha256
from optmerge.tracking.mlflow import Options


@pytest.fixture(scope="module")
def tracked(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of two trials with `tracking=mlflow`."""
    cwd = tmp_path_factory.mktemp("tracked")
    done = run_process(*small, "tracking=mlflow", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert "models:/optmerge@champion (version 1): the first version that was validated" in done.stdout
    return cwd


@pytest.fixture
def client(tracked: Path) -> MlflowClient:
    uri = f"sqlite:///{tracked / 'studies' / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_study_and_every_trial_are_a_run_that_finished(client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [
        ("demo-seed0", "FINISHED"),
        ("trial 0", "FINISHED"),
        ("trial 1", "FINISHED"),
    ]
    assert all(run.data.metrics["tokens"] > 0 for run in runs if "fitness" in run.data.metrics)
    assert all(run.data.metrics["peak_memory_mb"] > 10 for run in runs if "fitness" in run.data.metrics)


def test_winner_is_registered_as_champion(client: MlflowClient, tracked: Path) -> None:
    champion = client.get_model_version_by_alias("optmerge", "champion")
    recipe = (tracked / "studies/demo-seed0/best/recipe.yaml").read_text(encoding="utf-8")
    assert champion.tags["study"] == "demo-seed0"
    assert f"weights_sha256: {champion.tags['weights_sha256']}" in recipe


def test_artifacts_lie_with_the_studies_and_share_the_weights(tracked: Path) -> None:
    assert [path.name for path in tracked.iterdir()] == ["studies"]
    (kept,) = (tracked / "studies").rglob("mlartifacts/**/model.safetensors")
    assert os.path.samefile(kept, tracked / "studies/demo-seed0/best/model.safetensors")


@dataclass(frozen=True)
class Server:
    """An MLflow server on this machine, and the folder in which two studies were run that it was told of.

    Attributes:
        uri: Its address.
        artifacts: Where it keeps artifacts.
        cwd: The folder.
    """

    uri: str
    artifacts: Path
    cwd: Path

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def solved(self, number: str) -> list[bool]:
        """Which validation problems a version solves, by the file that the server gives."""
        version = self.client.get_model_version("optmerge", number)
        path = f"{version.tags['problems']}/validation.json"
        table = json.loads(Path(self.client.download_artifacts(version.run_id, path)).read_text(encoding="utf-8"))
        return [row[table["columns"].index("acc_ja")] == 1 for row in table["data"]]


@pytest.fixture(scope="module")
def server(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was told of the studies of two seeds."""
    folder = tmp_path_factory.mktemp("server")
    cwd = folder / "cwd"
    cwd.mkdir()
    with serving(folder) as uri, pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        for seed in (0, 1):
            assert run([*small, "tracking=mlflow", f"tracking.uri={uri}", f"study.seed={seed}"]) == 0
        yield Server(uri, folder / "artifacts", cwd)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run `mlflow server` on a free port; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", uri.rpartition(":")[2], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    log = folder / "server.log"
    with log.open("w") as file:
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=folder)
        try:
            deadline = time.monotonic() + 120
            while not answers(uri):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield uri
        finally:
            process.terminate()
            process.wait(30)


def answers(uri: str) -> bool:
    try:
        return httpx.get(f"{uri}/health").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_seeds_of_a_search_share_an_experiment_of_the_server(server: Server) -> None:
    experiment = server.client.get_experiment_by_name("demo")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    names = {run.info.run_name for run in server.client.search_runs([experiment.experiment_id])}
    assert names == {"demo-seed0", "demo-seed1", "trial 0", "trial 1"}


def test_the_second_seed_is_champion_only_if_it_is_better_beyond_chance(server: Server) -> None:
    first, second = server.solved("1"), server.solved("2")
    won = sum(mine and not theirs for mine, theirs in zip(second, first, strict=True))
    lost = sum(theirs and not mine for mine, theirs in zip(second, first, strict=True))
    better = won + lost > 0 and binomtest(won, won + lost, alternative="greater").pvalue < 0.05
    aliases = server.client.get_registered_model("optmerge").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == (
        {"champion": 2} if better else {"champion": 1, "challenger": 2}
    )


def test_the_champion_comes_from_the_server_as_a_folder_that_transformers_loads(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    champion = server.client.get_model_version_by_alias("optmerge", "champion")
    folder = mlflow.artifacts.download_artifacts("models:/optmerge@champion", dst_path=str(tmp_path))
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    best = Checkpoint.open(server.cwd / "studies" / champion.tags["study"] / "best", "best")
    found = weights_sha256((name, loaded[name]) for name in best.names())
    assert found == champion.tags["weights_sha256"] == weights_sha256((n, best.tensor(n)) for n in best.names())


def test_the_two_seeds_are_compared_through_the_server(server: Server, tmp_path: Path) -> None:
    run_compare([f"tracking.uri={server.uri}", f"json={tmp_path / 'table.json'}"], Console(quiet=True))
    document = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    first, second = server.solved("1"), server.solved("2")
    alone = {row["version"]: len(row["alone"]) for row in document["versions"]}
    assert alone == {
        1: sum(a and not b for a, b in zip(first, second, strict=True)),
        2: sum(b and not a for a, b in zip(first, second, strict=True)),
    }
    assert {row["tags"]["study"] for row in document["versions"]} == {"demo-seed0", "demo-seed1"}
    (tested,) = document["models_on_test"].values()
    # The sources are the same four in both; the winners are, or are not.
    assert tested == 4 + len({row["tags"]["recipe_sha256"] for row in document["versions"]})


def test_old_weights_are_removed_from_the_server(server: Server, tmp_path: Path) -> None:
    options = Options(server.uri, None, experiment="kept", model="kept", keep=1)
    for number in range(1, 4):
        best = model_folder(tmp_path / f"study{number}" / "best")
        document = result(f"{number}" * 64, study=f"study{number}")
        follow(options, best, [], document, judged([1, 0] * 8))
    folders = {number: next(server.artifacts.rglob(f"model-{number}*")) for number in (1, 2, 3)}
    found = {number: sorted(path.name for path in folder.iterdir()) for number, folder in folders.items()}
    rest = ["config.json", "recipe.yaml"]
    whole = ["config.json", "model.safetensors", "recipe.yaml"]
    assert found == {1: whole, 2: rest, 3: whole}  # the champion, nobody, the challenger
