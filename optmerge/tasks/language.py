"""Whether a response is Japanese."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from unicodedata import normalize

from optmerge.errors import UsageError

IDENTIFIERS = ("py3langid", "fasttext")


class Identifier(Protocol):
    """What tells Japanese from other languages."""

    @property
    def name(self) -> str:
        """What results say they were scored with, such as "py3langid 0.4.0"."""

    def is_japanese(self, text: str) -> bool:
        """Whether Japanese gets more than half of the probability, P(ja) > 0.5."""


def identifier(name: str = "py3langid", path: str | None = None) -> Identifier:
    """The language identifier of this name.

    Args:
        name: "py3langid", which needs nothing, or "fasttext", which the paper's released evaluation uses.
        path: For "fasttext", its file lid.176.ftz (theirs) or lid.176.bin; None for "py3langid".

    Raises:
        UsageError: If there is no such identifier, or if its package or its file cannot be used.
    """
    if name == "py3langid":
        if path is not None:
            raise UsageError(f"py3langid reads no file, and would leave {path} unused; fasttext reads one")
        return Py3langid()
    if name == "fasttext":
        return _fasttext(path)
    raise UsageError(f"the language identifier must be one of {', '.join(IDENTIFIERS)}, not {name!r}")


def is_japanese(text: str) -> bool:
    """Whether the default identifier, py3langid, takes a text for Japanese."""
    return Py3langid().is_japanese(text)


@dataclass(frozen=True)
class Py3langid:
    """Offline identification with py3langid (140 languages, byte n-grams, naive Bayes).

    It is given text of normal width (NFKC) without digits: they belong to no language, but move its probabilities.

    Like the paper's fastText model it weighs the whole text, so that a Chinese or English answer that borrows a
    Japanese word or two stays Chinese or English. Without letters ("18") there is no evidence, and the answer is no.

    Do not trust it on a few words: kanji alone ("18個") is taken for Chinese, and one sentence about a name in
    katakana ("ジャネット made 18 dollars.") for Japanese. Where two languages have about equal parts, either may win.
    """

    @property
    def name(self) -> str:
        return f"py3langid {version('py3langid')}"

    def is_japanese(self, text: str) -> bool:
        words = re.sub(r"\d+", "", normalize("NFKC", text))
        language, probability = _py3langid_model().classify(words)
        return bool(language == "ja" and probability > 0.5)


@dataclass(frozen=True)
class FastText:
    """Identification with a fastText model, fed as the released evaluation of Akiba et al. (2024) feeds it.

    That is: the text as it is but without its newlines, which are deleted and not replaced, and all labels asked for.

    Attributes:
        path: The model's file.
        sha256: Of the file.
    """

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        return f"fasttext {self.path.name} sha256:{self.sha256[:8]}"

    def is_japanese(self, text: str) -> bool:
        return _probabilities(_fasttext_model(self.path, self.sha256), text).get(_JA, 0.0) > 0.5


_JA = "__label__ja"
_WHERE = "https://fasttext.cc/docs/en/language-identification.html has lid.176.ftz and lid.176.bin"


def _fasttext(path: str | None) -> FastText:
    if path is None:
        raise UsageError(f"fasttext needs the path of its language identification file; {_WHERE}")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UsageError(f"no fastText file at {path}; {_WHERE}")
    with file.open("rb") as stream:
        found = FastText(file, hashlib.file_digest(stream, "sha256").hexdigest())
    try:
        labels = _probabilities(_fasttext_model(found.path, found.sha256), "これは日本語の文です。")
    except ImportError as error:
        raise UsageError(f"fasttext is not installed ({error}): pip install 'optmerge[fasttext]'") from error
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UsageError(f"fasttext cannot identify languages with {path}: {error}") from error
    if _JA not in labels:
        raise UsageError(f"{path} is no model that knows Japanese: it has no label {_JA}; {_WHERE}")
    return found


def _probabilities(model: Any, text: str) -> dict[str, float]:
    """Probability by label. Labels of almost none are missing: fastText does not go into their part of its tree."""
    line = text.replace("\n", "").encode("utf-8", "replace").decode()  # it refuses lone surrogates
    labels, probabilities = model.predict(line, k=-1)
    return {label: float(probability) for label, probability in zip(labels, probabilities, strict=True)}


@cache
def _py3langid_model() -> Any:
    """The model, loaded once a process (0.7 s)."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _fasttext_model(path: Path, sha256: str) -> Any:
    """The model of this file, loaded once a process; a file that has changed is loaded again."""
    return import_module("fasttext").load_model(str(path))
