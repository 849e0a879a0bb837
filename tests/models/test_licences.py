"""Every rule for licences alone, and what rules give together; expectations are written down from the texts."""

from pathlib import Path

import pytest

from optmerge.errors import UsageError
from optmerge.models.licence_rules import RULES, licence_id
from optmerge.models.licences import Combined, Declared, combine, declared, forbids, known_licence, refuse_misspelt
from optmerge.models.source_licences import licence_of, recipe_licence, recipe_licences
from optmerge.recipe import CheckpointNode, Group, MergeNode, Node, Recipe

PERMISSIVE = (
    "apache-2.0", "mit", "isc", "zlib", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense",
    "wtfpl", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0",
)  # fmt: skip
COPYLEFT = ("gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "cc-by-sa-3.0", "cc-by-sa-4.0")
NON_COMMERCIAL = ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0")
NON_COMMERCIAL_SHARE_ALIKE = ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0")
NO_DERIVATIVES = ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0")
COMMUNITY = ("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma")
RAIL = (
    "openrail", "openrail++", "bigscience-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m",
    "creativeml-openrail-m",
)  # fmt: skip
RESEARCH = ("microsoft-research-license", "mrl", "research-only", "fair-noncommercial-research-license")


def of(*ids: str) -> Combined:
    """The licence of a merge of one source for each id."""
    return combine({f"source{number}": declared(name, "config") for number, name in enumerate(ids)})


def test_every_rule_is_tested_below_and_names_its_text() -> None:
    tested = {
        *PERMISSIVE, *COPYLEFT, *NON_COMMERCIAL, *NON_COMMERCIAL_SHARE_ALIKE, *NO_DERIVATIVES, *COMMUNITY, *RAIL,
        *RESEARCH,
    }  # fmt: skip
    assert set(RULES) == tested
    assert [rule.id for rule in RULES.values() if not rule.url.startswith(("https://", "http://"))] == []
    named = {name for rule in RULES.values() for name in (*rule.heirs, *rule.within, *rule.never_within)}
    assert named <= set(RULES)


@pytest.mark.parametrize("name", [*PERMISSIVE, *COPYLEFT, *COMMUNITY, *RAIL])
def test_merge_of_sources_under_one_licence_is_under_it_and_may_be_sold(name: str) -> None:
    found = of(name, name)
    assert (found.id, found.name, found.commercial, found.conflicts) == (name, name, True, ())
    assert found.publishable and found.url == RULES[name].url


@pytest.mark.parametrize("name", [*NON_COMMERCIAL, *NON_COMMERCIAL_SHARE_ALIKE, *RESEARCH])
def test_merge_with_non_commercial_source_is_under_its_licence_and_may_not_be_sold(name: str) -> None:
    found = of("apache-2.0", name, "mit")
    assert (found.name, found.commercial, found.publishable) == (name, False, True)
    assert any("commercial" in duty for duty in found.duties)


@pytest.mark.parametrize("name", [*COMMUNITY, *RAIL])
def test_terms_that_travel_are_those_of_a_merge_with_permissive_sources(name: str) -> None:
    assert of("apache-2.0", name, "mit").name == name
    assert f"the terms of {RULES[name].name}" in forbids("apache-2.0", {"it": declared(name, "card")})["it"]


@pytest.mark.parametrize("name", NO_DERIVATIVES)
def test_licence_without_derivatives_leaves_nothing_to_publish(name: str) -> None:
    found = of("apache-2.0", name)
    assert found.id == "other" and not found.publishable and "forbids to publish derivatives" in found.conflicts[0]
    assert "forbids to publish derivatives" in forbids(name, {"it": declared(name, "card")})["it"]


@pytest.mark.parametrize("name", ["", "unknown", "other", "my-own-licence", "llama9", "gpl"])
def test_merge_with_a_source_under_nobody_knows_what_is_unknown(name: str) -> None:
    found = of("apache-2.0", name)
    assert (found.id, found.commercial, found.publishable) == ("unknown", None, False)
    assert "source1" in found.reasons[-1]


@pytest.mark.parametrize(
    ("ids", "merge"),
    [
        # Permissive: the one that asks most, whatever the order.
        (("mit", "apache-2.0"), "apache-2.0"),
        (("apache-2.0", "cc-by-4.0"), "apache-2.0"),
        (("mit", "bsd-3-clause"), "bsd-3-clause"),
        (("cc0-1.0", "mit"), "mit"),
        (("mit", "cc-by-4.0"), "cc-by-4.0"),
        # Share-alike goes on the whole; the FSF's list: Apache 2.0 and GPL v3 yes, GPL v2 no.
        (("apache-2.0", "gpl-3.0"), "gpl-3.0"),
        (("mit", "gpl-2.0"), "gpl-2.0"),
        (("apache-2.0", "gpl-2.0"), None),
        (("gpl-2.0", "gpl-3.0"), None),
        (("gpl-3.0", "agpl-3.0"), "agpl-3.0"),
        (("lgpl-3.0", "gpl-3.0"), "gpl-3.0"),
        (("lgpl-2.1", "gpl-2.0"), "gpl-2.0"),
        (("lgpl-2.1", "apache-2.0"), "gpl-3.0"),
        (("mpl-2.0", "apache-2.0"), "mpl-2.0"),
        (("mpl-2.0", "agpl-3.0"), "agpl-3.0"),
        # Creative Commons' table of compatible licences.
        (("cc-by-4.0", "cc-by-sa-4.0"), "cc-by-sa-4.0"),
        (("cc-by-sa-3.0", "cc-by-sa-4.0"), "cc-by-sa-4.0"),
        (("cc-by-sa-4.0", "gpl-3.0"), "gpl-3.0"),
        (("cc-by-sa-3.0", "gpl-3.0"), None),
        (("cc-by-nc-4.0", "cc-by-4.0"), "cc-by-nc-4.0"),
        (("cc-by-nc-4.0", "cc-by-nc-sa-4.0"), "cc-by-nc-sa-4.0"),
        (("cc-by-nc-4.0", "cc-by-sa-4.0"), None),
        (("cc-by-sa-4.0", "cc-by-nc-sa-4.0"), None),
        # Terms demand more than share-alike licences let anybody demand.
        (("llama3.1", "gpl-3.0"), None),
        (("gemma", "cc-by-sa-4.0"), None),
        (("microsoft-research-license", "gpl-3.0"), None),
        (("llama3.1", "cc-by-nc-sa-4.0"), None),
        # Several terms all apply.
        (("llama3.1", "llama3.2"), "llama3.1-and-llama3.2"),
        (("gemma", "cc-by-nc-4.0", "apache-2.0"), "cc-by-nc-4.0-and-gemma"),
        (("microsoft-research-license", "apache-2.0", "apache-2.0"), "microsoft-research-license"),
    ],
)
def test_licences_together(ids: tuple[str, ...], merge: str | None) -> None:
    for order in (ids, ids[::-1]):
        found = of(*order)
        assert (found.name if found.publishable else None) == merge, found
        assert merge is not None or found.name == "conflicting-terms" and found.conflicts


def test_licence_that_the_hub_does_not_know_is_other_with_a_name() -> None:
    assert of("microsoft-research-license").id == "other" and of("cc-by-nc-4.0", "gemma").id == "other"
    assert of("fair-noncommercial-research-license").id == "fair-noncommercial-research-license"


def test_llama_says_how_derivatives_are_called_and_what_they_show() -> None:
    three, later = of("llama3", "mit"), of("llama3.3", "mit")
    assert three.prefixes == ("Llama 3",) and later.prefixes == ("Llama",)
    assert "Built with Meta Llama 3" in three.notices[0] and "Built with Llama" in later.notices[0]
    assert any("improve no other language model" in duty for duty in three.duties)
    assert not any("improve no other" in duty for duty in later.duties)
    assert of("llama2").prefixes == () and any("improve no other" in duty for duty in of("llama2").duties)
    assert "ai.google.dev/gemma/terms" in of("gemma").notices[0]


def test_merge_of_merges_is_under_what_their_sources_were_under() -> None:
    joint = of("llama3.1", "gemma")
    again = combine({"evolved": declared(joint.name, "recipe"), "ja": declared("apache-2.0", "card")})
    assert again.name == joint.name and again.notices == joint.notices
    assert of(of("gpl-2.0", "apache-2.0").name).id == "unknown"


@pytest.mark.parametrize(
    ("policy", "source", "why"),
    [
        ("apache-2.0", "apache-2.0", None),
        ("apache-2.0", "mit", None),
        ("apache-2.0", "cc-by-4.0", None),
        ("mit", "apache-2.0", "asks for more than mit"),
        ("apache-2.0", "microsoft-research-license", "allows research only"),
        ("apache-2.0", "cc-by-nc-4.0", "no commercial use"),
        ("apache-2.0", "cc-by-sa-4.0", "must go on every derivative"),
        ("apache-2.0", "gpl-3.0", "must go on every derivative"),
        ("apache-2.0", "llama2", "the terms of Llama 2 Community License go on every derivative"),
        ("apache-2.0", "", "no licence is known"),
        ("apache-2.0", "my-own-licence", "there is no rule for its licence, my-own-licence"),
        ("apache-2.0", "llama3.1-and-gemma", "the terms of Llama 3.1"),
        ("gpl-3.0", "cc-by-sa-4.0", None),
        ("gpl-3.0", "apache-2.0", None),
        ("gpl-2.0", "apache-2.0", "asks for more"),
        ("llama3.1", "apache-2.0", None),
        ("cc-by-nc-4.0", "apache-2.0", None),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "must go on every derivative"),
        ("microsoft-research-license", "microsoft-research-license", None),
    ],
)
def test_policy_and_source(policy: str, source: str, why: str | None) -> None:
    found = forbids(policy, {"it": declared(source, "config")})
    assert (found == {}) if why is None else why in found["it"]


