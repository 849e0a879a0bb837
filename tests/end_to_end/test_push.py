"""push writes or uploads a model with all that belongs to it, and nothing that must not be published."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from rich.console import Console

from end_to_end.hub_server import TOKEN, Hub, running_hub
from end_to_end.studies import Search
from optmerge.__main__ import run
from optmerge.commands.publishing import leave_card, put_aside
from optmerge.commands.push import run_push
from optmerge.errors import UsageError
from optmerge.models import Checkpoint, scan
from optmerge.recipe import RECIPE, load_recipe
from optmerge.reports.card import is_as_written

WEIGHTS = "model.safetensors"
SHOWN = {"test.png", "progress.png", "parameters.png"}
GOES = {
    "README.md", "recipe.yaml", "config.json", "generation_config.json", WEIGHTS, *SHOWN,
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def pushed(*arguments: str) -> str:
    text = io.StringIO()
    run_push(arguments, Console(file=text))
    return text.getvalue()


@pytest.fixture
def study(search: Search, here: Path) -> Path:
    """A copy of a finished study's folder, in which things may be changed."""
    return Path(shutil.copytree(search.folder, here / "study"))


def edit_recipe(study: Path, change: Callable[[str], str | None]) -> None:
    """Change what the recipe says of the licence of every source, by its location."""
    path = study / "best" / RECIPE
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for node in document["nodes"].values():
        if node["kind"] == "checkpoint":
            node["licence"] = change(Path(node["location"]).name)
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (study / "result.json").unlink()


def test_dry_run_writes_what_would_be_uploaded(study: Path, here: Path, zoo: Path) -> None:
    (study / "best" / "diary.txt").write_text("private")
    text = pushed(str(study / "best"), "me/my-merge", "--dry-run")
    out = here / "me--my-merge"
    assert {file.name for file in out.iterdir()} == GOES
    assert "under apache-2.0" in text and "you must: give a copy of the Apache License 2.0" in text
    assert "left behind, as no part of the model: diary.txt" in text and "Nothing was uploaded" in text
    assert all(name in text for name in GOES) and " kB" in text
    # The weights are linked, the rest is not: people edit it.
    assert (out / WEIGHTS).samefile(study / "best" / WEIGHTS)
    assert not (out / "config.json").samefile(study / "best" / "config.json")
    # The card is the hub's own reader's, called by its id there, and shows the pictures.
    card = ModelCard.load(out / "README.md")
    # Its sources are folders here, which the hub knows nothing of.
    assert (card.data.license, card.data.get("base_model"), "merge" in (card.data.tags or [])) == (
        "apache-2.0", None, True,
    )  # fmt: skip
    assert "# me/my-merge" in card.text and all(f"]({file})" in card.text for file in SHOWN)
    # No folder of this machine is told in anything.
    for file in out.iterdir():
        assert str(zoo).encode() not in file.read_bytes(), file.name
    assert load_recipe(out / RECIPE).sha256 == load_recipe(study / "best" / RECIPE).sha256
    assert pushed(str(study), "me/other", "--dry-run", "out=elsewhere") and {
        f.name for f in Path("elsewhere").iterdir()
    }


def test_folder_that_is_taken_is_left_alone(study: Path, here: Path) -> None:
    (here / "taken").mkdir()
    (here / "taken" / "diary.txt").touch()
    told = io.StringIO()
    for out, why in (("taken", "taken is not empty"), ("taken/diary.txt/out", "diary.txt is a file")):
        with pytest.raises(UsageError, match=why):
            run_push([str(study), "me/my-merge", "--dry-run", f"out={out}"], Console(file=told))
    assert told.getvalue() == "" and [file.name for file in (here / "taken").iterdir()] == ["diary.txt"]


def test_card_that_was_edited_is_kept(study: Path, here: Path) -> None:
    card = study / "best" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nMy own words.\n", encoding="utf-8")
    text = pushed(str(study), "me/my-merge", "--dry-run", "out=out")
    assert (here / "out" / "README.md").read_bytes() == card.read_bytes()
    assert "README.md was edited, and is kept as it is\n" in text


