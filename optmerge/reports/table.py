"""The results of a study, as a table in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from optmerge.tasks import Objective


def winner_name(result: Mapping[str, Any]) -> str:
    """What kind of model a search has found, for people."""
    return "evolved path" if "path_sha256" in result["winner"] else "evolved merge"


def goal_of(result: Mapping[str, Any]) -> Objective:
    """What a search was for."""
    return Objective(**result["objective"])


def print_result(console: Console, result: Mapping[str, Any]) -> None:
    """Print winner, sources and baselines with their test scores and 95% intervals."""
    goal = goal_of(result)
    table = Table(title=f"{result['study']}: {goal.name} on the test problems", title_justify="left")
    table.add_column("model")
    table.add_column("score", justify="right")
    table.add_column("95% interval", justify="right")
    for alias, entry in result["sources"].items():
        table.add_row(f"source {alias}", *_cells(entry["test"], goal))
    table.add_section()
    for name, entry in result["baselines"].items():
        label = f"{name} ({entry['setting']})" if entry["setting"] else name
        table.add_row(label, *_cells(entry["test"], goal))
    table.add_section()
    winner = result["winner"]
    found = Text.assemble((winner_name(result), "bold"), f" (trial {winner['trial']})")
    table.add_row(found, *_cells(winner["test"], goal))
    for name, entry in result.get("ablations", {}).items():
        table.add_row(f"  the same, {name}", *_cells(entry["test"], goal))
    console.print(table)
    if "agreement" in winner:
        found, path = winner["agreement"], winner["path_test"]["score"]
        held = (
            Text() if found["holds"] else Text.assemble(("not proven to be the path that was searched", "bold"), ": ")
        )
        console.print(
            Text.assemble(
                "The winner's folder was loaded and held against its path: ",
                held,
                f"{found['summary']}; the path itself scores {goal.shown(path)} on test.",
            ),
            highlight=False,
            soft_wrap=True,
        )
    for name, below in winner.get("broken", {}).items():
        kept = (f"No trial kept the guard {name}", "bold")
        console.print(Text.assemble(kept, f": the winner is {below:.4g} below its floor."), soft_wrap=True)
    if "front" in result:
        _print_front(console, result, goal)
    others = {name: mean for name, mean in winner.get("means", {}).items() if "/" in name}
    if others:
        listed = ", ".join(f"{name} {mean:.4g}" for name, mean in others.items())
        console.print(f"The winner's means on test: {listed}.", highlight=False, soft_wrap=True)
    validation = "" if winner["validation"] is None else f", {goal.shown(winner['validation'])} on validation"
    counts = result["trials"]
    console.print(
        f"The winner scored {goal.shown(winner['search'])} in the search{validation}, "
        f"{goal.shown(winner['test']['score'])} on test.{told_from_rivals(result)} "
        f"Trials: {counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} failed; "
        f"{result['problem_evaluations']} problems answered of {result['problem_evaluations_unpruned']}."
        f"{models_on_test(result)}",
        highlight=False,
        soft_wrap=True,
    )


def _print_front(console: Console, result: Mapping[str, Any], goal: Objective) -> None:
    """Print the best compromises between several objectives."""
    objectives = [Objective(**one) for one in result["objectives"]]
    table = Table(title="Pareto front: in the search none is better than another in everything", title_justify="left")
    table.add_column("model")
    for objective in objectives:
        less = "" if objective.direction == "maximize" else ", less is better"
        table.add_column(f"{objective.name}{less}", justify="right")
    table.add_column("on")
    order = sorted(result["front"], key=lambda one: -objectives[0].sign * one["search"][objectives[0].name])
    for one in order:
        split = "validation" if "validation" in one else "search"
        mark = " (winner)" if one["trial"] == result["winner"]["trial"] else ""
        cells = [objective.shown(one[split][objective.name]) for objective in objectives]
        table.add_row(f"trial {one['trial']}{mark}", *cells, split)
    table.add_section()
    for label, means in result.get("others_on_validation", {}).items():
        table.add_row(label, *(objective.shown(means[objective.name]) for objective in objectives), "validation")
    table.add_section()
    means = result["winner"]["means"]
    table.add_row("winner", *(objective.shown(means[objective.name]) for objective in objectives), "test")
    console.print(table)
    console.print(
        f"The winner is the one with the highest {goal.name}, which weighs the objectives; the others' recipes are in "
        "front/, for `rebuild`.",
        highlight=False,
        soft_wrap=True,
    )


def print_comparison(console: Console, results: Sequence[Mapping[str, Any]]) -> None:
    """Print the studies of a multirun, one a row."""
    table = Table(title="Test scores", title_justify="left")
    for column in ("study", "best source", "best naive merge", "evolved, 95%"):
        table.add_column(column, no_wrap=True)
    for result in results:
        goal, test = goal_of(result), result["winner"]["test"]
        naive, best_naive = _best(result["baselines"], goal)
        low, high = sorted((test["low"], test["high"]))
        evolved = f"{goal.shown(test['score'])} ({goal.shown(low)} to {goal.shown(high)})"
        for objective in (Objective(**one) for one in result.get("objectives", ())):
            evolved += f", {objective.name} {objective.shown(result['winner']['means'][objective.name])}"
        table.add_row(
            result["study"], _best(result["sources"], goal)[1], f"{best_naive} {naive}" if naive else "-", evolved
        )
    console.print(table)


def _best(entries: Mapping[str, Any], goal: Objective) -> tuple[str | None, str]:
    """The best of some on test: its name, and its score as it is shown."""
    name = max(entries, key=lambda name: goal.sign * entries[name]["test"]["score"], default=None)
    return name, "" if name is None else goal.shown(entries[name]["test"]["score"])


def told_from_rivals(result: Mapping[str, Any]) -> str:
    """How sure it is that the winner is the best of the finalists."""
    found = result["winner"].get("selection")
    if found is None or found["finalists"] < 2:
        return ""
    rivals, others = len(found["not_separated"]), found["finalists"] - 1
    if others == 1:
        return f" On validation the other finalist {'cannot be told from it' if rivals else 'is worse beyond chance'}."
    if not rivals:
        return f" On validation it is better than the other {others} finalists beyond chance."
    return f" On validation {rivals} of the other {others} finalists cannot be told from it."


def models_on_test(result: Mapping[str, Any]) -> str:
    """How often its test problems had been touched when a study ended; nothing where that was not counted yet."""
    models = result.get("models_on_test")
    if models is None:
        return ""
    return f" {models} different models, sources and naive merges among them, have answered the test problems so far."


def _cells(test: Mapping[str, float], goal: Objective) -> tuple[str, str]:
    return goal.shown(test["score"]), f"{goal.shown(test['low'])} to {goal.shown(test['high'])}"
