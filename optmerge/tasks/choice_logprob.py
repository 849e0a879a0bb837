"""Any task with choices of which the model finds one the likeliest: nothing is generated, and every problem says much.

A right answer that is nearly preferred scores nearly as well as one that is: such a fitness is dense where a count of
right answers is 0 for most of the first merges.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optmerge.engines import LogLikelihood, Request, Response
from optmerge.errors import UsageError
from optmerge.tasks.choices import ChoiceOptions, answers_among, check_choices, choices_of, right_choice
from optmerge.tasks.data_task import DataTask, Scoring
from optmerge.tasks.task import Objective, Problem

_SCORES = ("p_right", "acc", "acc_norm")


@dataclass
class Options(ChoiceOptions):
    """What a configuration may set under `task`.

    Attributes:
        before: What stands between the prompt and a choice.
        objective: The score that is searched for: `p_right`, the right choice's share of the probability of all
            choices; `acc`, whether it is the likeliest; `acc_norm`, whether it is by byte.
    """

    prompt: str = "Question: {question}\nAnswer:"
    before: str = " "
    objective: str = "p_right"


def build(options: Options) -> DataTask:
    """The task, with the scores `p_right`, `acc` and `acc_norm`."""
    check_choices(options)
    if options.objective not in _SCORES:
        raise UsageError(f"task.objective={options.objective}: unknown; known are {', '.join(_SCORES)}")

    def request(problem: Problem, prompt: str) -> Request:
        return LogLikelihood(prompt, tuple(options.before + choice for choice in choices_of(problem.row, options)))

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        logs, right = np.array(response.log_likelihoods), right_choice(problem)
        lengths = np.array([len(choice.encode()) for choice in choices_of(problem.row, options)])
        shares = np.exp(logs - logs.max())
        return {
            "p_right": float(shares[right] / shares.sum()),
            "acc": float(logs.argmax() == right),
            "acc_norm": float((logs / lengths).argmax() == right),
        }

    scoring = Scoring((Objective(options.objective),), answers_among(options), score, {}, options.choices, request)
    return DataTask(options, scoring)
