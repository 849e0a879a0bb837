"""When two questions are the same question."""

import hashlib
import unicodedata


def normalised(question: str) -> str:
    """A question without what copies of it differ in: width of characters (NFKC) and white space."""
    return "".join(unicodedata.normalize("NFKC", question).split())


def question_id(question: str) -> str:
    """16 hexadecimal digits that follow from the normalised question alone."""
    return hashlib.sha256(normalised(question).encode()).hexdigest()[:16]


def shortened(text: str, length: int = 40) -> str:
    """The beginning of a text, for a message of one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
