"""A search whose winner could not be published as the policy says is refused before it starts, with the reasons."""

import json
import shutil
from pathlib import Path

import pytest

from end_to_end.conftest import Refuse, assert_one_message
from end_to_end.studies import started
from optmerge.__main__ import run


def card(folder: Path, licence: str) -> None:
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A model\n", encoding="utf-8")


@pytest.fixture
def ja(zoo: Path, tmp_path: Path) -> Path:
    """A copy of one source, which has no card."""
    return Path(shutil.copytree(zoo / "ja", tmp_path / "ja"))


def test_every_source_that_forbids_the_licence_is_named_with_the_reason(refuse: Refuse) -> None:
    message = refuse(
        "policy.licence=apache-2.0",
        "models.sources.ja.licence=cc-by-nc-4.0",
        "models.sources.base.licence=llama3.1",
        "models.sources.math_add.licence=mit",
    )
    first, *rest = message.splitlines()
    assert "policy.licence=apache-2.0" in first
    assert [line.split(":")[0].strip() for line in rest] == ["base", "ja"]
    assert "Llama 3.1 Community License" in rest[0] and "no commercial use" in rest[1]
    assert "models.sources.ja.licence" in rest[1]


def test_licence_of_the_card_counts_and_may_be_overridden(
    refuse: Refuse, ja: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    its = [f"models.sources.ja.path={ja}", "models.sources.ja.licence=null", "policy.licence=apache-2.0"]
    message = refuse(*its)
    assert "ja: no licence is known of it; if you know it, say so with models.sources.ja.licence=ID" in message
    card(ja, "gemma")
    message = refuse(*its)
    assert "ja: the terms of Gemma Terms of Use go on every derivative (its model card)" in message
    card(ja, "my-own-licence")
    assert "ja: there is no rule for its licence, my-own-licence" in refuse(*its)
    card(ja, "mit")
    assert run(["--dry-run", *small, *its]) == 0
    assert "licence of the merge: apache-2.0 (base apache-2.0, ja mit, " in capsys.readouterr().out
    card(ja, "gemma")
    assert run(["--dry-run", *small, its[0], "policy.licence=apache-2.0"]) == 0
    assert "note: ja: its model card says gemma; models.sources.ja.licence is believed" in capsys.readouterr().out


def test_dry_run_is_refused_alike_before_any_source_is_made(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [f"models.folder={here / 'zoo'}", "policy.licence=mit"]
    for command in (asked, ["--dry-run", *asked]):
        assert run(command) == 2
        message = capsys.readouterr().err
        assert_one_message(message)
        assert "ja: Apache License 2.0 asks for more than mit, and its conditions stay" in message
        assert list(here.iterdir()) == []


def test_policy_holds_for_searches_whose_winner_is_a_source(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["+experiment=demo_hybrid", f"models.folder={here / 'zoo'}", "policy.licence=apache-2.0"]
    first = ["+experiment=demo", f"models.folder={here / 'zoo'}", "models.sources.math_mul.licence=mrl"]
    assert run([*asked, f"models.sources.evolved.search={json.dumps(first)}"]) == 2
    assert "math_mul: Mistral AI Research License allows research only" in capsys.readouterr().err
    assert started(here) == []


@pytest.mark.usefixtures("no_network")
def test_the_papers_two_experiments_differ_in_what_may_be_published(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["+experiment=math_ja", "policy.licence=apache-2.0"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n  ") == 1 and "math_wizard: Microsoft Research License allows research only" in message
    # The variant gets as far as looking for its checkpoints, which nobody has here.
    assert run(["+experiment=math_ja_apache"]) == 2
    message = capsys.readouterr().err
    assert "are missing" in message and "upaya07/Arithmo2-Mistral-7B" in message and "policy" not in message
    assert list(here.iterdir()) == []


def test_licence_that_no_rule_knows_is_refused_as_policy(refuse: Refuse) -> None:
    assert "policy.licence=apache: no rule" not in refuse("policy.licence=apach-2.0")
    assert "did you mean" in refuse("policy.licence=apach-2.0")


def test_misspelt_licence_of_a_source_is_refused(refuse: Refuse) -> None:
    said = refuse("models.sources.ja.licence=apach-2.0")
    assert "models.sources.ja.licence=apach-2.0: no rule for this licence (did you mean 'apache-2.0'?)" in said


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("cc-by-nc-4.0", "licence of the merge: cc-by-nc-4.0, no commercial use ("),
        ("mrl", "licence of the merge: mrl, research only ("),
        (
            "null",
            "licence of the merge: unknown, for want of that of ja: say it with models.sources.ALIAS.licence=ID (",
        ),
        ("gpl-2.0", "licence of the merge: none does justice to all: GNU GPL v2 does not take in Apache License 2.0 ("),
    ],
)
def test_start_tells_the_licence_of_the_merge(
    small: list[str], here: Path, capsys: pytest.CaptureFixture[str], licence: str, told: str
) -> None:
    assert run(["--dry-run", *small, f"models.sources.ja.licence={licence}"]) == 0
    assert told in capsys.readouterr().out
