"""The compare command: versions of a registered model side by side."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from optmerge.commands.ending import write_atomically
from optmerge.commands.words import own_words
from optmerge.config import compose_config, masked, options_of
from optmerge.errors import UsageError
from optmerge.registered import did_you_mean

_FILES = ("csv", "json")
_WIDE = 200  # columns, where the output is no terminal


def run_compare(arguments: Sequence[str], console: Console) -> None:
    """Print versions, what each scores, and whether it differs from the champion; and which problems each alone solves.

    Args:
        arguments: `NAME` of a registered model, by default `tracking.model`; `csv=FILE`, `json=FILE`; settings that
            say where MLflow keeps its runs, such as `tracking.uri=http://localhost:5000`; `study.folder=FOLDER`, which
            knows what else has answered test problems.
        console: Where to print.

    Raises:
        UsageError: If there is no such model or store, or a file cannot be written.
    """
    names = [word for word in arguments if "=" not in word]
    words = [word for word in arguments if "=" in word]
    files, settings = own_words("compare", words, _FILES, ("study.folder", "tracking"))
    for word in names:
        if word.startswith("-"):
            raise UsageError(f"unknown option {masked(word)}; write `compare NAME [csv=FILE] [json=FILE]`")
    if len(names) > 1:
        raise UsageError(f"compare takes one registered model, got {len(names)}: {', '.join(names)}")
    paths = {kind: _writable(kind, file) for kind, file in files.items()}
    config = compose_config(settings)
    if config.tracking["name"] != "mlflow":
        raise UsageError(f"tracking={config.tracking['name']}: versions are in the registry of tracking=mlflow")
    _, options = options_of("tracking", config.tracking, "optmerge.tracking")
    from optmerge.reports.versions import as_csv, as_json, print_versions
    from optmerge.tracking.comparison import compared
    from optmerge.tracking.connection import SQLITE, connect, every, told
    from optmerge.tracking.registry import Registry

    if options.uri.startswith(SQLITE) and not Path(options.uri.removeprefix(SQLITE)).is_file():
        raise UsageError(f"tracking.uri={options.uri}: there is no such file, so nothing was registered there")
    client = connect(options.uri)
    name = names[0] if names else options.model
    with told("see tracking.uri"):
        known = [model.name for model in every(client.search_registered_models)]
        if name not in known:
            listed = f"it has {', '.join(sorted(known)[:10])}" if known else "it has none"
            raise UsageError(f"{name}: no such registered model in this store{did_you_mean(name, known)}; {listed}")
        registry = Registry(client, name, Path(config.study.folder))
        versions = registry.versions()
        tables = {one.number: table for one in versions if (table := registry.table(one, "validation"))}
        groups, tests = compared(versions, tables, registry.own_validation()), registry.tests()
    if not console.is_terminal:
        console.width = _WIDE
    print_versions(console, name, groups, tests)
    if "csv" in paths:
        write_atomically(paths["csv"], as_csv(groups))
    if "json" in paths:
        text = json.dumps(as_json(name, groups, tests), indent=1, ensure_ascii=False)
        write_atomically(paths["json"], text + "\n")
    for path in paths.values():
        console.print(f"{path}: the versions of {name}", highlight=False, markup=False, soft_wrap=True)


def _writable(kind: str, file: str) -> Path:
    path = Path(file)
    if not path.name or path.is_dir():
        raise UsageError(f"{kind}={file}: this is no file name")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{kind}={file}: there is no folder {path.absolute().parent}")
    return path
