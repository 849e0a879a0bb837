"""The push command: a model that optmerge has made, to the Hugging Face hub."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from optmerge.commands.study_folder import RESULT
from optmerge.errors import OptmergeError, UsageError
from optmerge.models.licence_rules import RULES
from optmerge.models.licences import Combined, combine, declared, forbids, known_licence
from optmerge.models.source_licences import CARD, declared_in, recipe_licences, with_licences
from optmerge.models.staging import check_place, staged
from optmerge.phrases import shown_bytes
from optmerge.recipe import RECIPE, Recipe
from optmerge.registered import did_you_mean

USAGE = "write `push FOLDER USER/NAME [--dry-run] [private=true] [licence=ID] [out=FOLDER]`"
_SETTINGS = ("private", "licence", "out")
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".gguf")
_LICENCE_METADATA = ("license", "license_name", "license_link")
_LEGAL = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
_NOTICE = "Notice"  # as the terms of Llama and Gemma call it


@dataclass(frozen=True)
class Push:
    """What is to be pushed.

    Attributes:
        folder: The model.
        repo: Its id on the hub.
        recipe: Its recipe.
        licence: What it is under.
        card: Its model card; None if the one that lies beside it goes as it is.
        metadata: What the metadata of that one are to be; None if they are that already.
        kept: Why that one goes as it is.
        linked: Files in the folder that go with it, as it links to them.
    """

    folder: Path
    repo: str
    recipe: Recipe
    licence: Combined
    card: str | None
    metadata: dict[str, Any] | None = None
    kept: str = ""
    linked: tuple[str, ...] = ()


def run_push(arguments: Sequence[str], console: Console) -> None:
    """Upload a model with card, recipe and pictures; or write the folder exactly as it would be uploaded.

    The token is the one of `hf auth login`, or of the variable HF_TOKEN.

    Args:
        arguments: The model's folder, its id on the hub, and settings.
        console: Where to print.

    Raises:
        UsageError: If the model is none of ours, its licence is not known, or a source forbids it.
        OptmergeError: If the hub does not take it.
    """
    words, settings = _parsed(arguments)
    push = _prepared(Path(words[0]).expanduser(), words[1], settings.get("licence"))

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    dry_run = "--dry-run" in arguments
    out = Path(settings.get("out") or push.repo.replace("/", "--")).expanduser()
    if dry_run:
        check_place(out)
    for line in _told(push):
        say(line)
    if dry_run:
        with staged(out, nbytes=_new_bytes(push, out), replace=False) as staging:
            _fill(push, staging)
        for file, size in _files(out):
            say(f"  {file}  {shown_bytes(size)}")
        say(f"{out}: what would be uploaded to {push.repo}. Nothing was uploaded.")
        return
    # Beside the model, so that its weights need no copy.
    with tempfile.TemporaryDirectory(dir=push.folder.absolute().parent, prefix=".push-") as staging_name:
        staging = Path(staging_name)
        _fill(push, staging)
        for file, size in _files(staging):
            say(f"  {file}  {shown_bytes(size)}")
        say(f"uploaded: {_upload(push, staging, private=settings.get('private') == 'true' or None)}")


def _parsed(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    words, settings = [], dict[str, str]()
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in _SETTINGS:
            settings[name] = value
        elif argument != "--dry-run":
            words.append(argument)
    for word in words:
        name, equals, _ = word.partition("=")
        if word.startswith("-") or equals and name.isidentifier():
            near = did_you_mean(name, ["--dry-run", *_SETTINGS])
            raise UsageError(f"{word!r}: push knows no such word{near}; {USAGE}")
    if len(words) != 2:
        raise UsageError(USAGE)
    if "out" in settings and "--dry-run" not in arguments:
        raise UsageError("out=FOLDER is for --dry-run: an upload leaves no folder here")
    if settings.get("private", "true") not in ("true", "false"):
        raise UsageError(f"private={settings['private']}: say true or false")
    return words, settings


def _prepared(folder: Path, repo: str, licence: str | None) -> Push:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    from optmerge.commands.publishing import card_of, licence_of_product, result_of
    from optmerge.commands.recipe_places import model_folder
    from optmerge.models.form import form_of
    from optmerge.models.product import recipe_of
    from optmerge.reports.card import is_as_written, likeness_in, tells_results
    from optmerge.reports.card_links import linked_files

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo} cannot be the id of a model on the hub: {str(error).splitlines()[0]}") from error
    if not folder.is_dir():
        raise UsageError(f"there is no folder {str(folder)!r}")
    folder = model_folder(folder)
    found, form = recipe_of(folder), form_of(folder)
    ordinary = (folder / "config.json").is_file() and list(folder.glob("*.safetensors"))
    if found is None or not (ordinary or form):
        raise UsageError(
            f"{folder} holds no model that optmerge has made: it wants {RECIPE}, and weights with their config.json "
            "or in a GGUF file"
        )
    recipe = with_licences(found[0])
    result = result_of(recipe, folder)
    settled = licence_of_product(recipe, result)
    if licence is not None:
        settled = _under(known_licence(licence, "licence"), recipe)
    if not settled.publishable:
        raise UsageError(f"{folder}{_why_not(settled, recipe)}")
    there = folder / CARD
    card = _read(there)
    # A card that is as we wrote it says nothing that a new one would not, if the results that it tells are at hand.
    if card is None or (is_as_written(card) and (result is not None or not tells_results(card))):
        form = form and replace(form, likeness=likeness_in(card or ""))
        return Push(folder, repo, recipe, settled, card_of(recipe, repo, result, folder, settled, form))
    if licence is None and declared_in(card).text != settled.name:
        raise UsageError(
            f"{there} says {declared_in(card).text}, and the recipe's sources make it {settled.name}; say which is "
            "right with licence=ID"
        )
    kept = "tells results that do not lie beside it" if is_as_written(card) else "was edited"
    own = (CARD, RECIPE, RESULT)  # written anew, or of this machine alone
    linked = tuple(file for file in linked_files(card, folder) if file not in own)
    return Push(folder, repo, recipe, settled, None, _metadata_under(there, settled), kept, linked)


def _why_not(licence: Combined, recipe: Recipe) -> str:
    """Why a model cannot be published, as words that follow its folder."""
    if licence.conflicts:
        return f" cannot be published: {'; '.join(licence.conflicts)}"
    unknown = [alias for alias, said in recipe_licences(recipe.root).items() if not said.known]
    return (
        f": its licence is not known, for want of that of {', '.join(unknown)}; if you know what it may be published "
        "under, say so with licence=ID"
    )


def _read(card: Path) -> str | None:
    if not card.is_file():
        return None
    try:
        return card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {card}: {getattr(error, 'strerror', None) or error}") from error


def _metadata_under(card: Path, licence: Combined) -> dict[str, Any] | None:
    """The metadata of a card that says a licence, and else what it said; None if it says that licence already.

    Raises:
        UsageError: If its metadata cannot be read.
    """
    import yaml
    from huggingface_hub import metadata_load

    from optmerge.reports.card import licence_metadata

    try:
        there = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{card}: its metadata are no YAML mapping: {str(error).splitlines()[0]}") from error
    wanted = licence_metadata(licence)
    rest = {name: value for name, value in there.items() if name in wanted or name not in _LICENCE_METADATA}
    return None if there == rest | wanted else rest | wanted


def _under(licence: str, recipe: Recipe) -> Combined:
    """The licence that somebody puts on a model whose sources are not all known.

    Raises:
        UsageError: If a source that is known forbids it.
    """
    sources = recipe_licences(recipe.root)
    known = {alias: said for alias, said in sources.items() if said.known}
    if forbidding := forbids(licence, known):
        listed = "\n  ".join(f"{alias}: {why}" for alias, why in forbidding.items())
        raise UsageError(f"licence={licence}: the model cannot be under it\n  {listed}")
    combined = combine({**known, "publisher": declared(licence, "config")})
    whose = ", ".join(alias for alias in sources if alias not in known)
    reason = f"who publishes it has put {RULES[licence].name} on it" + (f", vouching for {whose}" if whose else "")
    reasons = [line for line in combined.reasons[:-1] if not line.startswith("publisher is")]
    return replace(combined, reasons=(*reasons, reason))


def _told(push: Push) -> Iterator[str]:
    yield f"{push.folder} goes to {push.repo} under {push.licence.name}"
    if push.kept:
        changed = f"; only its metadata say {push.licence.name} now" if push.metadata else ""
        yield f"  {CARD} {push.kept}, and is kept as it is{changed}"
    for duty in push.licence.duties:
        yield f"  you must: {duty}"
    if notice := _notice_to_write(push):
        yield f"  {_NOTICE} is written, with the words that are demanded: {notice.strip()}"
    elif missing := _missing_notices(push):
        yield f"  note: {_own_notice(push.folder)} lacks words that are demanded: {' '.join(missing)}"
    name = push.repo.rpartition("/")[2]
    for prefix in push.licence.prefixes:
        if not re.sub(r"[-_ ]", "", name.lower()).startswith(re.sub(r"[-_ ]", "", prefix.lower())):
            yield f"  note: its name, {name}, does not begin with {prefix!r}"
    if left := [name for name in _left_behind(push) if name not in (RECIPE, CARD, RESULT)]:
        yield f"  left behind, as no part of the model: {', '.join(left)}"


def _own_notice(folder: Path) -> str | None:
    """The name of the notice in a model's folder."""
    files = (file for file in sorted(folder.iterdir()) if file.is_file())
    return next((file.name for file in files if file.name.upper().startswith("NOTICE")), None)


