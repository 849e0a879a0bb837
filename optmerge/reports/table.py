"""The results of a study, as a table in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def winner_name(result: Mapping[str, Any]) -> str:
    """What kind of model a search has found, for people."""
    return "evolved path" if "path_sha256" in result["winner"] else "evolved merge"


def print_result(console: Console, result: Mapping[str, Any], metric: str) -> None:
    """Print winner, sources and baselines with their test scores and 95% intervals."""
    table = Table(title=f"{result['study']}: {metric} on the test problems", title_justify="left")
    table.add_column("model")
    table.add_column("score", justify="right")
    table.add_column("95% interval", justify="right")
    for alias, entry in result["sources"].items():
        table.add_row(f"source {alias}", *_cells(entry["test"]))
    table.add_section()
    for name, entry in result["baselines"].items():
        label = f"{name} ({entry['setting']})" if entry["setting"] else name
        table.add_row(label, *_cells(entry["test"]))
    table.add_section()
    winner = result["winner"]
    table.add_row(f"[bold]{winner_name(result)}[/bold] (trial {winner['trial']})", *_cells(winner["test"]))
    for name, entry in result.get("ablations", {}).items():
        table.add_row(f"  the same, {name}", *_cells(entry["test"]))
    console.print(table)
    if "agreement" in winner:
        found, path = winner["agreement"], winner["path_test"]["score"]
        held = "" if found["holds"] else "[bold]not proven to be the path that was searched[/bold]: "
        console.print(
            f"The winner's folder was loaded and held against its path: {held}{found['summary']}; the path itself "
            f"scores {path:.1%} on test.",
            highlight=False,
            soft_wrap=True,
        )
    validation = "" if winner["validation"] is None else f", {winner['validation']:.1%} on validation"
    counts = result["trials"]
    console.print(
        f"The winner scored {winner['search']:.1%} in the search{validation}, {winner['test']['score']:.1%} on test. "
        f"Trials: {counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} failed; "
        f"{result['problem_evaluations']} problems answered of {result['problem_evaluations_unpruned']}.",
        highlight=False,
        soft_wrap=True,
    )


def print_comparison(console: Console, results: Sequence[Mapping[str, Any]]) -> None:
    """Print the studies of a multirun, one a row."""
    table = Table(title="Test scores", title_justify="left")
    for column in ("study", "best source", "best naive merge", "evolved, 95%"):
        table.add_column(column, no_wrap=True)
    for result in results:
        naive = max(result["baselines"], key=lambda name: result["baselines"][name]["test"]["score"], default=None)
        test = result["winner"]["test"]
        table.add_row(
            result["study"],
            f"{max(entry['test']['score'] for entry in result['sources'].values()):.1%}",
            f"{result['baselines'][naive]['test']['score']:.1%} {naive}" if naive else "-",
            f"{test['score']:.1%} ({100 * test['low']:.1f} to {100 * test['high']:.1f})",
        )
    console.print(table)


def _cells(test: Mapping[str, float]) -> tuple[str, str]:
    return f"{test['score']:.1%}", f"{test['low']:.1%} to {test['high']:.1%}"
