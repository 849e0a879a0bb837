"""The table of licences: what the text of each says about a merge with a model under it.

This is no legal advice: the rules say what the texts say, as far as a program can follow them. The kinds:

- `permissive`: a derivative may carry another licence, as long as notices stay;
- `share_alike`: a derivative must carry the same licence, or one that the licence names;
- `terms`: the licence's own terms travel with every derivative (Llama, Gemma, OpenRAIL, non-commercial use);
- `research`: the same, and nothing but research is allowed;
- `no_derivatives`: a derivative may be made, and not be published;
- `unknown`: nobody has said what is allowed, so nothing is.
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["permissive", "share_alike", "terms", "research", "no_derivatives", "unknown"]

UNKNOWN = "unknown"
OTHER = "other"
"""What the hub calls a licence that is not in its list; `license_name` then says which."""


@dataclass(frozen=True)
class Rule:
    """What a licence says about a merge with a model under it.

    Attributes:
        id: As the hub calls it, or its usual `license_name` where the hub has no word for it.
        name: What people call it.
        url: Its text, which is the source of this rule.
        kind: See above.
        says: The part of the text that decides, in short.
        duties: What who publishes a merge must do.
        commercial: Whether a merge may be put to commercial use.
        rank: Of permissive licences: how much is asked. Of several, the one that asks most goes on the merge.
        heirs: Of share-alike licences: under which a derivative may be published.
        within: Of terms: the share-alike licences that a derivative may carry all the same.
        never_within: Of permissive licences: share-alike licences that do not take it in.
        notice: What must be shown, in these words.
        prefix: What the name of a derivative must begin with.
        on_hub: Whether the hub knows the id; if not, its cards say `other` and a `license_name`.
    """

    id: str
    name: str
    url: str
    kind: Kind
    says: str
    duties: tuple[str, ...] = ()
    commercial: bool = True
    rank: int = 0
    heirs: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    never_within: tuple[str, ...] = ()
    notice: str | None = None
    prefix: str | None = None
    on_hub: bool = True


_NOTICES = "keep the copyright notices and the licence's text of {name}"
_CREDIT = "credit the makers, link to {url}, and say that the work was changed"
_AGREEMENT = "put a copy of the {name} beside the weights, and let it bind whoever gets them"


def _permissive(
    key: str, title: str, url: str, rank: int, says: str, *duties: str, never_within: tuple[str, ...] = ()
) -> Rule:
    asked = duties or (_NOTICES.format(name=title),)
    return Rule(key, title, url, "permissive", says, asked, rank=rank, never_within=never_within)


def _public(key: str, title: str, url: str, says: str) -> Rule:
    return Rule(key, title, url, "permissive", says)


def _creative_commons(parts: str, version: str) -> Rule:
    """The Creative Commons licence of these parts, such as `by-nc-sa`; section numbers are those of version 4.0."""
    key, title = f"cc-{parts}-{version}", f"CC {parts.upper()} {version}"
    url = f"https://creativecommons.org/licenses/{parts}/{version}/legalcode"
    commercial = "nc" not in parts
    duties = (_CREDIT.format(url=url), *(() if commercial else ("allow no commercial use",)))
    if "nd" in parts:
        return Rule(key, title, url, "no_derivatives", "adapted material may not be shared (2.a.1)", duties, commercial)
    if "sa" in parts:
        says = "adapted material must carry the same licence, a later version, or a compatible one (3.b)"
        heirs = tuple(f"cc-{parts}-{later}" for later in ("2.0", "3.0", "4.0") if later >= version)
        if (parts, version) == ("by-sa", "4.0"):
            heirs += (
                "gpl-3.0",
            )  # https://creativecommons.org/share-your-work/licensing-considerations/compatible-licenses
        return Rule(key, title, url, "share_alike", says, duties, commercial, heirs=heirs)
    if not commercial:
        says = "use and adaptations for non-commercial purposes only (2.a.1)"
        within = tuple(f"cc-by-nc-sa-{known}" for known in ("2.0", "3.0", "4.0"))
        return Rule(key, title, url, "terms", says, duties, commercial, within=within)
    return _permissive(key, title, url, 3, "adaptations may carry another licence if credit is given (3.a)", *duties)


def _llama(version: str, *, shown: str | None = None, prefix: str | None = None, improves: bool = True) -> Rule:
    """A Llama Community License Agreement.

    Args:
        version: Of the models.
        shown: What is to be displayed.
        prefix: How the name of a derivative begins.
        improves: Whether it may be used to improve other language models.
    """
    model = "Meta Llama 3" if version == "3" else f"Llama {version}"
    titled = "LLAMA 2" if version == "2" else model
    duties = [
        _AGREEMENT.format(name=f"{model} Community License Agreement"),
        "keep to its Acceptable Use Policy; with more than 700 million monthly users, ask Meta for a licence",
    ]
    if shown:
        duties += [f'show "{shown}" prominently', f'begin the name of the model with "{prefix}"']
    if not improves:
        duties.append(f"improve no other language model with it than {model} and its derivatives")
    rights = "Copyright © Meta Platforms, Inc. All Rights Reserved."
    notice = f"{model} is licensed under the {titled} Community License, {rights}"
    return Rule(
        f"llama{version}",
        f"{model} Community License",
        f"https://www.llama.com/llama{version.replace('.', '_')}/license/",
        "terms",
        "whoever distributes a derivative gives a copy of the agreement with it (1.b)",
        tuple(duties),
        notice=f"{shown}. {notice}" if shown else notice,
        prefix=prefix,
    )


def _rail(key: str, title: str, url: str) -> Rule:
    says = "the use-based restrictions of Attachment A go into the terms of every derivative (4.a, 5)"
    duties = ("pass on the use-based restrictions (Attachment A), and a copy of the licence", "mark what was changed")
    return Rule(key, title, url, "terms", says, duties)


def _research(key: str, title: str, url: str, says: str, *, on_hub: bool = False) -> Rule:
    duties = ("allow nothing but research, and no commercial use", f"pass on the terms of the {title}")
    return Rule(key, title, url, "research", says, duties, False, on_hub=on_hub)


def _copyleft(key: str, title: str, url: str, says: str, *heirs: str) -> Rule:
    duties = (f"publish under it all that is needed to make the merge: recipe, program and sources ({title})",)
    return Rule(key, title, url, "share_alike", says, duties, heirs=(key, *heirs))


_OSI = "https://opensource.org/license"
_GNU = "https://www.gnu.org/licenses"
_HUB = "https://huggingface.co"

RULES: dict[str, Rule] = {
    rule.id: rule
    for rule in (
        _public(
            "cc0-1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/legalcode", "rights are waived (2)"
        ),
        _public("unlicense", "The Unlicense", "https://unlicense.org/", "dedicated to the public domain"),
        _public("wtfpl", "WTFPL", "http://www.wtfpl.net/txt/copying/", "there is no condition"),
        _permissive("mit", "MIT License", f"{_OSI}/mit", 1, "the notice goes into all copies"),
        _permissive("isc", "ISC License", f"{_OSI}/isc-license-txt", 1, "the notice goes into all copies"),
        _permissive("zlib", "zlib License", f"{_OSI}/zlib", 1, "changed versions are marked as such (2)"),
        _permissive("bsl-1.0", "Boost Software License 1.0", f"{_OSI}/bsl-1-0", 1, "the notice goes into all copies"),
        _permissive("bsd", "BSD licence", f"{_OSI}/bsd-3-clause", 2, "notice and conditions are kept; no endorsement"),
        _permissive("bsd-2-clause", "BSD 2-Clause", f"{_OSI}/bsd-2-clause", 2, "notice and conditions are kept"),
        _permissive(
            "bsd-3-clause", "BSD 3-Clause", f"{_OSI}/bsd-3-clause", 2, "notice and conditions are kept; no endorsement"
        ),
        *(_creative_commons("by", version) for version in ("2.0", "3.0", "4.0")),
        _permissive(
            "apache-2.0",
            "Apache License 2.0",
            "https://www.apache.org/licenses/LICENSE-2.0",
            4,
            "a derivative may have terms of its own, but keeps notices, the licence's text and its patent terms (4)",
            "give a copy of the Apache License 2.0, keep its notices, and say what was changed",
            never_within=("gpl-2.0", "lgpl-2.1"),  # https://www.gnu.org/licenses/license-list.html#apache2
        ),
        *(_creative_commons("by-sa", version) for version in ("3.0", "4.0")),
        *(_creative_commons("by-nc", version) for version in ("2.0", "3.0", "4.0")),
        *(_creative_commons("by-nc-sa", version) for version in ("2.0", "3.0", "4.0")),
        _creative_commons("by-nd", "4.0"),
        _creative_commons("by-nc-nd", "3.0"),
        _creative_commons("by-nc-nd", "4.0"),
        _copyleft(
            "gpl-2.0",
            "GNU GPL v2",
            f"{_GNU}/old-licenses/gpl-2.0.html",
            "a work based on it is licensed as a whole under it (2.b)",
        ),
        _copyleft(
            "gpl-3.0",
            "GNU GPL v3",
            f"{_GNU}/gpl-3.0.html",
            "the whole work is licensed under it (5.c), or joins one under the AGPL v3 (13)",
            "agpl-3.0",
        ),
        _copyleft(
            "agpl-3.0",
            "GNU AGPL v3",
            f"{_GNU}/agpl-3.0.html",
            "as the GPL v3, also for those who use it over a network (13)",
        ),
        _copyleft(
            "lgpl-2.1",
            "GNU LGPL v2.1",
            f"{_GNU}/old-licenses/lgpl-2.1.html",
            "a work based on it stays under it, or becomes GPL (2.c, 3)",
            "gpl-2.0",
            "gpl-3.0",
        ),
        _copyleft(
            "lgpl-3.0",
            "GNU LGPL v3",
            f"{_GNU}/lgpl-3.0.html",
            "a work based on it stays under it, or becomes GPL (2)",
            "gpl-3.0",
            "agpl-3.0",
        ),
        _copyleft(
            "mpl-2.0",
            "Mozilla Public License 2.0",
            "https://www.mozilla.org/MPL/2.0/",
            "changes stay under it, or under a secondary licence in a larger work (3.2, 3.3)",
            "gpl-2.0",
            "gpl-3.0",
            "lgpl-2.1",
            "lgpl-3.0",
            "agpl-3.0",
        ),
        _llama("2", improves=False),
        _llama("3", shown="Built with Meta Llama 3", prefix="Llama 3", improves=False),
        *(_llama(version, shown="Built with Llama", prefix="Llama") for version in ("3.1", "3.2", "3.3", "4")),
        Rule(
            "gemma",
            "Gemma Terms of Use",
            "https://ai.google.dev/gemma/terms",
            "terms",
            "whoever distributes a derivative passes on the use restrictions and a copy of the terms (3.1)",
            (
                "let the use restrictions (3.2) bind whoever gets the model, and give them a copy of the terms",
                "mark the files that were changed, and put the notice into a file called Notice",
            ),
            notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        ),
        _rail("openrail", "OpenRAIL", "https://www.licenses.ai/"),
        _rail("openrail++", "Open RAIL++-M", f"{_HUB}/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL"),
        _rail("bigscience-openrail-m", "BigScience OpenRAIL-M", f"{_HUB}/spaces/bigscience/license"),
        _rail("bigscience-bloom-rail-1.0", "BigScience BLOOM RAIL 1.0", f"{_HUB}/spaces/bigscience/license"),
        _rail("bigcode-openrail-m", "BigCode OpenRAIL-M", f"{_HUB}/spaces/bigcode/bigcode-model-license-agreement"),
        _rail("creativeml-openrail-m", "CreativeML OpenRAIL-M", f"{_HUB}/spaces/CompVis/stable-diffusion-license"),
        _research(
            "microsoft-research-license",
            "Microsoft Research License",
            f"{_HUB}/WizardLM/WizardMath-7B-V1.1/resolve/main/LICENSE",
            "use and derivatives for non-commercial research only",
        ),
        _research(
            "mrl",
            "Mistral AI Research License",
            "https://mistral.ai/licenses/MRL-0.1.md",
            "use, distribution and derivatives for research only (2, 3)",
        ),
        _research(
            "fair-noncommercial-research-license",
            "FAIR Noncommercial Research License",
            f"{_HUB}/facebook/fair-noncommercial-research-license/blob/main/LICENSE",
            "use and derivatives for non-commercial research only",
            on_hub=True,
        ),
        _research("research-only", "research-only terms", f"{_HUB}/docs/hub/repositories-licenses", "research only"),
    )
}

WITHOUT_RULE = (
    "afl-3.0", "bsd-3-clause-clear", "ecl-2.0", "epl-1.0", "epl-2.0", "mit-0", "ofl-1.1", "osl-3.0",
)  # fmt: skip
"""What the hub calls licences whose names are almost those of some that stand above."""

_OTHER_WORDS = {
    "apache": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache2": "apache-2.0",
    "apache2.0": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "mit-license": "mit",
    "cc-by-nc": "cc-by-nc-4.0",
    "cc0": "cc0-1.0",
    "gplv3": "gpl-3.0",
    "agplv3": "agpl-3.0",
    "gemma-terms-of-use": "gemma",
    "msr-la": "microsoft-research-license",
    "microsoft-research": "microsoft-research-license",
    "mistral-ai-research-license": "mrl",
    "": UNKNOWN,
    OTHER: UNKNOWN,
}


def rule_of(name: str) -> Rule:
    """The rule for a licence; that of unknown ones where there is none."""
    if name in RULES:
        return RULES[name]
    said = "nobody has said what is allowed" if name == UNKNOWN else f"there is no rule for {name!r} here"
    url = "https://choosealicense.com/no-permission/"
    return Rule(name, name, url, "unknown", f"{said}, and without a licence all rights are reserved", commercial=False)


def licence_id(text: str) -> str:
    """The id of a licence as people and cards write it, such as `Apache 2.0` or `llama-3.1-community-license`."""
    word = re.sub(r"[\s_]+", "-", text.strip().lower())
    llama = re.fullmatch(r"(?:meta-)?llama-?(\d(?:[.]\d)?)(?:-community)?(?:-license)?(?:-agreement)?", word)
    if llama and f"llama{llama[1]}" in RULES:
        return f"llama{llama[1]}"
    return _OTHER_WORDS.get(word, word)
