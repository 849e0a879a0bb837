"""Who solves which problems, counted by hand."""

import numpy as np
import pytest

from optmerge.reports.solved_problems import BLOCKS, Model, draw_solved, who_solves
from optmerge.reports.style import styled
from optmerge.tasks import Objective

ACC, BITS = Objective("acc"), Objective("bits", "minimize", share=False)


def models(merged: list[float], *sources: list[float]) -> list[Model]:
    found = [Model("merged", "winner", np.array(merged, float))]
    found += [Model(f"source {i}", "source", np.array(scores, float)) for i, scores in enumerate(sources)]
    return [*found, Model("naive", "naive merge", np.ones(len(merged)))]


def counts(solved: object) -> list[int]:
    return [solved.count(block) for block in ("new", "inherited", "lost", "unsolved")]  # type: ignore[attr-defined]


def test_problems_are_new_inherited_lost_or_unsolved() -> None:
    #                        new inh inh lost lost none, and one that has no score
    solved = who_solves(models([1, 1, 1, 0, 0, 0, np.nan], [0, 1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 0, 1]), ACC)
    assert counts(solved) == [1, 2, 2, 1]
    assert solved.positions["lost"].tolist() == [4, 3]  # first the one that more models solve
    assert solved.problems == 6


def test_a_naive_merge_makes_no_problem_inherited() -> None:
    assert counts(who_solves(models([1, 0], [0, 0]), ACC)) == [1, 0, 0, 1]


def test_graded_shares_count_from_half() -> None:
    solved = who_solves(models([0.5, 0.49, 0.9], [0.4, 0.6, 0.51]), ACC)
    assert counts(solved) == [1, 1, 1, 0]
    assert "half" in solved.threshold
    assert "half" not in who_solves(models([1, 0], [0, 1]), ACC).threshold


def test_of_what_is_no_share_and_less_is_better_the_sources_median_decides() -> None:
    solved = who_solves(models([1.0, 5.0, 9.0], [4.0, 2.0, 8.0], [6.0, 9.0, 8.0]), BITS)  # median 7
    assert counts(solved) == [0, 2, 0, 1]
    assert "below 7" in solved.threshold


def test_parts_of_a_task_count_by_what_can_be_had_in_each() -> None:
    # Of the first part 1.5 can be had, of the second 0.3.
    parts = {"ja": np.array([True, True, False, False]), "en": np.array([False, False, True, True])}
    solved = who_solves(models([1.5, 0, 0.3, 0], [0, 1.5, 0, 0.3])[:2], Objective("score"), parts)
    assert counts(solved) == [2, 0, 2, 0]


def test_the_words_have_the_counts_and_the_scores() -> None:
    solved = who_solves(models([1, 1, 1, 0, 0], [0, 0, 0, 1, 0]), ACC)
    with styled():
        drawing = draw_solved(solved, "acc", "test problems")
    for text in ("3 new", "0 inherited", "1 lost", "1 unsolved", "merged 60.0%", "source 0 20.0%", "5 test problems"):
        assert text in drawing.alt
    for text in ("3 new (60%)", "1 lost (20%)"):
        assert text in drawing.caption
    assert drawing.name == "solved-acc"


@pytest.mark.parametrize("problems", [1, 1000, 5000])
def test_any_number_of_problems_can_be_drawn(problems: int) -> None:
    rng = np.random.default_rng(0)
    merged, source = (rng.integers(0, 2, problems).tolist() for _ in range(2))
    solved = who_solves(models(merged, source), ACC)
    with styled():
        drawing = draw_solved(solved, "acc", "test problems")
        drawing.figure.canvas.draw()
    (image,) = drawing.figure.axes[0].images
    assert image.get_array().shape == (3, min(problems, 1200))
    assert ("one column" in drawing.caption) == (problems > 1200)
    # The dark share of the merged model's row is its score, sorted into blocks: dark, dark, light, light.
    row = np.asarray(image.get_array())[0]
    assert row.mean() == pytest.approx(np.mean(merged), abs=0.01)
    assert (np.diff(row) <= 1e-9).all()
    assert sum(solved.count(block) for block in BLOCKS) == problems
