import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from optmerge.errors import UsageError
from optmerge.models import missing, resolve

NOWHERE = "nobody-at-all/no-such-model"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, whether the machine has one or not, and an empty cache."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", os.fspath(tmp_path / "hub"))


def in_new_process(call):
    """The hub's client reads its settings once, at import."""
    code = f"from optmerge.models import missing, resolve\nprint({call})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def cache(tmp_path, location, folder):
    """Put a checkpoint into the hub's cache, as a download does."""
    root = tmp_path / "hub" / "hub" / f"models--{location.replace('/', '--')}"
    (root / "snapshots").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    return folder.rename(root / "snapshots" / ("0" * 40))


def test_local_folder_is_itself(tmp_path):
    assert missing(os.fspath(tmp_path), None) is None
    assert resolve(os.fspath(tmp_path), None) == tmp_path


@pytest.mark.parametrize("location", ["./models/ja", "/no/such/ja", "~/no-such-folder-of-mine", "a/b/c", "", "a b"])
def test_path_that_does_not_exist_is_refused_without_asking_the_hub(location):
    assert missing(location, None, alias="ja") == f"ja: there is no folder {location!r}"
    with pytest.raises(UsageError, match="there is no folder"):
        resolve(location, None)


def test_hub_id_offline_says_how_to_get_it(offline):
    start = time.monotonic()
    told = in_new_process(f"missing({NOWHERE!r}, 'v2', alias='ja')").stdout
    assert time.monotonic() - start < 5
    assert told.startswith(f"ja: {NOWHERE} at revision v2 is not in the local cache and the hub cannot be reached")
    assert f"`hf download {NOWHERE} --revision v2`" in told
    assert told.rstrip().endswith("models.sources.ja.path=FOLDER")


def test_hub_id_offline_cannot_be_resolved(offline):
    assert "UsageError: nobody-at-all/no-such-model is not in" in in_new_process(f"resolve({NOWHERE!r}, None)").stderr


def test_hub_id_in_the_cache_needs_no_network(offline, make, tmp_path):
    snapshot = cache(tmp_path, NOWHERE, make())
    done = in_new_process(f"missing({NOWHERE!r}, None), resolve({NOWHERE!r}, None)")
    assert done.stdout.strip() == f"None {snapshot}"


def test_adapter_in_the_cache_needs_no_network(offline, tmp_path):
    (tmp_path / "lora").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "lora" / name).touch()
    snapshot = cache(tmp_path, NOWHERE, tmp_path / "lora")
    done = in_new_process(f"missing({NOWHERE!r}, None), resolve({NOWHERE!r}, None)")
    assert done.stdout.strip() == f"None {snapshot}"


def test_cached_checkpoint_in_bin_form_is_pointed_to_convert(offline, make, tmp_path):
    snapshot = cache(tmp_path, NOWHERE, make())
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    told = in_new_process(f"missing({NOWHERE!r}, None, alias='ja')").stdout
    assert f"`python -m optmerge convert {NOWHERE} OUT` and set models.sources.ja.path=OUT" in told


def test_cached_checkpoint_without_one_of_its_shards_is_missing(offline, make, tmp_path):
    snapshot = cache(tmp_path, NOWHERE, make(shard="4KB"))
    next(snapshot.glob("model-00002-*")).unlink()
    assert "is not in the local cache" in in_new_process(f"missing({NOWHERE!r}, None)").stdout


@pytest.fixture
def hub(offline, monkeypatch):
    """A hub on this machine that knows of models, and gives no file of theirs."""
    models = {}

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            files = models.get(self.path.removeprefix("/api/models/"))
            self.send_response(404 if files is None else 200)
            if files is None:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            siblings = [{"rfilename": file} for file in files or []]
            self.wfile.write(json.dumps({"id": "x", "siblings": siblings}).encode())

        def log_message(self, *args):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield models
        server.shutdown()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["config.json", "model.safetensors"], "None"),
        (["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"], "None"),
        (
            ["pytorch_model.bin"],
            f"has only .bin weights: convert it first with `python -m optmerge convert {NOWHERE} OUT`",
        ),
        (["adapter_config.json", "adapter_model.safetensors"], "None"),
        (["adapter_config.json", "adapter_model.bin"], f"{NOWHERE} has only adapter_model.bin, and adapters are read"),
        (["README.md"], f"{NOWHERE} on the hub has no model.safetensors"),
        (None, f"{NOWHERE} is neither a folder here nor a model on the hub that you can see"),
    ],
    ids=["single", "sharded", "bin", "adapter", "bin-adapter", "no-weights", "unknown"],
)
def test_hub_is_asked_before_anything_is_downloaded(hub, files, told):
    if files is not None:
        hub[NOWHERE] = files
    assert told in in_new_process(f"missing({NOWHERE!r}, None)").stdout
