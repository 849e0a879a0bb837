"""Whether a merge of a configuration's sources may be published as its policy says: asked before a search starts."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optmerge.config import Config
from optmerge.errors import UsageError
from optmerge.models.licence_rules import RULES, UNKNOWN, rule_of
from optmerge.models.licences import Combined, Declared, combine, declared, forbids, known_licence, refuse_misspelt
from optmerge.models.source_licences import licence_of, recipe_licence, recipe_licences
from optmerge.recipe import RECIPE, Recipe, load_recipe


def licences_of(config: Config, *, ask_hub: bool = False) -> dict[str, Declared]:
    """Alias to what each source is under: as the configuration says, or else the source's own card.

    A source whose search has not run yet is left out: that search has sources of its own.

    Args:
        config: The configuration.
        ask_hub: Whether cards may be downloaded.
    """
    found = {}
    for alias, source in sorted(config.models.sources.items()):
        if source.licence:
            found[alias] = declared(source.licence, "config")
        elif source.search:
            if (recipe := Path(source.path or "nowhere") / RECIPE).is_file():
                found[alias] = declared(recipe_licence(load_recipe(recipe)).name, "recipe")
        else:
            found[alias] = licence_of(source.path, source.revision, ask_hub=ask_hub)
    return found


def refuse_what_forbids(config: Config) -> None:
    """Refuse sources that are known to forbid the licence that the policy wants; nothing is downloaded.

    Raises:
        UsageError: If there are any, there is no rule for the policy's licence, or a source's is misspelt.
    """
    for alias, source in sorted(config.models.sources.items()):
        if source.licence:
            refuse_misspelt(source.licence, f"models.sources.{alias}.licence")
    if config.policy.licence is None:
        return
    known = {alias: said for alias, said in licences_of(config).items() if said.ids != (UNKNOWN,)}
    _refuse(config, known)


def settle(config: Config, licences: Mapping[str, Declared]) -> Combined:
    """The licence of a search's merges.

    Args:
        config: Its configuration.
        licences: What each source is under.

    Raises:
        UsageError: If the policy wants a licence that a source forbids, or nobody knows whether it does.
    """
    combined = combine(licences)
    if config.policy.licence is None:
        return combined
    rule = RULES[_refuse(config, licences)]
    wanted = f"policy.licence puts {rule.name} on the merge, and all sources allow it"
    return dataclasses.replace(
        combined, id=rule.id if rule.on_hub else combined.id, name=rule.id, url=rule.url,
        reasons=(*combined.reasons[:-1], wanted),
    )  # fmt: skip


def _refuse(config: Config, licences: Mapping[str, Declared]) -> str:
    wanted = known_licence(str(config.policy.licence), "policy.licence")
    found = forbids(wanted, licences)
    if not found:
        return wanted
    lines = [f"{alias}: {why}{_found(licences.get(alias), alias)}" for alias, why in found.items()]
    raise UsageError(
        f"nothing was started: policy.licence={wanted}, and a merge with these sources cannot be under it\n  "
        + "\n  ".join(lines)
    )


def _found(said: Declared | None, alias: str) -> str:
    if said is None:
        return ""
    if not said.known:
        return f"; if you know it, say so with models.sources.{alias}.licence=ID"
    return {"config": f" (models.sources.{alias}.licence)", "card": " (its model card)"}.get(said.found, "")


def licence_lines(config: Config, licences: Mapping[str, Declared]) -> list[str]:
    """What people are told of licences at the start.

    Raises:
        UsageError: As `settle` does.
    """
    combined = settle(config, licences)
    said = ", ".join(f"{alias} {one.text}" for alias, one in sorted(licences.items()))
    if combined.id == UNKNOWN:
        unknown = ", ".join(alias for alias, one in sorted(licences.items()) if not one.known)
        what = f"unknown, for want of that of {unknown}: say it with models.sources.ALIAS.licence=ID ({said})"
    elif combined.conflicts:
        what = f"none does justice to all: {'; '.join(combined.conflicts)} ({said})"
    else:
        research = any(rule_of(name).kind == "research" for one in licences.values() for name in one.ids)
        limit = ", research only" if research else "" if combined.commercial else ", no commercial use"
        what = f"{combined.name}{limit} ({said})"
    lines = [f"licence of the merge: {what}"]
    for alias, one in sorted(licences.items()):
        source = config.models.sources[alias]
        card = licence_of(source.path, source.revision) if one.found == "config" else one
        if card.found and card.ids != one.ids:
            lines.append(f"note: {alias}: its model card says {card.text}; models.sources.{alias}.licence is believed")
    return lines


def licences_in_result(config: Config, licences: Mapping[str, Declared], winner: Recipe) -> dict[str, Any]:
    """What result.json says of licences: the winner's, by what it is made of, and every source's."""
    combined = settle(config, recipe_licences(winner.root))
    sources = {
        alias: {
            "licence": said.text,
            "said_by": said.found or None,
            "reasons": [rule_of(name).says for name in said.ids],
        }
        for alias, said in sorted(licences.items())
    }
    return {"licence": combined.id, "licences": sources, "licence_terms": dataclasses.asdict(combined)}
