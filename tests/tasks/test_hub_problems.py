"""Data sets of the hub, from a constructed cache and with a hub that refuses connections.

Each runs in a process of its own: the hub's client reads its settings from the environment when it is imported.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

import optmerge
from optmerge.tasks import ProblemFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """\
---
configs:
- config_name: en
  data_files: [{split: test, path: en/*.jsonl}]
- config_name: ja
  data_files: [{split: train, path: ja/train.jsonl}, {split: test, path: ja/test.jsonl}]
---
"""

SCRIPT = """
import json, sys
from optmerge.errors import UsageError
from optmerge.tasks import NUMBERS, ProblemFile
from optmerge.tasks.problem_files import missing, read_problems
out = []
for fields in json.loads(sys.argv[1]):
    source = ProblemFile(**fields)
    try:
        read = [p.answer for p in read_problems(source, NUMBERS)]
    except UsageError as error:
        read = str(error)
    out.append([missing(source), read])
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def lines(*numbers: int) -> str:
        return "".join(json.dumps({"question": f"問{n}", "answer_number": n}) + "\n" for n in numbers)

    folder = tmp_path_factory.mktemp("hub")
    repositories = {
        "somebody/configured": {
            "README.md": CARD,
            "en/a.jsonl": lines(1),
            "ja/train.jsonl": lines(2),
            "ja/test.jsonl": lines(3, 4),
        },
        "somebody/plain": {"data/test.jsonl": lines(5, 6)},
        "somebody/scripted": {"mgsm.py": "raise SystemExit('ran')", "mgsm_ja.tsv": "問7\t7\n"},
    }
    for name, files in repositories.items():
        repository = folder / f"datasets--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        for path, content in files.items():
            file = repository / "snapshots" / COMMIT / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    return folder


def read_offline(cache: Path, *sources: ProblemFile) -> list[tuple[str | None, list[str] | str]]:
    """What is missing of each source, and its answers or the message that refuses it."""
    home = cache / "home"
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(cache),
        "HF_ENDPOINT": "http://127.0.0.1:9",  # the discard port: nobody listens
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    arguments = [sys.executable, "-c", SCRIPT, json.dumps([asdict(source) for source in sources])]
    checkout = Path(optmerge.__file__).parents[1]
    ran = subprocess.run(
        arguments, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not home.exists(), "reading left a cache behind"
    return [(absent, read) for absent, read in json.loads(ran.stdout)]


def test_cached_data_sets_are_read_by_card_by_file_names_or_by_named_file(cache: Path) -> None:
    assert read_offline(
        cache,
        ProblemFile(hub="somebody/configured", config="ja", answer="answer_number"),
        ProblemFile(hub="somebody/configured", config="ja", split="train", answer="answer_number"),
        ProblemFile(hub="somebody/plain", answer="answer_number", rows="-1:"),
        ProblemFile(hub="somebody/scripted", file="mgsm_ja.tsv", columns=["question", "answer"]),
    ) == [(None, ["3", "4"]), (None, ["2"]), (None, ["6"]), (None, ["7"])]


def test_wrong_names_in_a_cached_data_set_are_refused_in_one_line(cache: Path) -> None:
    config, split, column, file = (
        read
        for _, read in read_offline(
            cache,
            ProblemFile(hub="somebody/configured", config="fr"),
            ProblemFile(hub="somebody/plain", split="dev"),
            ProblemFile(hub="somebody/plain"),
            ProblemFile(hub="somebody/scripted", file="mgsm_fr.tsv"),
        )
    )
    assert "config fr" in config and "['en', 'ja']" in config
    assert 'Unknown split "dev"' in split
    assert "no column 'answer', but 'question', 'answer_number'" in column
    assert "mgsm_fr.tsv" in file and "no such file" in file


def test_data_set_that_cannot_be_had_fails_fast_and_says_what_to_do(cache: Path) -> None:
    start = time.monotonic()
    [(absent, read), (named_wrongly, _)] = read_offline(
        cache, ProblemFile(hub="nobody/nothing"), ProblemFile(hub="a/b/c")
    )
    assert time.monotonic() - start < 15
    assert absent == read
    assert absent is not None and absent.startswith("data set nobody/nothing (split test): not in the local cache")
    assert "set `path` to a local copy" in absent
    assert "hf download --repo-type dataset nobody/nothing" in absent
    assert named_wrongly is not None and "a/b/c" in named_wrongly
