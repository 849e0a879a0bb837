"""The demo in data-flow space and in both spaces over seeds, and three ways to search paths, as tables for README.

    python benchmarks/demo_paths.py

About an hour on two cores; finished studies are only read again. Writes the results and the first seed's pictures to
benchmarks/demo/.
"""

import shutil
import statistics

from demo import OUT, SEEDS, STUDIES, Result, percent, run

MORE_SEEDS = (0, 1, 2, 3, 4)
SEARCHES = {
    "a number a slot, on above 0; all covariances (the paper)": ("demo_dfs-seed{}", []),
    "the same, variances alone": (
        "demo_dfs-separable-seed{}",
        ["sampler.variant=separable", "study.name=demo_dfs-separable-seed${study.seed}"],
    ),
    "switches, and scales that matter where they are on": (
        "demo_dfs-conditional-seed{}",
        ["space.path.switches=switch", "study.name=demo_dfs-conditional-seed${study.seed}"],
    ),
}


def winners_table(paths: list[Result], hybrids: list[Result], merges: list[Result]) -> str:
    """Sources, baselines, paths and hybrids on test, a column a seed."""
    lines = ["| % on 1000 test problems | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " |", "|---" * 4 + "|"]

    def row(label: str, cells: list[str]) -> None:
        lines.append(f"| {label} | " + " | ".join(cells) + " |")

    for alias in paths[0]["sources"]:
        row(f"source {alias}", [percent(result["sources"][alias]["test"], interval=False) for result in paths])
    for name in paths[0]["baselines"]:
        row(name, [percent(result["baselines"][name]["test"]) for result in paths])
    row("**evolved path**", [f"**{percent(result['winner']['test'])}**" for result in paths])
    row("its scales all set to 1", [ablated(result) for result in paths])
    row("the demo's merge alone", [percent(merge["winner"]["test"]) for merge in merges])
    row("**hybrid: path over it**", [f"**{percent(result['winner']['test'])}**" for result in hybrids])
    row("its scales all set to 1", [ablated(result) for result in hybrids])
    return "\n".join(lines)


def ablated(result: Result) -> str:
    """A winner on test without its scales."""
    entry = result["ablations"].get("all scales 1")
    return percent(entry["test"]) if entry else "has none"


def searches_table(found: dict[str, list[Result]]) -> str:
    """Three searches at the same budget."""
    seeds = " | ".join(f"seed {seed}" for seed in MORE_SEEDS)
    lines = [f"| search, % on test | {seeds} | mean | mean in the search |", "|---" * (len(MORE_SEEDS) + 3) + "|"]
    for name, results in found.items():
        tests = [100 * result["winner"]["test"]["score"] for result in results]
        search = statistics.mean(100 * result["winner"]["search"] for result in results)
        cells = [f"{test:.1f}" for test in tests]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.mean(tests):.1f} | {search:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Run, and print the tables."""
    OUT.mkdir(exist_ok=True)
    found = {
        what: run(name, ["+experiment=demo_dfs", *overrides], MORE_SEEDS)
        for what, (name, overrides) in SEARCHES.items()
    }
    hybrids = run("demo_hybrid-seed{}", ["+experiment=demo_hybrid"])
    merges = run("demo_hybrid-seed{}-evolved", ["+experiment=demo", "study.name=demo_hybrid-seed${study.seed}-evolved"])
    for name, picture in (("demo_dfs-seed0", "path"), ("demo_hybrid-seed0-evolved", "parameters")):
        shutil.copy(STUDIES / name / "report" / f"{picture}.png", OUT / f"{name}-{picture}.png")
    paths = next(iter(found.values()))[: len(SEEDS)]
    print(winners_table(paths, hybrids, merges), searches_table(found), sep="\n\n")


if __name__ == "__main__":
    main()
