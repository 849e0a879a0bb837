"""What is asked wrongly on the command line is said in one line, before anything starts."""

from pathlib import Path

import pytest

from end_to_end.conftest import Refuse, assert_one_message
from end_to_end.studies import Search, run_process, started
from optmerge.__main__ import run


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["+experiment=moon"], ["experiment", "'moon'", "math_ja"]),
        (["experiment=demo"], ["+experiment=NAME"]),
        (["method=moon"], ["method", "'moon'", "dare_ties"]),
        (["method.name=dare_tie"], ["'dare_tie'", "did you mean 'dare_ties'"]),
        (["sampler=moon"], ["sampler", "'moon'", "cmaes"]),
        (["study.trails=3"], ["study.trails", "no such setting"]),
        (["+study.trails=3"], ["study.trails", "no such setting"]),
        (["+moon=1"], ["moon", "no such setting"]),
        (["sampler.moon=1"], ["sampler.moon", "no such setting"]),
        (["+sampler.moon=1"], ["sampler.moon", "no such setting", "population"]),
        (["pruner.moon=1"], ["pruner.moon", "no such setting"]),
        (["+pruner.moon=1"], ["pruner.moon", "no such setting", "rank"]),
        (["launcher=moon"], ["launcher", "'moon'", "local"]),
        (["+launcher.moon=1"], ["launcher.moon", "no such setting", "workers"]),
        (["+engine.moon=1"], ["engine.moon", "no such setting", "batch_size"]),
        (["+task.moon=1"], ["task.moon", "no such setting", "prompt"]),
        (["+method.options.moon=1"], ["method.options.moon", "normalize"]),
        (["+method.parameters.moon={value: 0.1}"], ["moon"]),
    ],
)
def test_unknown_name_is_refused(refuse: Refuse, overrides: list[str], named: list[str]) -> None:
    message = refuse(*overrides)
    assert all(name in message for name in named), message


@pytest.mark.parametrize(
    ("override", "setting"),
    [
        ("study.trials=many", "study.trials"),
        ("study.baselines=perhaps", "study.baselines"),
        ("method.parameters.weight.low=small", "method.parameters.weight.low"),
        ("sampler.population=many", "sampler.population"),
        ("pruner.batch=many", "pruner.batch"),
        ("engine.threads=many", "engine.threads"),
        ("task.max_new_tokens=many", "task.max_new_tokens"),
        ("method.options.normalize=perhaps", "method.options.normalize"),
    ],
)
def test_wrong_type_is_refused_naming_the_setting(refuse: Refuse, override: str, setting: str) -> None:
    assert setting in refuse(override)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["method.parameters.density.high=1.5"], ["density", "[0, 1]", "1.5"]),
        (["method.parameters.density.low=-0.5"], ["density", "[0, 1]", "-0.5"]),
        (["method.parameters.density.low=0.9", "method.parameters.density.high=0.1"], ["density", "0.9", "0.1"]),
        (["method.options.rescale=moon"], ["rescale", "'moon'", "l1_norm"]),
        (["study.trials=0"], ["study.trials", "at least 1"]),
        (["study.name=a/b"], ["study.name", "'a/b'"]),
        (["study.selection=moon"], ["study.selection", "moon", "paper"]),
        (["pruner.level=2"], ["pruner.level", "between 0 and 1"]),
        (["sampler.population=1"], ["sampler.population", "at least 3"]),
        (["sampler.variant=moon"], ["sampler.variant", "moon", "separable"]),
        (["launcher.workers=0"], ["launcher.workers", "at least 1"]),
        (["storage.grace=20"], ["storage.grace", "storage.beat"]),
        (["study.stagnation=0"], ["study.stagnation", "at least 1"]),
        (["engine.batch_size=0"], ["engine.batch_size", "at least 1"]),
        (["engine.device=moon"], ["engine.device", "moon"]),
        (["task.max_new_tokens=0"], ["task.max_new_tokens", "at least 1"]),
        (["models.base=moon"], ["models.base", "moon", "math_add"]),
    ],
)
def test_value_out_of_its_range_is_refused(refuse: Refuse, overrides: list[str], named: list[str]) -> None:
    message = refuse(*overrides)
    assert all(name in message for name in named), message


def test_unknown_command_is_refused_with_the_nearest(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rebiuld", "recipe.yaml"]) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    assert "'rebiuld' (did you mean 'rebuild'?)" in message


def test_word_that_is_neither_command_nor_setting_is_refused(refuse: Refuse) -> None:
    assert "'re-build'" in refuse("re-build")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["search", "--moon"], "--moon"),
        (["rebuild", "--moon", "recipe.yaml"], "--moon"),
        (["convert", "--moon", "a", "b"], "--moon"),
        (["rebuild"], "RECIPE and OUT are missing"),
        (["rebuild", "recipe.yaml"], "rebuild RECIPE OUT"),
        (["convert", "a"], "out"),
    ],
)
def test_wrong_option_or_argument_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert run(arguments) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    assert named in message


@pytest.mark.parametrize(
    ("override", "named"), [("--moon", "--moon"), ("method.name=moon", "unknown merge method 'moon'; known are")]
)
def test_refusal_is_the_same_in_a_process_of_its_own(
    small: list[str], tmp_path: Path, override: str, named: str
) -> None:
    done = run_process(*small, override, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_message(done.stderr)
    assert named in done.stderr
    assert started(tmp_path) == []


def test_study_of_that_name_with_another_search_space_is_refused_with_the_difference(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = search.copied_to(tmp_path)
    monkeypatch.chdir(copy.cwd)
    assert run([*search.overrides, "method=ties", "study.trials=5"]) == 2
    message = capsys.readouterr().err
    assert_one_message(message)
    assert "dare_ties" in message and "now ties" in message
    assert len(copy.trials()) == 4
