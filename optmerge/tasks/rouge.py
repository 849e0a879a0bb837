"""Summaries and other texts that share words with a reference: ROUGE (Lin, 2004), of Japanese words too."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from optmerge.engines import Response
from optmerge.errors import UsageError
from optmerge.tasks.data_task import DataOptions, DataTask, Scoring
from optmerge.tasks.problem_files import TEXTS
from optmerge.tasks.task import Objective, Problem

_KINDS = ("rouge1", "rouge2", "rougeL")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


@dataclass
class Options(DataOptions):
    """What a configuration may set under `task`.

    Attributes:
        objective: The score that is searched for: rouge1, rouge2 or rougeL.
    """

    max_new_tokens: int = 256
    stop: list[str] = field(default_factory=list)
    objective: str = "rougeL"


def build(options: Options) -> DataTask:
    """The task, with the scores `rouge1`, `rouge2` and `rougeL`: F-measures, of several references the best.

    Raises:
        UsageError: If an option cannot be used, or the libraries are not installed.
    """
    if options.objective not in _KINDS:
        raise UsageError(f"task.objective={options.objective}: unknown; known are {', '.join(_KINDS)}")
    scorer = _scorer()

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        found = [scorer.score(reference, response.text) for reference in problem.answer.split("\n")]
        return {kind: max(float(one[kind].fmeasure) for one in found) for kind in _KINDS}

    return DataTask(options, Scoring((Objective(options.objective),), TEXTS, score))


class Words:
    """Cuts texts into words: Japanese ones with MeCab and UniDic, others at what is no letter or digit."""

    def tokenize(self, text: str) -> list[str]:
        plain = unicodedata.normalize("NFKC", text).casefold()
        words = [word.surface for word in _tagger()(plain)] if _JAPANESE.search(plain) else re.findall(r"\w+", plain)
        return [word for word in words if re.search(r"\w", word)]


@cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer

        _tagger()
    except ImportError as error:
        raise UsageError(f"task=rouge needs {error.name}: pip install 'optmerge[rouge]'") from error
    return RougeScorer(list(_KINDS), tokenizer=Words())


@cache
def _tagger() -> Any:
    """The morphological analyser, loaded once a process."""
    from fugashi import Tagger

    return Tagger()
