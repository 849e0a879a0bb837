"""The dashboard command: optuna-dashboard and MLflow, on this machine alone, until they are told to stop."""

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM
from socketserver import ThreadingMixIn
from typing import IO, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from rich.console import Console

from optmerge.commands.words import own_words
from optmerge.config import Config, compose_config, masked, options_of
from optmerge.errors import OptmergeError, UsageError

HOST = "127.0.0.1"  # neither dashboard asks who is there
_PATIENCE = 120.0  # seconds for MLflow to start
_PAUSE = 0.3
_SETTINGS = ("study.name", "study.folder", "storage", "tracking")  # that find a study and its runs

log = logging.getLogger(__name__)
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True)
class _Shown:
    """What is to be looked at.

    Attributes:
        path: The page of optuna-dashboard to begin with.
        tracking: How the runs were tracked.
        key: What is unique about the study; None without one.
    """

    path: str
    tracking: Mapping[str, Any]
    key: str | None = None


def run_dashboard(arguments: Sequence[str], console: Console) -> None:
    """Serve both dashboards until interrupted.

    Args:
        arguments: `study.name=NAME`, other settings that find a study; `port=`, `mlflow_port=`, `genes=`.
        console: Told the addresses.

    Raises:
        UsageError: If there is no such study, or a word is not understood.
        OptmergeError: If one of them ends.
    """
    own, settings = _words(arguments)
    config = compose_config(settings)
    named = any(word.startswith("study.name=") for word in settings)
    shown = _opened(config, named, own_tracking=any(word.startswith("tracking") for word in settings))

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    try:
        with ExitStack() as running:
            address = running.enter_context(_study_page(config, own["port"], own["genes"], say))
            say(f"watch the study   {address}{shown.path}")
            if named:
                say(f"its note          {address}{shown.path}/note")
            mlflow = _start_runs(shown, own["mlflow_port"], running, say)
            say("Ctrl-C stops what was started; only this machine reaches it.")
            while mlflow is None or mlflow.process.poll() is None:
                time.sleep(_PAUSE)
            raise OptmergeError(f"mlflow ui has ended: {mlflow.last_line()}")
    except KeyboardInterrupt:
        say("stopped")


