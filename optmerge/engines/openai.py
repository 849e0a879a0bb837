"""Responses from whatever is behind an OpenAI-compatible server: vLLM, llama.cpp, `transformers serve`, a provider.

A server cannot be given the weights of a candidate, so this engine cannot run merges; it scores a model that is served.
"""

import asyncio
import contextlib
import logging
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from optmerge.engines.engine import Candidate, Generate, LogLikelihood, Request, Response
from optmerge.engines.wording import comparison, cut_at
from optmerge.errors import OptmergeError, UsageError

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from optmerge.flow import LiveCandidate

NEEDS: Literal["nothing"] = "nothing"
REFUSAL = "engine=openai answers with what is behind the server; it cannot run merges; use evaluate"

_APIS = ("completions", "chat")
_USUAL_KEY = "OPENAI_API_KEY"
_CONNECT = 10.0  # seconds; a machine that is away does not answer later either
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds before asking again
_AGAIN = (408, 409, 429)  # and from 500 on: what may go well another time
_MOST_STOPS = 4  # servers refuse more

log = logging.getLogger(__name__)


@dataclass
class Options:
    """Settings of the engine.

    Attributes:
        base_url: What comes before `/completions` and `/chat/completions`.
        model: The server's name of the model.
        api: Where prompts of plain text go: to `completions` as they are, or to `chat` as one user message. Messages
            always go to chat, and log-likelihoods to completions.
        api_key_env: Environment variable that holds the API key; without it none is sent.
        concurrency: Most requests that are with the server at once.
        timeout: Seconds to wait for a response.
        retries: How often a request is sent again that the server, or the way to it, failed.
    """

    base_url: str = "http://localhost:8000/v1"
    model: str | None = None
    api: str = "completions"
    api_key_env: str = _USUAL_KEY
    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 5


