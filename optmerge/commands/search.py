"""The search command: from a configuration to a merged model in a folder."""

import dataclasses
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.assembly import Assembly, assemble, find_plugins, make_sources
from optmerge.commands.rebuild import RECIPE, write_model
from optmerge.config import Config
from optmerge.errors import OptmergeError, UsageError
from optmerge.models import SMALL_FILES_BYTES

BEST, RESULT, PICTURE = "best", "result.json", "report.png"


def run_search(config: Config, console: Console) -> dict[str, Any]:
    """Run, resume or report a study.

    Args:
        config: The whole configuration.
        console: Where progress and results go.

    Returns:
        The contents of its result.json.

    Raises:
        OptmergeError: If it cannot be run, or was interrupted.
    """
    quiet_libraries()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    plugins = find_plugins(config)
    from optmerge.study.storage import open_storage

    if config.models.maker is not None:
        open_storage(config.storage.url)  # a wrong URL is found out before minutes of training, not after
        make_sources(config, say, trained=True)
    assembly = assemble(config, plugins, say)
    storage = open_storage(config.storage.url)
    folder = Path(config.study.folder) / str(config.study.name)
    known = _known_study(assembly, storage)
    done = finished_result(assembly, known, folder) if known else None
    if done is not None:
        say(f"Study {config.study.name} is finished: this is what it found.")
        _report(done, assembly, folder, None, console)
        return done
    _check_room(assembly, folder)
    tracking_module, tracking_options = plugins.tracking
    tracker = tracking_module.build(tracking_options)
    settings = dataclasses.asdict(config)
    for secret in ("storage", "tracking"):  # their addresses may hold passwords
        del settings[secret]
    engine, workbench = start_engine(assembly)
    study = known or _new_study(assembly, storage)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from optmerge.study.identity import KEY

    try:
        tracker.start(str(config.study.name), study.user_attrs[KEY], settings)
        result, registered = _search_and_finish(assembly, study, engine, workbench, folder, tracker, console)
    except KeyboardInterrupt as error:
        tracker.stop("interrupted")
        raise OptmergeError(
            f"interrupted; what is finished is kept in study {config.study.name}: run the same command again to go on"
        ) from error
    except OptmergeError as error:
        tracker.stop(str(error))
        raise
    except (SQLAlchemyError, MlflowException) as error:
        reason = str(error).splitlines()[0]
        raise OptmergeError(f"a database failed: {reason}; run the same command again to go on") from error
    _report(result, assembly, folder, registered, console)
    return result


