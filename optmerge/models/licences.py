"""Licences of sources, and what they make of a merge.

A merge is taken to be a derivative of every source, the base among them. What each licence says stands in
`optmerge.models.licence_rules`; how several go together, `combine` says. This is no legal advice.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optmerge.errors import UsageError
from optmerge.models.licence_rules import OTHER, RULES, UNKNOWN, WITHOUT_RULE, Rule, licence_id, rule_of
from optmerge.phrases import listed
from optmerge.registered import did_you_mean

CONFLICT = "conflicting-terms"
_JOINT = "-and-"
_ALMOST = 0.8  # as near as `apach-2.0`; `qwen-research` is not `research-only`


@dataclass(frozen=True)
class Declared:
    """What a source is said to be under.

    Attributes:
        ids: Licences, all of which apply; several where it is a merge itself. Of one without a rule, its own word.
        found: Where it is said: `config`, `card` or `recipe`; empty if nowhere.
    """

    ids: tuple[str, ...] = (UNKNOWN,)
    found: str = ""

    @property
    def text(self) -> str:
        """All of it in one word, which `declared` reads again."""
        return _JOINT.join(self.ids)

    @property
    def known(self) -> bool:
        """Whether there is a rule for all of it."""
        return all(rule_of(name).kind != "unknown" for name in self.ids)


@dataclass(frozen=True)
class Combined:
    """The licence of a merge.

    Attributes:
        id: What the hub's card is to say: a licence's id, `other`, or `unknown`.
        name: What `other` stands for; the same as `id` elsewhere.
        url: The text, where it is one licence's.
        reasons: Why it is this one, a sentence a source.
        duties: What who publishes it must do.
        notices: What must be shown, word for word.
        commercial: Whether commercial use is allowed; None if nobody knows.
        conflicts: Why no licence does justice to all sources; empty where one does.
        prefixes: What the name must begin with.
    """

    id: str
    name: str
    url: str | None = None
    reasons: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    commercial: bool | None = None
    conflicts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    @property
    def publishable(self) -> bool:
        """Whether all sources allow that it is published under this licence."""
        return self.id != UNKNOWN and not self.conflicts


def declared(text: str | Sequence[str] | None, found: str) -> Declared:
    """What a text says, which may name several licences as `Declared.text` does, or as a list."""
    texts = [text] if isinstance(text, str) else list(text or [])
    ids: dict[str, None] = {}
    for one in texts:
        parts = [licence_id(part) for part in str(one).split(_JOINT)]
        # Only licences are taken apart: a licence of somebody's own may have the word in its name.
        ids |= dict.fromkeys(parts if all(part in RULES for part in parts) else [licence_id(str(one))])
    return Declared(tuple(ids), found) if ids and set(ids) != {UNKNOWN} else Declared()


def known_licence(text: str, setting: str) -> str:
    """The id of a licence that a setting names.

    Raises:
        UsageError: If there is no rule for it.
    """
    name = licence_id(text)
    if name not in RULES:
        raise UsageError(
            f"{setting}={text}: no rule for this licence{did_you_mean(name, sorted(RULES))}; known are "
            f"{', '.join(sorted(RULES))}"
        )
    return name


def refuse_misspelt(text: str, setting: str) -> None:
    """Refuse a licence that is almost one that there is a rule for; one that resembles none is just not known.

    Another version of a licence, and what the hub calls otherwise, is no typing error.

    Raises:
        UsageError: If a setting names such a one.
    """
    for name in declared(text, "config").ids:
        if name in RULES or name in (UNKNOWN, OTHER) or name in WITHOUT_RULE:
            continue
        known = [rule for rule in sorted(RULES) if re.sub(r"\d", "", rule) != re.sub(r"\d", "", name)]
        if len(known) == len(RULES) and (near := did_you_mean(name, known, _ALMOST)):
            raise UsageError(
                f"{setting}={text}: no rule for this licence{near}; for one of its own name say {setting}={OTHER}"
            )


def combine(sources: Mapping[str, Declared], prefer: str = "") -> Combined:
    """The licence of a merge of sources.

    1. Where nothing is known of a source, nothing is known of the merge.
    2. Where a source forbids derivatives, none can be published.
    3. Where sources are share-alike, the merge carries the licence that all of them name, if all others let it.
    4. Where terms travel with a source, they travel on; those of several sources all apply.
    5. Of permissive licences the one that asks most goes on the merge; the notices of all stay.

    Args:
        sources: Alias to what it is under.
        prefer: Of several that ask as much, this one goes on the merge.
    """
    rules: dict[str, Rule] = {}
    reasons = []
    for alias, said in sorted(sources.items()):
        found = [rule_of(name) for name in said.ids]
        rules |= {rule.id: rule for rule in found}
        reasons += [f"{alias} is under {_named(rule)}: {rule.says}" for rule in found]
    every = list(rules.values())
    if unknown := [rule for rule in every if rule.kind == "unknown"]:
        reasons.append(
            f"so nothing can be said of the merge before that of {listed(_whose(sources, unknown))} is known"
        )
        return Combined(UNKNOWN, UNKNOWN, reasons=tuple(reasons))
    conflicts = _conflicts(every)
    if conflicts:
        return _result(OTHER, CONFLICT, every, (*reasons, *conflicts), conflicts=conflicts)
    binding = [rule for rule in every if rule.kind in ("terms", "research")]
    if heir := _heir(every):
        ids = [heir]
    elif binding:
        ids = sorted(rule.id for rule in binding)
    else:
        ids = [max(every, key=lambda rule: (rule.rank, rule.id == prefer, rule.id)).id]
    if len(ids) == 1:
        reasons.append(f"so the merge is under {_named(RULES[ids[0]])}")
        return _result(ids[0] if RULES[ids[0]].on_hub else OTHER, ids[0], every, tuple(reasons))
    reasons.append(f"so the terms of {listed([_named(RULES[name]) for name in ids])} all apply to the merge")
    return _result(OTHER, _JOINT.join(ids), every, tuple(reasons))


def forbids(policy: str, sources: Mapping[str, Declared]) -> dict[str, str]:
    """Which sources forbid that a merge is published under a licence, and why; empty if none does.

    Args:
        policy: Id of the licence.
        sources: Alias to what it is under.
    """
    wanted = declared(policy, "config")
    found = {}
    for alias, said in sorted(sources.items()):
        if combine({"policy": wanted, alias: said}, policy).name != policy:
            hindrances = [rule_of(name) for name in said.ids if not _bears(policy, name)]
            found[alias] = "; ".join(_why_not(rule, policy) for rule in hindrances or map(rule_of, said.ids))
    # Each alone may allow it, and all together not.
    if not found and sources and combine({**sources, "policy": wanted}, policy).name != policy:
        found[listed(sorted(sources))] = "; ".join(combine(sources).conflicts) or "their licences do not go together"
    return found


def _bears(policy: str, name: str) -> bool:
    return combine({"policy": Declared((policy,)), "source": Declared((name,))}, policy).name == policy


def _why_not(rule: Rule, policy: str) -> str:
    match rule.kind:
        case "unknown" if rule.id == UNKNOWN:
            return "no licence is known of it"
        case "unknown":
            return f"there is no rule for its licence, {rule.id}"
        case "no_derivatives":
            return f"{_named(rule)} forbids to publish derivatives"
        case "research":
            return f"{_named(rule)} allows research only, and goes on every derivative"
        case "share_alike":
            return f"{_named(rule)} must go on every derivative, and {policy} is another licence"
        case "terms" if not rule.commercial:
            return f"{_named(rule)} allows no commercial use, and goes on every derivative"
        case "terms":
            return f"the terms of {_named(rule)} go on every derivative"
        case _:
            return f"{_named(rule)} asks for more than {policy}, and its conditions stay"


def _conflicts(rules: Sequence[Rule]) -> tuple[str, ...]:
    found = [f"{_named(rule)} forbids to publish derivatives" for rule in rules if rule.kind == "no_derivatives"]
    copyleft = [rule for rule in rules if rule.kind == "share_alike"]
    if not copyleft:
        return tuple(found)
    heirs = _heirs(rules)
    if not heirs:
        rivals = listed([_named(rule) for rule in copyleft])
        return (*found, f"{rivals} each want the whole merge to themselves, and name no licence in common")
    for rule in rules:
        named = listed([_named(one) for one in copyleft])
        if rule.kind in ("terms", "research") and not set(heirs) & set(rule.within):
            found.append(f"{named} allows no further restrictions, and {_named(rule)} demands some")
        elif rule.kind == "permissive" and set(heirs) <= set(rule.never_within):
            found.append(f"{named} does not take in {_named(rule)}")
    return tuple(found)


def _heirs(rules: Iterable[Rule]) -> list[str]:
    """The licences that all share-alike ones among some allow a derivative."""
    kept = [set(rule.heirs) for rule in rules if rule.kind == "share_alike"]
    return sorted(set.intersection(*kept) & set(RULES)) if kept else []


def _heir(rules: Sequence[Rule]) -> str | None:
    """The one to choose: that of a source, rather than another that would do."""
    given = {rule.id for rule in rules}
    excluded = {name for rule in rules for name in rule.never_within}
    return min(
        (name for name in _heirs(rules) if name not in excluded),
        key=lambda name: (name not in given, name),
        default=None,
    )


def _result(
    shown: str,
    name: str,
    rules: Sequence[Rule],
    reasons: tuple[str, ...],
    conflicts: tuple[str, ...] = (),
) -> Combined:
    order = sorted(rules, key=lambda rule: rule.id)
    duties = dict.fromkeys(duty for rule in order for duty in rule.duties)
    return Combined(
        id=shown,
        name=name,
        url=RULES[name].url if name in RULES else None,
        reasons=reasons,
        duties=tuple(duties),
        notices=tuple(rule.notice for rule in order if rule.notice),
        commercial=None if conflicts else all(rule.commercial for rule in rules),
        conflicts=conflicts,
        prefixes=tuple(dict.fromkeys(rule.prefix for rule in order if rule.prefix)),
    )


def _whose(sources: Mapping[str, Declared], rules: Iterable[Rule]) -> list[str]:
    ids = {rule.id for rule in rules}
    return [alias for alias, said in sorted(sources.items()) if ids & set(said.ids)]


def _named(rule: Rule) -> str:
    return rule.name if rule.kind != "unknown" else ("no known licence" if rule.id == UNKNOWN else rule.id)
