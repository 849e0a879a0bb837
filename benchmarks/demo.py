"""The demo over three seeds, with pruning and without, and with one weight a source, as tables for README.

    python benchmarks/demo.py

About twenty minutes on two cores; finished studies are only read again. Writes the results and the first seed's
picture to benchmarks/demo/.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
STUDIES = Path("studies")
OUT = Path(__file__).parent / "demo"
RUNS = {
    "racing": ("demo-seed{}", []),
    "none": ("demo-none-seed{}", ["pruner=none", "study.name=demo-${pruner.name}-seed${study.seed}"]),
    "one group": (
        "one-group-seed{}",
        ["space=model", "study.trials=100", "study.baselines=false", "study.name=one-group-seed${study.seed}"],
    ),
}

Result = Mapping[str, Any]


def run(name: str, overrides: Sequence[str], seeds: Sequence[int] = SEEDS) -> list[Result]:
    """Search once a seed, or read what was found before.

    Args:
        name: The study's, with a place for the seed.
        overrides: Settings.
        seeds: Seeds.
    """
    swept = "study.seed=" + ",".join(map(str, seeds))
    subprocess.run([sys.executable, "-m", "optmerge", "-m", swept, *overrides], check=True)
    results = []
    for seed in seeds:
        folder = STUDIES / name.format(seed)
        shutil.copy(folder / "result.json", OUT / f"{folder.name}.json")
        results.append(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    return results


def percent(test: Mapping[str, float], interval: bool = True) -> str:
    """A score, with its 95% interval if asked."""
    spread = f" ({100 * test['low']:.1f} to {100 * test['high']:.1f})" if interval else ""
    return f"{100 * test['score']:.1f}{spread}"


def scores_table(results: list[Result]) -> str:
    """Everything on test, a column a seed."""
    first = results[0]
    lines = ["| % on 1000 test problems | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " |", "|---" * 4 + "|"]
    for alias in first["sources"]:
        cells = [percent(result["sources"][alias]["test"], interval=False) for result in results]
        lines.append(f"| source {alias} | " + " | ".join(cells) + " |")
    for name in first["baselines"]:
        cells = [percent(result["baselines"][name]["test"]) for result in results]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    winners = [f"**{percent(result['winner']['test'])}**" for result in results]
    lines.append("| **evolved merge** | " + " | ".join(winners) + " |")
    return "\n".join(lines)


def pruning_table(racing: list[Result], none: list[Result]) -> str:
    """What pruning saves, and what it costs."""
    lines = ["| seed | pruner | pruned | problems answered | seconds | test |", "|---|---|---|---|---|---|"]
    for seed, *pair in zip(SEEDS, racing, none, strict=True):
        for pruner, result in zip(("racing", "none"), pair, strict=True):
            trials = result["trials"]["complete"] + result["trials"]["pruned"]
            answered = f"{result['problem_evaluations']} of {result['problem_evaluations_unpruned']}"
            lines.append(
                f"| {seed} | {pruner} | {result['trials']['pruned'] / trials:.0%} | {answered} | "
                f"{result['seconds']:.0f} | {percent(result['winner']['test'])} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run, and print the tables."""
    OUT.mkdir(exist_ok=True)
    racing, none, one_group = (run(*RUNS[what]) for what in ("racing", "none", "one group"))
    shutil.copy(STUDIES / RUNS["racing"][0].format(SEEDS[0]) / "report.png", OUT / "demo-seed0.png")
    print(scores_table(racing), pruning_table(racing, none), sep="\n\n")
    print("\none weight a source, 100 trials:", ", ".join(percent(result["winner"]["test"]) for result in one_group))


if __name__ == "__main__":
    main()
