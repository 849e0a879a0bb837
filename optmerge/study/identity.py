"""What a study is a study of: genes, sources, problems, sampler, pruner. A study goes on only with the same."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna

from optmerge.errors import UsageError
from optmerge.space import Gene

IDENTITY = "identity"  # user attribute of the study
KEY = "key"  # another, unique: studies in different databases may share a name


def identity(
    genes: Sequence[Gene], merge: Mapping[str, Any], task: Mapping[str, str], search: Mapping[str, Any]
) -> dict[str, Any]:
    """A study's identity as JSON.

    Args:
        genes: The genes, in order.
        merge: What every recipe of the study shares: method, options, sources.
        task: The task's fingerprint.
        search: Seed, sampler and pruner with their settings.
    """

    def declared(gene: Gene) -> list[Any]:
        step = [] if gene.sigma is None else [gene.sigma]
        return [gene.kind, gene.low, gene.high, gene.start(), *gene.choices, *step]

    return {
        "genes": {gene.name: declared(gene) for gene in genes},
        "merge": dict(merge),
        "task": dict(task),
        "search": dict(search),
    }


def check_identity(study: optuna.Study, wanted: Mapping[str, Any]) -> None:
    """Mark a new study with its identity; refuse to continue one whose identity is another.

    Raises:
        UsageError: Showing what differs.
    """
    stored = study.user_attrs.get(IDENTITY)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise UsageError(f"study {study.study_name!r} was not made by optmerge; choose another study.name")
        study.set_user_attr(KEY, uuid.uuid4().hex)
        study.set_user_attr(IDENTITY, dict(wanted))
        return
    differences = list(_differences(stored, wanted))
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise UsageError(
            f"study {study.study_name!r} exists with another search space, task or search: "
            f"{'; '.join(differences[:3])}{more}; choose another study.name"
        )


def _differences(stored: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*stored, *wanted}):
            where = f"{path}.{key}" if path else str(key)
            if key not in stored:
                yield f"{where} is new"
            elif key not in wanted:
                yield f"{where} is gone"
            else:
                yield from _differences(stored[key], wanted[key], where)
    elif stored != wanted:
        yield f"{path} was {_short(stored)}, now {_short(wanted)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}..."
