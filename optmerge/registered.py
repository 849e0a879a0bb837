"""Things found by name: a merge method, a task, a sampler, an engine is one module in its room's folder.

Configurations and recipes come from files and databases, which are not trusted: they name things in these folders,
never Python paths.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from optmerge.errors import UsageError


def names(package: str) -> list[str]:
    """The names of all things registered in a package such as `optmerge.merge.methods`."""
    return [name for name in _modules(package) if _registers(importlib.import_module(f"{package}.{name}"))]


def find(package: str, name: str, what: str) -> ModuleType:
    """The module called `name` in `package`.

    Args:
        package: Dotted name of the folder to look in.
        name: The name that a configuration or a recipe gives.
        what: How people call such a thing, for the message ("merge method").

    Raises:
        UsageError: If there is none of that name; the message lists those that there are.
    """
    if name in _modules(package):
        module = importlib.import_module(f"{package}.{name}")
        if _registers(module):
            return module
    known = names(package)
    raise UsageError(f"unknown {what} {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A hint such as " (did you mean 'ties'?)", or nothing where no known name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _modules(package: str) -> list[str]:
    paths = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(paths))


def _registers(module: ModuleType) -> bool:
    """A plug-in has a function `build`, a maker of sources `make`, a merge method one of its own name; others none."""
    return any(hasattr(module, name) for name in ("build", "make", module.__name__.rpartition(".")[2]))
