"""Files of a study and its trials, where Optuna's own functions and optuna-dashboard find them.

They lie in one folder beside the studies' own, each under a number that follows from study, trial and name: to attach a
file again replaces it.
"""

import dataclasses
import json
import mimetypes
import uuid
from collections.abc import Mapping
from pathlib import Path

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore

from optmerge.study.charter import OpenStudy
from optmerge.study.identity import KEY

FOLDER = "artifacts"  # in study.folder
_PREFIX = "artifacts:"  # of Optuna's system attributes
_TYPES = {".yaml": "text/plain", ".jsonl": "text/plain"}  # what a browser shows, rather than saves


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """The store of all studies in a folder.

    Args:
        folder: As the setting `study.folder`.
    """
    return FileSystemArtifactStore(folder / FOLDER)


def attach_to_study(opened: OpenStudy, folder: Path, files: Mapping[str, Path]) -> None:
    """Attach files to a study, in place of those of the same names.

    Args:
        opened: The study.
        folder: As the setting `study.folder`.
        files: Name that is shown to file.
    """
    known = opened.database.get_study_system_attrs(opened.study_id)
    for key, meta in _stored(opened, folder, files, None).items():
        if known.get(key) != meta:
            opened.database.set_study_system_attr(opened.study_id, key, meta)


def attach_to_trials(opened: OpenStudy, folder: Path, files: Mapping[int, Mapping[str, Path]]) -> None:
    """Attach files to trials, which may have ended, all in one transaction.

    Args:
        opened: The study.
        folder: As the setting `study.folder`.
        files: Number of a trial to name that is shown to file.
    """
    ids = {trial.number: trial._trial_id for trial in opened.study.get_trials(deepcopy=False)}
    opened.database.annotate(
        {ids[number]: _stored(opened, folder, of_trial, number) for number, of_trial in files.items()}
    )


def attached(opened: OpenStudy) -> dict[str, str]:
    """Name to number of the files that a study has."""
    found = {}
    for key, meta in opened.database.get_study_system_attrs(opened.study_id).items():
        if key.startswith(_PREFIX) and (known := json.loads(meta)) is not None:
            found[str(known["filename"])] = str(known["artifact_id"])
    return found


def _stored(opened: OpenStudy, folder: Path, files: Mapping[str, Path], trial: int | None) -> dict[str, str]:
    """Put files into the store; gives the attributes that name them."""
    store = artifact_store(folder)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    attributes = {}
    for name, path in files.items():
        number = str(uuid.uuid5(uuid.UUID(opened.study.user_attrs[KEY]), f"{trial}/{name}"))
        with path.open("rb") as file:
            store.write(number, file)
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        attributes[_PREFIX + number] = json.dumps(dataclasses.asdict(ArtifactMeta(number, name, kind, None)))
    return attributes
