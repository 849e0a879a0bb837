"""The command line: `python -m optmerge [command] [words]`; no command is a search.

What the commands are stands in optmerge/commands/catalogue.py.  PYTHON_ARGCOMPLETE_OK
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from optmerge.commands.catalogue import BY_NAME
from optmerge.errors import INTERRUPTED, OptmergeError, UsageError


def main() -> None:
    """Entry point: run the command line and exit."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what a word may become
        from optmerge.commands.completion import answer

        answer()
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
        _dispatch(list(arguments))
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


def _dispatch(arguments: list[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        _help(arguments)
    elif "--version" in arguments:
        from importlib.metadata import version

        print(version("optmerge"))
    elif arguments[:1] and arguments[0].partition("=")[0] == "--completion":
        from optmerge.commands.completion import print_script

        print_script(arguments)
    else:
        arguments = _with_plugins(arguments)
        name = _command(arguments)
        module, function = BY_NAME[name].function.split(":")
        run_command = getattr(importlib.import_module(module), function)
        from rich.console import Console

        # Lines are as long as what they say, for `grep` and for copying, and brackets in them are brackets.
        console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        run_command(arguments[1:] if arguments[:1] == [name] else arguments, console)


def _help(arguments: Sequence[str]) -> None:
    from optmerge.commands.help import help_of, overview

    named = bool(arguments) and arguments[0].isidentifier()
    print(help_of(BY_NAME[_command(arguments)]) if named else overview())


def _command(arguments: Sequence[str]) -> str:
    """The command that a command line names: a search where it names none."""
    if not arguments or not arguments[0].isidentifier():
        return "search"
    if arguments[0] not in BY_NAME:
        from optmerge.registered import did_you_mean

        known = ", ".join(BY_NAME)
        raise UsageError(
            f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], list(BY_NAME))}; known are {known}"
        )
    return arguments[0]


def _with_plugins(arguments: Sequence[str]) -> list[str]:
    """Take `--plugin FILE` out of a command line, having run the file."""
    from optmerge.commands.words import without_option

    rest, file = without_option(arguments, "--plugin")
    while file is not None:
        from optmerge.registered import add_file

        if not file:
            raise UsageError("--plugin needs a Python file")
        add_file(Path(file))
        rest, file = without_option(rest, "--plugin")
    return rest


if __name__ == "__main__":
    main()