def test_what_an_edited_card_links_to_in_its_folder_goes_along(study: Path, here: Path) -> None:
    best = study / "best"
    for place in ("mine.png", "more/notes.md", "more/diary.txt", "old.bin", "shown here.svg", ".env", "../secret.txt"):
        (best / place).parent.mkdir(exist_ok=True)
        (best / place).write_text(place)
    (best / "link.txt").symlink_to(here / "study" / "secret.txt")
    links = (
        "![](./mine.png) [n](more/notes.md#top 'n') <img src='shown%20here.svg'> [r](result.json) [](https://x.y/z.md)"
        "[](old.bin) [](.env) [](../secret.txt) [](more/../../secret.txt) [](link.txt) [](nothing.md) [](/etc/passwd)"
        "[](recipe.yaml) [](more)"
    )
    (best / "result.json").write_text("{}")
    (best / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n# Mine\n{links}\n", encoding="utf-8")
    text = pushed(str(study), "me/my-merge", "--dry-run", "out=out")
    sent = {path.relative_to(here / "out").as_posix() for path in (here / "out").rglob("*") if path.is_file()}
    assert sent == GOES | {"mine.png", "more/notes.md", "shown here.svg"}
    assert "left behind, as no part of the model: .env, link.txt, more/diary.txt, old.bin\n" in text
    assert "  more/notes.md  0.0 kB\n" in text
    assert load_recipe(here / "out" / RECIPE).portable() == load_recipe(here / "out" / RECIPE)


def test_of_an_edited_card_only_the_licence_is_changed_where_one_is_named(study: Path, here: Path) -> None:
    edit_recipe(study, lambda name: None)
    card = study / "best" / "README.md"
    own = "---\nlanguage: [ja]\nlicense: other\nlicense_name: mine\nthumbnail: me.png\n---\n# Mine\r\n\n  *as* it was"
    card.write_bytes(own.encode())
    text = pushed(str(study), "me/my-merge", "--dry-run", "licence=llama3.1", "out=out")
    sent = (here / "out" / "README.md").read_bytes().decode()
    assert sent.partition("\n---\n")[2] == own.partition("\n---\n")[2]
    assert ModelCard(sent).data.to_dict() == {"language": ["ja"], "license": "llama3.1", "thumbnail": "me.png"}
    assert "README.md was edited, and is kept as it is; only its metadata say llama3.1 now" in text
    assert card.read_bytes() == own.encode()
    pushed(str(study), "me/my-merge", "--dry-run", "licence=research-only", "out=other")
    data = ModelCard.load(here / "other" / "README.md").data
    assert (data.license, data.license_name) == ("other", "research-only")
    card.write_text("---\na: [\n---\n# Mine\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"README\.md: its metadata are no YAML mapping"):
        pushed(str(study), "me/my-merge", "--dry-run", "licence=llama3.1")


def test_card_that_nobody_edited_is_written_anew_with_the_licence_that_is_named(study: Path, here: Path) -> None:
    pushed(str(study), "me/my-merge", "--dry-run", "licence=gpl-3.0")
    card = ModelCard.load(here / "me--my-merge" / "README.md")
    assert card.data.license == "gpl-3.0" and "**gpl-3.0**" in card.text and "# me/my-merge\n" in card.text
    # Without its result it would tell less than before, and is kept.
    (study / "result.json").unlink()
    text = pushed(str(study), "me/other", "--dry-run", "out=out")
    assert "README.md tells results that do not lie beside it, and is kept as it is" in text
    assert (here / "out" / "README.md").read_bytes() == (study / "best" / "README.md").read_bytes()


def test_rebuilt_model_has_its_result_and_is_pushed_under_its_name_there(study: Path, here: Path) -> None:
    assert run(["rebuild", str(study / "best" / RECIPE), "again"]) == 0
    pushed("again", "me/again", "--dry-run")
    card = ModelCard.load(here / "me--again" / "README.md")
    assert "# me/again\n" in card.text and card.data.model_name == "me/again"
    assert {file.name for file in (here / "me--again").iterdir()} == GOES - SHOWN


def test_edited_card_is_put_aside_where_another_winner_takes_its_place(search: Search, study: Path) -> None:
    recipe, best = load_recipe(study / "best" / RECIPE), study / "best"
    other = replace(recipe, root=replace(recipe.root, dtype="float16"))
    assert put_aside(study, best) is None
    (best / "README.md").write_text("My own words.", encoding="utf-8")
    edited = put_aside(study, best)
    assert edited == recipe.sha256
    line = leave_card(search.result(), other, study, best, edited)
    assert is_as_written((best / "README.md").read_text(encoding="utf-8"))
    assert line and line.startswith(str(study / "README.edited.md"))
    assert (study / "README.edited.md").read_text(encoding="utf-8") == "My own words."


def test_model_without_a_known_licence_waits_for_one(study: Path, here: Path) -> None:
    edit_recipe(study, lambda name: None if name == "ja" else "mit")
    (study / "best" / "README.md").unlink()
    with pytest.raises(UsageError, match="licence is not known, for want of that of ja; .*licence=ID"):
        pushed(str(study), "me/my-merge", "--dry-run")
    assert list(here.glob("me--*")) == []
    text = pushed(str(study), "me/my-merge", "--dry-run", "licence=apache-2.0")
    card = ModelCard.load(here / "me--my-merge" / "README.md")
    assert "under apache-2.0" in text and card.data.license == "apache-2.0"
    assert "who publishes it has put Apache License 2.0 on it, vouching for ja" in card.text


@pytest.mark.parametrize(
    ("licences", "more", "why"),
    [
        ({"ja": "gpl-2.0"}, (), "GNU GPL v2 does not take in Apache License 2.0"),
        ({"ja": "cc-by-nd-4.0"}, (), "forbids to publish derivatives"),
        ({"ja": "mrl"}, ("licence=apache-2.0",), "ja: Mistral AI Research License allows research only"),
        ({}, ("licence=mit",), "base: Apache License 2.0 asks for more than mit"),
        ({}, ("licence=apach",), "no rule for this licence"),
    ],
)
def test_licence_that_a_source_forbids_is_refused(
    study: Path, here: Path, licences: dict[str, str], more: tuple[str, ...], why: str
) -> None:
    edit_recipe(study, lambda name: licences.get(name, "apache-2.0"))
    with pytest.raises(UsageError, match=why):
        pushed(str(study), "me/my-merge", "--dry-run", *more)
    assert [path.name for path in here.iterdir()] == ["study"]


def test_terms_that_a_name_must_show_are_told(study: Path) -> None:
    edit_recipe(study, lambda name: "llama3.1" if name == "ja" else "mit")
    with pytest.raises(UsageError, match="README.md says apache-2.0, and the recipe's sources make it .*licence=ID"):
        pushed(str(study), "me/my-merge", "--dry-run", "out=a")
    (study / "best" / "README.md").unlink()
    assert "its name, my-merge, does not begin with 'Llama'" in pushed(str(study), "me/my-merge", "--dry-run", "out=a")
    assert "does not begin" not in pushed(str(study), "me/Llama-my-merge", "--dry-run", "out=b")


def test_notice_that_a_licence_demands_is_written_where_there_is_none(study: Path, here: Path) -> None:
    edit_recipe(study, lambda name: {"ja": "llama3.1", "base": "gemma"}.get(name, "mit"))
    (study / "best" / "README.md").unlink()
    text = pushed(str(study), "me/Llama-x", "--dry-run", "out=a")
    gemma = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    llama = (
        "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright © Meta Platforms, Inc. All Rights "
        "Reserved."
    )
    written = (here / "a" / "Notice").read_text(encoding="utf-8")
    assert written.count(gemma) == written.count(llama) == 1
    assert "  Notice is written, with the words" in text and "  Notice  0." in text
    assert not (study / "best" / "Notice").exists()
    # One's own goes as it is, and what it lacks is told.
    (study / "best" / "NOTICE.txt").write_text(f"Mine.\n{gemma}\n", encoding="utf-8")
    text = pushed(str(study), "me/Llama-x", "--dry-run", "out=b")
    assert (here / "b" / "NOTICE.txt").read_text(encoding="utf-8").startswith("Mine.")
    assert not (here / "b" / "Notice").exists()
    assert "note: NOTICE.txt lacks words that are demanded: Built with Llama. Llama 3.1 is" in text


def test_folder_that_holds_no_model_of_ours_is_refused(zoo: Path, study: Path, here: Path) -> None:
    with pytest.raises(UsageError, match="holds no model that optmerge has made"):
        pushed(str(zoo / "ja"), "me/my-merge", "--dry-run")
    with pytest.raises(UsageError, match="there is no folder 'moon'"):
        pushed("moon", "me/my-merge", "--dry-run")
    (study / "best" / WEIGHTS).unlink()
    with pytest.raises(UsageError, match="holds no model that optmerge has made"):
        pushed(str(study), "me/my-merge", "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["study"], "write `push FOLDER"),
        (["study", "a/b/c"], "cannot be the id of a model on the hub"),
        (["study", "me/my--merge"], "cannot be the id of a model on the hub"),
        (["study", "me/x", "private=perhaps"], "private=perhaps: say true or false"),
        (["study", "me/x", "--force"], "'--force': push knows no such word; write `push FOLDER"),
        (["study", "me/x", "--dryrun"], r"'--dryrun': .* \(did you mean '--dry-run'\?\)"),
        (["study", "me/x", "license=mit"], r"'license=mit': .* \(did you mean 'licence'\?\)"),
        (["study", "me/x", "out=there"], "out=FOLDER is for --dry-run"),
    ],
)
def test_command_line_that_makes_no_sense_is_refused(study: Path, arguments: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        pushed(*arguments)


def upload(hub: Hub, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """push in a process of its own, which takes the hub's address and the token from its environment."""
    program = (
        "import sys\nfrom rich.console import Console\nfrom optmerge.commands.push import run_push\n"
        "from optmerge.errors import OptmergeError\n"
        "try:\n    run_push(sys.argv[1:], Console())\nexcept OptmergeError as error:\n"
        "    print(f'optmerge: {error}', file=sys.stderr)\n    sys.exit(error.exit_code)\n"
    )
    here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **here}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_upload_puts_the_same_on_the_hub_as_the_dry_run_on_the_disk(study: Path, here: Path) -> None:
    pushed(str(study), "me/my-merge", "--dry-run", "out=dry")
    with running_hub() as hub:
        refused = upload(hub, str(study), "me/my-merge", token="hf_wrong")
        assert refused.returncode == 1 and hub.files == {}
        assert (
            refused.stderr.startswith("optmerge: the hub refused me/my-merge (401)")
            and "hf auth login" in refused.stderr
        )
        done = upload(hub, str(study), "me/my-merge", "private=true")
        assert done.returncode == 0, done.stderr
        assert f"uploaded: {hub.url}/me/my-merge" in done.stdout
        assert hub.files == {"me/my-merge": {file.name: file.read_bytes() for file in (here / "dry").iterdir()}}
        assert hub.private == {"me/my-merge": True}
        assert load_recipe(study / "best" / RECIPE).sha256[:12] in hub.commits[0]["summary"]
        # What was uploaded is the model that was scored.
        loaded = here / "loaded"
        loaded.mkdir()
        for name, content in hub.files["me/my-merge"].items():
            (loaded / name).write_bytes(content)
    digest = scan(Checkpoint.open(loaded, "loaded"), cache=here / "cache").weights_sha256
    assert digest == load_recipe(loaded / RECIPE).weights_sha256
    assert sorted(path.name for path in here.iterdir()) == ["cache", "dry", "loaded", "study"]
    assert [path.name for path in study.iterdir() if path.name.startswith(".push")] == []