def quiet_libraries() -> None:
    """Let only what people need through: libraries print progress bars and notes of their own."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import enable_progress_bars

        enable_progress_bars()  # the line before silences downloads too, which are long work


def _known_study(assembly: Assembly, storage: Any) -> Any | None:
    """The study of that name, if it is there and is the same search."""
    import optuna

    from optmerge.study.identity import check_identity

    name = str(assembly.config.study.name)
    if name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    check_identity(study, assembly.identity())
    return study


def _new_study(assembly: Assembly, storage: Any) -> Any:
    import optuna

    from optmerge.study.identity import check_identity

    direction = assembly.plugins.task.objectives[0].direction
    study = optuna.create_study(study_name=assembly.config.study.name, storage=storage, direction=direction)
    check_identity(study, assembly.identity())
    return study


def finished_result(assembly: Assembly, study: Any, folder: Path) -> dict[str, Any] | None:
    """The result of a study that has nothing left to do: its budget is spent and its winner is in its folder."""
    from optmerge.study.search import finished

    if not (folder / BEST / RECIPE).exists() or not list((folder / BEST).glob("*.safetensors")):
        return None
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        spent = result["trials"]["complete"] + result["trials"]["pruned"]
        same_end = result["ending"] == _ending(assembly.config)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole: the ending is done again
        return None
    return result if same_end and assembly.config.study.trials <= spent == len(finished(study)) else None


def _ending(config: Config) -> dict[str, Any]:
    """The settings that decide how a study ends."""
    study = config.study
    return {"selection": study.selection, "finalists": study.finalists, "baselines": study.baselines}


def _check_room(assembly: Assembly, folder: Path) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    # The winner's folder, the one that it replaces until it is whole, and the copy in the model registry.
    copies = 1 + (folder / BEST).exists() + (assembly.config.tracking["name"] != "none")
    needed, free = copies * assembly.model_bytes() + SMALL_FILES_BYTES, shutil.disk_usage(existing).free
    if free < needed:
        raise UsageError(
            f"the result needs {needed / 1e9:.2f} GB in {folder}, and {free / 1e9:.2f} GB are free: make room, or set "
            "study.folder to another disk"
        )


def _search_and_finish(
    assembly: Assembly, study: Any, engine: Any, workbench: Any, folder: Path, tracker: Any, console: Console
) -> tuple[dict[str, Any], str | None]:
    from optmerge.reports.figure import draw_study
    from optmerge.reports.progress import ProgressLine
    from optmerge.study.objective import Objective
    from optmerge.study.result import Judge, as_json, trial_seconds
    from optmerge.study.search import finished, search

    config, task = assembly.config, assembly.plugins.task
    goal = task.objectives[0]
    objective = Objective(assembly.space, workbench, engine, task, assembly.plugins.pruner, config.study.seed)
    earlier = finished(study)
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            tracker.trial(trial)
    if earlier:
        console.print(f"Study {config.study.name} goes on after {len(earlier)} trials.", highlight=False)
    else:
        console.print(
            f"Study {config.study.name}: {len(assembly.space.genes)} genes, {config.study.trials} trials of "
            f"{len(task.problems('search'))} problems.",
            highlight=False,
        )
    for text in _dashboards(assembly):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    with ProgressLine(console, config.study.trials, earlier, goal.direction == "maximize") as line:
        for trial in search(study, objective, assembly.plugins.sampler, config.study.trials):
            line.show(trial)
            tracker.trial(trial)
    ending = time.monotonic()
    with console.status("scoring the finalists") as status:

        def watch(what: str) -> None:
            status.update(f"scoring {what}")
            if not console.is_terminal:
                console.print(f"scoring {what}", highlight=False)

        result = _judge(assembly, study, Judge(study, workbench, engine, task, watch))
    like = assembly.checkpoints[config.models.tokenizer]
    weights_sha256 = write_model(result.winner.recipe, workbench, like, folder / BEST, replace=True)
    seconds = trial_seconds(study.get_trials(deepcopy=False)) + time.monotonic() - ending
    document = as_json(result, study, weights_sha256, len(task.problems("search")), seconds)
    document["ending"] = _ending(config)
    draw_study(document, study.get_trials(deepcopy=False), goal.name, folder / PICTURE)
    registered = tracker.finish(document, folder / BEST)
    # Written last: a study with a result is one that has nothing left to do.
    write_atomically(folder / RESULT, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return document, registered


def start_engine(assembly: Assembly) -> tuple[Any, Any]:
    """The engine with its model in memory, and the bench that merges beside it.

    Raises:
        UsageError: If the engine cannot take merged weights.
    """
    import torch

    from optmerge.commands.placement import fits_on_device
    from optmerge.merge import Workbench

    module, options = assembly.plugins.engine
    like = assembly.checkpoints[assembly.config.models.tokenizer]
    engine = module.build(options, like.folder, assembly.config.models.dtype)
    if engine.needs != "weights":
        raise UsageError(f"engine={module.__name__.rpartition('.')[2]} cannot take merged weights")
    device = torch.device(engine.device)
    resident = fits_on_device(assembly, device)
    return engine, Workbench(assembly.opened(), assembly.fit, device, resident)


def _judge(assembly: Assembly, study: Any, judge: Any) -> Any:
    from optmerge.space import naive_merges
    from optmerge.study.result import Result, choose_winner, judge_baselines, judge_sources

    config, ingredients = assembly.config, assembly.ingredients
    direction = assembly.plugins.task.objectives[0].direction
    baselines = naive_merges(ingredients) if config.study.baselines else {}
    if not assembly.plugins.task.problems("validation"):
        baselines = {name: settings for name, settings in baselines.items() if len(settings) == 1}
    winner = choose_winner(
        study,
        judge,
        assembly.space,
        direction,
        config.study.finalists,
        by_validation=config.study.selection == "validation",
    )
    sources = judge_sources(judge, {alias: ingredients.source(alias) for alias in sorted(ingredients.sources)})
    return Result(winner, sources, judge_baselines(judge, baselines))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _report(
    result: Mapping[str, Any], assembly: Assembly, folder: Path, registered: str | None, console: Console
) -> None:
    from optmerge.reports.table import print_result

    config = assembly.config
    print_result(console, result, assembly.plugins.task.objectives[0].name)
    for text in _whereabouts(config, folder, registered, assembly):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _whereabouts(config: Config, folder: Path, registered: str | None, assembly: Assembly) -> Iterator[str]:
    yield ""
    yield f"model and recipe  {folder / BEST}"
    yield f"results, picture  {folder / RESULT}, {folder / PICTURE}"
    if registered:
        yield f"registered as     {registered}"
    yield from _dashboards(assembly)
    yield f"rebuild, check    {_program('python')} -m optmerge rebuild --check {folder / BEST / RECIPE}"
    yield f"start afresh      the same command with study.name=ANOTHER (this study: {config.study.name})"


def _dashboards(assembly: Assembly) -> Iterator[str]:
    from optmerge.study.storage import shown_url

    yield f"watch the study   {_program('optuna-dashboard')} {shown_url(assembly.config.storage.url)}"
    module, options = assembly.plugins.tracking
    if command := module.command(options):
        name, _, rest = command.partition(" ")
        yield f"watch the runs    {_program(name)} {rest}"


def _program(name: str) -> str:
    """How to call a program of this environment from here: by its name only where that finds this very one."""
    here = Path(sys.executable).parent
    found = shutil.which(name)
    return name if found and Path(found).parent == here else os.path.relpath(here / name)
