"""What a finished zoo consists of, so that it can be told from a damaged or different one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optmerge.zoo.plan import TrainingPlan

# Raise this when anything changes what training gives: lessons, templates, the loop.
VERSION = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class Order:
    """What was asked for: equal orders give equal zoos.

    Attributes:
        seed: Of training and of the problems.
        trained: Whether the models are trained, or left random.
        plan: Sizes, rates and shares.
    """

    seed: int
    trained: bool
    plan: TrainingPlan

    def as_json(self) -> dict[str, Any]:
        """As plain values, with the version of the recipe behind it."""
        return {"version": VERSION, **asdict(self)}


def write_manifest(folder: Path, order: Order) -> None:
    """Record the hashes of all files of a zoo; to be called last."""
    text = json.dumps({**order.as_json(), "files": hashes(folder)}, indent=1)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a zoo but the manifest, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE_NAME)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def reason_to_rebuild(folder: Path, order: Order) -> str | None:
    """Why the folder is not the zoo that is ordered, in a few words; nothing where it is."""
    if not folder.exists():
        return "not there yet"
    try:
        manifest = _read(folder)
    except FileNotFoundError:
        return "it was never finished"
    except (ValueError, KeyError, TypeError):
        return "its manifest is damaged"
    wanted = order.as_json()
    different = [key for key in wanted if manifest.get(key) != wanted[key]]
    if different:
        return f"it was made with another {' and '.join(different)}"
    bad = _bad_files(manifest["files"], hashes(folder))
    return next((f"{name} is {what}" for name, what in bad.items()), None)


def sound_parts(folder: Path, order: Order) -> set[str]:
    """The folders in a zoo that are what was ordered, to the last byte, whatever became of the others."""
    try:
        manifest = _read(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    if any(manifest.get(key) != value for key, value in order.as_json().items()):
        return set()
    bad = {name.split("/")[0] for name in _bad_files(manifest["files"], hashes(folder))}
    return {name.split("/")[0] for name in manifest["files"]} - bad


def _read(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or not isinstance(manifest["files"], dict):
        raise TypeError("a manifest is a mapping, and so are its files")
    return manifest


def _bad_files(recorded: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with each file that is not as it should be."""
    missing = dict.fromkeys(sorted(recorded.keys() - found.keys()), "missing")
    strange = dict.fromkeys(sorted(found.keys() - recorded.keys()), "not part of it")
    damaged = {name: "damaged" for name in recorded if name in found and found[name] != recorded[name]}
    return {**missing, **strange, **damaged}
