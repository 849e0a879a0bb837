"""The command line: `python -m optmerge [command] [overrides]`."""

import argparse
import importlib.metadata
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from optmerge.errors import INTERRUPTED, OptmergeError, UsageError

HELP = """\
Evolve merges of fine-tuned models.

  python -m optmerge [search] [OVERRIDE ...]      run, resume or report a search; the embedded demo by default
  python -m optmerge worker study.name=NAME       join a search, from any machine that reaches its database
  python -m optmerge status study.name=NAME       show workers, trials, the best, rate and time left of a search
  python -m optmerge stop study.name=NAME         let the workers of a search finish the trials at hand and leave
  python -m optmerge fork study.name=OLD as=NEW [OVERRIDE ...]
                                                  a new search that begins with the best of an old one
  python -m optmerge rebuild RECIPE OUT           write the weights that a recipe describes
  python -m optmerge rebuild --check RECIPE       prove that a recipe still gives the weights that were scored
  python -m optmerge evaluate MODEL [split=test] [json=FILE] [OVERRIDE ...]
                                                  score a recipe, a model folder or a hub id on a task's problems
  python -m optmerge convert MODEL OUT            make safetensors of a checkpoint that has only .bin files
  python -m optmerge import CONFIG [RECIPE]       make a recipe of a mergekit configuration; search=FILE writes an
                                                  experiment beside it that searches around the recipe. CONFIG may
                                                  be the folder of a published data-flow model (evomistral)
  python -m optmerge export RECIPE OUT format=mergekit|fold|evomistral
                                                  write a recipe as a configuration for mergekit-yaml; a path over
                                                  layers also as an ordinary model, or in the published form

Options of search:
  --dry-run            print groups, genes, problems, memory and time, and start nothing
  -m, --multirun       one search for every combination of comma-separated values
  --cfg job            print the composed configuration
  --version            print the version
  --config-dir DIR     look for groups in DIR too, such as DIR/experiment/mine.yaml
  --plugin FILE        a task of your own, in a Python file that is trusted and run (of evaluate and worker too)

Overrides are in Hydra's grammar:
  +experiment=math_ja                             a whole run: the paper's search
  +experiment=demo_dfs                            the demo over paths of layers; demo_hybrid: over both
  study.name=NAME study.trials=400 study.seed=1   settings
  method=ties sampler=tpe pruner=none             groups: models space method task engine sampler pruner storage
                                                  tracking launcher selection

Examples:
  python -m optmerge                              the demo: tiny models, trained and merged in minutes
  python -m optmerge study.trials=20 study.name=short
  python -m optmerge -m study.seed=0,1,2
  python -m optmerge rebuild --check studies/demo-seed0/best/recipe.yaml
  python -m optmerge evaluate studies/demo-seed0/best split=validation json=responses.json

Exit status: 0 done, 1 failed, 2 asked wrongly; 75 of a worker that was told to leave and may be started again."""

COMMANDS = ("search", "worker", "status", "stop", "fork", "rebuild", "evaluate", "convert", "import", "export")
_HYDRA_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--resolve", "--package", "-p")


def main() -> None:
    """Entry point: run the command line and exit."""
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in the background
        signal.signal(signal.SIGINT, _leave)
    sys.exit(run(sys.argv[1:]))


