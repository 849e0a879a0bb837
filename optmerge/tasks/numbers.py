"""Numbers in text: the last one of a response, and the only one of an answer."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal

from optmerge.errors import UsageError

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

# The digit of "5m2", "5cm^2", "x^{2}" and "10^{-3}" belongs to the unit or the power, not to the answer.
_EXPONENT = re.compile(r"\^(?:[-+]?[0-9]+|\{[-+]?[0-9]+\})|(?<![A-Za-z])[kcm]?m[23](?![0-9])")

# What stands before a minus that subtracts: a variable, a value with or without a unit (個, ドル, 平方センチメートル),
# or a bracket that closes behind one. Behind "（合計）" a minus is a sign.
_UNIT = r"(?:[つこ$¥€£]|[一-龥]{1,4}|[一-龥]{0,2}[ァ-ヶー]{1,9})"
_BEFORE_SUBTRACTION = re.compile(rf"(?:[A-Za-z0-9}}%％℃°]|[0-9]{_UNIT}|[A-Za-z0-9]{_UNIT}?[)\]）]+)[ \t\u3000]*\Z")

# "1{,}234", "1,\!234" and "1\,234": how LaTeX groups digits.
_LATEX_SEPARATOR = re.compile(r"\{,\}|,\\!|(?<=[0-9])\\[,:; ](?=[0-9]{3}(?![0-9]))")

# The content of a box, which may have braces three deep. It goes on to the end if the box is left open, as by a cut.
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*+\})*+\})*+\})*+)")


def last_number(text: str) -> Decimal | None:
    r"""The last number of a response, as a person would read it: of its last `\boxed{}` where one has a number.

    Reads full-width digits, thousands separators in proper groups ("1,234", and "1{,}234" and "1\,234" of LaTeX; but
    "1,2,3" is a list), signs ("-5", "−5", "マイナス5"; but "12-5" ends in 5), decimals, and the powers of ten of
    Japanese ("7万" is 70000, "1万2千" is 12000). Leaves out units and currencies, a full stop ("18."), and exponents
    ("5m2", "x^2"). Digits written in kanji ("十八", "百二十") are not read; of a fraction ("1/2", "\frac{1}{2}") and of
    a time ("3:30") it is the last part.

    Args:
        text: A response.

    Returns:
        The number, or None if there is none.
    """
    text = _LATEX_SEPARATOR.sub(",", text.translate(_HALF_WIDTH)).replace(r"\$", "$")
    text = _EXPONENT.sub(" ", text)
    for box in reversed(list(_BOX.finditer(text))):
        number = _last_number(box[1])
        if number is not None:
            return number
    return _last_number(text)


def _last_number(text: str) -> Decimal | None:
    """The last number of a text in half-width digits, without exponents."""
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
    r"""The last match of `\d*\.?\d+` as a float, exactly as the released evaluation of Akiba et al. (2024) reads it.

    Not to be trusted where answers have thousands separators or signs: it reads "1,234" as 234 and "-5" as 5. It
    knows all decimal digits of Unicode ("１８" is 18), but of points only the ASCII one ("１８．５" is 5). Floats have
    16 digits: numbers that differ beyond them are the same, and one of more than 308 digits is infinity.
    """
    found = re.findall(r"\d*\.?\d+", text)
    return Decimal(repr(float(found[-1]))) if found else None


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


def reading(name: str) -> Callable[[str], Decimal | None]:
    """How the last number of a response is read.

    Raises:
        UsageError: If there is no reading of that name.
    """
    if name not in READINGS:
        raise UsageError(f"task.answers must be one of {', '.join(READINGS)}, not {name!r}")
    return READINGS[name]
