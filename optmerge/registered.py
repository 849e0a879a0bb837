"""Things found by name: a merge method, a task, a sampler, an engine is one module in its room's folder.

Configurations and recipes come from files and databases, which are not trusted: they name things in these folders,
never Python paths. Things of other people's are known by name once they are installed, as an entry point whose group is
the folder's dotted name (`optmerge.tasks`), or once a file was named on the command line.
"""

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from optmerge.errors import UsageError

_FILES: dict[str, tuple[Path, ModuleType]] = {}  # tasks of the command line, by name


def add_file(path: Path) -> None:
    """Run a file of the user's and remember it as a task of that name, as `--plugin FILE` asks.

    Args:
        path: A module with `Options` and `build`.

    Raises:
        UsageError: If it cannot be run, or is no task, or its name is taken.
    """
    name, path = path.stem, path.absolute()
    if not path.is_file() or path.suffix != ".py" or not name.isidentifier():
        raise UsageError(f"--plugin {path}: no such Python file")
    if name in _modules("optmerge.tasks"):
        raise UsageError(f"--plugin {path}: there is a task {name!r} already; rename the file")
    spec = importlib.util.spec_from_file_location(f"optmerge_plugin_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file does
        line = next((entry.lineno for entry in _frames(error) if entry.filename == str(path)), None)
        where = f"{path}, line {line}" if line else str(path)
        reason = next(iter(str(error).splitlines()), "")
        raise UsageError(f"--plugin {where}: {type(error).__name__}: {reason}") from error
    if not (hasattr(module, "build") and hasattr(module, "Options")):
        raise UsageError(f"--plugin {path}: a task needs `Options` and `build`; see CONTRIBUTING.md")
    _FILES[name] = (path, module)


def added_files() -> list[Path]:
    """The files that were named on the command line, for workers that need them too."""
    return [path for path, _ in _FILES.values()]


def source_sha256(module: ModuleType) -> str | None:
    """What tells one version of somebody else's module from another; None for our own."""
    if module.__name__.startswith("optmerge.") or module.__file__ is None:
        return None
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


def version_of(module: ModuleType) -> dict[str, str]:
    """The same as a fact that can be told and compared: empty for our own modules."""
    sha256 = source_sha256(module)
    return {} if sha256 is None else {"plugin": sha256}


def names(package: str) -> list[str]:
    """The names of all things registered in a package such as `optmerge.merge.methods`."""
    ours = [name for name in _modules(package) if _registers(importlib.import_module(f"{package}.{name}"))]
    return sorted({*ours, *_files(package), *(entry.name for entry in importlib.metadata.entry_points(group=package))})


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
    if name in _files(package):
        return _files(package)[name]
    for entry in importlib.metadata.entry_points(group=package, name=name):
        installed: ModuleType = entry.load()
        return installed
    known = names(package)
    raise UsageError(f"unknown {what} {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")


def did_you_mean(name: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """A hint such as " (did you mean 'ties'?)", or nothing where no known name is near: `cutoff` says how near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _files(package: str) -> dict[str, ModuleType]:
    return {name: module for name, (_, module) in _FILES.items()} if package == "optmerge.tasks" else {}


def _frames(error: Exception) -> list[traceback.FrameSummary]:
    """Where an error came from, the nearest first; of a file that cannot be read as Python, that very place."""
    if isinstance(error, SyntaxError):
        return [traceback.FrameSummary(error.filename or "", error.lineno or 0, "")]
    return traceback.extract_tb(error.__traceback__)[::-1]


def _modules(package: str) -> list[str]:
    paths = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(paths))


def _registers(module: ModuleType) -> bool:
    """A plug-in has a function `build`, a maker of sources `make`, a merge method one of its own name; others none."""
    return any(hasattr(module, name) for name in ("build", "make", module.__name__.rpartition(".")[2]))
