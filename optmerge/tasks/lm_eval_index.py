"""Finding tasks of lm-evaluation-harness by name, and refusing those that would run code of strangers.

lm-eval runs code at three places before a task scores anything: functions that a yaml names with `!function`, metrics
that the `evaluate` library downloads, and tasks that are Python classes. Here a task's files are read without running
any of it, so that what is refused never ran.
"""

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from optmerge.errors import UsageError
from optmerge.registered import did_you_mean
from optmerge.tasks.questions import shortened


@dataclass(frozen=True)
class Definition:
    """A task as its files define it.

    Attributes:
        name: Its name.
        config: Its settings, with `Code` where a function would be.
        paths: The files, that of the task first, then those that it includes.
    """

    name: str
    config: Mapping[str, Any]
    paths: Sequence[Path]


@dataclass(frozen=True)
class Selection:
    """What a name stands for.

    Attributes:
        manager: lm-eval's `TaskManager`, which loads it.
        group: Whether it is several tasks: a group, or a tag.
        definitions: Everything that is read for it; of a group the tasks in it, and the group.
    """

    manager: Any
    group: bool
    definitions: Sequence[Definition]


@dataclass(frozen=True)
class Code:
    """A function that a file names, which was not looked up."""

    name: str


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's files and runs nothing."""


