"""What a shell may make of a word: argcomplete speaks with the shells, and this says which words there are.

A shell asks at every press of its key, so that nothing heavy is imported: choices are names of files, and settings are
read without running the schema.
"""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optmerge.commands.catalogue import BY_NAME, COMMANDS, EVERYWHERE, STUDY, Command, Option
from optmerge.commands.settings import settings
from optmerge.errors import UsageError
from optmerge.groups import Choice, default_choices, groups, prefixed

Words = dict[str, str]  # a word, and what it means

_SHELLS = ("bash", "zsh", "fish")
_PATHS = {"RECIPE", "MODEL", "CONFIG", "OUT", "FOLDER", "DIR", "FILE"}
_PATH_SETTINGS = ("folder", "path", "url_file")


def print_script(arguments: Sequence[str]) -> None:
    """Print what makes a shell complete the words of `optmerge`, as `--completion SHELL` asks.

    Raises:
        UsageError: If it is not a shell that is known.
    """
    from argcomplete.shell_integration import shellcode

    shell = " ".join(arguments).replace("=", " ").partition(" ")[2]
    if shell not in _SHELLS:
        raise UsageError(f"--completion {shell or 'needs the name of a shell'}: known are {', '.join(_SHELLS)}")
    print(shellcode(["optmerge"], shell=shell))


def answer() -> None:
    """Answer the shell that asks, and exit."""
    import argcomplete

    # No character begins an option here: `completions` looks at all words alike.
    parser = argparse.ArgumentParser(add_help=False, prefix_chars="\0")
    words: Any = parser.add_argument("words", nargs="*")
    words.completer = lambda prefix, parsed_args, **_: completions(parsed_args.words or [], prefix)
    argcomplete.autocomplete(parser)


def completions(before: Sequence[str], prefix: str) -> Words:
    """The words that the one at the cursor may become, and what each means.

    Args:
        before: The words before it, after the program's name.
        prefix: What is there of it.
    """
    command = BY_NAME.get(before[0] if before and before[0].isidentifier() else "search")
    if command is None:
        return {}
    options = [*command.options, *EVERYWHERE]
    choices = groups([path for path in map(Path, _values_of("--config-dir", before)) if path.is_dir()])
    if before and (form := _value_form(options, before[-1])):
        found = _values(form, prefix, before)
    elif "=" in prefix:
        name, _, start = prefix.partition("=")
        values = _setting_values(command, options, choices, before, name, start)
        found = {f"{name}={value}": about for value, about in values.items()}
    else:
        found = {} if before else {one.name: one.summary for one in COMMANDS}
        found |= {word: option.about for option in options for word in _beginnings(option) if _fits(word, prefix)}
        found |= _operands(command, choices, before, prefix)
        if command.settings:
            found |= _settings_of(command, choices, before, prefix)
    return {word: about for word, about in found.items() if word.startswith(prefix) and word not in before}


def _fits(word: str, prefix: str) -> bool:
    """Options are shown once a dash is written, and are not in the way before."""
    return prefix.startswith("-") or not word.startswith("-")


def _beginnings(option: Option) -> list[str]:
    """What can be written of an option before its value: `--plugin`, `json=`, `sources.`."""
    names = [re.match(r"[^ =]+=?", spelling) for spelling in option.form.split(", ")]
    return [re.sub(r"[A-Z]+=$", "", name[0]) for name in names if name]


def _value_form(options: Sequence[Option], word: str) -> str:
    """What must follow a word, as its option's form has it: FILE after `--plugin`, nothing after most."""
    spellings = (option.form.partition(" ") for option in options if "," not in option.form)
    return next((form for name, _, form in spellings if name == word), "")


def _values(form: str, prefix: str, before: Sequence[str]) -> Words:
    """The values that a form such as FILE or search|validation allows."""
    if form in _PATHS:
        return _paths(prefix, folders_only=form in ("FOLDER", "DIR"))
    if form in ("NAME", "OLD"):
        return _studies(before)
    return dict.fromkeys(form.split("|") if form.islower() else (), "")


def _setting_values(
    command: Command,
    options: Sequence[Option],
    choices: dict[str, list[Choice]],
    before: Sequence[str],
    name: str,
    start: str,
) -> Words:
    """The values that may follow `name=`."""
    for option in options:
        spelled, _, form = option.form.partition("=")
        if form and re.fullmatch(re.sub("[A-Z]+", r"[\\w.-]+", re.escape(spelled)), name):
            return _values(form, start, before)
    group = name.lstrip("+")
    if command.settings and group in choices:
        return {choice.name: choice.about for choice in choices[group]}
    if name.rpartition(".")[2] in _PATH_SETTINGS:
        return _paths(start)
    known = settings(before, choices).get(group)
    return {"true": "", "false": ""} if known and known.kind == "bool" else {}


def _operands(command: Command, choices: dict[str, list[Choice]], before: Sequence[str], prefix: str) -> Words:
    """What a command takes that is neither option nor setting: files, or a group."""
    taken = {word.strip("[]") for usage in command.usage for word in usage.split()}
    if "GROUP" in taken and len(before) == 1:
        return {group: ", ".join(choice.name for choice in found) for group, found in choices.items()}
    return _paths(prefix) if taken & _PATHS and not prefix.startswith("-") else {}


def _settings_of(command: Command, choices: dict[str, list[Choice]], before: Sequence[str], prefix: str) -> Words:
    """Settings of a search: groups at once, others when the word has begun, those deep within when it has a dot."""
    found: Words = {}
    if not set(STUDY) & set(command.options):  # a study that is there has made its choices
        defaults = default_choices()
        found = {prefixed(group): f"by default {defaults.get(group, 'none')}" for group in choices}
    if prefix:
        known = settings(before, choices).items()
        found |= {f"{name}=": one.about for name, one in known if "." in prefix or name.count(".") == 1}
    return found


_NO_STUDIES = ("artifacts", "mlartifacts")  # folders beside those of studies


def _studies(before: Sequence[str]) -> Words:
    """The studies that have a folder."""
    root = Path((_values_of("study.folder", before) or ["studies"])[-1])
    return {path.name: "" for path in sorted(root.glob("[!.]*")) if path.is_dir() and path.name not in _NO_STUDIES}


def _values_of(name: str, words: Sequence[str]) -> list[str]:
    """The values that a line has for an option or a setting, as `NAME VALUE` or `NAME=VALUE`."""
    spaced = [value for word, value in zip(words, words[1:], strict=False) if word == name]
    return spaced + [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]


def _paths(start: str, *, folders_only: bool = False) -> Words:
    """Files and folders that begin so; hidden ones where a dot was written."""
    folder, name = os.path.split(start)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:
        return {}
    shown = [entry for entry in entries if entry.name.startswith(name or "") and (name or entry.name[0] != ".")]
    paths = {os.path.join(folder, entry.name): entry.is_dir() for entry in shown}
    return {path + "/" * is_folder: "" for path, is_folder in paths.items() if is_folder or not folders_only}
