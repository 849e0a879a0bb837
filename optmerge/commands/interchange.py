"""The import and export commands: recipes from, and for, other programs."""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from optmerge.commands.percent import percent
from optmerge.commands.proof import Proof
from optmerge.commands.publishing import papers_of, result_of
from optmerge.commands.rebuild import open_sources, with_bases, write_model
from optmerge.commands.recipe_places import recipe_file
from optmerge.commands.words import Parser, named, sorted_out
from optmerge.errors import OptmergeError, UsageError
from optmerge.interchange import experiment, export_recipe, import_configuration, read_configuration
from optmerge.recipe import CheckpointNode, MergeNode, load_recipe

_MOST_PROMPTS = 100
_IMPORT = "import CONFIG [RECIPE] [search=FILE] [sources.ALIAS=FOLDER ...]"
_EXPORT = "export RECIPE OUT format=FORMAT [prompts=FILE] [sources.ALIAS=FOLDER ...]"


def run_import(arguments: Sequence[str], console: Console) -> None:
    """Do what `import CONFIG [RECIPE] [search=FILE]` asks.

    Raises:
        UsageError: If a model cannot be had, or the configuration says what no recipe can.
    """
    parser = Parser("import")
    parser.add_argument("--search")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    words, locations, settings = sorted_out(asked.words, ["search"])
    search = asked.search or settings.get("search")
    configuration, *outs = named(_IMPORT, words, ["CONFIG", "[RECIPE]"], ["search"])
    recipe = Path(outs[0]) if outs else None
    import_file(Path(configuration), recipe, Path(search) if search else None, locations, console)


def run_export(arguments: Sequence[str], console: Console) -> None:
    """Do what `export RECIPE OUT format=FORMAT` asks; a folder with a recipe stands for it.

    Raises:
        UsageError: If there is no such format, the recipe has no such form, or a source cannot be had.
    """
    from optmerge.interchange import FORMATS
    from optmerge.registered import names

    parser = Parser("export")
    parser.add_argument("--format")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    words, locations, settings = sorted_out(asked.words, ["format", "prompts"])
    recipe, out = named(_EXPORT, words, ["RECIPE", "OUT"], ["format", "prompts"])
    form = asked.format or settings.get("format")
    if not form:
        raise UsageError(f"format= is missing: it is one of {', '.join(names(FORMATS))}; write `{_EXPORT}`")
    prompts = Path(settings["prompts"]) if "prompts" in settings else None
    export_file(recipe_file(Path(recipe)), Path(out), form, locations, console, prompts)


