"""From what a configuration says, a folder or a hub id, to a local folder."""

import re
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.models.adapter_config import ADAPTER_CONFIG, ADAPTER_PICKLE, ADAPTER_WEIGHTS, only_bin
from optmerge.models.checkpoint import PICKLE, SAFETENSORS, weight_files

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMPANIONS = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]  # model card too
_SECONDS = 3.0  # how long planning waits for the hub


def resolve(location: str, revision: str | None, *, alias: str | None = None, weights: str = SAFETENSORS) -> Path:
    """The local folder of a checkpoint or adapter, downloaded from the hub if need be.

    Call `missing` for everything that a run needs before resolving the first: this may download gigabytes.

    Args:
        location: A folder, or a hub id such as "mistralai/Mistral-7B-v0.1".
        revision: Branch, tag or commit on the hub; None means its main branch. Folders have none.
        alias: What the configuration calls the checkpoint, for the message, if it has a name.
        weights: Which kind of weights to take: "model.safetensors" or "pytorch_model.bin", or their shards.

    Raises:
        UsageError: With the line that `missing` gives.
    """
    problem = missing(location, revision, alias=alias, weights=weights)
    if problem:
        raise UsageError(problem)
    folder = Path(location).expanduser()
    if folder.exists():
        return folder
    # A complete copy in the cache is used as it is, even if the branch has moved on: planning promised no download.
    return _cached(location, revision, weights) or _download(location, revision, weights, offline=False)


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache holds: a branch may have moved on when a recipe is rebuilt."""
    return folder.name if folder.parent.name == "snapshots" else None


def missing(location: str, revision: str | None, *, alias: str | None = None, weights: str = SAFETENSORS) -> str | None:
    """What stands in the way of resolving a checkpoint, in one line; None if nothing does.

    Looks at the disk and, for a hub id that is not in the cache, asks the hub; downloads nothing.

    Args:
        location: As for `resolve`.
        revision: As for `resolve`.
        alias: As for `resolve`.
        weights: As for `resolve`.
    """
    if location and Path(location).expanduser().exists():
        return None
    if location.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(location):
        problem: str | None = f"there is no folder {location!r}"
    elif _cached(location, revision, weights):
        problem = None
    elif weights == SAFETENSORS and _cached(location, revision, PICKLE):
        problem = _only_bin(location, alias)
    else:
        problem = _hub_problem(location, revision, alias, weights)
    return f"{alias}: {problem}" if alias and problem else problem


def _cached(location: str, revision: str | None, weights: str) -> Path | None:
    """The folder in the hub's cache that holds the whole checkpoint, if there is one."""
    try:
        folder = _download(location, revision, weights, offline=True)
        if weights == SAFETENSORS and _holds_adapter(folder):
            return folder
        weight_files(folder, location, weights)
    except (OSError, UsageError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _holds_adapter(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))


def _only_bin(location: str, alias: str | None) -> str:
    return (
        f"{location} has only .bin weights: convert it first with `python -m optmerge convert {location} OUT` "
        f"and set {_option(alias)}=OUT"
    )


def _option(alias: str | None) -> str:
    return f"models.sources.{alias or 'ALIAS'}.path"


def _hub_problem(location: str, revision: str | None, alias: str | None, weights: str) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {revision}" if revision else ""
    api = HfApi()
    try:
        info = api.model_info(location, revision=revision, timeout=_SECONDS)
        if info.gated:
            api.auth_check(location)
    except GatedRepoError:
        return f"{location} is gated: ask for access on its page on the hub, then `hf auth login`"
    except RevisionNotFoundError:
        return f"{location} on the hub has no revision {revision}"
    except RepositoryNotFoundError:
        return f"{location} is neither a folder here nor a model on the hub that you can see"
    except Exception as error:  # the client's network errors share no class of their own
        which = f"{location} --revision {revision}" if revision else location
        return (
            f"{location}{at} is not in the local cache and the hub cannot be reached ({type(error).__name__}): "
            f"run `hf download {which}` on a machine with network and copy its HF_HOME here, "
            f"or set {_option(alias)}=FOLDER"
        )
    files = [sibling.rfilename for sibling in info.siblings or []]
    adapter = weights == SAFETENSORS and ADAPTER_CONFIG in files
    if any(file in (weights, f"{weights}.index.json") for file in files) or (adapter and ADAPTER_WEIGHTS in files):
        return None
    if adapter and ADAPTER_PICKLE in files:
        return only_bin(location)
    if weights == SAFETENSORS and any(file.endswith(".bin") for file in files):
        return _only_bin(location, alias)
    return f"{location}{at} on the hub has no {weights}"


def _download(location: str, revision: str | None, weights: str, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    stem, _, suffix = weights.rpartition(".")
    adapter = [ADAPTER_WEIGHTS] if weights == SAFETENSORS else []
    # Top folder only, and only these weights: some repositories hold the same ones again in other forms.
    return Path(
        snapshot_download(
            location,
            revision=revision,
            allow_patterns=[*_COMPANIONS, f"{stem}*.{suffix}", *adapter],
            ignore_patterns=["*/*"],
            local_files_only=offline,
        )
    )
