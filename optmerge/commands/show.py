"""The show command: the family tree of any model that optmerge has made."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.tree import Tree

from optmerge.commands.recipe_places import form_at_place, recipe_at
from optmerge.errors import UsageError
from optmerge.recipe import Hop

if TYPE_CHECKING:
    from optmerge.models.form import Form

USAGE = "write `show FOLDER`, a recipe, a safetensors or GGUF file, or a hub id; --json may follow"
_SHORT = 12  # digits of a hash
_WIDE = 100_000  # columns, where a program reads along: one line for one thing


def run_show(arguments: Sequence[str], console: Console) -> None:
    """Print what a model was merged from, and how, back to the checkpoints that nobody merged.

    Args:
        arguments: The model, and `--json` for plain data.
        console: Where to print.

    Raises:
        UsageError: If there is no such model, or it is none of ours.
    """
    words = [word for word in arguments if word != "--json"]
    if len(words) != 1 or words[0].startswith("-"):
        raise UsageError(USAGE)
    from optmerge.models.source_licences import recipe_licence
    from optmerge.reports.family import family

    recipe, place = recipe_at(words[0])
    form = form_at_place(words[0])
    tree = {
        "model": words[0],
        "form": None if form is None else {"name": form.name, "kind": form.kind or None},
        "recipe_in": place,
        "licence": recipe_licence(recipe).name,
        **family(recipe),
    }
    if "--json" in arguments:
        # Not by the console, which would break long lines.
        console.file.write(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
        return
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDE)
    console.print(_tree(tree, form), highlight=False)


def _tree(document: Mapping[str, Any], form: "Form | None") -> Tree:
    root = document["root"]
    made_from = ""
    if form is not None:
        made_from = f"{'in 8 bits by torchao' if form.name == 'int8' else _escaped(form.title)}, made from: "
    tree = Tree(f"[bold]{_escaped(document['model'])}[/bold]: {made_from}{_title(root)}")
    merged = f", merged on {document['merged_on']}" if document["merged_on"] else ""
    whose = "weights" if form is None else "made from weights"  # its own are others
    weights = f", {whose} {document['weights_sha256'][:_SHORT]}{merged}" if document["weights_sha256"] else ""
    tree.add(f"recipe {document['recipe_sha256'][:_SHORT]}{weights}, in {_escaped(document['recipe_in'])}")
    tree.add(f"licence {_escaped(document['licence'])}")
    _grow(tree, root)
    return tree


def _grow(tree: Tree, node: Mapping[str, Any]) -> None:
    """Add what a node was made of."""
    from optmerge.reports.family import hops_in_words, parameters_in_words

    if node["kind"] == "path":
        tree.add(f"path: {_escaped(hops_in_words([Hop(*hop) for hop in node['hops']]))}")
    if node.get("shared"):
        tree.add(f"shared by all sources: {_escaped(parameters_in_words(node['shared']))}")
    if node.get("taken"):
        tree.add(_escaped("taken whole: " + ", ".join(f"{name} from {alias}" for name, alias in node["taken"].items())))
    if node.get("options"):
        tree.add(_escaped("options: " + ", ".join(f"{name} {value}" for name, value in node["options"].items())))
    for source in node.get("sources", ()):
        roles = f" ({', '.join(source['roles'])})" if source["roles"] else ""
        branch = tree.add(f"[bold]{_escaped(source['alias'])}[/bold]{roles}: {_title(source)}")
        if source.get("parameters"):
            branch.add(_escaped(parameters_in_words(source["parameters"])))
        _grow(branch, source)
    if "over" in node:
        _grow(tree.add(f"merged into {_title(node['over'])}"), node["over"])
    if "made_by" in node:
        _grow(tree.add(f"which is itself {_title(node['made_by'])}"), node["made_by"])


def _title(node: Mapping[str, Any]) -> str:
    if node["kind"] == "merge":
        groups = f"{node['groups']} group{'s' if node['groups'] != 1 else ''}"
        moved = f", {node['moved_layers']} layers put together anew" if node["moved_layers"] else ""
        return _escaped(f"a merge by {node['method']}, {groups}{moved}, {node['dtype']}")
    if node["kind"] == "path":
        scales = "" if all(scale == 1 for _, _, scale in node["hops"]) else f", scales on {node['scale_target']}"
        return _escaped(f"a path of {len(node['hops'])} hops{scales}, {node['dtype']}")
    at = f" at {node['revision'][:_SHORT]}" if node["revision"] else ""
    adapter = "adapter " if node["kind"] == "adapter" else ""
    licence = f", licence {node['licence']}" if node["licence"] else ", licence unknown"
    return _escaped(f"{adapter}{node['location']}{at}, weights {node['weights_sha256'][:_SHORT]}{licence}")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