def _leave(_: int, __: FrameType | None) -> NoReturn:
    """End as cleanly at a polite kill as at ctrl-C.

    A scheduler kills politely more than once, and a worker whose terminal got ctrl-C is told by its search too: later
    ones do not disturb the handing back of a trial.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run a command line; errors become one line and an exit status."""
    try:
        _dispatch(_with_plugins(list(arguments)))
    except OptmergeError as error:
        print(f"optmerge: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("optmerge: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED if arguments[:1] == ["worker"] else 1
    return 0


def _with_plugins(arguments: list[str]) -> list[str]:
    """Take `--plugin FILE` out of a command line, having run the file."""
    arguments = [part for word in arguments for part in (word.split("=", 1) if word[:9] == "--plugin=" else [word])]
    while "--plugin" in arguments:
        from optmerge.registered import add_file

        at = arguments.index("--plugin")
        if at + 1 == len(arguments):
            raise UsageError("--plugin needs a Python file")
        add_file(Path(arguments[at + 1]))
        del arguments[at : at + 2]
    return arguments


def _dispatch(arguments: list[str]) -> None:
    from optmerge.registered import did_you_mean

    command = arguments.pop(0) if arguments and arguments[0].isidentifier() else "search"
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UsageError(f"unknown command {command!r}{did_you_mean(command, COMMANDS)}; known are {known}")
    if "--help" in arguments or "-h" in arguments:
        print(HELP)
    elif "--version" in arguments:
        print(importlib.metadata.version("optmerge"))
    elif command == "search":
        _search(arguments)
    elif command in ("worker", "status", "stop", "fork"):
        _of_study(command, arguments)
    elif command == "rebuild":
        _rebuild(arguments)
    elif command == "evaluate":
        _evaluate(arguments)
    elif command == "import":
        _import(arguments)
    elif command == "export":
        _export(arguments)
    else:
        _convert(arguments)


def _search(arguments: list[str]) -> None:
    arguments = _with_own_configs(arguments)
    overrides = ["dry_run=true" if argument == "--dry-run" else argument for argument in arguments]
    multirun = any(argument in ("-m", "--multirun") for argument in overrides)
    overrides = [argument for argument in overrides if argument not in ("-m", "--multirun")]
    if any(argument.split("=")[0] in _HYDRA_ONLY for argument in overrides):
        _show(overrides)
        return
    for argument in overrides:
        if argument.startswith("-"):
            raise UsageError(f"unknown option {_shown(argument)}; see python -m optmerge --help")
        if "=" not in argument and not argument.startswith("~"):
            raise UsageError(
                f"{_shown(argument)!r} is neither a command nor a setting; settings look like study.trials=100"
            )
    if multirun:
        _search_many(overrides)
    else:
        _search_one(overrides)


def _shown(argument: str) -> str:
    """An argument as a message may repeat it: without a password."""
    from optmerge.config import masked

    return masked(argument)


def _of_study(command: str, arguments: list[str]) -> None:
    """Run a command on a study that is there."""
    for argument in arguments:
        if "=" not in argument or argument.startswith("-"):
            raise UsageError(f"{_shown(argument)!r} is no setting; write `{command} study.name=NAME storage.url=URL`")
    from rich.console import Console

    if command == "worker":
        from optmerge.commands.worker import run_worker as run_command
    elif command == "fork":
        from optmerge.commands.fork import run_fork as run_command
    elif command == "stop":
        from optmerge.commands.status import stop_study as run_command
    else:
        from optmerge.commands.status import print_status as run_command
    run_command(arguments, Console(soft_wrap=True))


def _with_own_configs(arguments: list[str]) -> list[str]:
    """Write `--config-dir DIR` as the override that Hydra's composition understands everywhere."""
    arguments = [
        part for word in arguments for part in (word.split("=", 1) if word.startswith("--config-dir=") else [word])
    ]
    if "--config-dir" not in arguments:
        return arguments
    at = arguments.index("--config-dir")
    if at + 1 == len(arguments):
        raise UsageError("--config-dir needs a folder")
    folder = Path(arguments[at + 1])
    if not folder.is_dir():
        raise UsageError(f"--config-dir {folder}: there is no such folder")
    quoted = str(folder.absolute()).replace("'", "\\'")
    searchpath = f"hydra.searchpath=['file://{quoted}']"
    return [*arguments[:at], *arguments[at + 2 :], searchpath]


def _show(arguments: Sequence[str]) -> None:
    """Let Hydra print the configuration, once it is known to be one."""
    from optmerge.config import compose_config

    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    compose_config(overrides)
    # Overrides first: Hydra's own parser does not take them on both sides of an option.
    _hand_to_hydra([*overrides, *(word for word in arguments if word not in overrides)])


def _search_one(overrides: Sequence[str]) -> None:
    from optmerge.config import compose_config

    config = compose_config(overrides)
    from rich.console import Console

    if config.dry_run:
        from optmerge.commands.plan import print_plan

        print_plan(config, Console())
    else:
        from optmerge.commands.search import run_search

        run_search(config, Console())


def _search_many(overrides: list[str]) -> None:
    """Run one search for each combination of swept values, by Hydra's launcher, and compare the results.

    All combinations are checked before the first starts, so that a mistake in the last one is not found at hour
    twenty.
    """
    from rich.console import Console

    from optmerge.commands.assembly import find_plugins
    from optmerge.commands.stages import check_all
    from optmerge.config import compose_config

    configs = [compose_config(combination) for combination in _combinations(overrides)]
    places = [(config.study.folder, config.storage.url, config.study.name) for config in configs]
    for place in places:
        if places.count(place) > 1:
            raise UsageError(
                f"{places.count(place)} combinations would share the study {place[-1]}; name them by what differs, "
                "such as 'study.name=demo-${pruner.name}-seed${study.seed}'"
            )
    for config in configs:
        if config.models.maker is None:
            check_all(config, Console(quiet=True))
        else:  # sources that are to be made cannot be looked at yet
            find_plugins(config)
    # Hydra keeps the settings of a sweep, which may hold a password, in a folder; the studies have all that matters.
    with tempfile.TemporaryDirectory() as folder:
        _hand_to_hydra(["--multirun", f"hydra.sweep.dir={folder}", *overrides])
    if any(config.dry_run for config in configs):
        return
    import json

    from optmerge.commands.ending import RESULT
    from optmerge.reports.table import print_comparison

    paths = [config.study.own_folder / RESULT for config in configs]
    print_comparison(Console(), [json.loads(path.read_text(encoding="utf-8")) for path in paths])


def _combinations(overrides: Sequence[str]) -> list[list[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from optmerge.config import explain

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [str(override.input_line)]
            for override in parsed
        ]
    except HydraException as error:
        raise UsageError(explain(error)) from error
    return [list(combination) for combination in itertools.product(*choices)]


def _hand_to_hydra(arguments: Sequence[str]) -> None:
    """Let Hydra's own command line do what it is for: sweeps, launchers, printing the configuration."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    from optmerge.config import CONF, register, typed_config

    register()
    failed: list[OptmergeError] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(composed: DictConfig) -> None:
        from rich.console import Console

        from optmerge.commands.plan import print_plan
        from optmerge.commands.search import run_search

        if failed:
            return
        try:
            config = typed_config(composed, HydraConfig.get().runtime.choices)
            (print_plan if config.dry_run else run_search)(config, Console())
        except OptmergeError as error:  # not raised here: Hydra would print a traceback
            failed.append(error)

    sys.argv = ["optmerge", *arguments]
    job()
    if failed:
        raise failed[0]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see python -m optmerge --help")


def _rebuild(arguments: list[str]) -> None:
    parser = _Parser(prog="rebuild", add_help=False)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("rest", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    folders, locations, _ = _words(asked.rest)
    if len(folders) != (0 if asked.check else 1):
        raise UsageError("write `rebuild RECIPE OUT`, or `rebuild --check RECIPE`; sources.ALIAS=FOLDER may follow")
    from rich.console import Console

    from optmerge.commands.rebuild import check, rebuild

    if asked.check:
        check(asked.recipe, locations, Console())
    else:
        rebuild(asked.recipe, Path(folders[0]), locations, Console())


def _words(words: Sequence[str], settings: Sequence[str] = ()) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Split words into plain ones, folders of `sources.ALIAS=FOLDER`, and the values of some settings."""
    plain: list[str] = []
    sources: dict[str, str] = {}
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.startswith("sources."):
            sources[name.removeprefix("sources.")] = value
        elif equals and name in settings:
            values[name] = value
        else:
            plain.append(word)
    return plain, sources, values


def _evaluate(arguments: list[str]) -> None:
    words, locations, settings = _words(_with_own_configs(arguments), ["split", "json"])
    models = [word for word in words if "=" not in word]
    if len(models) != 1 or models[0].startswith("-"):
        raise UsageError("write `evaluate MODEL [split=test] [json=FILE] [task=NAME and other settings]`")
    from rich.console import Console

    from optmerge.commands.evaluate import evaluate

    path = Path(settings["json"]) if "json" in settings else None
    overrides = [word for word in words if "=" in word]
    evaluate(models[0], settings.get("split", "test"), path, locations, overrides, Console())


def _import(arguments: list[str]) -> None:
    parser = _Parser(prog="import", add_help=False)
    parser.add_argument("--search")
    parser.add_argument("configuration", type=Path)
    parser.add_argument("rest", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    outs, locations, settings = _words(asked.rest, ["search"])
    search = asked.search or settings.get("search")
    if len(outs) > 1 or any("=" in out for out in outs):
        raise UsageError("write `import CONFIG [RECIPE]`; search=FILE and sources.ALIAS=FOLDER may follow")
    from rich.console import Console

    from optmerge.commands.interchange import import_file

    recipe = Path(outs[0]) if outs else None
    import_file(asked.configuration, recipe, Path(search) if search else None, locations, Console())


def _export(arguments: list[str]) -> None:
    parser = _Parser(prog="export", add_help=False)
    parser.add_argument("--format")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("rest", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    outs, locations, settings = _words(asked.rest, ["format"])
    form = asked.format or settings.get("format")
    if len(outs) != 1 or "=" in outs[0] or not form:
        raise UsageError("write `export RECIPE OUT format=mergekit`; sources.ALIAS=FOLDER may follow")
    from rich.console import Console

    from optmerge.commands.interchange import export_file

    export_file(asked.recipe, Path(outs[0]), form, locations, Console())


def _convert(arguments: list[str]) -> None:
    parser = _Parser(prog="convert", add_help=False)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args(arguments)
    from rich.console import Console

    from optmerge.commands.percent import percent
    from optmerge.models import convert

    console = Console()
    convert(asked.model, asked.out, percent(console.print, "converting"))
    console.print(f"{asked.out}: safetensors of {asked.model}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
