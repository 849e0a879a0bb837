"""The engine that asks a server, with real servers: `transformers serve`, and small ones that fail as servers do."""

import http.server
import importlib.util
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines.test_transformers import babble, common_text, requests
from optmerge.__main__ import run
from optmerge.commands.assembly import Assembly
from optmerge.engines import Generate, LogLikelihood, Message, openai, transformers
from optmerge.engines.openai import Options, build, pick_device
from optmerge.errors import OptmergeError, UsageError

KEY = "sk-sesame-0123456789"
TEMPLATE = "{% for message in messages %}{{ message['role'] + message['content'] }}{% endfor %}"


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve`, which loads the model that a request names."""
    for library in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"`transformers serve` needs {library}; pip install 'transformers[serving]'")
    port, log = free_port(), tmp_path_factory.mktemp("served") / "log"
    program = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def chatty(assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Japanese specialist with a chat template."""
    folder = Path(shutil.copytree(assembly.checkpoints["ja"].folder, tmp_path_factory.mktemp("chatty") / "ja"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def local(chatty: Path) -> transformers.TransformersEngine:
    """The same model in this process."""
    return transformers.build(transformers.Options(device="cpu", threads=1), chatty, "float32")


def texts(responses: Any) -> list[tuple[str, str]]:
    """What a server should answer as well; it counts the token that ends a response, and this project does not."""
    return [(response.text, response.finish) for response in responses]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_prompts_are_answered_as_by_the_same_model_in_this_process(
    served: str, chatty: Path, local: transformers.TransformersEngine, assembly: Assembly, concurrency: int
) -> None:
    engine = build(Options(base_url=served, model=str(chatty), concurrency=concurrency), None, "float32")
    answered = engine.run(requests(assembly))
    assert len({response.text for response in answered}) > 3
    assert texts(answered) == texts(local.run(requests(assembly)))


def conversations(assembly: Assembly) -> list[Generate]:
    return [
        replace(asked, prompt=(Message("system", "次の"), Message("user", str(asked.prompt))))
        for asked in requests(assembly)
    ]


def test_messages_are_answered_as_by_the_same_model_in_this_process(
    served: str, chatty: Path, local: transformers.TransformersEngine, assembly: Assembly
) -> None:
    engine = build(Options(base_url=served, model=str(chatty)), None, "float32")
    answered = engine.run(conversations(assembly))
    assert len({response.text for response in answered}) > 3
    assert texts(answered) == texts(local.run(conversations(assembly)))


def test_api_chat_makes_a_prompt_one_user_message(served: str, chatty: Path, assembly: Assembly) -> None:
    asked = requests(assembly)[:4]
    messages = [replace(request, prompt=(Message("user", str(request.prompt)),)) for request in asked]
    chat = build(Options(base_url=served, model=str(chatty), api="chat"), None, "float32")
    plain = build(Options(base_url=served, model=str(chatty)), None, "float32")
    assert chat.run(asked) == plain.run(messages)
    assert chat.run(asked) != plain.run(asked)


def test_stop_strings_cut_the_response(served: str, babbler: Path) -> None:
    engine = build(Options(base_url=served, model=str(babbler)), None, "float32")
    whole = engine.run(babble())
    stop = common_text(whole)
    cut = engine.run(babble(stop=(stop,)))
    assert [response.text for response in cut] == [response.text.partition(stop)[0] for response in whole]
    assert {response.finish for response, before in zip(cut, whole, strict=True) if stop in before.text} == {"stop"}


def test_no_requests_have_no_responses() -> None:
    assert build(Options(model="any"), None, "float32").run([]) == []


def test_a_server_that_gives_no_probabilities_of_prompts_is_refused(served: str, chatty: Path) -> None:
    engine = build(Options(base_url=served, model=str(chatty)), None, "float32")
    with pytest.raises(OptmergeError, match="does not give the log-probabilities of a prompt") as caught:
        engine.run([LogLikelihood("1と2の和は", ("3", "4"))])
    assert "\n" not in str(caught.value)


def test_a_model_that_the_server_does_not_have_is_an_error_of_one_line(served: str, tmp_path: Path) -> None:
    engine = build(Options(base_url=served, model=str(tmp_path / "none"), retries=0), None, "float32")
    with pytest.raises(OptmergeError, match="the server at .* answered 500") as caught:
        engine.run([Generate("a", 2)])
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1


@dataclass
class Asked:
    """What a small server was asked, and how many requests it had at once."""

    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    now: int = 0
    most: int = 0


Answer = tuple[int, dict[str, str], str]
ANSWER = json.dumps(
    {"choices": [{"text": "forty-two", "finish_reason": "stop"}], "usage": {"completion_tokens": 3, "prompt_tokens": 1}}
)


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer], seconds: float = 0.0) -> Iterator[tuple[str, Asked]]:
    """A server that gives the answers of a function of the request's number and body, each after some seconds."""
    asked, lock = Asked(), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(asked.requests)
                asked.requests.append((self.path, dict(self.headers), body))
                asked.now += 1
                asked.most = max(asked.most, asked.now)
            time.sleep(seconds)
            status, headers, text = answer(number, body)
            with lock:
                asked.now -= 1
            if not status:  # hang up
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("failure", [500, 503, 429, 408, 0])
def test_what_fails_for_a_time_is_asked_again(failure: int) -> None:
    with serving(lambda number, _: (200, {}, ANSWER) if number else (failure, {}, "later")) as (url, asked):
        answered = build(Options(base_url=url, model="any"), None, "float32").run([Generate("a", 4)])
    assert texts(answered) == [("forty-two", "stop")] and answered[0].tokens == 3
    assert len(asked.requests) == 2 and asked.requests[0][2] == asked.requests[1][2]


def test_a_server_says_how_long_to_wait() -> None:
    began = time.monotonic()
    with serving(lambda number, _: (200, {}, ANSWER) if number else (429, {"retry-after": "2"}, "")) as (url, _):
        build(Options(base_url=url, model="any"), None, "float32").run([Generate("a", 4)])
    assert time.monotonic() - began >= 2


def test_requests_are_with_the_server_at_once_as_many_as_are_allowed() -> None:
    def echo(_: int, body: dict[str, Any]) -> Answer:
        return 200, {}, ANSWER.replace("forty-two", body["prompt"])

    asked = [Generate(f"prompt {i}", 4) for i in range(12)]
    with serving(echo, seconds=0.1) as (url, seen):
        answered = build(Options(base_url=url, model="any", concurrency=3), None, "float32").run(asked)
    assert [response.text for response in answered] == [request.prompt for request in asked]
    assert seen.most == 3


def test_a_request_is_greedy_and_within_its_limit() -> None:
    with serving(lambda *_: (200, {}, ANSWER)) as (url, asked):
        build(Options(base_url=f"{url}/", model="mine"), None, "float32").run([Generate("a", 4, ("\n", "x"))])
    path, headers, body = asked.requests[0]
    assert path == "/v1/completions" and "authorization" not in {name.lower() for name in headers}
    assert body == {"model": "mine", "prompt": "a", "max_tokens": 4, "temperature": 0, "stop": ["\n", "x"]}


def test_the_first_failure_ends_the_others() -> None:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        if body["prompt"] == "bad":
            return 400, {}, '{"error": {"message": "this is\\ntoo long"}}'
        time.sleep(3)
        return 200, {}, ANSWER

    with serving(answer) as (url, _):
        engine = build(Options(base_url=url, model="any"), None, "float32")
        began = time.monotonic()
        with pytest.raises(OptmergeError, match=r"answered 400 Bad Request: this is\\ntoo long$"):
            engine.run([Generate(prompt, 4) for prompt in ("good", "bad", "good")])
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("text", ["<html>\n<p>Hello</p></html>", "[]", '{"choices": []}', '{"choices": [{"text": "a"}'])
def test_a_server_of_another_kind_is_an_error_of_one_line(text: str) -> None:
    with serving(lambda *_: (200, {}, text)) as (url, _):
        engine = build(Options(base_url=url, model="any"), None, "float32")
        with pytest.raises(OptmergeError, match="answers, but not as OpenAI-compatible ones do") as caught:
            engine.run([Generate("a", 4)])
    assert "\n" not in str(caught.value)


def test_a_server_that_is_away_is_an_error_of_one_line() -> None:
    engine = build(Options(base_url=f"http://127.0.0.1:{free_port()}/v1", model="any", retries=1), None, "float32")
    with pytest.raises(OptmergeError, match=r"does not answer: .*\(asked 2 times\)") as caught:
        engine.run([Generate("a", 4)])
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1


def test_a_server_that_is_too_slow_is_an_error_of_one_line() -> None:
    with serving(lambda *_: (200, {}, ANSWER), seconds=1.0) as (url, _):
        engine = build(Options(base_url=url, model="any", timeout=0.1, retries=0), None, "float32")
        with pytest.raises(OptmergeError, match="does not answer: ReadTimeout$"):
            engine.run([Generate("a", 4)])


@pytest.mark.parametrize("status", [200, 401, 500])
def test_the_key_is_sent_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(lambda *_: (status, {"x-said": KEY}, f'{{"error": "no {KEY} here"}}')) as (url, asked):
        engine = build(Options(base_url=url, model="any", api_key_env="MY_KEY", retries=1), None, "float32")
        with pytest.raises(OptmergeError) as caught:
            engine.run([Generate("a", 4)])
    assert asked.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) and "no *** here" in str(caught.value)
    assert KEY not in caplog.text.replace(f"(b'x-said', b'{KEY}')", "")  # httpcore2 shows what a server sends
    assert KEY not in repr(engine) + repr(vars(engine)["_options"])


def test_a_missing_key_is_named_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda *_: (401, {}, "")) as (url, _):
        engine = build(Options(base_url=url, model="any"), None, "float32")
        with pytest.raises(OptmergeError, match="401 Unauthorized; set the environment variable OPENAI_API_KEY"):
            engine.run([Generate("a", 4)])


@pytest.mark.parametrize("name", [KEY, "sesame0123456789", "WITH_NEWLINE"])
def test_a_key_in_the_wrong_place_or_form_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WITH_NEWLINE", "sesame\nHost: elsewhere")
    with pytest.raises(UsageError, match="engine.api_key_env") as caught:
        pick_device(Options(model="any", api_key_env=name))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "engine.model is missing"),
        ({"base_url": "localhost:8000"}, "engine.base_url must be an address such as"),
        ({"base_url": "http://localhost:port/v1"}, "engine.base_url must be an address such as"),
        ({"base_url": "http://me:sesame@localhost/v1"}, "engine.base_url must not hold a user or password"),
        ({"base_url": "http://localhost/v1?key=sesame"}, "engine.base_url must be an address such as"),
        ({"api": "magic"}, "engine.api=magic: unknown; known are completions, chat"),
        ({"concurrency": 0}, "engine.concurrency must be at least 1, got 0"),
        ({"retries": -1}, "engine.retries must be at least 0, got -1"),
        ({"timeout": 0.0}, "engine.timeout must be more than 0, got 0"),
    ],
)
def test_settings_that_cannot_be_had_are_usage_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        pick_device(replace(Options(model="any"), **changes))
    assert "sesame" not in str(caught.value)


def echoing(folder: Path, top: bool) -> Callable[[int, dict[str, Any]], Answer]:
    """Answers with the log-probabilities of a prompt, in the form of OpenAI and vLLM, computed by a real model.

    Args:
        folder: The model.
        top: Tell the likeliest token of each place too, as most servers do.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lock = threading.Lock()

    def answer(_: int, body: dict[str, Any]) -> Answer:
        assert body["echo"] and body["logprobs"] == 1 and body["max_tokens"] == 1
        with lock, torch.inference_mode():
            prompt = tokenizer(body["prompt"], return_tensors="pt")["input_ids"]
            logits = model(prompt).logits[0].log_softmax(-1)
        added = int(logits[-1].argmax())
        ids = [*prompt[0].tolist(), added]
        each = [None, *(float(logits[i, token]) for i, token in enumerate(ids[1:]))]
        text = body["prompt"] + tokenizer.decode([added])
        best = [None, *({tokenizer.decode([int(row.argmax())]): float(row.max())} for row in logits)]
        told = {"token_logprobs": each, **({"top_logprobs": best} if top else {})}
        choice = {"text": text, "logprobs": told, "finish_reason": "length"}
        usage = {"prompt_tokens": len(ids) - 1, "completion_tokens": 1}
        return 200, {}, json.dumps({"choices": [choice], "usage": usage})

    return answer


@pytest.mark.parametrize("top", [True, False])
def test_log_likelihoods_are_those_of_the_same_model_in_this_process(
    chatty: Path, local: transformers.TransformersEngine, top: bool
) -> None:
    (written,) = local.run([Generate("1と2の和は", 3)])
    asked = [
        LogLikelihood("1と2の和は", (written.text, "3です")),
        LogLikelihood("1と2の和は", ("3です", "4です", "10")),
        LogLikelihood("1 + 2 = ", ("3", "12")),
        LogLikelihood("答えは", ("。",)),
    ]
    with serving(echoing(chatty, top)) as (url, _):
        answered = build(Options(base_url=url, model="any"), None, "float32").run(asked)
    for response, expected in zip(answered, local.run(asked), strict=True):
        assert response.log_likelihoods == pytest.approx(expected.log_likelihoods, abs=1e-4)
        assert (response.text, response.tokens) == (expected.text, expected.tokens)
        assert response.greedy == (expected.greedy if top else ())
    assert not top or answered[0].greedy == (True, False)


def test_a_server_that_gives_only_the_probability_of_what_it_adds_is_refused() -> None:
    choice = {"text": "3", "logprobs": {"token_logprobs": [-0.5]}}
    ignoring = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    with serving(lambda *_: (200, {}, ignoring)) as (url, _):
        engine = build(Options(base_url=url, model="any"), None, "float32")
        with pytest.raises(OptmergeError, match="does not give the log-probabilities of a prompt"):
            engine.run([LogLikelihood("1", ("2",))])


def test_a_text_after_nothing_cannot_be_compared() -> None:
    with pytest.raises(OptmergeError, match="cannot tell how likely a text is that nothing comes before"):
        build(Options(model="any"), None, "float32").run([LogLikelihood(" ", ("a", "b"))])


def test_candidates_cannot_be_mounted(assembly: Assembly) -> None:
    engine = build(Options(model="any"), assembly.companions.folder, "float32")
    assert engine.needs == "nothing"
    with pytest.raises(OptmergeError, match="it cannot run merges; use evaluate"):
        engine.mount(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--multirun", "study.seed=0,1"]])
def test_a_search_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["engine=openai", "engine.model=any", *more]) == 2
    assert capsys.readouterr().err == f"optmerge: {openai.REFUSAL}\n"
    assert list(tmp_path.iterdir()) == []
