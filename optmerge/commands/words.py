"""The words of a command line, as several commands understand them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from optmerge.commands.help import program
from optmerge.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Parses the words of one command; what it cannot is told as all that is asked wrongly.

    Args:
        command: Its name.
    """

    def __init__(self, command: str) -> None:
        super().__init__(prog=command, add_help=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {program()} {self.prog} --help")


def sorted_out(words: Sequence[str], settings: Sequence[str] = ()) -> tuple[list[str], dict[str, str], dict[str, str]]:
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


def named(usage: str, words: Sequence[str], wanted: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """The plain words of a command: one for each thing that it wants.

    Args:
        usage: How the command is written, for messages.
        words: What is left of what it was told.
        wanted: What it wants, as `usage` calls it; what stands in brackets may be left out.
        known: Names of its settings.

    Raises:
        UsageError: If one is missing, or is one too many.
    """
    from optmerge.registered import did_you_mean

    needed = [name for name in wanted if not name.startswith("[")]
    for at, word in enumerate(words):
        setting, equals, _ = word.partition("=")
        if equals and setting.isidentifier():
            raise UsageError(f"{word!r}: no such word{did_you_mean(setting, known)}; write `{usage}`")
        if at >= len(wanted):
            raise UsageError(f"{word!r} is one word too many; write `{usage}`")
    if len(words) < len(needed):
        missing = " and ".join(needed[len(words) :])
        raise UsageError(f"{missing} {'are' if ' and ' in missing else 'is'} missing; write `{usage}`")
    return list(words)


def with_own_configs(words: Sequence[str]) -> list[str]:
    """Write `--config-dir DIR` as the override that Hydra's composition understands everywhere.

    Raises:
        UsageError: If there is no such folder.
    """
    rest, folder = without_option(words, "--config-dir")
    if folder is None:
        return rest
    quoted = str(own_folder(folder).absolute()).replace("'", "\\'")
    return [*rest, f"hydra.searchpath=['file://{quoted}']"]


def own_folder(folder: str) -> Path:
    """The folder that `--config-dir` names.

    Raises:
        UsageError: If there is none.
    """
    if not folder:
        raise UsageError("--config-dir needs a folder")
    if not Path(folder).is_dir():
        raise UsageError(f"--config-dir {folder}: there is no such folder")
    return Path(folder)


def without_option(words: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """Words without `OPTION VALUE` or `OPTION=VALUE`, and the value: "" where it has none, None without the option."""
    for at, word in enumerate(words):
        if word == option:
            value = words[at + 1] if at + 1 < len(words) else ""
            return [*words[:at], *words[at + 2 :]], value
        if word.startswith(f"{option}="):
            return [*words[:at], *words[at + 1 :]], word.partition("=")[2]
    return list(words), None


def own_words(
    command: str, words: Sequence[str], own: Sequence[str], settings: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Split `NAME=VALUE` words into the values of a command's own, and settings that it has a use for.

    Args:
        command: Its name.
        words: What it was told.
        own: Names of its own words.
        settings: Settings, of which `storage` stands for `storage.url` and all others below it too.

    Raises:
        UsageError: If a word is neither.
    """
    from optmerge.config import masked
    from optmerge.registered import did_you_mean

    known = [*own, *settings]
    values: dict[str, str] = {}
    rest = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in own:
            values[name] = value
        elif equals and name.startswith(tuple(f"{setting}." for setting in settings)) or equals and name in settings:
            rest.append(word)
        else:
            what = did_you_mean(name, known) if equals else ": words are NAME=VALUE"
            raise UsageError(
                f"{masked(word)!r}: {command} knows no such word{what}; known are {', '.join(known)} "
                f"(see {program()} {command} --help)"
            )
    return values, rest


def check_settings(command: str, words: Sequence[str]) -> None:
    """Check that all words of a command are settings.

    Raises:
        UsageError: If one is not.
    """
    from optmerge.config import masked

    for word in words:
        if "=" not in word or word.startswith("-"):
            raise UsageError(f"{masked(word)!r} is no setting; write `{command} study.name=NAME storage.url=URL`")
