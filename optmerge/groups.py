"""The groups of conf/ and the choices in each, read from the files themselves: quick, and nothing is composed.

A group is a folder, a choice a yaml file in it: `method=ties` takes conf/method/ties.yaml.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# In a wheel conf/ lies inside the package; in a checkout beside it.
CONF = next(
    path
    for path in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf")
    if (path / "config.yaml").exists()
)
_METHODS = Path(__file__).parent / "merge" / "methods"
_SENTENCE_END = re.compile(r"\.(?= [A-Z])|\.$")


@dataclass(frozen=True)
class Choice:
    """One file of a group.

    Attributes:
        group: The group, a folder's name.
        name: The file's name.
        path: The file.
    """

    group: str
    name: str
    path: Path

    @property
    def about(self) -> str:
        """What it is, in a sentence: what its merge method's module says of itself, or the file's first comment."""
        ours = self.path.is_relative_to(CONF)
        method = _METHODS / f"{self.name}.py"
        if self.group == "method" and ours and method.is_file():
            text = ast.get_docstring(ast.parse(method.read_text(encoding="utf-8"))) or ""
            return text.partition("\n")[0].removesuffix(".")
        return _SENTENCE_END.split(_first_comment(self.path.read_text(encoding="utf-8")))[0].removesuffix(":")


def _first_comment(text: str) -> str:
    """The paragraph that a file begins with; an indented line, a command, ends it."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("# ") or (lines and line.startswith("#  ")):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def groups(folders: Sequence[Path] = ()) -> dict[str, list[Choice]]:
    """Every group, its choices by name.

    Args:
        folders: Where to look too, as `--config-dir` says. Where both have a file, Hydra takes that of conf/.
    """
    found: dict[str, dict[str, Choice]] = {}
    for folder in (CONF, *folders):
        for choice in _choices(folder):
            found.setdefault(choice.group, {}).setdefault(choice.name, choice)
    return {group: [named[name] for name in sorted(named)] for group, named in sorted(found.items())}


def _choices(folder: Path) -> Iterator[Choice]:
    for path in folder.glob("*/*.yaml"):
        yield Choice(path.parent.name, path.stem, path)


def default_choices() -> dict[str, str]:
    """Group to the choice that conf/config.yaml makes; a group that is not here is chosen with a + before its name."""
    defaults = (CONF / "config.yaml").read_text(encoding="utf-8").partition("defaults:")[2]
    return dict(re.findall(r"^  - (\w+): (\w+)", defaults, re.MULTILINE))


def prefixed(group: str) -> str:
    """How a group is written before its choice: `method=`, `+experiment=`."""
    return f"{'' if group in default_choices() else '+'}{group}="
