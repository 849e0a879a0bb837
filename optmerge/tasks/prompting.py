"""From a problem to a prompt: a template, solved examples before it, and messages where a model was trained on them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optmerge.engines import Message
from optmerge.errors import UsageError
from optmerge.tasks.problem_files import ProblemFile, missing, read_rows
from optmerge.tasks.tables import Row

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass  # not frozen: OmegaConf makes a frozen one read-only, and nothing could override it
class Examples(ProblemFile):
    """Solved problems to show before the one that is asked.

    Attributes:
        separator: What stands between an example's answer and what follows.
    """

    separator: str = "\n\n"


@dataclass
class Prompting:
    """How a problem is put to a model.

    Attributes:
        prompt: Template: `{question}` is where the question goes, `{column}` any other column of the file. Braces
            around anything else are left alone.
        examples: Solved problems that come first, in the same template, each followed by its answer as its file has it.
        chat: Put the prompt as a user's message in the model's chat template, and examples as earlier turns.
        system: A system message before them.
        max_new_tokens: Length at which a response is cut.
        stop: Texts that end a response.
        stop_loops: End a response that has begun to repeat itself.
    """

    prompt: str = "{question}"
    examples: Examples | None = field(default=None, metadata={"decides_scores": False})
    chat: bool = False
    system: str | None = None
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)
    stop_loops: bool = False


def check_prompting(options: Prompting) -> None:
    """Refuse what cannot be asked.

    Raises:
        UsageError: Naming the option.
    """
    if "{question}" not in options.prompt:
        raise UsageError("task.prompt must contain {question}")
    if options.max_new_tokens < 1:
        raise UsageError(f"task.max_new_tokens must be at least 1, not {options.max_new_tokens}")
    if "" in options.stop:
        raise UsageError("task.stop must not contain an empty text: it would end every response at once")
    if options.system is not None and not options.chat:
        raise UsageError("task.system is a message of a conversation; set task.chat=true")


def missing_examples(options: Prompting) -> list[str]:
    """What keeps the examples from being read now."""
    line = missing(options.examples) if options.examples is not None else None
    return [] if line is None else [f"task.examples: {line}"]


def columns_of(template: str) -> list[str]:
    """The names in braces of a template, each once."""
    return list(dict.fromkeys(_FIELD.findall(template)))


class Asker:
    """Puts problems to a model; examples are read once, when the first is asked.

    Args:
        options: How.
        fields: What a template may show beside the columns of a row, from the row.
    """

    def __init__(self, options: Prompting, fields: Callable[[Row], Mapping[str, str]]) -> None:
        self._options = options
        self._fields = fields
        self._read: Sequence[tuple[str, str]] | None = None

    def prompt(self, question: str, row: Row) -> str | tuple[Message, ...]:
        """The prompt of a problem.

        Args:
            question: Its question.
            row: The columns of its file.
        """
        options = self._options
        asked = self._filled(question, row)
        if not options.chat:
            separator = options.examples.separator if options.examples is not None else ""
            return "".join(f"{shown}{answer}{separator}" for shown, answer in self.examples()) + asked
        turns = [Message("system", options.system)] if options.system is not None else []
        for shown, answer in self.examples():
            turns += [Message("user", shown), Message("assistant", answer.strip())]
        return (*turns, Message("user", asked))

    def examples(self) -> Sequence[tuple[str, str]]:
        """Each example's prompt and answer.

        Raises:
            UsageError: If they cannot be read.
        """
        if self._read is None:
            source = self._options.examples
            try:
                rows = [row for _, row in read_rows(source)] if source is not None else []
            except UsageError as error:
                raise UsageError(f"task.examples: {error}") from error
            assert source is not None or not rows
            self._read = [self._example(source, row) for row in rows] if source is not None else []
        return self._read

    def _filled(self, question: str, row: Row) -> str:
        return filled(self._options.prompt, question, {**row, **self._fields(row)})

    def _example(self, source: Examples, row: Row) -> tuple[str, str]:
        return self._filled(str(row.get(source.question)), row), str(row.get(source.answer))


def filled(template: str, question: str, row: Row) -> str:
    """A template with the question and other columns in their places."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "question":
            return question
        return str(row[name]) if name in row else match[0]

    return _FIELD.sub(value, template)
