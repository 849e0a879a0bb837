"""How often test problems were touched: which models have answered them, in all studies and evaluations of a folder.

Nothing is chosen on test problems, but whoever has seen many models' scores there and keeps the best has chosen. That
cannot be forbidden; it is counted.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

TOUCHED = ".touched"  # folder in that of all studies: a file for every set of test problems, a line a model
_LETTERS = 12  # of a hash: as many as people read, and more than chance gives twice


def model_id(sha256: str) -> str:
    """A model as it is counted: the beginning of its recipe's hash, or of a source's own."""
    return sha256[:_LETTERS]


def touch(studies: Path, problems_sha256: str, models: Iterable[str], by: str) -> int:
    """Note that models have answered test problems.

    Args:
        studies: The folder of all studies.
        problems_sha256: Hash of the problems and of what decides their scores, see
            `optmerge.study.judged.problem_sets`.
        models: Hashes of their recipes, or of sources themselves.
        by: Which study or command asked them.

    Returns:
        How many different models have answered them by now.
    """
    known = touched(studies, problems_sha256)
    new = sorted({model_id(model) for model in models} - known)
    if new:
        path = _path(studies, problems_sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        at = datetime.now().isoformat(timespec="seconds")
        lines = [json.dumps({"model": model, "by": by, "at": at}, ensure_ascii=False) for model in new]
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
    return len(known) + len(new)


def touched(studies: Path, problems_sha256: str) -> set[str]:
    """The models that have answered test problems, see `model_id`."""
    try:
        lines = _path(studies, problems_sha256).read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        try:
            found.add(str(json.loads(line)["model"]))
        except (ValueError, KeyError, TypeError):  # cut off where the disk was full
            continue
    return found


def _path(studies: Path, problems_sha256: str) -> Path:
    return studies / TOUCHED / f"{problems_sha256[:_LETTERS]}.jsonl"
