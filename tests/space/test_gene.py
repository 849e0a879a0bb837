"""Genes, and their form in Optuna."""

import optuna
import pytest

from optmerge.space import Gene, Kind, Value


@pytest.mark.parametrize(
    ("gene", "start"),
    [
        (Gene("g", low=0.0, high=3.0), 1.5),
        (Gene("g", low=0.0, high=3.0, initial=0.25), 0.25),
        (Gene("g", "int", low=1, high=8), 4),
        (Gene("g", "int", low=1, high=8, initial=7), 7),
        (Gene("g", "switch"), False),
        (Gene("g", "switch", initial=True), True),
        (Gene("g", "choice", choices=("a", "b")), "a"),
        (Gene("g", "choice", choices=("a", "b"), initial="b"), "b"),
    ],
)
def test_a_search_starts_at_the_initial_value_or_the_middle(gene: Gene, start: Value) -> None:
    assert gene.start() == start


@pytest.mark.parametrize(
    ("kind", "values"),
    [("float", None), ("int", {1, 2, 3}), ("switch", {False, True}), ("choice", {"a", "b"})],
)
def test_optuna_draws_values_of_the_gene(kind: Kind, values: set[Value] | None) -> None:
    gene = Gene("g", kind, low=1, high=3, choices=("a", "b"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {study.ask({"g": gene.distribution()}).params["g"] for _ in range(40)}
    assert drawn == values if values else min(drawn) >= 1 and max(drawn) <= 3 and len(drawn) == 40


@pytest.mark.parametrize("kind", ["float", "int", "switch", "choice"])
def test_the_start_is_a_value_that_optuna_accepts(kind: Kind) -> None:
    gene = Gene("g", kind, low=1, high=4, choices=("a", "b"))
    study = optuna.create_study()
    study.enqueue_trial({"g": gene.start()})
    assert study.ask({"g": gene.distribution()}).params == {"g": gene.start()}
