"""A hub on this machine: as much of its API as an upload by huggingface_hub needs, with a token that it asks for."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_open_sesame"
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Keeps repositories in memory.

    Attributes:
        files: Repository to file name to its bytes.
        private: Repositories that are.
        commits: What was said of each commit.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[dict[str, Any]] = []
        self.stored: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub, for as long as the context lasts."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: Any) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_PUT(self) -> None:  # noqa: N802
        body = self._body()
        assert hashlib.sha256(body).hexdigest() == self.path.removeprefix("/store/")
        self.server.stored[self.path.removeprefix("/store/")] = body
        self._answer(200, {})

    def do_GET(self) -> None:  # noqa: N802
        self._answer(404, {"error": "not here"})

    def do_POST(self) -> None:  # noqa: N802
        body, path, hub = self._body(), self.path.partition("?")[0], self.server
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            hub.files.setdefault(repo, {})
            hub.private[repo] = asked.get("visibility") == "private" or bool(asked.get("private"))
            return self._answer(200, {"url": f"{hub.url}/{repo}", "id": repo, "name": repo})
        if path == "/api/validate-yaml":  # the real one knows much more
            metadata = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            errors = [] if metadata.get("license") else [{"message": "license is missing"}]
            return self._answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": _mode(file["path"]), "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            actions = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/store/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": actions})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)
        assert found, path
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                hub.commits.append(value)
            elif entry["key"] == "file":
                hub.files[found[1]][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                hub.files[found[1]][value["path"]] = hub.stored[value["oid"]]
        return self._answer(
            200, {"success": True, "commitOid": COMMIT, "commitUrl": f"{hub.url}/{found[1]}/commit/{COMMIT}"}
        )


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".png")) else "regular"
