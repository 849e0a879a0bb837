"""The words of the search command: one search or many, a plan of it, or a look at its configuration."""

from collections.abc import Sequence

from rich.console import Console

from optmerge.commands.help import program
from optmerge.commands.words import with_own_configs
from optmerge.config import compose_config, masked
from optmerge.errors import UsageError

_HYDRA_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--resolve", "--package", "-p")
_MULTIRUN = ("-m", "--multirun")


def run_words(arguments: Sequence[str], console: Console) -> None:
    """Run, resume or report the search that some settings describe.

    Raises:
        UsageError: If a word is not understood, or the search cannot start.
        OptmergeError: If it fails.
    """
    words = ["dry_run=true" if word == "--dry-run" else word for word in with_own_configs(arguments)]
    overrides = [word for word in words if word not in _MULTIRUN]
    if any(word.split("=")[0] in _HYDRA_ONLY for word in overrides):
        _show(overrides, console)
        return
    for word in overrides:
        if word.startswith("-"):
            raise UsageError(f"unknown option {masked(word)}; see {program()} --help")
        if "=" not in word and not word.startswith("~"):
            raise UsageError(
                f"{masked(word)!r} is neither a command nor a setting; settings look like study.trials=100"
            )
    if len(overrides) < len(words):
        from optmerge.commands.multirun import run_many

        run_many(overrides, console)
    else:
        _run_one(overrides, console)


def _show(words: Sequence[str], console: Console) -> None:
    """Let Hydra print the configuration, once it is known to be one."""
    from optmerge.commands.multirun import hand_to_hydra

    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    compose_config(overrides)
    # Overrides first: Hydra's own parser does not take them on both sides of an option.
    hand_to_hydra([*overrides, *(word for word in words if word not in overrides)], console)


def _run_one(overrides: Sequence[str], console: Console) -> None:
    config = compose_config(overrides)
    if config.dry_run:
        from optmerge.commands.plan import print_plan

        print_plan(config, console)
    else:
        from optmerge.commands.search import run_search

        run_search(config, console)