def pick_device(options: Options) -> str:
    """The CPU: whatever the server has is its own.

    Raises:
        UsageError: If an option is out of its range, or the key is not to be had.
    """
    if not options.model:
        raise UsageError("engine.model is missing: it is the server's name of the model")
    _check_address(options.base_url)
    if options.api not in _APIS:
        raise UsageError(f"engine.api={options.api}: unknown; known are {', '.join(_APIS)}")
    for name, least in (("concurrency", 1), ("retries", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"engine.{name} must be at least {least}, got {getattr(options, name)}")
    if not options.timeout > 0:
        raise UsageError(f"engine.timeout must be more than 0, got {options.timeout:g}")
    _key(options)
    return "cpu"


def _check_address(url: str) -> None:
    """Refuse what is no address, or would show a password in messages; these do not show it either."""
    try:
        address = urlsplit(url)
        known = address.scheme in ("http", "https") and address.hostname and (address.port or True)
    except ValueError:
        known = False
    if not known or address.query or address.fragment:
        raise UsageError("engine.base_url must be an address such as http://localhost:8000/v1")
    if address.username is not None:
        raise UsageError("engine.base_url must not hold a user or password; engine.api_key_env says where a key is")


def _key(options: Options) -> str | None:
    """The API key. No message shows the option's value: by mistake it may be the key."""
    if not re.fullmatch(r"[A-Za-z_]\w*", options.api_key_env, re.ASCII):
        raise UsageError("engine.api_key_env must be the name of an environment variable, and not the key itself")
    key = os.environ.get(options.api_key_env, "").strip()
    if not key and options.api_key_env != _USUAL_KEY:
        raise UsageError("engine.api_key_env names an environment variable that is not set")
    if not re.fullmatch(r"[!-~]*", key):
        raise UsageError("the API key in the environment variable of engine.api_key_env has characters that keys lack")
    return key or None


def build(options: Options, folder: Path | None, dtype: str) -> "OpenAIEngine":
    """Make ready to ask; the server is not asked before the first request.

    Args:
        options: Settings.
        folder: Not looked at: the server has model and tokenizer.
        dtype: Nor this.

    Raises:
        UsageError: As `pick_device` does.
    """
    return OpenAIEngine(options)


class OpenAIEngine:
    """A server, and how it is asked.

    It sends a response when that is whole, so that one which repeats itself goes on to its limit: `stop_loops` does
    nothing here.
    """

    needs: Literal["nothing"] = NEEDS

    def __init__(self, options: Options) -> None:
        self.device = pick_device(options)
        self._options = options
        self._url = options.base_url.rstrip("/")
        self._key = _key(options)

    def mount(self, candidate: "Candidate | LiveCandidate") -> None:
        """Refuse.

        Raises:
            OptmergeError: Always.
        """
        raise OptmergeError(REFUSAL)

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, some at once.

        Raises:
            OptmergeError: If the server does not answer, refuses, or cannot do what is asked.
        """
        return asyncio.run(self._run(requests))

    async def _run(self, requests: Sequence[Request]) -> list[Response]:
        import httpx2

        responses: dict[int, Response] = {}
        waiting = iter(enumerate(requests))
        options = self._options

        async def work() -> None:
            for i, request in waiting:
                responses[i] = await self._answer(client, request)

        timeout = httpx2.Timeout(options.timeout, connect=min(_CONNECT, options.timeout))
        limits = httpx2.Limits(max_connections=options.concurrency)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        async with httpx2.AsyncClient(timeout=timeout, limits=limits, headers=headers) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(options.concurrency, len(requests))):
                        group.create_task(work())
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None  # the first to fail; it ends the others
        return [responses[i] for i in range(len(requests))]

    async def _answer(self, client: "AsyncClient", request: Request) -> Response:
        if isinstance(request, LogLikelihood):
            return await self._compare(client, request)
        return await self._generate(client, request)

    async def _generate(self, client: "AsyncClient", request: Generate) -> Response:
        chat = self._options.api == "chat" or not isinstance(request.prompt, str)
        asked: dict[str, Any] = {"max_tokens": request.max_new_tokens}
        if request.stop:
            asked["stop"] = request.stop[:_MOST_STOPS]  # the text is cut anyway, so this only saves time
        if isinstance(request.prompt, str):
            asked |= {"messages": [{"role": "user", "content": request.prompt}]} if chat else {"prompt": request.prompt}
        else:
            asked["messages"] = [message._asdict() for message in request.prompt]
        answer = await self._ask(client, "/chat/completions" if chat else "/completions", asked)
        with self._reading(answer):
            choice = answer["choices"][0]
            text = str((choice["message"]["content"] if chat else choice["text"]) or "")
            tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
            ended = choice.get("finish_reason") != "length"
        cut = cut_at(text, request.stop)
        return Response(text[:cut], tokens, "stop" if ended or cut is not None else "length")

    async def _compare(self, client: "AsyncClient", request: LogLikelihood) -> Response:
        """Log-likelihoods, from those of all tokens of prompt and continuation, and the number of the prompt's.

        As in the transformers engine, white space at the prompt's end goes to the continuation.
        """
        stem = request.prompt.rstrip()
        if not stem:
            raise OptmergeError(
                "engine=openai cannot tell how likely a text is that nothing comes before: servers give no "
                "log-probability of a first token"
            )
        before = len(await self._echo(client, stem))
        scored, greedy = [], []
        for continuation in request.continuations:
            each = await self._echo(client, request.prompt + continuation)
            scored.append(each[min(before, len(each) - 1) :])
            greedy.append([first for _, first in scored[-1]])
        known = all(first is not None for one in greedy for first in one)
        return comparison(
            request,
            [len(each) for each in scored],
            [sum(value for value, _ in each) for each in scored],
            [all(one) for one in greedy] if known else (),
        )

    async def _echo(self, client: "AsyncClient", text: str) -> list[tuple[float, bool | None]]:
        """The logarithm of the probability of each token of a text, and whether it is the likeliest, if that is told.

        Of the first token neither is known; here its logarithm is 0.
        """
        # To generate no token would do, but some servers take 0 for no limit.
        asked = {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 1}
        answer = await self._ask(client, "/completions", asked)
        with self._reading(answer):
            choice, count = answer["choices"][0], int(answer["usage"]["prompt_tokens"])
            given = (choice.get("logprobs") or {}).get("token_logprobs") or []
            # Some servers ignore `echo`, and give the probability of what they have added.
            if len(given) < count or not choice["text"].startswith(text) or None in given[1:count]:
                raise OptmergeError(
                    f"the server at {self._url} does not give the log-probabilities of a prompt, which this task needs "
                    "(`echo` with `logprobs` in /completions)"
                )
            values = [float(value) for value in given[1:count]]
            top = (choice["logprobs"].get("top_logprobs") or [])[1:count]
            if len(top) < len(values) or not all(top):  # some servers leave them out
                return [(value, None) for value in (0.0, *values)]
            firsts = [value >= max(map(float, best.values())) for value, best in zip(values, top, strict=True)]
            return [(0.0, None), *zip(values, firsts, strict=True)]

    async def _ask(self, client: "AsyncClient", path: str, asked: Mapping[str, Any]) -> Any:
        """What the server answers to a request, sent again where that may help."""
        import httpx2

        body = {"model": self._options.model, "temperature": 0, **asked}
        for attempt in range(self._options.retries + 1):
            asked_to_wait = 0.0
            try:
                answer = await client.post(self._url + path, json=body)
            except httpx2.TransportError as error:
                reason = self._shown(str(error)) or type(error).__name__  # a timeout says nothing
                failure = f"the server at {self._url} does not answer: {reason}"
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise OptmergeError(f"the server at {self._url} cannot be asked: {self._shown(str(error))}") from error
            else:
                if answer.is_success:
                    with self._reading(answer.text):
                        return answer.json()
                failure = self._failure(answer.status_code, answer.reason_phrase, answer.text)
                if answer.status_code not in _AGAIN and answer.status_code < 500:
                    raise OptmergeError(failure)
                asked_to_wait = _seconds(answer.headers.get("retry-after", ""))
            if attempt < self._options.retries:
                wait = max(_FIRST_WAIT * 2**attempt * random.uniform(0.75, 1), asked_to_wait)
                log.info("%s; asking again (%d of %d)", failure, attempt + 1, self._options.retries)
                await asyncio.sleep(min(wait, _LONGEST_WAIT))
        times = self._options.retries + 1
        raise OptmergeError(f"{failure} (asked {times} times)" if times > 1 else failure)

    @contextlib.contextmanager
    def _reading(self, answer: object) -> Iterator[None]:
        """Say what an answer is that has not what it should."""
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise OptmergeError(
                f"the server at {self._url} answers, but not as OpenAI-compatible ones do: {self._shown(str(answer))}"
            ) from error

    def _failure(self, status: int, reason: str, text: str) -> str:
        hint = ""
        if status == 401 and self._key is None:
            hint = f"; set the environment variable {self._options.api_key_env} to the API key"
        detail = self._shown(text)
        return f"the server at {self._url} answered {status} {reason}{f': {detail}' if detail else ''}{hint}"

    def _shown(self, text: str) -> str:
        """What a server says, in one short line and without the key, which some repeat."""
        if self._key:
            text = text.replace(self._key, "***")
        found = re.search(r'"(?:message|detail|error)"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
        line = " ".join((found[1] if found else text).split())
        return line if len(line) <= 200 else f"{line[:200]}..."


def _seconds(text: str) -> float:
    """The seconds in a header; 0 where it has a date, or is not there."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
