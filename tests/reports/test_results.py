"""The tables of a report: what models score on test, and what that score is."""

import pytest

from optmerge.reports import results
from optmerge.tasks import Objective

SCORE = Objective("score", share=False)
OBJECTIVES = [Objective("ja/acc_ja"), Objective("bits/bits_per_byte", "minimize", share=False)]
TEST = {"score": -1.5, "low": -1.75, "high": -1.25}


def result() -> dict[str, object]:
    means = {"score": -1.5, "ja/acc_ja": 0.5, "bits/bits_per_byte": 3.5}
    winner = {"trial": 7, "test": TEST, "means": means, "recipe_sha256": "r" * 64}
    old = {"test": TEST}  # as results of earlier versions have it
    return {
        "winner": winner,
        "sources": {"ja": {"test": TEST, "means": {**means, "ja/acc_ja": 0.25}}},
        "baselines": {"average": {"setting": "", **old}},
    }


def test_of_several_objectives_each_is_in_the_table() -> None:
    assert results.tested_table(results.tested_models(result()), SCORE, OBJECTIVES) == [
        ["model", "score", "95% interval", "ja/acc_ja", "bits/bits_per_byte (less is better)"],
        ["evolved merge (trial 7)", "-1.5", "-1.75 to -1.25", "50.0%", "3.5"],
        ["source ja", "-1.5", "-1.75 to -1.25", "25.0%", "3.5"],
        ["average", "-1.5", "-1.75 to -1.25", "", ""],
    ]
    assert results.tested_table(results.tested_models(result()), SCORE, [SCORE])[0] == [
        "model",
        "score",
        "95% interval",
    ]


@pytest.mark.parametrize(
    ("objectives", "parts", "said"),
    [
        (
            OBJECTIVES,
            {"ja": {"weight": 3}, "bits": {}},
            "score = 0.75 \u00d7 ja/acc_ja \u2212 0.25 \u00d7 bits/bits_per_byte.",
        ),
        (
            OBJECTIVES[::-1],
            {"ja": {}, "bits": {}},
            "score = \u2212 0.5 \u00d7 bits/bits_per_byte + 0.5 \u00d7 ja/acc_ja.",
        ),
        (OBJECTIVES, {}, "score, weighs the objectives."),  # a task of another kind
        ([SCORE], {"ja": {}}, ""),
    ],
)
def test_what_the_weighted_score_is_is_said(
    objectives: list[Objective], parts: dict[str, dict[str, float]], said: str
) -> None:
    told = results.weighing(SCORE, objectives, {"parts": parts})
    assert told.endswith(said) and bool(told) == bool(said)
