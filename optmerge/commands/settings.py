"""The names of settings, read from conf/ and the schema's source: to run that would take the time to import Hydra."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optmerge.groups import CONF, Choice, default_choices

_PACKAGE = Path(__file__).parents[1]
_SCHEMA = (_PACKAGE / "config.py", _PACKAGE / "space" / "path_space.py")


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        name: Such as `study.trials`.
        kind: Its type, as the schema has it; empty where a file alone says that there is one.
        about: What it is, in a sentence.
    """

    name: str
    kind: str = ""
    about: str = ""


def settings(overrides: Sequence[str], choices: Mapping[str, Sequence[Choice]]) -> dict[str, Setting]:
    """All settings that have a name in the schema, or in the files that are chosen.

    Args:
        overrides: Words of a command line; of these, choices in groups matter.
        choices: Every group and its choices.
    """
    found = {name: Setting(name) for name in _in_files(overrides, choices)}
    classes = {
        node.name: node
        for path in _SCHEMA
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    return found | {setting.name: setting for setting in _in_schema("Config", "", classes)}


def _in_schema(kind: str, prefix: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[Setting]:
    """The fields of a dataclass, and of dataclasses in it; what a dictionary holds has no names here."""
    abouts = _abouts(ast.get_docstring(classes[kind]) or "")
    for node in classes[kind].body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, field = prefix + node.target.id, ast.unparse(node.annotation).removesuffix(" | None")
        if field in classes:
            yield from _in_schema(field, f"{name}.", classes)
        elif not field.startswith("dict"):
            yield Setting(name, field, abouts.get(node.target.id, ""))


def _abouts(docstring: str) -> dict[str, str]:
    """What the section `Attributes` says of each, its first sentence."""
    section = inspect.cleandoc(docstring.partition("Attributes:")[2].partition("\n\n")[0])
    entries = re.findall(r"^(\w+): (.*(?:\n +.*)*)", section, re.MULTILINE)
    return {name: re.split(r"\. |\.$|;", re.sub(r"\s+", " ", text))[0] for name, text in entries}


def _in_files(overrides: Sequence[str], choices: Mapping[str, Sequence[Choice]]) -> Iterator[str]:
    for group, name in _chosen(overrides).items():
        for choice in choices.get(group, ()):
            if choice.name == name and not (text := choice.path.read_text(encoding="utf-8")).startswith("# @package"):
                yield from _names(_read(text), f"{group}.")
    yield from _names(_read((CONF / "config.yaml").read_text(encoding="utf-8")), "")


def _chosen(overrides: Sequence[str]) -> dict[str, str]:
    """Group to choice: that of conf/config.yaml, unless a word says otherwise."""
    words = [word.lstrip("+").partition("=") for word in overrides]
    return default_choices() | {group: name for group, _, name in words}


def _read(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:  # a user's file that is being written
        return {}


def _names(value: Any, prefix: str) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict) and inner:
            yield from _names(inner, f"{prefix}{key}.")
        elif prefix + key not in ("defaults", "hydra") and key != "name" or prefix == "study.":
            yield f"{prefix}{key}"
