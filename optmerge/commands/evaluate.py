"""The evaluate command: what a recipe, a model folder or a hub id scores on a task, problem by problem."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from optmerge.commands.words import sorted_out, with_own_configs
from optmerge.config import Config, compose_config, options_of
from optmerge.errors import OptmergeError, UsageError
from optmerge.registered import version_of
from optmerge.tasks import SORTING, SPLITS, Problem, Split, Task

if TYPE_CHECKING:
    from torch import Tensor

    from optmerge.engines import Engine, Response

_AT_ONCE = 256  # problems between two looks at the progress bar


def run_evaluate(arguments: Sequence[str], console: Console) -> None:
    """Score the model that `evaluate MODEL [split=SPLIT] [json=FILE] [SETTING ...]` names.

    Raises:
        UsageError: If a setting, the model or the problems cannot be used.
        OptmergeError: If the model cannot be run.
    """
    words, locations, settings = sorted_out(with_own_configs(arguments), ["split", "json"])
    models = [word for word in words if "=" not in word]
    if len(models) != 1 or models[0].startswith("-"):
        raise UsageError("write `evaluate MODEL [split=test] [json=FILE] [task=NAME and other settings]`")
    path = Path(settings["json"]) if "json" in settings else None
    overrides = [word for word in words if "=" in word]
    evaluate(models[0], settings.get("split", "test"), path, locations, overrides, console)


def evaluate(
    model: str,
    split: str,
    json_path: Path | None,
    locations: Mapping[str, str],
    overrides: Sequence[str],
    console: Console,
) -> None:
    """Score a model and print what it scores, with intervals.

    Args:
        model: A recipe, a folder with a checkpoint, or a hub id; with an engine that asks a server, the model's name
            there.
        split: The task's split.
        json_path: Where to write every problem's response and scores.
        locations: For a recipe: alias to folder, for sources that are no longer where it says.
        overrides: Settings in Hydra's grammar, of which `task` and `engine` matter.
        console: Where to print.

    Raises:
        UsageError: If a setting, the model or the problems cannot be used.
        OptmergeError: If the model cannot be run.
    """
    from optmerge.commands.ending import write_atomically
    from optmerge.commands.search import quiet_libraries
    from optmerge.study.interval import bootstrap
    from optmerge.study.judged import problem_set

    quiet_libraries()
    name: Split | None = next((known for known in SPLITS if known == split), None)
    if name is None:
        raise UsageError(f"split={split}: unknown; known are {', '.join(SPLITS)}")
    if json_path is not None and (json_path.is_dir() or not json_path.name):
        raise UsageError(f"json={json_path}: this is a folder; name a file")
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise UsageError(f"json={json_path}: there is no folder {json_path.absolute().parent}")
    config = compose_config(overrides)
    engine_module, engine_options = options_of("engine", config.engine, "optmerge.engines")
    _refuse_missing(model, engine_module)
    module, options = options_of("task", config.task, "optmerge.tasks")
    task: Task = module.build(options)
    problems = task.problems(name)
    if not problems:
        raise UsageError(f"task.{name} is empty: there is nothing to score")
    engine, identity = _opened(model, engine_module, engine_options, config, locations, console)
    began = time.monotonic()
    responses = _responses(engine, task, problems, console)
    seconds = time.monotonic() - began
    each = [dict(task.score(problem, response)) for problem, response in zip(problems, responses, strict=True)]
    import numpy as np

    metrics = dict.fromkeys(metric for one in each for metric in one if metric != SORTING)
    found = {metric: np.array([one.get(metric, np.nan) for one in each]) for metric in metrics}
    scores = {metric: bootstrap(found, metric) for metric in metrics}
    table = Table(title=f"{model}: {config.task['name']}, {name}", title_justify="left")
    table.add_column("score")
    table.add_column("mean", justify="right")
    table.add_column("95% interval", justify="right")
    goals = {goal.name: goal for goal in (task.goal, *task.objectives, *(guard.goal for guard in task.guards))}
    for metric, score in scores.items():
        shown = goals.get(metric, task.goal).shown
        table.add_row(metric, shown(score.score), f"{shown(score.low)} to {shown(score.high)}")
    console.print(table)
    tokens = sum(response.tokens for response in responses)
    version = version_of(module)
    facts = {**task.facts, **version}
    with_what = "".join(f"; {fact}: {value}" for fact, value in facts.items())
    console.print(
        f"{len(problems)} problems, {tokens} tokens in {seconds:.1f} s{with_what}", highlight=False, soft_wrap=True
    )
    if json_path is not None:
        document = {
            "model": model,
            "task": config.task,
            "split": name,
            "facts": facts,
            "scores": {metric: asdict(score) for metric, score in scores.items()},
            "problems": [
                _record(problem, response, found)
                for problem, response, found in zip(problems, responses, each, strict=True)
            ],
        }
        write_atomically(json_path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        console.print(f"{json_path}: every problem's response and scores", highlight=False, soft_wrap=True)
    if name == "test":
        tests = problem_set(task, name, str(config.task["name"]), version).sha256
        told = _counted(Path(config.study.folder), tests, identity)
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _counted(studies: Path, problems_sha256: str, identity: Callable[[], str]) -> str:
    """Count a model that has answered test problems, and say how many there are."""
    from optmerge.study.touched import touch

    try:
        models = touch(studies, problems_sha256, [identity()], "evaluate")
    except OSError as error:  # what was answered is told all the same
        return f"That test problems were touched could not be counted in study.folder={studies}: {error}"
    told = "1 model has" if models == 1 else f"{models} different models have"
    return f"{told} answered these test problems so far: the more there are, the less the best test score says."


def _refuse_missing(model: str, module: ModuleType) -> None:
    """Check that the model is there before anything else is read or asked for."""
    from optmerge.models.resolve import missing

    if getattr(module, "NEEDS", "weights") == "nothing":
        return
    if Path(model).suffix in (".yaml", ".yml"):
        if not Path(model).is_file():
            raise UsageError(f"there is no recipe {model}")
    elif problem := missing(model, None):
        raise UsageError(problem)


def _opened(
    model: str, module: ModuleType, options: Any, config: Config, locations: Mapping[str, str], console: Console
) -> "tuple[Engine, Callable[[], str]]":
    """An engine that answers as the model, and what finds the hash that the model is counted by."""
    from optmerge.commands.rebuild import open_sources
    from optmerge.commands.recipe_places import model_folder
    from optmerge.models import resolve
    from optmerge.recipe import load_recipe
    from optmerge.tasks.task import sha256_of

    if getattr(module, "NEEDS", "weights") == "nothing":
        options.model = model
        server: Engine = module.build(options, None, config.models.dtype)
        return server, lambda: sha256_of([str(config.engine["name"]), model])
    module.pick_device(options)
    path = Path(model)
    if path.is_dir():
        model = str(path := model_folder(path))
    if path.suffix not in (".yaml", ".yml"):
        folder = resolve(model, None)
        resident: Engine = module.build(options, folder, _dtype(folder))
        if not getattr(module, "READS_WEIGHTS", False):
            with console.status("loading"):
                resident.mount(Folder(folder))
        return resident, lambda: _identity(folder)
    recipe = load_recipe(path)
    bench, like = open_sources(recipe, locations, lambda text: console.print(text, highlight=False, soft_wrap=True))
    engine: Engine = module.build(options, like.folder, recipe.root.dtype)
    with console.status("merging"):
        engine.mount(bench.final(recipe))
    return engine, lambda: recipe.sha256


def _identity(folder: Path) -> str:
    """Hash of the recipe of a model that we have made, and of any other as searches know it as a source."""
    from optmerge.models import Checkpoint, scan
    from optmerge.models.product import recipe_of
    from optmerge.recipe import CheckpointNode, node_sha256

    found = recipe_of(folder)
    if found is not None:
        return found[0].sha256
    return node_sha256(CheckpointNode(str(folder), scan(Checkpoint.open(folder, "model")).weights_sha256))


class Folder:
    """A checkpoint as a candidate, for engines that read no weights by themselves.

    Args:
        folder: The checkpoint.
    """

    path: None = None

    def __init__(self, folder: Path) -> None:
        from optmerge.models import Checkpoint, check_fit

        self._checkpoint = Checkpoint.open(folder, "model")
        self.names = check_fit({"model": self._checkpoint}, base=None, tokenizer="model").names

    @property
    def recipe(self) -> NoReturn:
        raise OptmergeError("a folder that is scored as it is has no recipe")

    def tensors(self) -> Iterator[tuple[str, "Tensor"]]:
        for name in self.names:
            yield name, self._checkpoint.tensor(name)

    def write_into(self, targets: Mapping[str, "Tensor"]) -> None:
        for name, tensor in self.tensors():
            targets[name].copy_(tensor)


def _dtype(folder: Path) -> str:
    """The type of a checkpoint's weights, as its configuration has it."""
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} holds no model: it has no config.json; an adapter is scored merged, by its recipe")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _responses(engine: "Engine", task: Task, problems: Sequence[Problem], console: Console) -> "list[Response]":
    """One response a problem, with a progress bar where there are many."""
    found: list[Response] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("answering", total=len(problems))
        for start in range(0, len(problems), _AT_ONCE):
            some = problems[start : start + _AT_ONCE]
            found += engine.run([task.request(problem) for problem in some])
            progress.advance(bar, len(some))
    return found


def _record(problem: Problem, response: "Response", scores: Mapping[str, float]) -> dict[str, Any]:
    """What is kept of a problem."""
    likelihoods = {"log_likelihoods": response.log_likelihoods} if response.log_likelihoods else {}
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "response": response.text,
        "finish": response.finish,
        "tokens": response.tokens,
        **likelihoods,
        "scores": scores,
    }
