"""Makes a zoo, or finds that it is already made."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.zoo.manifest import FILE_NAME, Order, reason_to_rebuild, sound_parts, write_manifest
from optmerge.zoo.plan import TrainingPlan
from optmerge.zoo.problems import write_problems

SPECIALISTS = ("ja", "math_add", "math_mul")
MODELS = ("base", *SPECIALISTS)
PARTS = (*MODELS, "problems", FILE_NAME)


def make(
    folder: Path,
    *,
    seed: int,
    report: Callable[[str], None],
    trained: bool = True,
    plan: TrainingPlan | None = None,
) -> None:
    """Make a zoo: a base, three specialists trained from it, and the problems that a merge of them should solve.

    The folder gets the checkpoints `base`, `ja` (answers in Japanese), `math_add` (exact sums and differences) and
    `math_mul` (exact products), and `problems/search.jsonl`, `validation.jsonl` and `test.jsonl`. A question is in
    one of the splits only; the 198 sums behind the questions recur in all of them.

    The same seed and plan give the same bytes on the same machine. A finished zoo is kept as it is; what is damaged,
    unfinished or made otherwise is made again. The new zoo is built beside the folder and then renamed, and processes
    that ask for the same folder at once wait for each other.

    Args:
        folder: Where the zoo lives.
        seed: Of training and of the problems.
        report: Called with a short line of progress now and then.
        trained: Whether to train at all. Without, the models are random, for a look at what a run would do; a
            trained zoo that is already there is then kept, as it serves as well.
        plan: Sizes, rates and shares; those of the demo where there is none.

    Raises:
        UsageError: If the folder holds something else.
        OptmergeError: If a training fails.
    """
    from filelock import FileLock

    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the zoo")
    order = Order(seed=seed, trained=trained, plan=plan or TrainingPlan())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        reason = reason_to_rebuild(folder, order)
        if reason and not trained:
            reason = reason_to_rebuild(folder, Order(seed=seed, trained=True, plan=order.plan)) and reason
        if reason is None:
            return
        _refuse_strangers(folder)
        report(f"zoo: making {folder.name} ({reason})")
        # Beside the folder, as only a rename within one disk is atomic. What is in there was left by a process that
        # was killed: nobody else is at work, as the lock is held.
        workshop = folder.parent / f".{folder.name}.partial"
        shutil.rmtree(workshop, ignore_errors=True)
        try:
            _replace(folder, order, report, workshop)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _refuse_strangers(folder: Path) -> None:
    """A folder is only replaced if all it holds is a zoo's."""
    strangers = sorted({path.name for path in folder.iterdir()} - {*PARTS}) if folder.exists() else []
    if strangers:
        raise UsageError(f"{folder} holds {strangers[0]!r}, which is no part of a zoo; name another folder")


def _replace(folder: Path, order: Order, report: Callable[[str], None], workshop: Path) -> None:
    """Build the zoo anew, with the parts of the old one that are sound, and put it in place."""
    # A name of its own: processes of a killed parent may still be writing under an older one.
    workshop.mkdir(exist_ok=True)
    finished = Path(tempfile.mkdtemp(dir=workshop)) / "zoo"
    finished.mkdir()
    kept = sound_parts(folder, order)
    if "base" not in kept:  # specialists only fit the base that they were trained from
        kept -= set(SPECIALISTS)
    for part in kept:
        shutil.copytree(folder / part, finished / part)
    if "problems" not in kept:
        write_problems(finished / "problems", order.plan, order.seed)
    _make_models(finished, [name for name in MODELS if name not in kept], order, report)
    write_manifest(finished, order)
    if folder.exists():
        os.replace(folder, workshop / "old")
    os.replace(finished, folder)


def _make_models(folder: Path, names: Sequence[str], order: Order, report: Callable[[str], None]) -> None:
    if order.trained and order.plan.own_processes:
        from optmerge.zoo.processes import train_in_processes

        train_in_processes(folder, [name for name in names if name == "base"], order, report)
        train_in_processes(folder, [name for name in names if name != "base"], order, report)
    elif order.trained:
        from optmerge.zoo.training import train_and_save

        for name in names:
            train_and_save(folder, name, order.plan, order.seed, report)
    else:
        from optmerge.zoo.training import save, untrained_model

        for name in names:
            save(untrained_model(order.plan, order.seed + MODELS.index(name)), folder / name)
