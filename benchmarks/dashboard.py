"""How long the page of a large study takes in a browser: served by optuna-dashboard as it is, and by ours.

    python benchmarks/dashboard.py [--genes 400] [--trials 1000]

Needs `pip install -e '.[browser]'`, Chromium and its driver. A made study is written through our own database; a new
headless browser opens each page, and tells when it is there and what was sent. Writes benchmarks/dashboard/. About ten
minutes on two cores.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from optmerge.space.gene import Gene
from optmerge.study.charter import found_study
from optmerge.study.sampler import Sampler
from optmerge.study.samplers import cmaes
from optmerge.study.slots import Plan, Vacancy
from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import PROBLEMS, RECIPE, SCORES, SECONDS, encode
from optmerge.study.worker import this_worker

OUT = Path(__file__).parent / "dashboard"
NAME = "large"
PROBLEM_COUNT = 200
POPULATION = 16
LONGEST = 300  # seconds
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1400",
]

console = Console()


def genes_of(count: int) -> list[Gene]:
    """Densities and weights of layers of three sources, as many as are wanted."""
    names = [
        f"layers.{layer:02d}/{alias}/{parameter}"
        for layer in range(count)
        for alias in ("ja", "math_add", "math_mul")
        for parameter in ("density", "weight")
    ]
    return [Gene(name, low=0.0, high=1.0) for name in names[:count]]


def fill(url: str, genes: int, trials: int, name: str = NAME) -> int:
    """Write a study of so many genes and trials; gives its number in the database."""
    random = np.random.default_rng(0)
    database = open_storage(url)
    declared = genes_of(genes)
    plan = Plan(population=POPULATION)
    settings: dict[str, Any] = {"study": {"trials": trials, "name": name}, "tracking": {"name": "none"}}
    identity = {"genes": {gene.name: [gene.kind, gene.low, gene.high, gene.start()] for gene in declared}}
    opened = found_study(database, name, identity=identity, config=settings, plan=plan, starts=[])
    proposer = Sampler(cmaes, cmaes.Options()).proposer(declared, 0, [])
    last = -1
    matters = random.normal(size=genes) * (random.random(genes) < 0.05)  # a gene of twenty does
    for position in range(trials):
        values = random.random(genes)
        genome = {gene.name: float(value) for gene, value in zip(declared, values, strict=True)}
        claim = database.claim(
            opened.study_id,
            [Vacancy(plan.slot(position), None)],
            last,
            lambda _, genome=genome: genome,  # type: ignore[misc]
            proposer.distributions,
            this_worker(),
        )
        assert claim is not None
        last = claim.trial_id
        right = random.random(PROBLEM_COUNT) < 1 / (1 + np.exp(-matters @ (values - 0.5)))
        database.report(claim.trial_id, PROBLEM_COUNT // 5, float(right[: PROBLEM_COUNT // 5].mean()))
        left = {
            RECIPE: f"{position:064x}",
            SCORES: {"acc": encode(right.astype(float)), "acc_ja": encode(right.astype(float))},
            PROBLEMS: PROBLEM_COUNT,
            SECONDS: {"merge": 0.1, "answer": 1.5, "score": 0.1},
        }
        pruned = position % 5 == 4
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        database.finish(claim.trial_id, state, None if pruned else float(right.mean()), left)
    number = opened.study_id
    database.remove_session()
    database.engine.dispose()
    return number


@dataclass(frozen=True)
class Seen:
    """What a browser saw of a page.

    Attributes:
        seconds: Until it was there, or none where that took too long.
        megabytes: That the server had sent for it.
        heap: Megabytes of memory that its scripts held then.
    """

    seconds: float | None
    megabytes: float
    heap: float


# What tells that a page is there: for a new browser, which has nothing in its cache.
PAGES = {
    "history of the study": (
        "/dashboard/studies/{}",
        "return document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length > 0",
    ),
    "list of trials": (
        "/dashboard/studies/{}/trials",
        "return document.body.innerText.includes('{} Trials') && document.body.innerText.includes('Trial 0')",
    ),
}


@contextmanager
def new_browser() -> Iterator[Any]:
    """A browser without windows that talks to nobody but the page's server."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        options.binary_location = shutil.which("chromium") or ""
        browser = webdriver.Chrome(options, service)
        try:
            yield browser
        finally:
            browser.quit()


def look(address: str, there: str) -> Seen:
    """Open a page in a new browser and wait until it is there."""
    from selenium.common.exceptions import WebDriverException

    with new_browser() as browser:
        began, seconds = time.monotonic(), None
        browser.get(address)
        while seconds is None and time.monotonic() - began < LONGEST:
            time.sleep(0.2)
            with suppress(WebDriverException):  # busy for longer than it may be
                if browser.execute_script(there):
                    seconds = time.monotonic() - began
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = sum(m["params"]["encodedDataLength"] for m in messages if m["method"] == "Network.loadingFinished")
        heap = browser.execute_script("return performance.memory.usedJSHeapSize")
    return Seen(round(seconds, 1) if seconds else None, round(sent / 1e6, 1), round(heap / 1e6))


@contextmanager
def serving(command: list[str], port: int) -> Iterator[str]:
    """A dashboard in a process of its own."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{address}/api/meta", timeout=5):
                break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Fill a database, look at it in both ways, and write down what was seen."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=400)
    parser.add_argument("--trials", type=int, default=1000)
    given = parser.parse_args()
    table = Table("served by", "page", "seconds", "MB sent", "MB of memory in the browser")
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/studies.db"
        number = fill(url, given.genes, given.trials)
        commands = {
            "optuna-dashboard": [str(Path(sys.executable).with_name("optuna-dashboard")), "--port=8181", url],
            "ours": [
                sys.executable,
                "-m",
                "optmerge",
                "dashboard",
                f"study.name={NAME}",
                f"study.folder={folder}",
                "port=8181",
            ],
        }
        for served_by, command in commands.items():
            for page, (path, there) in PAGES.items():
                with serving(command, 8181) as address:
                    seen = look(address + path.format(number), there.replace("{}", str(given.trials)))
                found.setdefault(served_by, {})[page] = asdict(seen)
                told = f"over {LONGEST}" if seen.seconds is None else str(seen.seconds)
                table.add_row(served_by, page, told, str(seen.megabytes), str(seen.heap))
    console.print(table)
    OUT.mkdir(exist_ok=True)
    report = {"genes": given.genes, "trials": given.trials, "cores": os.cpu_count(), "seen": found}
    (OUT / "result.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
