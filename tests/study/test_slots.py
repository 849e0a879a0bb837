"""What becomes of the slots of a study, as the trials in it tell."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from optmerge.study.slots import DIED, ERROR, HANDED_BACK, SLOT, Ledger, Plan, Slot, counted, slot_of

COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
MANY = 10**6


def trial(
    number: int,
    slot: tuple[int, int] | None,
    state: TrialState = COMPLETE,
    value: float | None = None,
    error: str | None = None,
    gene: float = 0.5,
) -> FrozenTrial:
    now = datetime.now()
    return FrozenTrial(
        number=number,
        trial_id=1000 + number,
        state=state,
        value=(0.0 if value is None else value) if state == COMPLETE else None,
        datetime_start=now,
        datetime_complete=now if state.is_finished() else None,
        params={"gene": gene},
        distributions={"gene": FloatDistribution(0, 1)},
        user_attrs={ERROR: error} if error else {},
        system_attrs={SLOT: list(slot)} if slot else {},
        intermediate_values={},
    )


def finished(slots: Iterable[tuple[int, int]], **facts: Any) -> list[FrozenTrial]:
    return [trial(number, slot, **facts) for number, slot in enumerate(slots)]


def filled(generations: int, population: int) -> list[tuple[int, int]]:
    return list(itertools.product(range(generations), range(population)))


def vacant(plan: Plan, trials: Sequence[FrozenTrial], budget: int = MANY) -> list[tuple[int, int]]:
    ledger = Ledger(plan).update(trials)
    return [tuple(vacancy.slot) for vacancy in itertools.islice(ledger.vacancies(budget), 20)]


def test_positions_go_through_the_generations_one_after_the_other() -> None:
    plan = Plan(population=4)
    assert [plan.slot(position) for position in (0, 3, 4, 11)] == [(0, 0), (0, 3), (1, 0), (2, 3)]
    assert [plan.position(plan.slot(position)) for position in range(30)] == list(range(30))


@pytest.mark.parametrize(("lag", "taught"), [(0, [0, 1, 2, 3]), (1, [0, 0, 1, 2]), (None, [0, 0, 0, 0])])
def test_a_generation_is_taught_by_those_before_it_but_for_the_lag(lag: int | None, taught: list[int]) -> None:
    assert [Plan(population=4, lag=lag).taught_by(generation) for generation in range(4)] == taught


# Vacancies


@pytest.mark.parametrize(
    ("lag", "begun"),
    [
        (0, [(0, 0), (0, 1), (0, 2)]),
        (1, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
    ],
)
def test_at_first_only_the_generations_are_vacant_that_need_no_lesson(lag: int, begun: list[tuple[int, int]]) -> None:
    assert vacant(Plan(population=3, lag=lag), []) == begun


def test_without_a_lag_to_keep_every_slot_is_vacant_up_to_the_budget() -> None:
    assert vacant(Plan(population=3, lag=None), [], budget=8) == filled(3, 3)[:8]


def test_a_generation_begins_when_the_one_before_is_closed() -> None:
    plan = Plan(population=3, lag=0)
    slots = filled(1, 3)
    assert vacant(plan, finished(slots[:2])) == [(0, 2)]
    assert vacant(plan, finished(slots)) == [(1, 0), (1, 1), (1, 2)]


def test_with_a_lag_a_generation_begins_when_the_last_but_one_is_closed() -> None:
    plan = Plan(population=2, lag=1)
    assert vacant(plan, finished([(0, 0), (1, 0), (1, 1)])) == [(0, 1)]
    assert vacant(plan, finished([(0, 0), (1, 0), (0, 1)])) == [(1, 1), (2, 0), (2, 1)]


def test_a_slot_that_has_a_worker_is_not_vacant() -> None:
    assert vacant(Plan(population=3), [trial(0, (0, 1), RUNNING)]) == [(0, 0), (0, 2)]


def test_a_slot_with_a_result_is_never_vacant_again() -> None:
    plan = Plan(population=3, lag=None)
    trials = [trial(0, (0, 0)), trial(1, (0, 1), PRUNED), trial(2, (0, 2), FAIL, error="no memory")]
    assert vacant(plan, trials, budget=4) == [(1, 0), (1, 1)]  # one more for the failure


def test_trials_without_a_slot_are_not_looked_at() -> None:
    assert vacant(Plan(population=2), [trial(0, None), trial(1, None, RUNNING)]) == [(0, 0), (0, 1)]


def test_vacancies_end_with_the_budget_in_the_middle_of_a_generation() -> None:
    plan = Plan(population=4)
    assert vacant(plan, [], budget=3) == [(0, 0), (0, 1), (0, 2)]
    assert Ledger(plan).update(finished(filled(1, 4)[:3])).is_done(3)


# Workers that died


@pytest.mark.parametrize("reason", [DIED, HANDED_BACK, None])
def test_the_slot_of_a_dead_worker_is_vacant_for_an_heir_with_its_genome(reason: str | None) -> None:
    dead = trial(0, (0, 1), FAIL, error=reason, gene=0.123)
    ledger = Ledger(Plan(population=2)).update([dead])
    first, second = ledger.vacancies(MANY)
    assert (first.slot, first.heir_of) == ((0, 0), None)
    assert second.slot == (0, 1) and second.heir_of is not None
    assert (second.heir_of.number, second.heir_of.params) == (0, {"gene": 0.123})


def test_the_heir_follows_the_last_that_died() -> None:
    ledger = Ledger(Plan(population=1)).update([trial(i, (0, 0), FAIL, error=DIED) for i in range(3)])
    (vacancy,) = ledger.vacancies(1)
    assert vacancy.heir_of is not None and vacancy.heir_of.number == 2


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_slot_whose_workers_die_is_given_up_after_so_many_retries(retries: int) -> None:
    plan = Plan(population=1, max_retries=retries)
    deaths = [trial(i, (0, 0), FAIL, error=DIED) for i in range(retries + 1)]
    assert vacant(plan, deaths[:-1], budget=1) == [(0, 0)]
    ledger = Ledger(plan).update(deaths)
    assert ledger.result(Slot(0, 0)) is deaths[-1]
    assert [vacancy.slot for vacancy in ledger.vacancies(1)] == [(1, 0)]  # the budget is of trials that finish


def test_a_trial_that_was_handed_back_is_no_death() -> None:
    trials = [trial(i, (0, 0), FAIL, error=HANDED_BACK) for i in range(9)]
    assert vacant(Plan(population=1, max_retries=0), trials, budget=1) == [(0, 0)]


def test_an_heir_that_finishes_is_the_result() -> None:
    trials = [trial(0, (0, 0), FAIL, error=DIED), trial(1, (0, 0), value=0.7)]
    ledger = Ledger(Plan(population=1)).update(trials)
    assert ledger.result(Slot(0, 0)) is trials[1]
    assert ledger.is_done(1) and ledger.finished() == [trials[1]]


# Results


def test_of_two_that_finished_for_a_slot_the_lower_number_counts_whichever_came_first() -> None:
    early, late = trial(3, (0, 0), value=0.1), trial(5, (0, 0), value=0.9)
    plan = Plan(population=1)
    for order in ([early, late], [late, early]):
        ledger = Ledger(plan)
        for one in order:
            ledger.update([one])
        assert ledger.result(Slot(0, 0)) is early
        assert ledger.results() == [early] and ledger.closed() == 1


def test_a_generation_is_closed_when_all_its_slots_have_results_of_whatever_kind() -> None:
    trials = [trial(0, (0, 0)), trial(1, (0, 1), PRUNED), trial(2, (0, 2), FAIL, error="NaN")]
    plan = Plan(population=3)
    assert not Ledger(plan).update(trials[:2]).is_closed(0)
    ledger = Ledger(plan).update(trials)
    assert ledger.is_closed(0) and ledger.closed() == 1
    assert ledger.generation(0) == trials


def test_closed_generations_are_counted_without_a_gap() -> None:
    trials = finished([(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)])
    ledger = Ledger(Plan(population=2, lag=None)).update(trials)
    assert ledger.is_closed(1) and ledger.closed() == 0
    assert ledger.update([*trials, trial(5, (0, 1))]).closed() == 3


def test_members_of_a_generation_are_in_the_order_of_their_slots_not_of_their_ends() -> None:
    trials = finished([(0, 2), (0, 0), (0, 1)])
    assert [slot_of(one).member for one in Ledger(Plan(population=3)).update(trials).generation(0)] == [0, 1, 2]


def test_a_trial_that_is_read_again_changes_nothing() -> None:
    trials = [trial(0, (0, 0), FAIL, error=DIED), trial(1, (0, 0), RUNNING)]
    ledger = Ledger(Plan(population=1, max_retries=1))
    for _ in range(5):
        ledger.update(trials)
    assert ledger.running() == 1 and ledger.result(Slot(0, 0)) is None
    ended = [trials[0], trial(1, (0, 0), value=1.0)]
    ledger.update(ended).update(ended)
    assert (ledger.running(), ledger.closed()) == (0, 1)


def test_a_slot_that_has_a_result_is_not_counted_as_running() -> None:
    trials = [trial(0, (0, 0), RUNNING), trial(1, (0, 0)), trial(2, (0, 1), RUNNING)]
    assert Ledger(Plan(population=2)).update(trials).running() == 1


# The end


def test_a_failure_adds_a_slot_to_the_budget() -> None:
    plan = Plan(population=2)
    trials = [trial(0, (0, 0)), trial(1, (0, 1), FAIL, error="NaN"), trial(2, (1, 0), PRUNED)]
    ledger = Ledger(plan).update(trials[:2])
    assert ledger.end(2) == 3 and not ledger.is_done(2)
    ledger.update(trials)
    assert ledger.is_done(2) and len(ledger.finished()) == 2


def test_a_worker_that_died_and_had_an_heir_adds_nothing() -> None:
    trials = [trial(0, (0, 0), FAIL, error=DIED), trial(1, (0, 0)), trial(2, (0, 1))]
    assert Ledger(Plan(population=2)).update(trials).end(2) == 2


def best_by_generation(values: Sequence[float], population: int = 2) -> list[FrozenTrial]:
    """Generations whose best trial has these values."""
    trials = []
    for generation, value in enumerate(values):
        for member in range(population):
            trials.append(trial(len(trials), (generation, member), value=value - member))
    return trials


@pytest.mark.parametrize(
    ("values", "generations"),
    [
        ([1, 2, 3, 4, 5], None),  # better all the time
        ([1, 2, 2, 1], 4),  # the best came with the second; neither of the two after is better
        ([3, 2, 1], 3),
        ([1, 1, 2, 2, 2, 2], 5),
        ([1, 0], None),
    ],
)
def test_a_search_ends_after_so_many_generations_without_a_better_trial(
    values: list[float], generations: int | None
) -> None:
    ledger = Ledger(Plan(population=2, stagnation=2)).update(best_by_generation(values))
    assert ledger.end(MANY) == (MANY if generations is None else 2 * generations)


def test_a_search_with_a_lag_ends_after_the_generation_that_had_begun_by_then() -> None:
    ledger = Ledger(Plan(population=2, lag=1, stagnation=2)).update(best_by_generation([3, 2, 1]))
    assert ledger.end(MANY) == 2 * (3 + 1)


def test_what_is_better_depends_on_the_direction() -> None:
    trials = best_by_generation([1, 2, 3, 4])
    assert Ledger(Plan(population=2, stagnation=2)).update(trials).end(MANY) == MANY
    # Of the values 1 and 0, 2 and 1, ... none is lower than the first generation's.
    assert Ledger(Plan(population=2, stagnation=2, maximize=(False,))).update(trials).end(MANY) == 2 * 3


def test_generations_in_which_nothing_ran_to_the_end_do_not_stagnate_before_there_is_a_best() -> None:
    trials = finished(filled(3, 2), state=PRUNED)
    assert Ledger(Plan(population=2, stagnation=1)).update(trials).end(MANY) == MANY


def test_of_several_objectives_a_new_compromise_is_progress() -> None:
    values = [(0.5, 0.5), (0.4, 0.6), (0.4, 0.5), (0.5, 0.5)]  # the third is worse than both before it
    trials = finished(filled(4, 1))
    for one, pair in zip(trials, values, strict=True):
        one.values = pair
    plan = Plan(population=1, stagnation=2, maximize=(True, True))
    assert Ledger(plan).update(trials[:3]).end(MANY) == MANY
    assert Ledger(plan).update(trials).end(MANY) == 4
    assert Ledger(replace(plan, maximize=(True, False))).update(trials).end(MANY) == 3  # less of the second is better


@pytest.mark.parametrize("lag", [0, 1])
def test_stagnation_is_seen_whatever_order_the_trials_came_in(lag: int) -> None:
    trials = best_by_generation([3, 4, 2, 1, 1, 1, 9])
    plan = Plan(population=2, lag=lag, stagnation=2)
    end = Ledger(plan).update(trials).end(MANY)
    for seed in range(20):
        shuffled = random.Random(seed).sample(trials, len(trials))
        ledger = Ledger(plan)
        for one in shuffled:
            ledger.update([one])
            assert ledger.end(MANY) in (MANY, end)
        assert ledger.end(MANY) == end == 2 * (4 + lag)


# Failures


def test_first_trials_that_fail_alike_end_the_search() -> None:
    trials = finished(filled(1, 3), state=FAIL, error="no memory")
    plan = Plan(population=3)
    assert Ledger(plan).update(trials[:2]).failing() is None
    assert Ledger(plan).update(trials).failing() == "3 trials in a row failed alike: no memory"


def test_first_trials_that_fail_differently_do_not_end_it() -> None:
    trials = [trial(i, (0, i), FAIL, error=f"bad luck {i}") for i in range(20)]
    assert Ledger(Plan(population=20)).update(trials).failing() is None


def test_after_a_success_twenty_that_fail_alike_end_the_search() -> None:
    plan = Plan(population=30)
    trials = [trial(0, (0, 0)), *(trial(i, (0, i), FAIL, error="no memory") for i in range(1, 21))]
    assert Ledger(plan).update(trials[:-1]).failing() is None
    assert Ledger(plan).update(trials).failing() == "20 trials in a row failed alike: no memory"


def test_a_hundred_failures_of_whatever_kind_end_the_search() -> None:
    trials = [trial(i, (0, i), FAIL, error=f"bad luck {i}") for i in range(100)]
    assert Ledger(Plan(population=200)).update(trials[:-1]).failing() is None
    reason = Ledger(Plan(population=200)).update(trials).failing()
    assert reason == "100 trials in a row failed, the last for: bad luck 99"


def test_a_success_among_failures_lets_the_search_go_on() -> None:
    trials = [trial(i, (0, i), FAIL, error="no memory") for i in range(2)]
    trials += [trial(2, (0, 2), PRUNED), *(trial(i, (0, i), FAIL, error="no memory") for i in range(3, 6))]
    assert Ledger(Plan(population=9)).update(trials).failing() is None


def test_workers_that_died_are_no_failures_of_the_search() -> None:
    trials = [trial(i, (0, i), FAIL, error=DIED) for i in range(9)]
    assert Ledger(Plan(population=9)).update(trials).failing() is None


def test_failures_before_the_search_was_started_again_are_forgiven() -> None:
    trials = finished(filled(1, 3), state=FAIL, error="no memory")
    ledger = Ledger(Plan(population=9)).update(trials)
    assert ledger.failing() and ledger.failing(since=3) is None
    trials += [trial(i, (0, i), FAIL, error="no memory") for i in range(3, 6)]
    assert ledger.update(trials).failing(since=3) == "3 trials in a row failed alike: no memory"


# What counts


def test_one_trial_a_slot_counts_and_failures_do_not() -> None:
    trials = [
        trial(0, (0, 0), FAIL, error=DIED),
        trial(1, (0, 1), PRUNED),
        trial(2, (0, 0), value=0.3),
        trial(3, (0, 0), value=0.9),  # its worker was thought dead
        trial(4, (0, 2), FAIL, error="NaN"),
        trial(5, (0, 3), RUNNING),
        trial(6, None),
    ]
    assert [one.number for one in counted(trials)] == [1, 2]
    assert counted(list(reversed(trials))) == counted(trials)


def test_a_ledger_and_the_count_agree() -> None:
    trials = [trial(i, (i // 3, i % 3), state) for i, state in enumerate((COMPLETE, PRUNED, COMPLETE) * 3)]
    ledger = Ledger(replace(Plan(population=3), lag=None)).update(trials)
    assert ledger.finished() == counted(trials) == trials
