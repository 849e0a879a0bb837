"""GSM8K, grade-school mathematics in English (Cobbe et al., 2021): the last number must be right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from optmerge.engines import Response
from optmerge.tasks.data_task import DataOptions, DataTask, Scoring
from optmerge.tasks.numbers import reading
from optmerge.tasks.problem_files import NUMBERS
from optmerge.tasks.task import Objective, Problem


@dataclass
class Options(DataOptions):
    """What a configuration may set under `task`.

    Attributes:
        answers: How the last number is read: "default", or "strict_paper" for the pattern of `math_ja`'s paper.
    """

    prompt: str = "Question: {question}\nAnswer:"
    stop: list[str] = field(default_factory=lambda: ["Question:"])
    answers: str = "default"


def build(options: Options) -> DataTask:
    """The task, with the score `acc`."""
    last_number = reading(options.answers)

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        return {"acc": float(last_number(response.text) == Decimal(problem.answer))}

    return DataTask(options, Scoring((Objective("acc"),), NUMBERS, score))
