"""How well a model predicts given answers, in bits a byte: a cheap, dense fitness wherever there is text."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from optmerge.engines import LogLikelihood, Request, Response
from optmerge.tasks.data_task import DataOptions, DataTask, Scoring
from optmerge.tasks.problem_files import Answers
from optmerge.tasks.task import Objective, Problem


@dataclass
class Options(DataOptions):
    """What a configuration may set under `task`.

    Attributes:
        before: What stands between the prompt and the answer.
    """

    before: str = ""


def build(options: Options) -> DataTask:
    """The task, with the score `bits_per_byte`, of which less is better; a byte's perplexity is 2 to the power of it.

    The mean is over answers, not bytes: each answer has the same say, however long.
    """

    def request(problem: Problem, prompt: str) -> Request:
        return LogLikelihood(prompt, (options.before + problem.answer,))

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        return {"bits_per_byte": -response.log_likelihoods[0] / math.log(2) / len(problem.answer.encode())}

    objective = Objective("bits_per_byte", "minimize", share=False)
    answers = Answers(lambda cell, row: str(cell) if cell not in (None, "") else None, "a text")
    return DataTask(options, Scoring((objective,), answers, score, request=request))
