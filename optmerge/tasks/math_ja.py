"""Mathematics in Japanese: the last number must be right, and the response must be Japanese (Akiba et al., 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from optmerge.engines import Response
from optmerge.errors import UsageError
from optmerge.tasks.data_task import NO_SCORE, DataOptions, DataTask, Scoring
from optmerge.tasks.language import identifier
from optmerge.tasks.numbers import reading
from optmerge.tasks.problem_files import NUMBERS
from optmerge.tasks.task import Objective, Problem

PROMPT = """\
次の指示は算数の文章題です。途中の計算を一つずつ順に説明し、最後に答えの数を書いてください。説明も答えも日本語で書いてください。

### 指示:
{question}

### 応答:"""


@dataclass
class Options(DataOptions):
    """What a configuration may set under `task`.

    Attributes:
        answers: How the last number is read: "default", or "strict_paper" for the paper's pattern.
        language: What tells Japanese from other languages: "py3langid", or "fasttext" with `language_model`.
        language_model: The file `lid.176.bin` or `lid.176.ftz` of fastText, as the paper's evaluation used it.
    """

    prompt: str = PROMPT
    max_new_tokens: int = 1024
    stop: list[str] = field(default_factory=lambda: ["Instruction:", "Instruction", "Response:", "Response"])
    answers: str = "default"
    language: str = "py3langid"
    language_model: str | None = field(default=None, metadata=NO_SCORE)


def build(options: Options) -> DataTask:
    """The task, with scores `acc` (right number) and `acc_ja` (right number in a Japanese response).

    Raises:
        UsageError: If an option cannot be used; names it.
    """
    last_number = reading(options.answers)
    try:
        judge = identifier(options.language, options.language_model)
    except UsageError as error:
        raise UsageError(f"task.language: {error}") from error

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        right = last_number(response.text) == Decimal(problem.answer)
        return {"acc": float(right), "acc_ja": float(right and judge.is_japanese(response.text))}

    return DataTask(options, Scoring((Objective("acc_ja"),), NUMBERS, score, {"language": judge.name}, ease="acc"))
