"""A wheel holds all that the checkout does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

CHECKOUT = Path(__file__).parents[2]
PARTS = ("optmerge", "conf", "pyproject.toml", "README.md", "LICENSE")
COMPOSE = """
import sys
from optmerge.config import CONF, compose_config
import optmerge
print(optmerge.__file__)
print(CONF)
for experiment in sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")):
    compose_config([f"+experiment={experiment}"])
    print(experiment)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a wheel is installed that was built from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in PARTS:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (CHECKOUT / name).exists():
            shutil.copy(CHECKOUT / name, copy / name)
    built = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", folder, wheel], check=True, capture_output=True)
    return folder


def test_every_experiment_composes_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    package, conf, *experiments = done.stdout.splitlines()
    assert Path(package).is_relative_to(installed)
    assert Path(conf) == installed / "optmerge" / "conf"
    assert experiments == sorted(path.stem for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml"))


def test_wheel_holds_the_package_and_nothing_beside_it(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "optmerge",
        "bin",
    }  # bin holds the console script
    assert (installed / "optmerge" / "py.typed").exists()


def test_console_script_is_the_program(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, installed / "bin" / "optmerge", "list", "pruners"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["pruner=none", "pruner=racing"]
