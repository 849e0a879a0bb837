"""Models among the artifacts of a run, put there without a second copy of the weights where the disk allows."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEIGHTS = ".safetensors"


def local_folder(uri: str) -> Path | None:
    """The folder that artifacts lie in, where that is one of this machine."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if urlsplit(uri).scheme not in ("", "file"):  # such as mlflow-artifacts:/1/...
        return None
    return Path(local_file_uri_to_path(uri))  # type: ignore[no-untyped-call]


def put_model(client: "MlflowClient", run_id: str, folder: Path, name: str) -> None:
    """Put the files of a folder among a run's artifacts, under a name.

    In a store on this disk the weights are linked, not copied: nobody writes into them, as a folder is only ever
    replaced as a whole. A name stands for its weights: where its files are there already, only links are made, as a
    folder that was written anew would keep the same weights on the disk twice.
    """
    root = local_folder(str(client.get_run(run_id).info.artifact_uri))
    if root is None:
        client.log_artifacts(run_id, str(folder), name)
        return
    target = root / name
    if target.exists():  # it is whole, as it was moved there in one step
        _link_weights(folder, target)
        return
    staging = target.with_name(f".{name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            there = staging / path.relative_to(folder)
            there.parent.mkdir(parents=True, exist_ok=True)
            _put_file(path, there)
    staging.rename(target)


def _link_weights(folder: Path, target: Path) -> None:
    """Let the weights of a folder take the place of those that are the same among the artifacts, where links can be."""
    ours, theirs = _sizes(folder), _sizes(target)
    if ours != theirs:  # they were removed, or are cut into other files
        return
    for name in ours:
        path, there = folder / name, target / name
        linked = there.with_name(f".{there.name}.partial")
        with contextlib.suppress(OSError):  # another disk, or one that has no links
            if not there.samefile(path):
                linked.unlink(missing_ok=True)
                os.link(path, linked)
                linked.replace(there)


def _sizes(folder: Path) -> dict[Path, int]:
    """The files with weights in a folder, and how large they are."""
    return {path.relative_to(folder): path.stat().st_size for path in sorted(folder.rglob(f"*{WEIGHTS}"))}


def _put_file(path: Path, there: Path) -> None:
    if path.suffix == WEIGHTS:
        with contextlib.suppress(OSError):  # another disk, or one that has no links
            os.link(path, there)
            return
    shutil.copyfile(path, there)


def remove_weights(client: "MlflowClient", run_id: str, name: str) -> bool:
    """Remove the weights of a model from a run's artifacts; its recipe and tokenizer stay.

    Returns:
        Whether the store knows how to remove anything.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=client.tracking_uri)
    try:
        for found in client.list_artifacts(run_id, name):
            if found.path.endswith((WEIGHTS, f"{WEIGHTS}.index.json")):
                repository.delete_artifacts(found.path)  # type: ignore[no-untyped-call]
    except (MlflowException, NotImplementedError):
        return False
    return True
