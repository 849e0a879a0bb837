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
        manifest = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        recorded = manifest.pop("files")
    except FileNotFoundError:
        return "it was never finished"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is damaged"
    if manifest != order.as_json():
        return _difference(manifest, order.as_json())
    return _damage(recorded, hashes(folder))


def _difference(had: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    different = [key for key in wanted if had.get(key) != wanted[key]]
    return f"it was made with another {' and '.join(different)}"


def _damage(recorded: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    for name in sorted({*recorded, *found}):
        if name not in found:
            return f"{name} is missing"
        if name not in recorded:
            return f"{name} does not belong there"
        if found[name] != recorded[name]:
            return f"{name} is damaged"
    return None
