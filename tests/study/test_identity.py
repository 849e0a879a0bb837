"""A study goes on only with what it was begun with."""

from typing import Any

import optuna
import pytest

from optmerge.errors import UsageError
from optmerge.space import Gene
from optmerge.study.identity import check_identity, identity

GENES = [Gene("layers/ja/weight"), Gene("layers/ja/density", low=0.1)]
MERGE: dict[str, Any] = {"method": "ties", "options": {"normalize": True}, "sources": {"ja": "a" * 64}}
TASK = {"search": "1" * 64, "prompt": "2" * 64}
SEARCH: dict[str, Any] = {"seed": 0, "sampler": {"name": "cmaes", "population": None}}


def study_of(tmp_url: str = "sqlite:///:memory:") -> optuna.Study:
    return optuna.create_study(study_name="mine", storage=tmp_url)


def test_the_same_identity_may_go_on() -> None:
    study = study_of()
    check_identity(study, identity(GENES, MERGE, TASK, SEARCH))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    check_identity(study, identity(GENES, MERGE, TASK, SEARCH))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (identity(GENES[:1], MERGE, TASK, SEARCH), "genes.layers/ja/density is gone"),
        (identity([*GENES, Gene("head/ja/weight")], MERGE, TASK, SEARCH), "genes.head/ja/weight is new"),
        (
            identity([Gene("layers/ja/weight", high=2.0), GENES[1]], MERGE, TASK, SEARCH),
            "genes.layers/ja/weight was .*2.0",
        ),
        (
            identity([Gene("layers/ja/weight", sigma=0.05), GENES[1]], MERGE, TASK, SEARCH),
            "genes.layers/ja/weight was .*0.05",
        ),
        (
            identity([Gene("layers/ja/weight", initial=0.25), GENES[1]], MERGE, TASK, SEARCH),
            "genes.layers/ja/weight was .*0.25",
        ),
        (identity(GENES, {**MERGE, "method": "linear"}, TASK, SEARCH), "merge.method was ties, now linear"),
        (identity(GENES, {**MERGE, "options": {"normalize": False}}, TASK, SEARCH), "merge.options.normalize was True"),
        (identity(GENES, {**MERGE, "sources": {"ja": "b" * 64}}, TASK, SEARCH), "merge.sources.ja was a{16}"),
        (identity(GENES, MERGE, {**TASK, "prompt": "3" * 64}, SEARCH), "task.prompt was 2{16}"),
        (identity(GENES, MERGE, TASK, {**SEARCH, "seed": 1}), "search.seed was 0, now 1"),
        (
            identity(GENES, MERGE, TASK, {**SEARCH, "sampler": {"name": "cmaes", "population": 9}}),
            "search.sampler.population was None, now 9",
        ),
    ],
)
def test_another_identity_is_refused_and_shows_what_differs(changed: dict[str, Any], message: str) -> None:
    study = study_of()
    check_identity(study, identity(GENES, MERGE, TASK, SEARCH))
    with pytest.raises(UsageError, match=f"study 'mine' exists with another .*{message}.*another study.name"):
        check_identity(study, changed)


def test_many_differences_are_counted() -> None:
    study = study_of()
    check_identity(study, identity([Gene(f"g{i}") for i in range(9)], MERGE, TASK, SEARCH))
    with pytest.raises(UsageError, match=r"\(and 6 more\)"):
        check_identity(study, identity([], MERGE, TASK, SEARCH))


def test_a_study_of_somebody_else_is_refused() -> None:
    study = study_of()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UsageError, match="study 'mine' was not made by optmerge"):
        check_identity(study, identity(GENES, MERGE, TASK, SEARCH))
