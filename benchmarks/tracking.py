"""What recording a trial in MLflow costs: `python benchmarks/tracking.py`; see README.md beside this."""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from optmerge.study.trial_scores import PEAK_MEMORY, PROBLEMS, RECIPE, SCORES, SECONDS, TOKENS, encode
from optmerge.tasks import Objective
from optmerge.tracking.mlflow import MlflowTracker, Options, build

PROBLEMS_A_TRIAL = 200


def main() -> None:
    """Record trials, and print milliseconds of processor and of waiting for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--genes", type=int, nargs="*", default=[21, 400])
    parser.add_argument("--runs", nargs="*", default=["all", "best", "finalists"])
    parser.add_argument("--server", action="store_true", help="through an MLflow server on this machine")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("| genes | runs | store | trials | CPU ms a trial | ms a trial | median ms | a resumption, s |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, store(Path(folder), server=asked.server) as (uri, artifacts):
        for genes in asked.genes:
            trials = made(genes, asked.trials)
            for runs in asked.runs:
                options = Options(uri, artifacts, experiment=f"{genes}-{runs}", runs=runs)
                print(row(options, genes, trials), flush=True)


@contextlib.contextmanager
def store(folder: Path, *, server: bool) -> Iterator[tuple[str, str | None]]:
    """Address of a store, and where artifacts go."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    if not server:
        yield uri, str(folder / "artifacts")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "1"})
        try:
            for _ in range(600):
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", None
        finally:
            process.terminate()
            process.wait()


def made(genes: int, count: int) -> list[FrozenTrial]:
    """Trials as a search leaves them."""
    drawn = np.random.default_rng(0)
    distribution = optuna.distributions.FloatDistribution(0, 1)
    names = [f"layers.{i // 6:02}/math_mul/parameter_{i % 6}" for i in range(genes)]
    trials = []
    for number in range(count):
        scores = {name: encode(drawn.integers(0, 2, PROBLEMS_A_TRIAL).astype(float)) for name in ("acc", "acc_ja")}
        facts = {
            SCORES: scores,
            PROBLEMS: PROBLEMS_A_TRIAL,
            RECIPE: f"{number:064x}",
            SECONDS: {"merge": 0.1, "generate": 1.0, "score": 0.1},
            TOKENS: 4000,
            PEAK_MEMORY: 10**9,
        }
        params = dict(zip(names, drawn.random(genes).tolist(), strict=True))
        trial = optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            value=float(drawn.random()),
            params=params,
            distributions=dict.fromkeys(names, distribution),
            user_attrs=facts,
        )
        trial.number = number
        trials.append(trial)
    return trials


def row(options: Options, genes: int, trials: list[FrozenTrial]) -> str:
    """Record a study's trials in a process that has recorded some before, and tell what it cost."""
    tracker = begun(options, "warm")
    tracker.trial(trials[0])
    tracker = begun(options, "measured")
    walls, used = [], time.process_time()
    for trial in trials:
        began = time.perf_counter()
        tracker.trial(trial)
        walls.append(1000 * (time.perf_counter() - began))
    cpu = 1000 * (time.process_time() - used) / len(trials)
    began = time.perf_counter()
    again = begun(options, "measured")
    for trial in trials:
        again.trial(trial)
    resumed = time.perf_counter() - began
    where = "server" if options.uri.startswith("http") else "sqlite"
    return (
        f"| {genes} | {options.runs} | {where} | {len(trials)} | {cpu:.1f} | {statistics.mean(walls):.1f} | "
        f"{statistics.median(walls):.1f} | {resumed:.1f} |"
    )


def begun(options: Options, study: str) -> MlflowTracker:
    """A tracker that follows a study."""
    settings = {"study": {"seed": 0}, "models": {"sources": dict.fromkeys(("base", "ja", "math_add", "math_mul"), {})}}
    tracker = build(options)
    tracker.start(study, json.dumps([study, options.experiment]), settings, Objective("acc_ja"), {})
    return tracker


if __name__ == "__main__":
    main()
