"""Responses that a candidate has given already, so that a trial that is run again need not ask for them again.

A file a candidate, of a line a response, which lies in the study's folder while the trial runs: whoever takes over
from a worker that died, on a machine that sees the folder, goes on where it stopped. Once a trial has ended its scores
are in the database, and the file is removed, or kept under the trial's slot where responses are wanted.
"""

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from optmerge.engines import Response
from optmerge.tasks import Problem

log = logging.getLogger(__name__)


class Memory:
    """The responses of one candidate.

    Args:
        path: Its file, which need not exist; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Response] = {}
        if path is not None and path.is_file():
            for line in path.read_bytes().split(b"\n"):
                try:
                    record = json.loads(line)
                    response = record["response"]
                    lists = {name: tuple(value) for name, value in response.items() if isinstance(value, list)}
                    self._known[record["id"]] = Response(**{**response, **lists})
                except (
                    ValueError,
                    KeyError,
                    TypeError,
                    AttributeError,
                ):  # the last line of a worker that died while it wrote
                    continue

    def get(self, problem: Problem) -> Response | None:
        return self._known.get(problem.id)

    def texts(self) -> dict[str, str]:
        """What was answered, by the problems' ids."""
        return {problem: response.text for problem, response in self._known.items()}

    def add(self, problems: Sequence[Problem], responses: Sequence[Response]) -> None:
        """Remember responses, by one write that others do not cut in two."""
        if self._path is None:
            return
        records = [
            {"id": problem.id, "response": asdict(response)}
            for problem, response in zip(problems, responses, strict=True)
        ]
        # A line of its own first: what a dead worker left may end in the middle of one.
        text = "\n" + "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(text.encode())
        except OSError as error:  # a full disk, above all: the trial does not need it
            log.warning("responses are not remembered: %s", error)
            self._path = None

    def end(self, keep_as: str | None) -> None:
        """Forget all, or keep it under another name beside the file."""
        if self._path is None or not self._path.exists():
            return
        if keep_as is not None:
            os.replace(self._path, self._path.with_name(keep_as))
            return
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others' files are in it
            self._path.parent.rmdir()
