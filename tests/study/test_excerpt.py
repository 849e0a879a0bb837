"""What a page in a browser is given of a study."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState

from optmerge.space import Gene
from optmerge.study.database import Database
from optmerge.study.excerpt import Excerpt
from optmerge.study.slots import Ledger, Slot
from optmerge.study.storage import open_storage
from optmerge.study.trial_scores import PROBLEMS, SCORES, SECONDS, encode
from optmerge.study.worker import Outcome
from study.studies import begin, proposer, search

GENES = [Gene(f"layers.{i:02d}/ja/weight") for i in range(40)]
MATTER = ["layers.07/ja/weight", "layers.31/ja/weight"]
Excerpted = Callable[[int | None], Excerpt]


def evaluate(slot: Slot, genome: Mapping[str, Any], ledger: Ledger, report: Any) -> Outcome:
    """Two genes of forty decide, one of them downwards."""
    value = genome[MATTER[0]] - genome[MATTER[1]]
    scores = {"acc": encode(np.array([1.0, 0.0, np.nan, 1.0])), "empty": encode(np.full(4, np.nan))}
    return Outcome(TrialState.COMPLETE, value, {SCORES: scores, PROBLEMS: 3, SECONDS: {"merge": 1.5, "answer": 2.0}})


@pytest.fixture
def excerpt(url: str) -> Iterator[Excerpted]:
    """Opens the database as the page does, with so many genes."""
    opened: list[Excerpt] = []

    def open_excerpt(genes: int | None) -> Excerpt:
        opened.append(open_storage(url, kind=partial(Excerpt, genes=genes)))
        return opened[-1]

    yield open_excerpt
    for one in opened:
        one.remove_session()
        one.engine.dispose()


def searched(database: Database, trials: int) -> int:
    proposing = proposer("random", GENES)
    opened = begin(database, proposing)
    search(opened, proposing, evaluate, trials)
    return opened.study_id


def shown(database: Database, study_id: int) -> list[FrozenTrial]:
    return database.get_all_trials(study_id, deepcopy=False)


def test_the_genes_that_are_shown_are_those_that_decide(either: Database, excerpt: Excerpted) -> None:
    study_id = searched(either, 80)
    trials = shown(excerpt(4), study_id)
    assert len(trials) == 80
    names = set(trials[0].params)
    assert len(names) == 4 and set(MATTER) <= names
    assert all(set(trial.params) == names == set(trial.distributions) for trial in trials)


def test_what_is_shown_is_what_is_stored(database: Database, file_url: str) -> None:
    study_id = searched(database, 60)
    excerpt = open_storage(file_url, kind=partial(Excerpt, genes=4))
    whole = database.get_all_trials(study_id)
    for part, trial in zip(shown(excerpt, study_id), whole, strict=True):
        assert (part.number, part.state, part.value) == (trial.number, trial.state, trial.value)
        assert part.params.items() <= trial.params.items()
        assert len(trial.params) == len(GENES)
    assert excerpt.get_best_trial(study_id).params.items() <= database.get_best_trial(study_id).params.items()
    assert len(excerpt.get_best_trial(study_id).params) == 4
    excerpt.engine.dispose()


def test_first_genes_are_shown_until_there_are_trials_to_choose_by(database: Database, file_url: str) -> None:
    study_id = searched(database, 5)
    excerpt = open_storage(file_url, kind=partial(Excerpt, genes=3))
    assert list(shown(excerpt, study_id)[0].params) == [gene.name for gene in GENES[:3]]
    excerpt.engine.dispose()


@pytest.mark.parametrize("genes", [None, 40, 1000])
def test_all_genes_are_shown_where_they_are_asked_for_or_few(
    database: Database, file_url: str, genes: int | None
) -> None:
    study_id = searched(database, 3)
    excerpt = open_storage(file_url, kind=partial(Excerpt, genes=genes))
    assert [trial.params for trial in shown(excerpt, study_id)] == [trial.params for trial in shown(database, study_id)]
    excerpt.engine.dispose()


def test_attributes_are_means_and_seconds_in_place_of_encoded_scores(database: Database, file_url: str) -> None:
    study_id = searched(database, 1)
    excerpt = open_storage(file_url, kind=partial(Excerpt, genes=20))
    assert shown(excerpt, study_id)[0].user_attrs == {"acc": 0.666667, PROBLEMS: 3, SECONDS: 3.5}
    assert excerpt.get_all_studies()[0].user_attrs == {}
    excerpt.engine.dispose()


def test_a_trial_is_seen_from_its_beginning_to_its_end(database: Database, file_url: str) -> None:
    proposing = proposer("random", GENES)
    opened = begin(database, proposing)
    excerpt = open_storage(file_url, kind=partial(Excerpt, genes=4))
    seen: list[tuple[TrialState, int]] = []

    def looked_at(slot: Slot, genome: Mapping[str, Any], ledger: Ledger, report: Any) -> Outcome:
        for _ in range(2):
            trial = shown(excerpt, opened.study_id)[-1]
            seen.append((trial.state, len(trial.params)))
        return evaluate(slot, genome, ledger, report)

    search(opened, proposing, looked_at, 2)
    assert seen == [(TrialState.RUNNING, 4)] * 4
    assert [trial.state for trial in shown(excerpt, opened.study_id)] == [TrialState.COMPLETE] * 2
    excerpt.engine.dispose()


def test_many_look_at_once(database: Database, file_url: str) -> None:
    """Pages are served by threads, and of two studies each shows its own genes."""
    first = searched(database, 60)
    other = [Gene(f"other.{i}") for i in range(6)]
    proposing = proposer("random", other)
    second = begin(database, proposing, name="second")
    search(second, proposing, lambda slot, genome, *_: Outcome(TrialState.COMPLETE, genome["other.5"], {}), 60)
    excerpt = open_storage(file_url, kind=partial(Excerpt, genes=3))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda study_id: shown(excerpt, study_id), [first, second.study_id] * 8))
    for of_first, of_second in zip(found[::2], found[1::2], strict=True):
        assert set(MATTER) <= set(of_first[0].params) and len(of_first[0].params) == 3
        assert "other.5" in of_second[0].params and len(of_second[0].params) == 3
    excerpt.engine.dispose()
