"""Well-known test sets, which nobody should search on unless they say so.

Local files are recognised by their questions: `public_tests/*.txt` hold, for each test set, 8 hexadecimal digits of the
hash of every question. Data sets on the hub are recognised by their ids, whatever language they are in.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from optmerge.errors import UsageError
from optmerge.tasks.problem_files import ProblemFile
from optmerge.tasks.questions import question_id
from optmerge.tasks.task import Problem

_FOLDER = Path(__file__).parent / "public_tests"
_DIGITS = 8

# Data sets of which a split is a public test set, in lower case; all splits where the set is nothing but a test.
_ON_THE_HUB = {
    "openai/gsm8k": "test",
    "gsm8k": "test",
    "openai/gsm8k-platinum": None,
    "madrylab/gsm8k-platinum": None,
    "juletxara/mgsm": "test",
    "sakanaai/gsm8k-ja-test_250-1319": None,
    "hendrycks/competition_math": "test",
    "huggingfaceh4/math-500": None,
    "cais/mmlu": "test",
    "tiger-lab/mmlu-pro": "test",
    "allenai/ai2_arc": "test",
    "openai/openai_humaneval": None,
    "google-research-datasets/mbpp": "test",
    "ucinlp/drop": "validation",
    "truthfulqa/truthful_qa": None,
    "rowan/hellaswag": "validation",
    "allenai/winogrande": "validation",
    "xcopa": "test",
    "nlp-waseda/jmmlu": "test",
}


def check_private(source: ProblemFile, problems: Sequence[Problem]) -> None:
    """Refuse problems of a public test set.

    Args:
        source: Where they come from.
        problems: The problems.

    Raises:
        UsageError: If they are known; says which test set, and how to search on them all the same.
    """
    name = _known_on_the_hub(source) if source.path is None else None
    count = len(problems)
    if name is None:
        ids = {question_id(problem.question)[:_DIGITS] for problem in problems}
        shared = {known: len(ids & hashes) for known, hashes in _hashes().items()}
        name = max(shared, key=lambda known: shared[known])
        count = shared[name]
    if count:
        raise UsageError(
            f"{count} of {len(problems)} problems are of {name}, a public test set: a merge that was searched on it "
            "cannot be compared on it; take others, or say task.search_on_public_test=true"
        )


def _known_on_the_hub(source: ProblemFile) -> str | None:
    known = (source.hub or "").lower()
    if known in _ON_THE_HUB and _ON_THE_HUB[known] in (None, source.split):
        return str(source.hub)
    return None


@cache
def _hashes() -> dict[str, frozenset[str]]:
    """Test set to the first digits of its questions' ids."""
    return {path.stem: frozenset(path.read_text().split()) for path in sorted(_FOLDER.glob("*.txt"))}