def test_policy_names_every_source_that_stands_in_its_way() -> None:
    sources = {"a": "apache-2.0", "b": "microsoft-research-license", "c": "", "d": "mit"}
    assert list(forbids("apache-2.0", {alias: declared(name, "config") for alias, name in sources.items()})) == [
        "b",
        "c",
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("apache 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("Llama-2", "llama2"),
        ("llama-3.1-community-license", "llama3.1"),
        ("Meta Llama 3 Community License Agreement", "llama3"),
        ("llama3.3", "llama3.3"),
        ("CC_BY_NC_4.0", "cc-by-nc-4.0"),
    ],
)
def test_licences_are_known_as_people_write_them(text: str, name: str) -> None:
    assert licence_id(text) == name


def test_policy_with_a_typing_error_is_refused() -> None:
    with pytest.raises(UsageError, match=r"policy.licence=apache-2.1: no rule for this licence.*apache-2.0"):
        known_licence("apache-2.1", "policy.licence")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("apach-2.0", "apache-2.0"),
        ("gema", "gemma"),
        ("lama3.1", "llama3.1"),
        ("cc-bync-4.0", "cc-by-nc-4.0"),
        ("gpl3.0", "gpl-3.0"),
    ],
)
def test_source_with_a_typing_error_is_refused(text: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"^setting={text}: no rule for this licence \(did you mean '{near}'\?\)"):
        refuse_misspelt(text, "setting")


