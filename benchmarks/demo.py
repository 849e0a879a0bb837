"""The demo over three seeds, and with one weight a source, as a table for README.

    python benchmarks/demo.py

About a quarter of an hour on two cores; finished studies are only read again. Writes the results and the first seed's
pictures to benchmarks/demo/.
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
    "by layer": ("demo-seed{}", []),
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


def main() -> None:
    """Run, and print the table."""
    OUT.mkdir(exist_ok=True)
    by_layer, one_group = (run(*RUNS[what]) for what in ("by layer", "one group"))
    first = RUNS["by layer"][0].format(SEEDS[0])
    for picture in ("progress", "test", "solved-acc_ja"):
        shutil.copy(STUDIES / first / "report" / f"{picture}.png", OUT / f"{first}-{picture.partition('-')[0]}.png")
    print(scores_table(by_layer))
    print("\none weight a source, 100 trials:", ", ".join(percent(result["winner"]["test"]) for result in one_group))


if __name__ == "__main__":
    main()
