"""The command dashboard on a study that has been searched, without a browser."""

import json
import signal
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from end_to_end.serving import Dashboards, dashboards
from end_to_end.studies import DATABASE, Search
from optmerge.commands.dashboard import run_dashboard
from optmerge.errors import UsageError
from optmerge.study.artifacts import FOLDER

STUDY = "study.name=demo-seed0"


@pytest.fixture(scope="module")
def served(search: Search, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboards]:
    copy = search.copied_to(tmp_path_factory.mktemp("served") / "here")
    with dashboards(STUDY, cwd=copy.cwd) as found:
        yield found


def page(served: Dashboards) -> str:
    return served.address("watch the study")


def ask(address: str, method: str = "GET", host: str | None = None, body: Any = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    headers = {"Content-Type": "application/json"} | ({"Host": host} if host else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def detail(served: Dashboards) -> dict[str, Any]:
    status, body = ask(page(served).replace("/dashboard/", "/api/"))
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def test_study_has_its_note_and_its_pictures(served: Dashboards, search: Search) -> None:
    study = detail(served)
    assert "**Done**: 4 of 4 trials" in study["note"]["body"]
    names = {artifact["filename"] for artifact in study["artifacts"]}
    drawn = {path.name: path for path in (search.folder / "report").glob("*.png")}
    assert len(drawn) > 2 and names == {*drawn, "result.json", "recipe.yaml"}
    base = page(served).replace("/dashboard/studies", "/artifacts")
    for artifact in study["artifacts"]:
        folder = search.folder / "best" if artifact["filename"] == "recipe.yaml" else search.folder
        path = drawn.get(artifact["filename"], folder / artifact["filename"])
        assert ask(f"{base}/{artifact['artifact_id']}") == (200, path.read_bytes())
        assert artifact["artifact_id"] in study["note"]["body"]


def test_finalists_have_tables_and_recipes(served: Dashboards) -> None:
    study = detail(served)
    files = {trial["number"]: {file["filename"] for file in trial["artifacts"]} for trial in study["trials"]}
    assert sorted(map(len, files.values())) == [0, 0, 2, 2]
    assert {name for names in files.values() for name in names} == {"problems.csv", "recipe.yaml"}


def test_whoever_reaches_it_can_change_notes_alone(served: Dashboards) -> None:
    api = page(served).replace("/dashboard/", "/api/")
    base = api.partition("/api")[0]
    refused = [
        (api, "DELETE", None),
        (f"{api}/rename", "POST", {"study_name": "another"}),
        (f"{base}/api/studies", "POST", {"study_name": "new", "directions": ["maximize"]}),
        (f"{base}/api/trials/1/tell", "POST", {"state": "Fail"}),
        (f"{base}/api/artifacts/1", "POST", {"file": "data:,x"}),
    ]
    assert [ask(address, method, body=body)[0] for address, method, body in refused] == [403] * len(refused)
    note = detail(served)["note"]
    changed = {"version": note["version"] + 1, "body": note["body"] + "mine"}
    assert ask(f"{api}/note", "PUT", body=changed)[0] == 204
    assert detail(served)["note"]["body"].endswith("mine")


def test_pages_elsewhere_do_not_reach_it_by_a_name_of_their_own(served: Dashboards) -> None:
    port = urllib.parse.urlsplit(page(served)).port
    assert ask(page(served), host=f"example.org:{port}")[0] == 403
    assert ask(page(served), host=f"localhost:{port}")[0] == 200


def test_it_listens_on_this_machine_alone(served: Dashboards) -> None:
    listening = [c.laddr.ip for c in psutil.Process(served.process.pid).net_connections() if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_runs_that_were_not_tracked_are_not_shown(served: Dashboards) -> None:
    assert served.address("watch the runs") == "none were tracked"


def test_looking_adds_no_files(served: Dashboards, search: Search) -> None:
    names = {path.name for path in (search.folder.parent / FOLDER).iterdir()}
    assert {path.name for path in (served.cwd / "studies" / FOLDER).iterdir()} == names
    assert detail(served)["note"]["body"].count("# demo-seed0") == 1


def test_without_a_name_it_opens_on_the_list_of_studies_and_ctrl_c_ends_it(search: Search, tmp_path: Path) -> None:
    copy = search.copied_to(tmp_path / "here")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with dashboards("tracking=none", f"port={port}", cwd=copy.cwd) as found:
            address = page(found)
            assert urllib.parse.urlsplit(address).port != port
            assert urllib.parse.urlsplit(address).path == "/dashboard"
            studies = json.loads(ask(address.replace("/dashboard", "/api/studies"))[1])["study_summaries"]
            assert [study["study_name"] for study in studies] == ["demo-seed0"]
            assert found.stop(signal.SIGINT) == 0
            assert found.printed[-1] == "stopped"
    with pytest.raises(urllib.error.URLError):
        ask(address)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["study.name=nowhere"], "no such study"),
        (["storage.url=sqlite:///elsewhere/studies.db"], "there is no such file"),
        (["prot=8080"], "did you mean 'port'"),
        (["port=eighty"], "port=eighty: expected a number from 0 to 65535"),
        (["genes=none"], "genes=none: expected a number from 1 to 100000, or all"),
    ],
)
def test_what_it_cannot_show_is_refused(
    search: Search, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(search.cwd)
    before = (search.cwd / DATABASE).stat().st_mtime_ns
    with pytest.raises(UsageError, match=told):
        run_dashboard(words, Console(quiet=True))
    assert (search.cwd / DATABASE).stat().st_mtime_ns == before
    assert not (search.cwd / "elsewhere").exists()


def test_mlflow_that_ends_at_once_is_told_in_one_line(search: Search, tmp_path: Path) -> None:
    copy = search.copied_to(tmp_path / "here")
    (copy.cwd / "broken.db").write_bytes(b"this is no database, but as long as one might be" * 50)
    with dashboards(STUDY, "tracking.uri=sqlite:///broken.db", cwd=copy.cwd) as found:
        found.process.wait(timeout=60)
        assert found.process.returncode == 1
        assert found.printed[-1].startswith("optmerge: mlflow ui of sqlite:///broken.db ended at once: ")