def _words(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """This command's own words, and settings."""
    from optmerge.study.excerpt import GENES

    defaults = {"port": 8080, "mlflow_port": 5000, "genes": GENES}
    own, settings = own_words("dashboard", arguments, tuple(defaults), _SETTINGS)
    values = {name: None if (name, value) == ("genes", "all") else _number(name, value) for name, value in own.items()}
    return defaults | values, settings


def _number(name: str, value: str) -> int:
    least, most = (1, 100_000) if name == "genes" else (0, 65535)
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        more = ", or all" if name == "genes" else ""
        raise UsageError(f"{name}={value}: expected a number from {least} to {most}{more}")
    return int(value)


def _opened(config: Config, named: bool, own_tracking: bool) -> _Shown:
    """What is to be looked at; the note of a study is brought up to date."""
    import optuna

    from optmerge.study.charter import CONFIG, exists, open_study
    from optmerge.study.identity import KEY
    from optmerge.study.storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = open_storage(config.storage.url, patience=config.storage.beat, create=False)
    tracking = config.tracking
    if not named:
        return _Shown("/dashboard", tracking)
    name = str(config.study.name)
    try:
        opened = open_study(database, name)
    except UsageError:
        if not exists(database, name):
            raise
        return _Shown(f"/dashboard/studies/{database.get_study_id_from_name(name)}", tracking)  # of another version
    if not database.running(opened.study_id):  # else its search keeps it up to date
        from optuna_dashboard import get_note

        from optmerge.commands.noticeboard import harmless, post_note

        folder = config.study.own_folder
        if folder.is_dir() or not get_note(opened.study):  # elsewhere less is known than the note says
            with harmless():
                post_note(opened, folder, config.storage.url)
    carried = opened.study.user_attrs[CONFIG].get("tracking", {})
    if carried.get("name") == "none" and not own_tracking:
        tracking = carried
    return _Shown(f"/dashboard/studies/{opened.study_id}", tracking, opened.study.user_attrs.get(KEY))


# optuna-dashboard, in a thread of this process: the address of the database may hold a password.


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a page was left before it was whole", exc_info=True)


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        log.debug(format, *args)


@contextmanager
def _study_page(config: Config, port: int, genes: int | None, say: Callable[[str], None]) -> Iterator[str]:
    from optuna_dashboard import wsgi

    from optmerge.study.artifacts import artifact_store
    from optmerge.study.excerpt import Excerpt
    from optmerge.study.storage import open_storage

    storage = config.storage
    excerpt = open_storage(storage.url, patience=storage.beat, kind=partial(Excerpt, genes=genes))
    app = _guarded(wsgi(excerpt, artifact_store=artifact_store(Path(config.study.folder))))
    taken = _free_port(port, say)
    server = make_server(HOST, taken, app, server_class=_Server, handler_class=_Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        excerpt.remove_session()
        excerpt.engine.dispose()


def _guarded(app: App) -> App:
    """The dashboard to look at: of changes it takes notes alone, and none from pages of other hosts.

    Whoever reaches it could delete studies, and a study that is renamed there is a copy of what is shown, which may
    lack genes. A page elsewhere reaches it through a browser whose name server calls it by that page's own name.
    """

    def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rpartition(":")[0] or str(environ.get("HTTP_HOST", ""))
        changes = environ["REQUEST_METHOD"] not in ("GET", "HEAD")
        notes = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith("/note")
        if host not in (HOST, "localhost") or (changes and not notes):
            start("403 Forbidden", [("Content-Type", "application/json")])
            return [json.dumps({"reason": "this page is to look at; only notes can be changed"}).encode()]
        return app(environ, start)

    return answer


def _free_port(wanted: int, say: Callable[[str], None]) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            probe.bind((HOST, 0))
            say(f"port {wanted} is taken or not ours: another is used")
        return int(probe.getsockname()[1])


# MLflow, in processes of its own.


@dataclass(frozen=True)
class _Mlflow:
    """The processes of MLflow.

    Attributes:
        process: The first of them; the others are of its group.
        said: A file with what they say.
    """

    process: "subprocess.Popen[bytes]"
    said: IO[bytes]

    def last_line(self) -> str:
        self.said.seek(0)
        lines = [line for line in self.said.read().decode(errors="replace").splitlines() if line.strip()]
        return masked(lines[-1].strip()) if lines else "it said nothing"

    def end(self) -> None:
        for number in (SIGTERM, SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
                return


def _start_runs(shown: _Shown, port: int, running: ExitStack, say: Callable[[str], None]) -> _Mlflow | None:
    """Start what shows the runs, unless a server does, and say where they are."""
    from optmerge.study.storage import shown_url

    tracked = shown.tracking.get("name") != "none"
    uri = str(options_of("tracking", shown.tracking, "optmerge.tracking")[1].uri) if tracked else ""
    missing = uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file()
    if not uri or missing or uri.startswith(("http://", "https://")):
        say(f"watch the runs    {masked(uri) if uri and not missing else 'none were tracked'}")
        return None
    taken = _free_port(port, say)
    address = f"http://{HOST}:{taken}"
    mlflow = running.enter_context(_started(uri, taken))
    deadline = time.monotonic() + _PATIENCE
    while not _answers(f"{address}/health"):
        if mlflow.process.poll() is not None:
            raise OptmergeError(f"mlflow ui of {shown_url(uri)} ended at once: {mlflow.last_line()}")
        if time.monotonic() > deadline:
            raise OptmergeError(f"mlflow ui did not answer in {_PATIENCE:.0f} s: {mlflow.last_line()}")
        time.sleep(_PAUSE)
    say(f"watch the runs    {address}/#/experiments{_run_path(address, shown.key)}")
    return mlflow


def _run_path(address: str, key: str | None) -> str:
    """Where below its experiments MLflow shows the run of a study; nothing where there is none."""
    if key is None:
        return ""
    from optmerge.tracking.connection import connect, every, told
    from optmerge.tracking.mlflow import STUDY

    with suppress(OptmergeError), told():
        client = connect(address)
        experiments = [one.experiment_id for one in every(client.search_experiments)]
        for run in client.search_runs(experiments, f"tags.`{STUDY}` = '{key}'", max_results=1):
            return f"/{run.info.experiment_id}/runs/{run.info.run_id}"
    return ""


@contextmanager
def _started(uri: str, port: int) -> Iterator[_Mlflow]:
    # The address of a database may hold a password, and others can see the command line of a process.
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryFile() as said:
        mlflow = _Mlflow(
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            ),
            said,
        )
        try:
            yield mlflow
        finally:
            mlflow.end()


def _answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(address, timeout=5):
        return True
    return False
