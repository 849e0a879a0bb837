"""What a model of the fitness is worth where scores are noisy: simulated searches with it and without.

    python benchmarks/surrogate.py [--quick]

A genome's true score is a bell around the best one, in a turned basis whose axes matter unequally; a trial counts how
many of 200 problems it solves. Of the trials so far the best eight are scored on 200 other problems, and the best of
them wins. What is compared is the winners' true score, at most 60%. About ten minutes on one core. Writes
benchmarks/surrogate/.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from workers import done_trial, from_best, genes_of

from optmerge.space.gene import Value
from optmerge.study.sampler import Sampler
from optmerge.study.samplers import cmaes
from optmerge.study.slots import Ledger, Plan

OUT = Path(__file__).parent / "surrogate"
GENES, BUDGETS, SEEDS = (12, 64), (200, 500, 1000), 10
PROBLEMS, FINALISTS, CONDITION, MOST = 200, 8, 30.0, 0.6


class Landscape:
    """The true score of any genome.

    Args:
        genes: How many genes it has.
    """

    def __init__(self, genes: int) -> None:
        self._basis, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((genes, genes)))
        matters = CONDITION ** np.linspace(0, 1, genes)
        self._matters = matters / matters.mean()

    def score(self, genome: dict[str, Value]) -> float:
        along = self._basis @ from_best(genome)
        return MOST * float(np.exp(-36 * (self._matters * along**2).mean()))


def search(genes: int, seed: int, budgets: tuple[int, ...], surrogate: bool) -> dict[int, float]:
    """The true score of the winner after so many trials."""
    proposer = Sampler(cmaes, cmaes.Options(surrogate=surrogate)).proposer(genes_of(genes), seed)
    ledger, landscape = Ledger(Plan(proposer.population)), Landscape(genes)
    chance = np.random.default_rng([seed, 99])
    seen: list[tuple[float, float]] = []
    winners = {}
    for number in range(max(budgets)):
        slot = ledger.plan.slot(number)
        genome = dict(proposer.genome(slot, ledger) or {})
        true = landscape.score(genome)
        found = chance.binomial(PROBLEMS, true) / PROBLEMS
        seen.append((found, true))
        ledger.update([done_trial(number, slot, genome, found)])
        if number + 1 in budgets:
            finalists = sorted(seen, key=lambda scores: -scores[0])[:FINALISTS]
            winners[number + 1] = max((chance.binomial(PROBLEMS, true), true) for _, true in finalists)[1]
    return winners


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one number of genes, few seeds; nothing is written")
    quick = parser.parse_args().quick
    rows: list[dict[str, Any]] = []
    for genes in GENES[:1] if quick else GENES:
        budgets, seeds = (BUDGETS[:1], 3) if quick else (BUDGETS, SEEDS)
        runs = {form: [search(genes, seed, budgets, form) for seed in range(seeds)] for form in (False, True)}
        for budget in budgets:
            without, with_it = ([run[budget] for run in runs[form]] for form in (False, True))
            differences = [b - a for a, b in zip(without, with_it, strict=True)]
            rows.append(
                {
                    "genes": genes,
                    "trials": budget,
                    "without": statistics.mean(without),
                    "with": statistics.mean(with_it),
                    "standard_error_of_the_difference": statistics.stdev(differences) / len(differences) ** 0.5,
                }
            )
    table = Table("genes", "trials", "winner without", "winner with surrogate", "difference")
    for row in rows:
        gain = f"{row['with'] - row['without']:+.1%} ± {row['standard_error_of_the_difference']:.1%}"
        table.add_row(str(row["genes"]), str(row["trials"]), f"{row['without']:.1%}", f"{row['with']:.1%}", gain)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if not quick:
        OUT.mkdir(exist_ok=True)
        (OUT / "results.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
