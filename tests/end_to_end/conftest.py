"""A finished search on the quick zoo, and what it looks like when a command is refused."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import made_once

from end_to_end.studies import Search, run_process, started
from optmerge.__main__ import run

Refuse = Callable[..., str]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What these tests remember of checkpoints does not stay in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of the smallest models, whose base speaks Japanese, and whose problems ask for what the base says.

    Models trained for seconds know no sums: on the zoo's own problems every merge of them scores nothing. On these a
    merge scores the more the less it departs from the base.
    """
    from optmerge.engines import Generate, transformers
    from optmerge.tasks.numbers import last_number
    from optmerge.zoo import QUICK_PLAN, make

    sizes = {"search_problems": 24, "validation_problems": 12, "test_problems": 16}
    plan = dataclasses.replace(QUICK_PLAN, base_answers_japanese=1.0, **sizes)

    def make_japanese(folder: Path) -> None:
        make(folder, seed=0, report=lambda line: None, plan=plan)
        engine = transformers.build(transformers.Options(threads=1), folder / "base", "float32")
        for path in (folder / "problems").glob("*.jsonl"):
            problems = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            responses = engine.run([Generate(problem["question"], 32, ()) for problem in problems])
            for problem, response in zip(problems, responses, strict=True):
                said = last_number(response.text)
                problem["answer"] = problem["answer"] if said is None else str(said)
            lines = [json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems]
            path.write_text("".join(lines), encoding="utf-8")

    return made_once(tmp_path_factory, "japanese", make_japanese)


def on(zoo: Path) -> list[str]:
    """Overrides with which a search uses a zoo that is there; larger weights would merge such models to nonsense."""
    return [
        "models.maker=null",
        f"models.folder={zoo}",
        "space=layers",
        "method=dare_ties",
        "sampler=cmaes",
        "pruner=racing",
        "method.parameters.weight.high=0.3",
    ]


@pytest.fixture(scope="session")
def small(zoo: Path) -> list[str]:
    """The least that a search needs: two trials on the ready zoo, no naive merges, no tracking."""
    return [
        *on(zoo),
        "study.trials=2",
        "study.finalists=1",
        "study.baselines=false",
        "tracking=none",
    ]


@pytest.fixture(scope="session")
def search(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A whole search, run once as a user runs it; look at it only, or copy it."""
    overrides = (*on(zoo), "study.trials=4", "study.finalists=2", "tracking=none")

    def run_search(cwd: Path) -> None:
        cwd.mkdir()
        done = run_process(*overrides, cwd=cwd)
        assert done.returncode == 0, done.stderr
        (cwd.parent / "search.printed").write_text(done.stdout)

    cwd = made_once(tmp_path_factory, "search", run_search)
    return Search(cwd, overrides, (cwd.parent / "search.printed").read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refuse(here: Path, small: list[str], capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Gives overrides to a small search and checks how it refuses them; returns the message."""

    def refuse(*overrides: str) -> str:
        capsys.readouterr()
        status = run([*small, *overrides])
        message = capsys.readouterr().err
        assert status == 2, message
        assert_one_message(message)
        assert started(here) == []
        return message

    return refuse


def assert_one_message(text: str) -> None:
    """One line that begins with the program's name; a list may follow it, indented."""
    first, *rest = text.splitlines()
    assert first.startswith("optmerge: "), text
    assert all(line.startswith("  ") for line in rest), text
    assert "Traceback" not in text


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub cannot be reached, and nothing of it is in the cache."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    os.makedirs(tmp_path / "hub")
