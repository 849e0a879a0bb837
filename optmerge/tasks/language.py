"""Whether a response is Japanese."""

from functools import cache
from typing import Any
from unicodedata import normalize


def is_japanese(text: str) -> bool:
    """Whether an offline language identifier gives Japanese more than half of the probability, P(ja) > 0.5.

    The identifier is py3langid (140 languages, byte n-grams, naive Bayes), on text of normal width (NFKC). Like the
    paper's fastText model it weighs the whole text, so that a Chinese or English answer that borrows a Japanese word
    or two stays Chinese or English. Without letters ("18") there is no evidence, and the answer is no.

    Do not trust it on a few words: kanji alone ("18個") is taken for Chinese, and one sentence about a name in
    katakana ("ジャネット made 18 dollars.") for Japanese. Where two languages have about equal parts, either may win.
    """
    language, probability = _identifier().classify(normalize("NFKC", text))
    return bool(language == "ja" and probability > 0.5)


@cache
def _identifier() -> Any:
    """The identifier, loaded once a process (0.7 s)."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
