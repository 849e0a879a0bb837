"""MGSM, GSM8K's first 250 test problems in eleven languages (Shi et al., 2022): the last number must be right."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from optmerge.engines import Response
from optmerge.errors import UsageError
from optmerge.tasks.data_task import DataOptions, DataTask, Scoring
from optmerge.tasks.numbers import last_number
from optmerge.tasks.problem_files import NUMBERS
from optmerge.tasks.task import Objective, Problem

# What stands before a question and before an answer, in each language.
_WORDS = {
    "bn": ("প্রশ্ন:", "ধাপে ধাপে উত্তর:"),
    "de": ("Frage:", "Schritt-für-Schritt-Antwort:"),
    "en": ("Question:", "Step-by-Step Answer:"),
    "es": ("Pregunta:", "Respuesta paso a paso:"),
    "fr": ("Question :", "Réponse étape par étape :"),
    "ja": ("問題:", "ステップごとの答え:"),
    "ru": ("Задача:", "Пошаговое решение:"),
    "sw": ("Swali:", "Jibu la Hatua kwa Hatua:"),
    "te": ("ప్రశ్న:", "దశలవారీగా సమాధానం:"),
    "th": ("โจทย์:", "คำตอบทีละขั้นตอน:"),
    "zh": ("问题:", "逐步解答:"),
}
_POINTS = {"de", "es"}  # group digits by points: 1.234 is a thousand and more
_SPACES = {"fr", "ru"}  # and by spaces
_GROUPED = {
    **{language: re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?!\d|\.\d)") for language in _POINTS},
    **{language: re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)") for language in _SPACES},
}
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d{1,2}(?!\d))")


@dataclass
class Options(DataOptions):
    """What a configuration may set under `task`.

    Attributes:
        language: Language of the problems: bn, de, en, es, fr, ja, ru, sw, te, th or zh. It decides the prompt, unless
            one is given, and how digits are grouped.
    """

    language: str = "ja"
    prompt: str = ""


def build(options: Options) -> DataTask:
    """The task, with the score `acc`."""
    if options.language not in _WORDS:
        raise UsageError(f"task.language={options.language}: unknown; known are {', '.join(_WORDS)}")
    question, answer = _WORDS[options.language]
    options.prompt = options.prompt or f"{question} {{question}}\n{answer}"
    options.stop = options.stop or [question]
    grouped = _GROUPED.get(options.language)

    def score(problem: Problem, response: Response) -> Mapping[str, float]:
        text = _western_digits(response.text)
        text = text if grouped is None else _english_numbers(text, grouped)
        return {"acc": float(last_number(text) == Decimal(problem.answer))}

    return DataTask(options, Scoring((Objective("acc"),), NUMBERS, score))


def _western_digits(text: str) -> str:
    """A text whose digits, of whatever script ("১৮", "๑๘", "౧౮"), are those from 0 to 9."""
    return "".join(str(unicodedata.digit(char)) if char.isdecimal() else char for char in text)


def _english_numbers(text: str, grouped: re.Pattern[str]) -> str:
    """A text with numbers in the English way: groups without separators, and points for decimal commas.

    A comma before three digits stays: models write "1,234" in any language, and no answer has three decimals.
    """
    plain = grouped.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    return _DECIMAL_COMMA.sub(".", plain)