@pytest.mark.parametrize(
    "text",
    [
        "Apache 2.0", "gemma-and-mit", "unknown", "other", "my-own-words", "qwen-research", "tongyi-qianwen",
        "cc-by-2.5", "llama3.9", "epl-2.0", "bsd-3-clause-clear", "eupl-1.2", "mrl-2",
    ],
)  # fmt: skip
def test_source_with_a_licence_of_its_own_is_not(text: str) -> None:
    refuse_misspelt(text, "setting")


def test_licence_of_a_recipe_is_that_of_all_it_is_made_of(tmp_path: Path) -> None:
    def merge(**sources: Node) -> MergeNode:
        return MergeNode("linear", sources, None, min(sources), "float32", {"all": Group(("*",))})

    base = CheckpointNode("org/base", "a" * 64, licence="apache-2.0")
    lora = CheckpointNode("org/lora", "b" * 64, over=CheckpointNode("org/llama", "c" * 64, licence="llama3.1"))
    (tmp_path / "ja").mkdir()
    ja = CheckpointNode(write_card(tmp_path / "ja", "license: cc-by-4.0"), "d" * 64)
    other_base = CheckpointNode("org/other", "e" * 64, licence="gemma")
    evolved = merge(base=other_base, ja=ja)
    found = recipe_licences(merge(base=base, evolved=evolved))
    assert {alias: set(said.ids) for alias, said in found.items()} == {
        "base": {"apache-2.0", "gemma"},
        "ja": {"cc-by-4.0"},
    }
    assert recipe_licence(Recipe(merge(base=base, evolved=evolved))).name == "gemma"
    assert set(recipe_licences(merge(base=base, math=lora))) == {"base", "math", "math.over"}
    assert recipe_licence(Recipe(merge(base=base, math=lora))).id == "unknown"


def write_card(folder: Path, metadata: str) -> str:
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n\n# A model\n", encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("metadata", "ids"),
    [
        ("license: apache-2.0", ("apache-2.0",)),
        ("license: Apache-2.0\nlanguage: ja", ("apache-2.0",)),
        ("license: other\nlicense_name: microsoft-research-license", ("microsoft-research-license",)),
        ("license: other\nlicense_name: gemma-and-llama3.1", ("gemma", "llama3.1")),
        ("license: other\nlicense_name: house-rules", ("house-rules",)),
        ("license: other", ("unknown",)),
        ("license: [mit, llama2]", ("mit", "llama2")),
        ("license:", ("unknown",)),
        ("language: ja", ("unknown",)),
        ("license: apache-2.0\nmodel-index: nonsense", ("apache-2.0",)),
        ("- no\n- mapping", ("unknown",)),
        ("license: [unclosed", ("unknown",)),
    ],
)
def test_licence_is_read_from_the_card_in_the_folder(tmp_path: Path, metadata: str, ids: tuple[str, ...]) -> None:
    assert licence_of(write_card(tmp_path, metadata)).ids == ids


def test_folder_without_a_card_has_no_known_licence(tmp_path: Path) -> None:
    assert licence_of(str(tmp_path)) == Declared() and not Declared().known


def test_licence_is_read_from_the_card_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    repository = tmp_path / "models--maker--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    write_card(repository / "snapshots" / commit, "license: gemma")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert licence_of("maker/model").ids == ("gemma",)
    assert licence_of("maker/other").ids == ("unknown",)


@pytest.mark.parametrize(
    ("policy", "source"), [("isc", "mit"), ("mit", "isc"), ("cc0-1.0", "unlicense"), ("unlicense", "cc0-1.0")]
)
def test_of_licences_that_ask_as_much_any_may_be_the_policy(policy: str, source: str) -> None:
    assert forbids(policy, {"a": declared(source, "card")}) == {}
