"""The list command: what there is to choose, a line each, as it is written on a command line."""

from collections.abc import Sequence

from rich.console import Console

from optmerge.commands.words import own_folder, without_option
from optmerge.errors import UsageError
from optmerge.groups import groups, prefixed
from optmerge.registered import did_you_mean


def run_list(arguments: Sequence[str], console: Console) -> None:
    """Print the choices of all groups, or of one.

    Raises:
        UsageError: If there is no such group.
    """
    words, folder = without_option(arguments, "--config-dir")
    found = groups([] if folder is None else [own_folder(folder)])
    if len(words) > 1:
        raise UsageError("write `list [GROUP]`, such as `list methods`")
    if words:
        group = named_group(words[0], list(found))
        found = {group: found[group]}
    rows = [[(prefixed(group) + choice.name, choice.about) for choice in found[group]] for group in found]
    width = max(len(word) for block in rows for word, _ in block)
    blocks = ["\n".join(f"{word:{width}}  {about}".rstrip() for word, about in block) for block in rows]
    console.print("\n\n".join(blocks))


def named_group(word: str, known: Sequence[str]) -> str:
    """The group that a word names, in the singular or the plural.

    Raises:
        UsageError: If it names none.
    """
    for group in known:
        if word in (group, f"{group}s"):
            return group
    raise UsageError(f"unknown group {word!r}{did_you_mean(word, known)}; known are {', '.join(known)}")
