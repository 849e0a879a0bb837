"""Several searches from one command."""

from pathlib import Path

import pytest

from end_to_end.conftest import assert_one_message
from end_to_end.studies import run_process, started
from optmerge.__main__ import run


def test_every_value_gets_a_study_and_all_are_compared(small: list[str], here: Path) -> None:
    done = run_process("-m", *small, "study.seed=0,1", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    comparison = done.stdout.partition("Test scores")[2]
    for name in ("demo-seed0", "demo-seed1"):
        assert (here / "studies" / name / "result.json").exists()
        assert name in comparison
    assert {path.name for path in here.iterdir()} == {"studies"}  # Hydra leaves nothing of its own


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["study.seed=0,-1"], "study.seed must be at least 0"),
        (["method=ties,moon"], "unknown method 'moon'"),
        (["study.seed=0,many"], "study.seed"),
        (["method=ties,dare_ties"], "demo-seed0"),  # both would be the study of that name
        (["pruner.level=0.5,2", "study.name=level-${pruner.level}"], "pruner.level must be between 0 and 1"),
        (
            ["method.parameters.density.high=0.5,1.5", "study.name=high-${method.parameters.density.high}"],
            "density must be a number in [0, 1], got 1.5",
        ),
    ],
)
def test_mistake_in_one_value_is_found_before_the_first_search_starts(
    small: list[str], here: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], named: str
) -> None:
    assert run(["--multirun", *small, *overrides]) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    assert named in message
    assert started(here) == []
