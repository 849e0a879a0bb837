"""Workers as tasks of a Ray cluster: here its nodes are groups of processes on one machine."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from optmerge.__main__ import run
from optmerge.errors import UsageError
from optmerge.study.launchers.launcher import Job
from optmerge.study.launchers.ray import Options, build
from optmerge.study.slots import DIED, HANDED_BACK
from study.launchers.searches import assert_done_once, errors, finished, wait_for, workers_at_work

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator["Cluster"]:
    """A cluster of a head without cores, and two nodes that have room for a worker each."""
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        patch.setenv("RAY_TMPDIR", folder)  # tmp_path is too long for the names of its sockets
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token into the user's home
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()
    signal.signal(signal.SIGTERM, before)


@contextmanager
def searching(cwd: Path, cluster: "Cluster", *overrides: str) -> Iterator["subprocess.Popen[str]"]:
    """A search with one worker, as a user starts it."""
    launcher = ["launcher=ray", f"launcher.address={cluster.address}", "launcher.workers=1", "launcher.gpus=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "optmerge", *overrides, *launcher],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def node_of(cluster: "Cluster", worker: int) -> "Node":
    """The node that a worker's process belongs to."""
    above = {process.pid for process in psutil.Process(worker).parents()}
    (node,) = (node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid in above)
    return node


def test_interrupted_search_leaves_nothing_behind(cluster: "Cluster", here: Path, small: list[str]) -> None:
    with searching(here, cluster, *small, "study.trials=100000") as process:
        workers = wait_for(lambda: workers_at_work(here))
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate()
    assert process.returncode == 1
    assert "interrupted; what is finished is kept" in printed
    wait_for(lambda: not workers_at_work(here))
    wait_for(lambda: not any(psutil.pid_exists(worker) for worker in workers))
    assert errors(here) <= {HANDED_BACK}


def test_search_goes_on_when_its_node_is_lost(cluster: "Cluster", here: Path, small: list[str]) -> None:
    budget = 24
    with searching(here, cluster, *small, f"study.trials={budget}") as process:
        wait_for(lambda: finished(here) > 2)
        (worker,) = wait_for(lambda: workers_at_work(here))
        cluster.remove_node(node_of(cluster, worker), allow_graceful=False)
        assert finished(here) < budget
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert_done_once(here, budget)
    assert errors(here) <= {DIED, HANDED_BACK}


def test_what_a_worker_refuses_is_refused(cluster: "Cluster", here: Path) -> None:
    job = Job("missing", "sqlite:///studies/studies.db", [], here / "studies" / "missing")
    crew = build(Options(workers=1, address=cluster.address, gpus=0)).start(job, 1)
    try:
        with pytest.raises(UsageError, match="worker 0: .*no such file"):
            wait_for(lambda: crew.look() == 0)
    finally:
        crew.stop()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:10001"])
def test_address_without_a_cluster_is_refused_at_once(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match=f"launcher.address={address}"):
        build(Options(address=address)).start(Job("mine", "sqlite:///studies.db", [], tmp_path), 1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workers=0", "launcher.workers must be at least 1, got 0"),
        ("gpus=-1", "launcher.gpus must be a whole number, or a share of one, got -1"),
        ("cpus=1.5", "launcher.cpus must be a whole number, or a share of one, got 1.5"),
        ("restarts=-2", "launcher.restarts must be at least 0, or -1 for always, got -2"),
        ("adress=x", "did you mean 'address'?"),
    ],
)
def test_bad_setting_is_refused(here: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str) -> None:
    assert run(["launcher=ray", f"++launcher.{setting}"]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert list(here.iterdir()) == []


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs ray.*pip install 'optmerge\[ray\]'"):
        build(Options())