def _notice_to_write(push: Push) -> str:
    """The text of the notice that licences demand, where the model's folder has none; else empty."""
    return "".join(f"{notice}\n" for notice in push.licence.notices) if _own_notice(push.folder) is None else ""


def _missing_notices(push: Push) -> list[str]:
    """What licences demand to be shown, and the notice in the model's folder does not say."""
    name = _own_notice(push.folder)
    said = " ".join((push.folder / name).read_text(encoding="utf-8", errors="replace").split()) if name else ""
    return [notice for notice in push.licence.notices if notice not in said]


def _left_behind(push: Push) -> Iterator[str]:
    """What lies in the model's folder and stays there; of a folder only what does not go, if some of it does."""
    for file in sorted(push.folder.iterdir()):
        if not file.is_dir() or not any(linked.startswith(f"{file.name}/") for linked in push.linked):
            inside = [file]
        else:
            inside = [path for path in sorted(file.rglob("*")) if not path.is_dir()]
        yield from (str(path.relative_to(push.folder)) for path in inside if not _goes(push, path))


def _going(push: Push) -> Iterator[tuple[Path, str]]:
    """The files that go to the hub as they are, and their paths there."""
    names = {file.name for file in push.folder.iterdir() if _goes(push, file)}
    for name in sorted(names | set(push.linked)):
        yield push.folder / name, name


