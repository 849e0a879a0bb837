"""Folders that appear whole or not at all."""

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optmerge.errors import OptmergeError, UsageError
from optmerge.phrases import shown_bytes

_SMALL_FILES_BYTES = 50_000_000  # room for config, tokenizer and headers


@contextmanager
def staged(folder: Path, *, nbytes: int, replace: bool) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place at the end, or is removed if anything fails.

    What a killed process left of an earlier try is removed, too.

    Args:
        folder: What it will be.
        nbytes: How much weight data will be written.
        replace: Whether a folder that is there may be replaced, with all that is in it.

    Raises:
        UsageError: If the folder cannot be made, is there and not empty, or the disk has no room.
        OptmergeError: If writing fails.
    """
    check_place(folder, replace=replace)
    staging = folder.with_name(f"{folder.name}.partial-{secrets.token_hex(4)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        check_room(folder, nbytes)
        staging.mkdir()
        with _locked(staging):
            yield staging
            _put_in_place(staging, folder)
    except OSError as error:
        raise OptmergeError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_place(folder: Path, *, replace: bool = False) -> None:
    """Refuse a folder that cannot be made where it is to be, before any work is done for it.

    Args:
        folder: What it will be.
        replace: Whether a folder that is there may be replaced, with all that is in it.

    Raises:
        UsageError: If it is there and not empty, is a file or below one, or may not be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder to write to")
    if folder.is_dir() and any(folder.iterdir()) and not replace:
        raise UsageError(f"{folder} is not empty: choose another folder, or remove it first")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise UsageError(f"{folder} cannot be made: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be made: nothing may be written in {above}")


def check_room(folder: Path, nbytes: int, advice: str = "") -> None:
    """Refuse to write what the disk has no room for.

    Args:
        folder: Where to; it need not be there yet.
        nbytes: How much weight data; room for the small files beside it is added.
        advice: What to do about it, for the message.

    Raises:
        UsageError: If there is less room.
    """
    existing = next(path for path in folder.absolute().parents if path.exists())
    needed, free = nbytes + _SMALL_FILES_BYTES, shutil.disk_usage(existing).free
    if free < needed:
        ending = f": {advice}" if advice else ""
        raise UsageError(f"writing needs {shown_bytes(needed)} in {folder}, {shown_bytes(free)} are free{ending}")


def _put_in_place(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    # A folder with something in it cannot be replaced in one step: it is moved aside, so that it is never half gone.
    old = staging.with_name(f"{staging.name}.old")
    folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.parent.glob(f"{glob.escape(folder.name)}.partial-*"):
        with suppress(OSError), _locked(leftover):  # a lock that can be had belongs to nobody alive
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock that goes away with the process, however it ends.

    Raises:
        OSError: If another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
