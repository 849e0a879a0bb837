"""What sources say about their licences: in their model cards, here or on the hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from optmerge.models.licence_rules import OTHER
from optmerge.models.licences import Combined, Declared, combine, declared
from optmerge.recipe import CheckpointNode, Node, Recipe

CARD = "README.md"


def licence_of(location: str, revision: str | None = None, *, ask_hub: bool = False) -> Declared:
    """What the card of a checkpoint says.

    Args:
        location: A folder, or a hub id.
        revision: Branch, tag or commit on the hub.
        ask_hub: Whether the card may be downloaded, where it is not in the hub's cache.

    Returns:
        What it says; unknown where there is no card, or it says nothing.
    """
    folder = Path(location).expanduser()
    card = folder / CARD if folder.exists() else _card_on_hub(location, revision, ask_hub)
    if card is None or not card.is_file():
        return Declared()
    try:
        return declared_in(card.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return Declared()


def declared_in(card: str) -> Declared:
    """What a model card says in its metadata."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard(card, ignore_metadata_errors=True).data
    except (ValueError, TypeError, yaml.YAMLError):
        return Declared()
    said, name = data.get("license"), data.get("license_name")
    if isinstance(said, str) and said.strip().lower() == OTHER and name:
        said = str(name)
    if isinstance(said, list):
        said = [str(one) for one in said]
    elif said is not None:
        said = str(said)
    return declared(said, "card")


def _card_on_hub(location: str, revision: str | None, ask: bool) -> Path | None:
    from huggingface_hub import snapshot_download

    for offline in (True, False) if ask else (True,):
        try:
            found = snapshot_download(location, revision=revision, allow_patterns=[CARD], local_files_only=offline)
        except Exception:  # what cannot be had is unknown; the client's network errors share no class of their own
            continue
        if (Path(found) / CARD).is_file():
            return Path(found) / CARD
    return None


def recipe_licence(recipe: Recipe) -> Combined:
    """The licence of a recipe's model, by those of its checkpoints."""
    return combine(recipe_licences(recipe.root))


def with_licences(recipe: Recipe) -> Recipe:
    """The same recipe, in which a checkpoint whose licence it does not say has that of its card, if one is at hand.

    A recipe that goes elsewhere takes them along: the cards stay.
    """

    def said(node: Node) -> Any:
        if not isinstance(node, CheckpointNode):
            return replace(node, sources={alias: said(source) for alias, source in node.sources.items()})
        found = declared(node.licence, "recipe") if node.licence else licence_of(node.location, node.revision)
        over = None if node.over is None else said(node.over)
        return replace(node, licence=found.text if found.found else None, over=over)

    return replace(recipe, root=said(recipe.root))


def recipe_licences(root: Node) -> dict[str, Declared]:
    """Alias to what each checkpoint of a recipe is under, also of those below its sources.

    That is what the recipe says; where it says nothing, what a card says that is at hand.
    """
    found: dict[str, Declared] = {}

    def visit(node: Node, alias: str) -> None:
        if not isinstance(node, CheckpointNode):
            for name, source in node.sources.items():
                visit(source, name)
            return
        said = declared(node.licence, "recipe") if node.licence else licence_of(node.location, node.revision)
        both = dict.fromkeys((*found[alias].ids, *said.ids)) if alias in found else said.ids  # two may share an alias
        found[alias] = Declared(tuple(both), said.found)
        if node.over is not None:
            visit(node.over, f"{alias}.over")

    visit(root, "model")
    return found
