"""What `--help` prints, made from the table of commands."""

import sys
from collections.abc import Sequence
from pathlib import Path

from optmerge.commands.catalogue import COMMANDS, EVERYWHERE, Command, Option
from optmerge.groups import groups, prefixed

_STATUS = """\
Exit status: 0 done, 1 failed, 2 asked wrongly; 75 of a worker that was told to leave and may be started again."""

_SETTINGS = """\
Settings are in Hydra's grammar:
  +experiment=math_ja                               a whole run: the paper's search
  study.name=NAME study.trials=400 study.seed=1     settings; `--cfg job` prints all
  method=ties sampler=tpe pruner=none               choices in groups; `list` prints all
  groups: {groups}"""


def program() -> str:
    """How this program was called."""
    return "optmerge" if Path(sys.argv[0]).name == "optmerge" else "python -m optmerge"


def overview() -> str:
    """The help of the whole program."""
    names = [group for group in groups() if prefixed(group) == f"{group}="]
    search = next(command for command in COMMANDS if command.name == "search")
    return "\n\n".join(
        [
            "Evolve merges of fine-tuned models.",
            f"Usage: {program()} [COMMAND] [WORD ...]; no command is a search",
            _table(f"Commands ({program()} COMMAND --help says more)", [(one.name, one.summary) for one in COMMANDS]),
            _options("Options of search", search.options),
            _SETTINGS.format(groups=" ".join(names)),
            _examples(search),
            _options("Options everywhere", EVERYWHERE),
            _STATUS,
        ]
    )


def help_of(command: Command) -> str:
    """The help of one command."""
    usages = "\n".join(
        f"{'Usage:' if number == 0 else '      '} {program()} {usage}" for number, usage in enumerate(command.usage)
    )
    parts = [f"{command.name}: {command.summary}", usages]
    if command.options:
        parts.append(_options("Options", command.options))
    if command.settings:
        parts.append(f"A SETTING is one of a search, such as task=gsm8k or engine.device=cpu: {program()} --help")
    return "\n\n".join([*parts, _examples(command), _STATUS])


def _options(title: str, options: Sequence[Option]) -> str:
    return _table(title, [(option.form, option.about) for option in options])


def _examples(command: Command) -> str:
    split = [example.partition("  # ") for example in command.examples]
    return _table("Examples", [(f"{program()} {words}".rstrip(), about) for words, _, about in split])


def _table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Two columns; where the first is long, the second goes below it."""
    width = min(max(len(first) for first, _ in rows), _WIDEST)
    lines = [f"{title}:"]
    for first, second in rows:
        if second and len(first) > width:
            lines += [f"  {first}", f"  {'':{width}}  {second}"]
        else:
            lines.append(f"  {first:{width}}  {second}".rstrip())
    return "\n".join(lines)


_WIDEST = 52
