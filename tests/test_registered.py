"""Things found by name."""

import pytest

from optmerge.errors import UsageError
from optmerge.registered import did_you_mean, find, names


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("optmerge.merge.methods", {"dare_linear", "dare_ties", "linear", "task_arithmetic", "ties"}),
        ("optmerge.study.samplers", {"cmaes", "nsgaii", "random", "tpe"}),
        ("optmerge.study.pruners", {"none", "racing"}),
        ("optmerge.engines", {"transformers"}),
        ("optmerge.tasks", {"math_ja"}),
        ("optmerge.tracking", {"mlflow", "none"}),
    ],
)
def test_everything_that_is_registered_is_found(package: str, expected: set[str]) -> None:
    assert expected <= set(names(package))


def test_modules_that_register_nothing_are_not_listed() -> None:
    assert not {"engine", "tracker", "task", "splits"} & {
        *names("optmerge.engines"),
        *names("optmerge.tracking"),
        *names("optmerge.tasks"),
    }


def test_a_name_finds_its_module() -> None:
    assert find("optmerge.study.samplers", "tpe", "sampler").__name__ == "optmerge.study.samplers.tpe"


@pytest.mark.parametrize("name", ["os", "engine", "..errors", "optmerge.errors", "", "__init__"])
def test_python_paths_and_plain_modules_are_not_names(name: str) -> None:
    with pytest.raises(UsageError, match="unknown engine"):
        find("optmerge.engines", name, "engine")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown sampler 'cmas' \(did you mean 'cmaes'\?\); known are cmaes, "):
        find("optmerge.study.samplers", "cmas", "sampler")


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert did_you_mean("zebra", ["cmaes", "tpe"]) == ""
