"""What a study is and how far it is, in Markdown: the note that optuna-dashboard shows with it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optmerge.reports.table import goal_of, winner_name
from optmerge.study.charter import CONFIG, OpenStudy
from optmerge.study.excerpt import GENES
from optmerge.study.identity import IDENTITY
from optmerge.study.slots import Ledger
from optmerge.study.trial_scores import value_of
from optmerge.tasks import Objective

Leader = tuple[int, float]  # number of a trial, and its value

MARK = "\n\n---\n\n*What you write below this line is kept.*\n"
_BEST, _KINDS = 5, 6  # trials and kinds of genes that are listed
_GAP = "\N{EM SPACE}"  # the dashboard's tables have none between their columns


@dataclass(frozen=True)
class Standing:
    """What the note tells of a study at a moment.

    Attributes:
        opened: The study.
        running: Trials that run now.
        at_work: Whether the search goes on, even where its only worker is between two trials.
        where: Settings that find the study, such as `study.name=NAME`.
        files: Name to address of the files that the study has.
        told: Name of a file to what it shows, for pictures.
        finalists: Numbers of trials that have files.
        result: The contents of result.json, once there is one.
    """

    opened: OpenStudy
    running: int
    at_work: bool
    where: str
    files: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    finalists: Sequence[int] = ()
    result: Mapping[str, Any] | None = None


def study_note(standing: Standing) -> str:
    """The note of a study."""
    opened = standing.opened
    trials = opened.study.get_trials(deepcopy=False)
    finished = Ledger(opened.plan).update(trials).finished()
    known, goal = opened.study.user_attrs, opened.goal  # asked for once: each is a query
    leaders = _leaders(opened, goal, finished)
    parts = [
        f"# {opened.study.study_name}",
        _progress(standing, goal, trials, finished, leaders),
        *_results(standing),
        *_best(standing, goal, leaders),
        "## What is searched",
        _table(("", ""), _searched(opened, known)),
        "## How to go on",
        _next(standing),
        *_pictures(standing),  # each fills a screen: what is to be read comes before
        *_files(standing),
    ]
    return "\n\n".join(parts) + "\n"


def _progress(
    standing: Standing,
    goal: Objective,
    trials: Sequence[FrozenTrial],
    finished: Sequence[FrozenTrial],
    leaders: Sequence[Leader],
) -> str:
    opened = standing.opened
    control = opened.database.control(opened.study_id)
    budget = int(control.get("trials", 0))
    if Ledger(opened.plan).update(trials).is_done(budget):
        state = "Done" if standing.result else "All trials are done"
    elif control.get("stop"):
        state = "Stopping" if standing.at_work else "Stopped"
    else:
        state = "Running" if standing.at_work else "Waiting for workers"
    pruned = sum(trial.state == TrialState.PRUNED for trial in finished)
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    told = [f"{len(finished)} of {budget} trials", f"{pruned} of them pruned"]
    told += [f"{failed} failed or given back"] if failed else []
    told += [f"{standing.running} running now"] if standing.running else []
    if standing.result is not None and state == "Done":  # chosen on validation, it need not be the search's best
        winner = standing.result["winner"]
        number, value = winner["trial"], winner["test"]["score"]
        told.append(f"the winner, [trial {number}]({_page(opened, [number])}): {goal.name} {goal.shown(value)} on test")
    elif leaders:
        number, value = leaders[0]
        told.append(f"the best so far, [trial {number}]({_page(opened, [number])}): {goal.name} {goal.shown(value)}")
    return f"**{state}**: {', '.join(told)}. (As of {datetime.now():%Y-%m-%d %H:%M}.)"


def _leaders(opened: OpenStudy, goal: Objective, finished: Sequence[FrozenTrial]) -> list[Leader]:
    """The trials that keep all guards, best first."""
    feasible = [trial for trial in finished if opened.plan.fitness(trial) is not None]
    values = [(trial.number, value_of(trial, goal) or 0.0) for trial in feasible]
    return sorted(values, key=lambda pair: (-goal.sign * pair[1], pair[0]))


def _page(opened: OpenStudy, numbers: Sequence[int]) -> str:
    """Where optuna-dashboard shows trials."""
    return f"/dashboard/studies/{opened.study_id}/trials?numbers={','.join(map(str, numbers))}"


def _pictures(standing: Standing) -> Iterator[str]:
    there = [(name, text) for name, text in standing.told.items() if name in standing.files]
    if there:
        yield "## Pictures"
    for name, text in there:
        yield f"[{name}]({standing.files[name]})\n\n![{_plain(text)}]({standing.files[name]})"


def _results(standing: Standing) -> Iterator[str]:
    result = standing.result
    if result is None or "objective" not in result:
        return
    goal, winner = goal_of(result), result["winner"]
    rows = [(f"source {alias}", entry["test"]) for alias, entry in result["sources"].items()]
    rows += [(f"{name} {entry['setting']}".strip(), entry["test"]) for name, entry in result["baselines"].items()]
    rows.append((f"**{winner_name(result)} (trial {winner['trial']})**", winner["test"]))
    yield f"## Results: {goal.name} on the test problems"
    yield _table(("model", "score", "95% interval"), [(name, *_scored(test, goal)) for name, test in rows])
    validation = winner["validation"]
    held_out = "" if validation is None else f", {goal.shown(validation)} on validation"
    yield (
        f"The winner scored {goal.shown(winner['search'])} in the search{held_out}, "
        f"{goal.shown(winner['test']['score'])} on test. Of many, the best in the search was lucky too: what it scores "
        "on test is what to expect."
    )


def _scored(test: Mapping[str, float], goal: Objective) -> tuple[str, str]:
    return goal.shown(test["score"]), f"{goal.shown(test['low'])} to {goal.shown(test['high'])}"


def _best(standing: Standing, goal: Objective, leaders: Sequence[Leader]) -> Iterator[str]:
    if not leaders:
        return
    opened = standing.opened
    yield "## Best in the search"
    rows = [(f"[{number}]({_page(opened, [number])})", goal.shown(value)) for number, value in leaders[:_BEST]]
    yield _table(("trial", goal.name), rows)
    if standing.finalists:
        listed = ", ".join(f"[{number}]({_page(opened, [number])})" for number in standing.finalists)
        yield f"Finalists, each with its recipe and a table of what it scored problem by problem: trials {listed}."


def _searched(opened: OpenStudy, known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = known[CONFIG]
    models, space, study = settings.get("models", {}), settings.get("space", {}), settings.get("study", {})
    if space.get("path"):
        yield "space", f"a path over layers of {', '.join(space['path'].get('order', []))}"
    elif space:
        method = settings.get("method", {})
        methods = ", ".join([str(method.get("name")), *method.get("choices", [])])
        yield "space", f"merges by {methods}, parameters by {space.get('groups')}"
    genes = known[IDENTITY].get("genes", {})
    yield "genes", genes_in_words(genes)
    if len(genes) > GENES:
        some = f"{GENES} of them, those that go most with the value; `dashboard genes=all` shows all"
        yield "shown here", f"{some}; those of a finalist are in its recipe"
    for alias, source in models.get("sources", {}).items():
        role = " (base)" if alias == models.get("base") else ""
        yield f"source {alias}{role}", f"`{source.get('path')}`"
    task = settings.get("task", {})
    if task:
        goals = ", ".join(f"{goal.name} ({goal.direction})" for goal in opened.objectives)
        yield "task", f"{task.get('name')}: {goals}"
    for split in ("search", "validation", "test"):
        if isinstance(task.get(split), Mapping) and task[split].get("path"):
            rows = f", rows {task[split]['rows']}" if task[split].get("rows") else ""
            yield f"{split} problems", f"`{task[split]['path']}`{rows}"
    if "sampler" in settings:
        sampler, population = settings["sampler"].get("name"), opened.plan.population
        yield "sampler", f"{sampler}, generations of {population}; pruner {opened.pruner}"
    budget = opened.database.control(opened.study_id).get("trials")
    yield "budget", f"{budget} trials, seed {study.get('seed')}"
    if "launcher" in settings:
        launcher = settings["launcher"]
        yield "workers", f"{launcher.get('workers', 1)}, {launcher.get('name')}"


def genes_in_words(genes: Mapping[str, Sequence[Any]]) -> str:
    """How many genes of each kind there are.

    Args:
        genes: Name to kind, least, greatest, ..., as a study's identity has them.
    """
    kinds: Counter[str] = Counter()
    for name, (kind, low, high, *_) in genes.items():
        span = f" from {low:g} to {high:g}" if kind in ("float", "int") else f" ({kind})"
        kinds[f"`{name.rpartition('/')[2]}`{span}"] += 1
    if not genes:
        return "none"
    listed = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common(_KINDS))
    more = f" and {len(kinds) - _KINDS} kinds more" if len(kinds) > _KINDS else ""
    count = f"{len(genes)}: " if len(kinds) > 1 else ""
    return f"{count}{listed}{more}; such as `{next(iter(genes))}`"


def _files(standing: Standing) -> Iterator[str]:
    """Those that are not shown as pictures."""
    others = [f"[{name}]({address})" for name, address in sorted(standing.files.items()) if name not in standing.told]
    if others:
        yield "## Files"
        yield ", ".join(others)


def _next(standing: Standing) -> str:
    run = "python -m optmerge"
    lines = [
        f"{run} status {standing.where}      # how far it is",
        f"{run} worker {standing.where}      # one more worker, from any machine that reaches the database",
        f"{run} stop {standing.where}        # let it end the trials at hand and leave",
        f"{run} dashboard {standing.where}   # this page, and MLflow's",
    ]
    return "The command that started the search goes on with it.\n\n```\n" + "\n".join(lines) + "\n```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *lines = (f" | {_GAP}".join(map(_plain, line)) for line in (head, *rows))
    return "\n".join(f"| {line} |" for line in (first, " | ".join(["---"] * len(head)), *lines))


def _plain(text: str) -> str:
    """Text that ends neither a cell nor a line."""
    return text.replace("|", "\\|").replace("\n", " ")
