r"""What `answers: strict_paper` reads, response by response.

The released evaluation of Akiba et al. (2024) takes the last match of `\d*\.?\d+`, makes it a float, and compares that
to the answer. These tables are what follows from that, faults included.
"""

import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optmerge.tasks.numbers import last_number, last_number_strict_paper


@pytest.mark.parametrize(
    ("response", "number"),
    [
        # One number
        ("答えは18です。", 18.0),
        ("18", 18.0),
        ("The answer is 18.", 18.0),
        ("18個", 18.0),
        ("$18", 18.0),
        ("007", 7.0),
        ("0", 0.0),
        # Thousands separators end a number
        ("1,234", 234.0),
        ("答えは70,000ドルです。", 0.0),
        ("1,234,567円", 567.0),
        ("1{,}234", 234.0),
        ("１，２３４", 234.0),
        ("1 234", 234.0),
        # Signs are not read
        ("-5", 5.0),
        ("−5度", 5.0),
        ("マイナス5", 5.0),
        ("+5", 5.0),
        ("12-5", 5.0),
        # Points
        ("18.0", 18.0),
        ("18.50ドル", 18.5),
        (".5", 0.5),
        ("0.75", 0.75),
        ("18.", 18.0),
        ("18。", 18.0),
        ("1.2.3", 0.3),
        ("3 .5", 0.5),
        ("答えは...18", 0.18),
        ("3.14.15", 0.15),
        # Digits of Unicode, but no point of theirs
        ("１８", 18.0),
        ("１８個です。", 18.0),
        ("１８．５", 5.0),
        ("１８.５", 18.5),
        ("1８", 18.0),
        ("१८", 18.0),
        ("𝟏𝟖", 18.0),
        # Several numbers: the last one, whatever it is
        ("3個と4個で7個", 7.0),
        ("答えは18です。3番目の問題でした。", 3.0),
        ("18 (= 9 * 2)", 2.0),
        ("1/2", 2.0),
        ("3:30", 30.0),
        ("5m2", 2.0),
        ("x^2 = 9, x^2", 2.0),
        ("1e5", 5.0),
        (r"\boxed{42}", 42.0),
        (r"\boxed{42} です。2ドルでした。", 2.0),
        # Powers of ten and digits in kanji are words
        ("7万ドル", 7.0),
        ("1万2千円", 2.0),
        ("十八", None),
        # No number
        ("", None),
        ("わかりません。", None),
        ("...", None),
        ("-", None),
        ("⑱", None),
        ("²", None),
    ],
)
def test_number_that_is_read(response: str, number: float | None) -> None:
    read = last_number_strict_paper(response)
    assert (None if read is None else float(read)) == number


@pytest.mark.parametrize(
    ("response", "answer", "right", "right_by_default"),
    [
        ("答えは1234です。", "1234", True, True),
        ("答えは1,234です。", "1234", False, True),
        ("答えは1,234です。", "234", True, False),
        ("答えは70,000ドルです。", "0", True, False),
        ("答えは-5です。", "-5", False, True),
        ("答えは-5です。", "5", True, False),
        ("答えは18.0です。", "18", True, True),
        ("答えは18.5です。", "18", False, False),
        ("答えは１８です。", "18", True, True),
        ("答えは7万です。", "70000", False, True),
        (r"答えは\boxed{18}です。2人です。", "18", False, True),
        ("面積は18m2", "18", False, True),
        ("答えは18です。2人です。", "18", False, False),
        ("わかりません。", "0", False, False),
        ("答えは十八です。", "18", False, False),
        ("The answer is 18.", "18", True, True),
        ("18.0000000000000000001", "18", True, False),  # 18 as a float
    ],
)
def test_right_and_wrong_beside_the_default(response: str, answer: str, right: bool, right_by_default: bool) -> None:
    assert (last_number_strict_paper(response) == Decimal(answer)) == right
    assert (last_number(response) == Decimal(answer)) == right_by_default


@given(number=st.integers(0, 2**53), sentence=st.sampled_from(["答えは{}です。", "3個と{}個", "= {}", "{}."]))
def test_plain_integer_is_read_as_the_default_reads_it(number: int, sentence: str) -> None:
    response = sentence.format(number)
    assert last_number_strict_paper(response) == last_number(response) == number


@given(number=st.floats(0, 10**15).map(lambda number: round(number, 4)))
def test_float_equals_the_answer_with_its_digits(number: float) -> None:
    written = f"{Decimal(repr(number)):f}"
    assert last_number_strict_paper(f"答えは{written}です。") == Decimal(written)


def test_number_beyond_floats_is_infinite_and_no_answer() -> None:
    digits = "9" * (sys.float_info.max_10_exp + 2)
    assert last_number_strict_paper(digits) == Decimal("Infinity") != Decimal(digits)
