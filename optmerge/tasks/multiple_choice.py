"""Any task with choices that the model is shown and answers by label."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from optmerge.engines import Response
from optmerge.tasks.choices import ChoiceOptions, answers_among, check_choices, choices_of, right_choice
from optmerge.tasks.data_task import DataTask, Scoring
from optmerge.tasks.task import Objective, Problem


@dataclass
class Options(ChoiceOptions):
    """What a configuration may set under `task`.

    Attributes:
        prompt: As in other tasks; `{listed}` is where the choices go, a line each with its label.
    """

    prompt: str = "{question}\n{listed}\nAnswer:"
    max_new_tokens: int = 16
    stop: list[str] = field(default_factory=lambda: ["\n"])


def build(options: Options) -> DataTask:
    """The task, with the score `acc`: the first label that the response names is that of the right choice."""
    check_choices(options)

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        labels = options.labels[: len(choices_of(problem.row, options))]
        return {"acc": float(named(response.text, labels) == labels[right_choice(problem)])}

    def listed(row: Mapping[str, object]) -> Mapping[str, str]:
        lines = zip(options.labels, choices_of(row, options), strict=False)
        return {"listed": "\n".join(f"{label}. {choice}" for label, choice in lines)}

    scoring = Scoring((Objective("acc"),), answers_among(options), score, columns=options.choices, fields=listed)
    return DataTask(options, scoring)


def named(text: str, labels: list[str]) -> str | None:
    """The first label that a text names, standing by itself: "B", "(B)", "答えはBです" name B, "Because" none.

    An article is no label: "A" in front of a word in small letters is skipped, but for "is".
    """
    plain = unicodedata.normalize("NFKC", text)
    known = {unicodedata.normalize("NFKC", label): label for label in labels}
    alternatives = "|".join(re.escape(label) for label in sorted(known, key=len, reverse=True))
    for match in re.finditer(rf"(?<![A-Za-z0-9])(?:{alternatives})(?![A-Za-z0-9])", plain):
        if not (match[0] == "A" and re.match(r" (?!is\b)[a-z]", plain[match.end() :])):
            return known[match[0]]
    return None
