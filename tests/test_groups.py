"""What there is to choose, read from files."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from optmerge.config import CONF, register
from optmerge.groups import Choice, default_choices, groups, prefixed


def test_every_file_of_conf_is_a_choice_with_a_line_about_it() -> None:
    found = groups()
    assert {(one.group, one.name) for choices in found.values() for one in choices} == {
        (path.parent.name, path.stem) for path in CONF.glob("*/*.yaml")
    }
    for choices in found.values():
        for choice in choices:
            assert len(choice.about) > 8, choice
            assert "\n" not in choice.about


def test_defaults_are_those_that_hydra_takes() -> None:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF), job_name="optmerge"):
        choices = OmegaConf.to_container(compose("config", return_hydra_config=True).hydra.runtime.choices)
    assert isinstance(choices, dict)
    assert default_choices() == {group: name for group, name in choices.items() if not str(group).startswith("hydra/")}


def test_a_group_without_a_default_is_added_with_a_plus() -> None:
    assert prefixed("experiment") == "+experiment="
    assert prefixed("method") == "method="


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("# One thing. And more.\nname: x\n", "One thing"),
        ("# @package _global_\n# Over two\n# lines, v1.2 of it:\n#   a command\n", "Over two lines, v1.2 of it"),
        ("name: x\n# too late\n", ""),
    ],
)
def test_a_choice_is_told_by_the_first_sentence_of_its_comment(text: str, about: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert Choice("method", "mine", tmp_path / "mine.yaml").about == about


def test_a_method_is_told_by_its_module() -> None:
    about = {choice.name: choice.about for choice in groups()["method"]}
    assert about["ties"] == "TIES: trim, elect sign, disjoint mean (Yadav et al., 2023)"


def test_folders_of_the_user_are_looked_at_too_and_hide_nothing(tmp_path: Path) -> None:
    for name in ("method/ties", "method/mine", "colour/red"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text("# Mine.\n")
    found = groups([tmp_path])
    paths = {choice.name: choice.path for choice in found["method"]}
    assert paths["ties"].parent == CONF / "method"
    assert paths["mine"] == tmp_path / "method" / "mine.yaml"
    assert [choice.name for choice in found["colour"]] == ["red"]
