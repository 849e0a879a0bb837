"""Numbers in text: the last one of a response, and the only one of an answer."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal

# Not NFKC as a whole: that would turn the exponent of "5m²" into a last number.
# The signs that end up as "-" are, after the full-width one: minus, hyphen, non-breaking hyphen, en dash.
_HALF_WIDTH = str.maketrans("０１２３４５６７８９，．＋＝：￥＄－\u2212\u2010\u2011\u2013", "0123456789,.+=:¥$-----")

# The dot of ".5" has nothing before it that it could end ("No.5", "...5").
_DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![^\s=:+\-$¥€£(])\.[0-9]+"
_PLAIN = re.compile(rf"[-+]?(?:{_DIGITS})\.?")

# 2万5000: digits and powers of ten in turn; the last part may be digits alone.
_NUMBER = re.compile(
    rf"(?P<sign>-|マイナス\s?)?[$¥€£]?(?P<amount>(?:(?:{_DIGITS})[百千万億兆]+)*(?:{_DIGITS})[百千万億兆]*)"
)
_PART = re.compile(rf"(?P<digits>{_DIGITS})(?P<units>[百千万億兆]*)")
_POWERS = {"百": 2, "千": 3, "万": 4, "億": 8, "兆": 12}

# The digit of "5m2", "5cm^2" and "x^{2}" belongs to the unit or the power, not to the answer.
_EXPONENT = re.compile(r"\^\{?[0-9]+\}?|(?<![A-Za-z])[kcm]?m[23](?![0-9])")

# What stands before a minus that subtracts: a value (with a unit such as 個 or ドル), a variable or a closing bracket.
_BEFORE_SUBTRACTION = re.compile(r"(?:[A-Za-z0-9)\]}%％]|[0-9][一-龥ァ-ヶー$¥€£]{1,4})[ \t\u3000]*\Z")


def last_number(text: str) -> Decimal | None:
    """The last number of a response, as a person would read it.

    Reads full-width digits, thousands separators in proper groups ("1,234"; but "1,2,3" is a list), signs ("-5",
    "−5", "マイナス5"; but "12-5" ends in 5), decimals, and the powers of ten of Japanese ("7万" is 70000). Leaves out
    units and currencies, a full stop ("18."), and exponents ("5m2", "x^2"). Digits written in kanji ("十八") are not
    read; of a fraction ("1/2") and of a time ("3:30") it is the last part.

    Args:
        text: A response.

    Returns:
        The number, or None if there is none.
    """
    text = _EXPONENT.sub(" ", text.translate(_HALF_WIDTH))
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    negative = found["sign"] and not _BEFORE_SUBTRACTION.search(text[max(0, found.start() - 20) : found.start()])
    amount = _amount(found["amount"])
    return amount.copy_negate() if negative else amount


def _amount(text: str) -> Decimal:
    """The value of digits with powers of ten, such as "1億2千5百万300"."""
    if not any(unit in text for unit in _POWERS):
        return Decimal(text.replace(",", ""))  # exact, however long
    total = below = Decimal(0)  # `below` still waits for its 万, 億 or 兆
    for part in _PART.finditer(text):
        value = Decimal(part["digits"].replace(",", ""))
        for unit in part["units"]:
            if unit in "百千":
                value = value.scaleb(_POWERS[unit])
            else:
                total += (below + value).scaleb(_POWERS[unit])
                below = value = Decimal(0)
        below += value
    return total + below


def last_number_strict_paper(text: str) -> Decimal | None:
    r"""The last match of `\d*\.?\d+`, exactly as Akiba et al. (2024) read answers.

    Not to be trusted where answers have thousands separators or signs: it reads "1,234" as 234 and "-5" as 5.
    """
    found = re.findall(r"\d*\.?\d+", text)
    return Decimal(found[-1]) if found else None


READINGS: Mapping[str, Callable[[str], Decimal | None]] = {
    "default": last_number,
    "strict_paper": last_number_strict_paper,
}


def plain_number(value: object) -> str | None:
    """The plain digits of an answer in a file: "70,000" is "70000", and 18, 18.0 and "#### 18" are "18".

    Args:
        value: A cell of an answer column. GSM8K's cells end in "#### 18" after their working.

    Returns:
        The digits, or None if the cell is not a number.
    """
    text = str(value).rpartition("####")[2].translate(_HALF_WIDTH).strip()
    if not _PLAIN.fullmatch(text):
        return None
    digits = format(Decimal(text.replace(",", "").rstrip(".")), "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits
