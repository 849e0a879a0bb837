import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from optmerge.errors import OptmergeError, UsageError
from optmerge.zoo import MODELS, QUICK_PLAN, Schedule, make
from optmerge.zoo.manifest import Order, hashes
from optmerge.zoo.processes import train_in_processes

# Training is over at once: for tests that look at files and not at models.
SHORTEST_PLAN = replace(
    QUICK_PLAN,
    base=Schedule(steps=2, learning_rate=1e-2),
    ja=Schedule(steps=1, learning_rate=1e-2),
    math_add=Schedule(steps=1, learning_rate=1e-2),
    math_mul=Schedule(steps=1, learning_rate=1e-2),
)


def make_untrained(folder: Path, seed: int = 0) -> list[str]:
    lines: list[str] = []
    make(folder, seed=seed, report=lines.append, trained=False, plan=SHORTEST_PLAN)
    return lines


def test_import_needs_no_torch() -> None:
    code = "import sys, optmerge.zoo; assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_same_seed_gives_same_bytes(quick_zoo: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", seed=0, report=lambda line: None, plan=QUICK_PLAN)
    assert hashes(tmp_path / "again") == hashes(quick_zoo)


def test_another_seed_gives_other_models_and_problems(tmp_path: Path) -> None:
    make_untrained(tmp_path / "one", seed=1)
    make_untrained(tmp_path / "two", seed=2)
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    different = {name for name in one if one[name] != two[name]}
    assert different == {f"{model}/model.safetensors" for model in MODELS} | {
        f"problems/{split}.jsonl" for split in ("search", "validation", "test")
    }


def test_processes_give_the_same_models_and_report(tmp_path: Path) -> None:
    make(tmp_path / "one", seed=0, report=lambda line: None, plan=SHORTEST_PLAN)
    shutil.copytree(tmp_path / "one" / "base", tmp_path / "two" / "base")
    lines: list[str] = []
    train_in_processes(tmp_path / "two", ["ja", "math_mul"], Order(0, True, SHORTEST_PLAN), lines.append)
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert {"ja/model.safetensors", "math_mul/model.safetensors"} < set(two)
    assert two == {name: one[name] for name in two}
    assert {line.split(",")[0] for line in lines} == {"zoo: ja", "zoo: math_mul"}


def test_each_specialist_differs_from_the_base(quick_zoo: Path) -> None:
    found = hashes(quick_zoo)
    assert len({found[f"{model}/model.safetensors"] for model in MODELS}) == len(MODELS)


def test_finished_zoo_is_kept(quick_zoo: Path) -> None:
    lines: list[str] = []
    before = (quick_zoo / "manifest.json").stat().st_mtime_ns
    make(quick_zoo, seed=0, report=lines.append, plan=QUICK_PLAN)
    assert lines == []
    assert (quick_zoo / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["base/model.safetensors", "problems/test.jsonl", "ja/tokenizer.json"])
def test_damaged_file_is_rebuilt(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make_untrained(folder)
    before = hashes(folder)
    (folder / name).write_bytes(b"damaged")
    assert f"{name} is damaged" in make_untrained(folder)[0]
    assert hashes(folder) == before


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("problems/test.jsonl", set()),
        ("ja/config.json", {"ja"}),
        ("base/config.json", set(MODELS)),
    ],
)
def test_only_what_is_damaged_is_trained_again(name: str, trained: set[str], tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make(folder, seed=0, report=lambda line: None, plan=SHORTEST_PLAN)
    before = hashes(folder)
    (folder / name).write_text("damaged")
    lines: list[str] = []
    make(folder, seed=0, report=lines.append, plan=SHORTEST_PLAN)
    assert {line.split(",")[0].removeprefix("zoo: ") for line in lines[1:]} == trained
    assert hashes(folder) == before


def test_missing_file_is_rebuilt(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make_untrained(folder)
    (folder / "ja" / "config.json").unlink()
    assert "ja/config.json is missing" in make_untrained(folder)[0]
    assert (folder / "ja" / "config.json").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"files": 1}'])
def test_damaged_manifest_is_rebuilt(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make_untrained(folder)
    (folder / "manifest.json").write_text(text)
    assert "manifest is damaged" in make_untrained(folder)[0]
    assert make_untrained(folder) == []


def test_unfinished_zoo_is_rebuilt(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make_untrained(folder)
    (folder / "manifest.json").unlink()
    assert "never finished" in make_untrained(folder)[0]


def test_zoo_of_another_seed_is_rebuilt(tmp_path: Path) -> None:
    make_untrained(tmp_path / "zoo", seed=1)
    assert "another seed" in make_untrained(tmp_path / "zoo", seed=2)[0]


def test_zoo_of_another_version_is_rebuilt(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make_untrained(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 0}))
    assert "another version" in make_untrained(folder)[0]


def test_trained_zoo_serves_where_an_untrained_one_is_asked_for(quick_zoo: Path) -> None:
    before = hashes(quick_zoo)
    make(quick_zoo, seed=0, report=lambda line: None, trained=False, plan=QUICK_PLAN)
    assert hashes(quick_zoo) == before


def test_strange_file_in_a_model_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    make_untrained(folder)
    (folder / "ja" / "pytorch_model.bin").write_bytes(b"strange")
    assert "ja/pytorch_model.bin is not part of it" in make_untrained(folder)[0]
    assert not (folder / "ja" / "pytorch_model.bin").exists()


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        make_untrained(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_failed_training_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    impossible = replace(SHORTEST_PLAN, own_processes=True, hidden_size=33)  # not a multiple of the number of heads
    with pytest.raises(OptmergeError, match=r"'base' failed: .*33"):
        make(tmp_path / "zoo", seed=0, report=lambda line: None, plan=impossible)
    assert not (tmp_path / "zoo").exists()
    assert not (tmp_path / ".zoo.partial").exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".zoo.partial" / "abc").mkdir(parents=True)
    make_untrained(tmp_path / "zoo")
    assert not (tmp_path / ".zoo.partial").exists()


def test_whoever_comes_second_waits_and_finds_it_made(tmp_path: Path) -> None:
    lines: list[str] = []
    both = [
        threading.Thread(
            target=make,
            args=(tmp_path / "zoo",),
            kwargs={"seed": 0, "report": lines.append, "trained": False, "plan": SHORTEST_PLAN},
        )
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(lines) == 1


def test_zoo_is_small(tmp_path: Path) -> None:
    make(tmp_path / "zoo", seed=0, report=lambda line: None, trained=False)  # the demo's sizes
    assert sum(path.stat().st_size for path in (tmp_path / "zoo").rglob("*") if path.is_file()) < 30e6
