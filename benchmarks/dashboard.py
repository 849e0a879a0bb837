"""How long the page of a large study takes in a browser: served by optuna-dashboard as it is, and by ours.

    python benchmarks/dashboard.py [--genes 400] [--trials 1000]

Needs `pip install -e '.[browser]'`, Chromium and its driver. A made study is written through our own database; a new
headless browser opens its page, and is asked when the list of trials and the history are there, and what was transferred.
Writes benchmarks/dashboard/. About five minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from optmerge.space.gene import Gene
from optmerge.study.charter import found_study
from optmerge.study.slots import Plan, Vacancy
from optmerge.study.samplers import cmaes
from optmerge.study.sampler import Sampler
from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import PROBLEMS, RECIPE, SCORES, SECONDS, encode
from optmerge.study.worker import this_worker

OUT = Path(__file__).parent / "dashboard"
NAME = "large"
PROBLEM_COUNT = 200
POPULATION = 16

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
    opened = found_study(database, name, identity={}, config=settings, plan=plan, starts=[])
    proposer = Sampler(cmaes, cmaes.Options()).proposer(declared, 0, [])
    matters = random.normal(size=genes) * (random.random(genes) < 0.05)  # a gene of twenty does
    for position in range(trials):
        values = random.random(genes)
        genome = {gene.name: float(value) for gene, value in zip(declared, values, strict=True)}
        claim = database.claim(
            opened.study_id,
            [Vacancy(plan.slot(position), None)],
            -1 if position == 0 else last,
            lambda _, genome=genome: genome,
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

if __name__ == "__main__":
    began = time.time()
    print(fill(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), time.time()-began)
