"""Mathematics in Japanese: the last number must be right, and the response must be Japanese (Akiba et al., 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from optmerge.engines import Generate, Response
from optmerge.errors import UsageError
from optmerge.tasks.language import is_japanese
from optmerge.tasks.numbers import READINGS
from optmerge.tasks.problem_files import ProblemFile, missing, read_problems
from optmerge.tasks.questions import normalised
from optmerge.tasks.task import SPLITS, Objective, Problem, Split, sha256_of

PROMPT = """\
次の指示は算数の文章題です。途中の計算を一つずつ順に説明し、最後に答えの数を書いてください。説明も答えも日本語で書いてください。

### 指示:
{question}

### 応答:"""


# Of the options, those that decide a score beside the problems.
_SETTINGS = ("prompt", "max_new_tokens", "stop", "answers")


@dataclass  # not frozen: OmegaConf makes a frozen one read-only, and nothing could override it
class Options:
    """What a configuration may set under `task`.

    Attributes:
        search: Problems that a search scores its trials on.
        validation: Problems that choose among finalists; None for a search whose finalists are not validated.
        test: Problems that are scored once, after the search.
        prompt: The prompt, with `{question}` where the question goes.
        max_new_tokens: Length at which a response is cut.
        stop: Texts that end a response.
        answers: How the last number is read: "default", or "strict_paper" for the paper's pattern.
    """

    search: ProblemFile = field(default_factory=ProblemFile)
    validation: ProblemFile | None = None
    test: ProblemFile = field(default_factory=ProblemFile)
    prompt: str = PROMPT
    max_new_tokens: int = 1024
    stop: list[str] = field(default_factory=lambda: ["Instruction:", "Instruction", "Response:", "Response"])
    answers: str = "default"


def build(options: Options) -> "MathJa":
    """The task of these options; problems are read when they are first asked for.

    Raises:
        UsageError: If an option cannot be used; names it.
    """
    return MathJa(options)


class MathJa:
    """The task `math_ja`: scores `acc` (right number) and `acc_ja` (right number in a Japanese response)."""

    objectives: Sequence[Objective] = (Objective("acc_ja"),)

    def __init__(self, options: Options) -> None:
        _check(options)
        self._options = options
        self._files = {"search": options.search, "validation": options.validation, "test": options.test}
        self._read: dict[Split, Sequence[Problem]] = {}
        self._last_number = READINGS[options.answers]

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, read once; none if validation is None.

        Raises:
            UsageError: If they cannot be had; names the option.
        """
        if split not in self._read:
            source = self._files[split]
            try:
                self._read[split] = () if source is None else tuple(read_problems(source))
            except UsageError as error:
                raise UsageError(f"task.{split}: {error}") from error
        return self._read[split]

    def missing(self) -> list[str]:
        """What keeps problems from being read now: a line for each split that lacks something, quickly."""
        lines = {split: missing(source) for split, source in self._files.items() if source is not None}
        return [f"task.{split}: {line}" for split, line in lines.items() if line is not None]

    def request(self, problem: Problem) -> Generate:
        """The prompt with the question in it; braces elsewhere in the prompt are left alone."""
        prompt = self._options.prompt.replace("{question}", problem.question)
        return Generate(prompt, self._options.max_new_tokens, tuple(self._options.stop))

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        """`acc`: the last number equals the answer. `acc_ja`: and the response is Japanese."""
        right = self._last_number(response.text) == Decimal(problem.answer)
        return {"acc": float(right), "acc_ja": float(right and is_japanese(response.text))}

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of everything that decides a score, by option: a study continues only where all are the same."""
        problems = {
            split: sha256_of([(normalised(p.question), p.answer) for p in self.problems(split)]) for split in SPLITS
        }
        settings = {name: sha256_of(getattr(self._options, name)) for name in _SETTINGS}
        return problems | settings


def _check(options: Options) -> None:
    if "{question}" not in options.prompt:
        raise UsageError("task.prompt must contain {question}")
    if options.max_new_tokens < 1:
        raise UsageError(f"task.max_new_tokens must be at least 1, not {options.max_new_tokens}")
    if "" in options.stop:
        raise UsageError("task.stop must not contain an empty text: it would end every response at once")
    if options.answers not in READINGS:
        raise UsageError(f"task.answers must be one of {', '.join(READINGS)}, not {options.answers!r}")