def _goes(push: Push, file: Path) -> bool:
    """Whether a file in the model's folder goes to the hub as it is."""
    from optmerge.models.vocabulary import TOKENIZER_FILES
    from optmerge.reports.card import PICTURES

    known = ("config.json", "generation_config.json", *TOKENIZER_FILES, *PICTURES)
    if file.parent != push.folder:
        return file.relative_to(push.folder).as_posix() in push.linked
    return file.is_file() and (
        file.name in known
        or file.name in push.linked
        or file.name.endswith(_WEIGHTS)
        or file.name.upper().startswith(_LEGAL)
    )


def _fill(push: Push, folder: Path) -> None:
    """Put into a folder all that goes to the hub; weights are linked where the disk allows it."""
    for file, name in _going(push):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(file, folder / name)
    if notice := _notice_to_write(push):
        (folder / _NOTICE).write_text(notice, encoding="utf-8")
    # Folders of this machine are nobody's business, and mean nothing elsewhere.
    (folder / RECIPE).write_text(push.recipe.portable().to_yaml(), encoding="utf-8")
    if push.card is not None:
        (folder / CARD).write_text(push.card, encoding="utf-8")
        return
    from huggingface_hub import metadata_save

    shutil.copyfile(push.folder / CARD, folder / CARD)
    if push.metadata is not None:
        metadata_save(folder / CARD, push.metadata)


def _link_or_copy(file: Path, target: Path) -> None:
    if file.name.endswith(_WEIGHTS):  # others are small, and people edit them
        with contextlib.suppress(OSError):
            os.link(file.resolve(), target)
            return
    shutil.copyfile(file, target)


def _new_bytes(push: Push, out: Path) -> int:
    """What the files take in a folder, if they cannot be linked there."""
    place = next(path for path in out.absolute().parents if path.exists())
    if place.stat().st_dev == push.folder.stat().st_dev:
        return 0
    return sum(file.stat().st_size for file, _ in _going(push))


def _files(folder: Path) -> list[tuple[str, int]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]


def _upload(push: Push, folder: Path, private: bool | None) -> str:
    """Hand a folder to the hub; the address of what it has become."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        address = api.create_repo(push.repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            commit_message=f"Upload a merge, recipe {push.recipe.sha256[:12]}",
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; log in with `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        raise OptmergeError(f"the hub refused {push.repo} ({status}): {str(error).splitlines()[-1]}{hint}") from error
    except Exception as error:  # the client's network errors share no class of their own
        raise OptmergeError(
            f"{push.repo} could not be uploaded ({type(error).__name__}: {str(error).splitlines()[0]}); the same "
            "command goes on"
        ) from error
    return str(address)