def import_file(
    configuration: Path, out: Path | None, search: Path | None, locations: Mapping[str, str], console: Console
) -> None:
    """Write the recipe of a mergekit configuration, and an experiment that searches around it if asked.

    Args:
        configuration: A file for mergekit-yaml, or the folder of a published data-flow model.
        out: Where the recipe goes; by default beside the configuration, as NAME.recipe.yaml.
        search: Where the experiment goes, if one is wanted.
        locations: Alias to folder, for models that are not where the configuration says.
        console: Where to say what was done.

    Raises:
        UsageError: If a model cannot be had, or the configuration says what no recipe can.
    """
    if configuration.is_dir():
        _import_published(configuration, out, search, console)
        return
    out = _beside(configuration) if out is None else out
    targets = [out, *([search] if search else [])]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"{target}: the recipe and the experiment need two names")
        _refuse_existing(target)
    imported = import_configuration(
        read_configuration(configuration),
        beside=configuration.absolute().parent,
        moved=locations,
        report=lambda label: percent(console.print, label),
    )
    texts = {out: imported.recipe.to_yaml()}
    notices = imported.notices
    if search is not None:
        texts[search], more = experiment(imported, search)
        notices = [*notices, *more]
    _write(texts)
    for notice in notices:
        console.print(f"note: {notice}", highlight=False, markup=False, soft_wrap=True)
    root = imported.recipe.root
    assert isinstance(root, MergeNode)
    console.print(
        f"{out}: recipe {imported.recipe.sha256[:12]}, {root.method} of {', '.join(sorted(root.sources))}; "
        f"python -m optmerge rebuild {out} OUT writes the model",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if search is not None:
        place = search.absolute().parent
        within = place.name == "experiment"
        moved = "" if within else "put into a folder DIR/experiment "
        console.print(
            f"{search}: {moved}searches around it, with python -m optmerge --config-dir "
            f"{place.parent if within else 'DIR'} +experiment={search.stem} task=TASK",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _import_published(folder: Path, out: Path | None, search: Path | None, console: Console) -> None:
    from optmerge.interchange.published import import_published

    out = folder.with_name(f"{folder.name}.recipe.yaml") if out is None else out
    if search is not None:
        raise UsageError("search= is for mergekit configurations: a path has no weights to search around")
    _refuse_existing(out)
    recipe = import_published(folder)
    _write({out: recipe.to_yaml()})
    console.print(
        f"{out}: recipe {recipe.sha256[:12]}, a path over the layers of {folder}; "
        f"python -m optmerge export {out} OUT format=fold writes it as an ordinary model",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def export_file(
    recipe_path: Path,
    out: Path,
    form: str,
    locations: Mapping[str, str],
    console: Console,
    prompts: Path | None = None,
) -> None:
    """Write a recipe in another program's form into a new folder.

    Args:
        recipe_path: The recipe.
        out: Where to; it must not exist, or be empty.
        form: Name of the format.
        locations: Alias to folder, for sources that are no longer where the recipe says.
        console: Where to say what was done.
        prompts: What a model in another form is asked, to see that it answers as it did: a text file, a prompt a line,
            or a jsonl file with a `prompt` or `question` a line. By default it is asked what needs no file.

    Raises:
        UsageError: If there is no such format, the recipe has no such form, or a source cannot be had.
    """
    from optmerge.commands.search import quiet_libraries
    from optmerge.interchange import FORMATS
    from optmerge.registered import find

    module = find(FORMATS, form, "format")
    if hasattr(module, "ready"):  # it needs a library that is no part of every installation
        module.ready()
    asked = _read_prompts(prompts) if prompts is not None else ()
    recipe = load_recipe(recipe_path)
    quiet_libraries()

    def write(folder: Path) -> str:
        proof = Proof.of(recipe, recipe_path.parent)
        return proof.verdict(write_model(recipe, bench, like, folder, proof=proof))

    bench, like = open_sources(recipe, locations)
    fit = bench.fit
    sources = fit.sources
    leaves = {alias: node for alias, node in recipe.root.sources.items() if isinstance(node, CheckpointNode)}
    _, below = with_bases(leaves)
    places: dict[str, str] = {}
    for alias, node in leaves.items():
        places[alias] = locations.get(alias, node.location)
        if node.over is not None:
            places[f"{alias}.over"] = locations.get(below[alias], node.over.location)
    result = result_of(recipe, recipe_path.parent)
    name = out.absolute().name if result is None else str(result["study"])
    written = export_recipe(
        recipe,
        out,
        form=form,
        sources=sources,
        locations={alias: _absolute(place) for alias, place in places.items()},
        names=tuple(fit.names),
        bench=bench,
        companions=like,
        notice=lambda line: console.print(f"note: {line}", highlight=False, markup=False, soft_wrap=True),
        write=write,
        papers=lambda form: papers_of(recipe, name, result, form),
        prompts=asked,
    )
    console.print(
        f"{out}: {', '.join(written)} of recipe {recipe.sha256[:12]}", highlight=False, markup=False, soft_wrap=True
    )


def _read_prompts(path: Path) -> tuple[str, ...]:
    """The first prompts of a file.

    Raises:
        UsageError: If it cannot be read, or holds none.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in lines[:_MOST_PROMPTS]]
            lines = [str(row.get("prompt") or row["question"]) for row in rows]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompts={path}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"prompts={path}: every line must be a JSON object with a prompt or a question") from error
    if not lines:
        raise UsageError(f"prompts={path}: there are none in it")
    return tuple(lines[:_MOST_PROMPTS])


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} is there already: choose another name, or remove it first")


def _beside(configuration: Path) -> Path:
    stem = configuration.name
    for ending in (".yaml", ".yml", ".mergekit"):
        stem = stem.removesuffix(ending)
    return configuration.with_name(f"{stem}.recipe.yaml")


def _absolute(place: str) -> str:
    folder = Path(place).expanduser()
    return str(folder.absolute()) if folder.is_dir() else place


def _write(texts: Mapping[Path, str]) -> None:
    """Write files, each whole or not at all.

    Raises:
        OptmergeError: If the disk does not let it.
    """
    for path, text in texts.items():
        partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OptmergeError(f"cannot write {path}: {error.strerror or error}") from error