def _code(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Code:
    return Code(str(loader.construct_scalar(node)))


_Loader.add_constructor("!function", _code)


def version() -> str:
    """The version of lm-eval.

    Raises:
        UsageError: If it is not installed.
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        import lm_eval  # noqa: F401

        found = installed("lm_eval")
    except (ImportError, PackageNotFoundError) as error:
        raise UsageError("task=lm_eval needs lm-evaluation-harness: pip install 'optmerge[lm-eval]'") from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of what it does by default
    return found


def find(name: str, include_path: str | None) -> Selection:
    """What a name stands for, if all of it may be loaded.

    Args:
        name: A task, group or tag of lm-eval's own, or of a yaml file in `include_path`.
        include_path: A folder with yaml files; what they define comes before what lm-eval has under the same name.

    Raises:
        UsageError: If there is no such task, or it would run code of neither lm-eval nor the folder.
    """
    release = version()
    if include_path is not None and not Path(include_path).is_dir():
        raise UsageError(f"task.include_path={include_path}: no such folder")
    try:
        found = _among(_manager(include_path, False), name) if include_path is not None else None
    except KeyError:  # lm-eval's own files, which take ten seconds to read, are needed too
        found = None
    manager = _manager(include_path, True) if found is None else found.manager
    if name not in manager.task_index:
        known = f"; {include_path} has {_some(_manager(include_path, False).all_tasks)}" if include_path else ""
        hint = did_you_mean(name, manager.all_tasks)
        raise UsageError(f"task.task={name}: lm-eval {release} has no such task{hint}{known}")
    try:
        found = found or _among(manager, name)
    except KeyError as error:
        raise UsageError(f"task.task={name}: its group names {error.args[0]}, and there is no such task") from error
    for definition in found.definitions:
        _check_code(definition, include_path)
    return found


def missing_data(definition: Definition) -> str | None:
    """What keeps a task's data set from being read now, in one line; in a second or so, with or without network."""
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    path, settings = definition.config.get("dataset_path"), definition.config.get("dataset_kwargs") or {}
    if not isinstance(path, str) or Path(path).exists():
        return None
    if path in _PACKAGED_DATASETS_MODULES:
        folder = Path(settings.get("data_dir") or ".")
        absent = [name for name in _names(settings.get("data_files")) if not _is_there(folder / name)]
        return f"{definition.name} reads {absent[0]}: no such file" if absent else None
    if (Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir():
        return None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(path, timeout=5)
    except HfHubHTTPError as error:
        return f"{definition.name}: data set {path} of the hub: {shortened(str(error), 120)}"
    except Exception:  # what a missing network raises depends on the HTTP library
        return (
            f"{definition.name}: data set {path} is not in the local cache, and the hub cannot be reached; load it "
            f"once where there is a network: lm-eval run --model dummy --tasks {definition.name}"
        )
    return None


@cache
def _manager(include_path: str | None, built_in: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path, include_defaults=built_in)


def _among(manager: Any, name: str) -> Selection:
    """What a name stands for in an index; KeyError if the index lacks something of it."""
    definitions = list(_definitions(name, manager.task_index))
    return Selection(manager, manager.task_index[name].kind.name in ("GROUP", "TAG"), definitions)


def _definitions(name: str, index: Mapping[str, Any]) -> Iterator[Definition]:
    """All that a name stands for, itself and its members."""
    entry = index[name]
    if entry.kind.name == "TAG":
        for member in sorted(entry.tags):
            yield from _definitions(member, index)
        return
    files = list(_files(Path(entry.yaml_path).resolve()))
    config: dict[str, Any] = {}
    for _, content in reversed(files):
        config |= content
    yield Definition(name, config, [path for path, _ in files])
    members = config.get("task") if entry.kind.name == "GROUP" else None
    for member in members if isinstance(members, list) else []:
        yield from _member(member, index)


def _member(member: object, index: Mapping[str, Any]) -> Iterator[Definition]:
    """A member of a group: a name, a name with other settings, or a task or group that is defined right there."""
    if not isinstance(member, Mapping):
        yield from _definitions(str(member), index)
        return
    name = str(member.get("group") or member.get("task"))
    defined = isinstance(member.get("task"), list) or "dataset_path" in member
    if name in index or not defined:
        yield from _definitions(name, index)
    yield Definition(name, {} if name in index else member, [])
    for inner in member["task"] if isinstance(member.get("task"), list) else []:
        yield from _member(inner, index)


def _files(path: Path, seen: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A file and those that it includes, what counts more first."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"task.include_path: {path} cannot be read: {shortened(str(error), 120)}") from error
    yield path, content
    includes = content.get("include") or []
    for name in reversed(includes if isinstance(includes, list) else [includes]):
        included = (path.parent / str(name)).resolve()
        if included not in seen:
            yield from _files(included, (*seen, path))


def _check_code(definition: Definition, include_path: str | None) -> None:
    """Refuse what would run code of neither lm-eval nor the user's folder."""
    from lm_eval import tasks
    from lm_eval.api import metrics  # noqa: F401  (registers them)
    from lm_eval.api.registry import metric_registry

    config, name = definition.config, definition.name
    trusted = [Path(tasks.__file__).resolve().parent, *([Path(include_path).resolve()] if include_path else [])]
    for path in definition.paths:
        if not any(path.is_relative_to(folder) for folder in trusted) and "!function" in path.read_text("utf-8"):
            raise UsageError(
                f"task.task={name}: {path} names functions with !function, and lies outside of lm-eval and "
                "task.include_path: its code is not run"
            )
    if "class" in config:
        raise UsageError(f"task.task={name}: it is a Python class, not a yaml file; such tasks are not run")
    if config.get("unsafe_code"):
        raise UsageError(f"task.task={name}: it runs code that models write (unsafe_code); such tasks are not run")
    for metric in (config.get("metric_list") or []) if "process_results" not in config else []:
        called = metric.get("metric")
        if not isinstance(called, Code) and (metric.get("hf_evaluate") or called not in metric_registry):
            raise UsageError(
                f"task.task={name}: metric {called} is none of lm-eval's own, and code that the evaluate library would "
                "download is not run"
            )


def _names(files: Any) -> list[str]:
    """The file names in the `data_files` of a data set."""
    if isinstance(files, Mapping):
        return [name for some in files.values() for name in _names(some)]
    return [files] if isinstance(files, str) else list(files or [])


def _is_there(path: Path) -> bool:
    return "://" in str(path) or ":/" in str(path) or bool(glob.glob(str(path)))


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:8], *(["..."] if len(names) > 8 else [])]) or "no task"
