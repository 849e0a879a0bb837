"""The search command: from a configuration to a merged model in a folder."""

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.assembly import Assembly, Plugins, Run, Say, assemble, find_plugins, make_sources
from optmerge.commands.ending import BEST, finish, finished_result
from optmerge.commands.whereabouts import dashboards, report
from optmerge.config import Config
from optmerge.errors import OptmergeError, UsageError
from optmerge.models import Adapter, check_room


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
    plugins = find_plugins(config)
    assembly, storage = _prepare(config, plugins, console)
    folder = Path(config.study.folder) / str(config.study.name)
    known = _known_study(assembly, storage)
    done = finished_result(config, known, folder) if known else None
    if done is not None:
        console.print(f"Study {config.study.name} is finished: this is what it found.", highlight=False)
        report(done, assembly, folder, None, console)
        return done
    _check_room(assembly, folder)
    module, options = plugins.tracking
    tracker = module.build(options)
    engine, workbench = start_engine(assembly, lambda text: console.print(text, highlight=False, markup=False))
    study = known or _new_study(assembly, storage)
    run = Run(assembly, study, engine, workbench, tracker, folder, console)
    with _told_why_it_stops(run):
        _start_tracking(run)
        _search(run)
        result, registered = finish(run)
    report(result, assembly, folder, registered, console)
    return result


def _prepare(config: Config, plugins: Plugins, console: Console) -> tuple[Assembly, Any]:
    from optmerge.study.storage import open_storage

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    if config.models.maker is not None:
        open_storage(config.storage.url)  # a wrong URL is found out before minutes of training, not after
        make_sources(config, say, trained=True)
    return assemble(config, plugins, say), open_storage(config.storage.url)


@contextlib.contextmanager
def _told_why_it_stops(run: Run) -> Iterator[None]:
    """Tell tracker and user why a search ends before its end, and how to go on."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    again = "run the same command again to go on"
    try:
        yield
    except KeyboardInterrupt as error:
        run.tracker.stop("interrupted")
        name = run.study.study_name
        raise OptmergeError(f"interrupted; what is finished is kept in study {name}: {again}") from error
    except OptmergeError as error:
        run.tracker.stop(str(error))
        raise
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = f"the study database failed: {str(error).splitlines()[0]}"
        run.tracker.stop(reason)
        raise OptmergeError(f"{reason}; {again}") from error


def _start_tracking(run: Run) -> None:
    from optmerge.study.identity import KEY

    settings = dataclasses.asdict(run.assembly.config)
    for secret in ("storage", "tracking"):  # their addresses may hold passwords
        del settings[secret]
    run.tracker.start(run.study.study_name, run.study.user_attrs[KEY], settings)
    for trial in run.study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            run.tracker.trial(trial)


def _search(run: Run) -> None:
    from optmerge.reports.progress import ProgressLine
    from optmerge.study.objective import Objective
    from optmerge.study.search import finished, search

    config, plugins = run.assembly.config, run.assembly.plugins
    objective = Objective(
        run.assembly.space, run.workbench, run.engine, plugins.task, plugins.pruner, config.study.seed
    )
    earlier = finished(run.study)
    genes, problems = len(run.assembly.space.genes), len(plugins.task.problems("search"))
    beginning = f"{genes} genes, {config.study.trials} trials of {problems} problems"
    resuming = f" goes on after {len(earlier)} trials" if earlier else ""
    run.console.print(f"Study {config.study.name}{resuming}: {beginning}.", highlight=False)
    for text in dashboards(run.assembly):
        run.console.print(text, highlight=False, markup=False, soft_wrap=True)
    maximize = plugins.task.objectives[0].direction == "maximize"
    with ProgressLine(run.console, config.study.trials, earlier, maximize) as line:
        for trial in search(run.study, objective, plugins.sampler, config.study.trials):
            line.show(trial)
            run.tracker.trial(trial)


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


def _check_room(assembly: Assembly, folder: Path) -> None:
    # The winner's folder, the one that it replaces until it is whole, and the copy in the model registry.
    copies = 1 + (folder / BEST).exists() + (assembly.config.tracking["name"] != "none")
    check_room(folder, copies * assembly.model_bytes(), "make room, or set study.folder to another disk")


def start_engine(assembly: Assembly, say: Say) -> tuple[Any, Any]:
    """The engine with its model in memory, and the bench that merges beside it.

    Args:
        assembly: A search that could start now.
        say: Told where the sources are placed, and when kernels are compiled.

    Raises:
        UsageError: If the engine cannot take merged weights, or the sources do not fit where they must be.
    """
    import torch

    from optmerge.commands.placement import measured, plan_placement, worth_compiling
    from optmerge.merge import Kernels, Workbench

    module, options = assembly.plugins.engine
    device = torch.device(module.pick_device(options))
    placement = plan_placement(measured(assembly, device), assembly.config.merging.placement)
    say(placement.summary)
    adapters = [alias for alias, source in assembly.checkpoints.items() if isinstance(source, Adapter)]
    if adapters and placement.where != "device":
        say(f"  adapters ({', '.join(adapters)}) are merged into their base anew for every candidate")
    engine = module.build(options, assembly.companions.folder, assembly.config.models.dtype)
    if engine.needs != "weights":
        raise UsageError(f"engine={module.__name__.rpartition('.')[2]} cannot take merged weights")
    kernels = Kernels(say) if worth_compiling(assembly) else None
    bench = Workbench(
        assembly.opened(),
        assembly.fit,
        torch.device(engine.device),
        resident=placement.where == "device",
        kernels=kernels,
        keep_facts=True,
        keep_sources=placement.where == "host",
    )
    return engine, bench
