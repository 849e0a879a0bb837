import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optmerge.errors import UsageError
from optmerge.tasks.numbers import READINGS, last_number, plain_number, reading


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("答えは18です", "18"),
        ("The answer is 18.", "18"),
        ("3個と4個で7個", "7"),
        ("答え：１２本", "12"),
        ("１，２３４．５円", "1234.5"),
        ("答えは70,000ドルです。", "70000"),
        ("1,234,567", "1234567"),
        ("1,234.50ドル", "1234.5"),
        ("12,34", "34"),
        ("1234,567", "567"),
        ("1,2345", "2345"),
        ("1,2,3", "3"),
        ("答えは-5", "-5"),
        ("答えは−5度です", "-5"),
        ("答えは－５度です", "-5"),
        ("答えは–5度です", "-5"),
        ("マイナス5度", "-5"),
        ("損失は-$1,500です", "-1500"),
        ("x = -3", "-3"),
        ("(2, -3)", "-3"),
        ("合計は12\n-5", "-5"),
        ("12-5", "5"),
        ("12 - 5", "5"),
        ("16個-3個", "3"),
        ("(2+1)-5", "5"),
        ("x-5", "5"),
        ("10–12", "12"),
        ("7マイナス5", "5"),
        ("- 18", "18"),
        ("18.", "18"),
        ("18.0", "18"),
        ("0.75です", "0.75"),
        ("答えは .5", "0.5"),
        ("答えは...18", "18"),
        ("No.18", "18"),
        ("$18", "18"),
        ("18円（税込）", "18"),
        ("18%", "18"),
        ("5m²", "5"),
        ("5m2です", "5"),
        ("5㎡", "5"),
        ("12 cm^2", "12"),
        ("7万ドル", "70000"),
        ("1.5万", "15000"),
        ("1万2,000円", "12000"),
        ("2千万", "20000000"),
        ("1億2千5百万300", "125000300"),
        ("1/2", "2"),
        ("007", "7"),
        ("9" * 50, "9" * 50),
        ("答えは18個です。", "18"),
        ("1万2千円", "12000"),
        ("3千5百", "3500"),
        ("¥1,234", "1234"),
        ("￥−１，５００", "-1500"),
        ("18.50ドル", "18.5"),
        ("−１２．５％", "-12.5"),
        ("（合計）-5", "-5"),
        ("【答え】-5", "-5"),
        ("（2+1）-5", "5"),
        ("（9個）－３個", "3"),
        ("9つ-3つ", "3"),
        ("5℃-3℃", "3"),
        ("5平方センチメートル-2平方センチメートル", "2"),
        ("10^{-3}", "10"),
    ],
)
def test_last_number_is_what_a_person_reads(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "答えはありません", "...", "-", ",", "十八", "x^2"])
def test_text_without_digits_has_no_number(text: str) -> None:
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{42}", "42"),
        (r"\[ \boxed{42} \]", "42"),
        (r"\boxed{-3}", "-3"),
        (r"\boxed{-\$1{,}500.50}", "-1500.5"),
        (r"\boxed{\$1{,}234}", "1234"),
        (r"\boxed{1,\!234}", "1234"),
        (r"\boxed{12\,345\,678}", "12345678"),
        (r"\boxed{18\text{ドル}}", "18"),
        (r"\boxed{x = \mathbf{18\text{個}}}", "18"),
        (r"\boxed{5 \text{ cm}^2}", "5"),
        (r"\boxed{１，２３４}", "1234"),
        (r"\boxed{7万}", "70000"),
        (r"\fbox{42}", "42"),
        (r"\boxed {42}", "42"),
        (r"\boxed{18", "18"),
        (r"\boxed{\frac{1}{2}}", "2"),  # not read as a half
    ],
)
def test_boxed_number_is_read_as_latex_shows_it(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"答えは \boxed{18} です。1個あたり2ドルでした。", "18"),
        (r"\boxed{0} 個、つまり5個ではありません。", "0"),
        (r"まず \boxed{9}、次に \boxed{18} です。", "18"),
        (r"\boxed{18}ドル。\boxed{以上}", "18"),
        (r"\boxed{} 18", "18"),
        (r"boxed{42} 18", "18"),
    ],
)
def test_last_box_with_a_number_is_the_answer(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [(r"合計\$1{,}234です", "1234"), (r"$1\,234$", "1234"), (r"16\text{個}-3\text{個}", "3"), (r"$-5$", "-5")],
)
def test_latex_outside_a_box_is_read(text: str, number: str) -> None:
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize(
    ("cell", "digits"),
    [
        (18, "18"),
        (18.0, "18"),
        (0.5, "0.5"),
        ("70,000", "70000"),
        (" 2,125 ", "2125"),
        ("18.50", "18.5"),
        ("-5", "-5"),
        ("-0.0", "0"),
        ("１８", "18"),
        ("16 - 3 - 4 = 9\n#### 18", "18"),
        ("#### 1,200", "1200"),
    ],
)
def test_answer_becomes_plain_digits(cell: object, digits: str) -> None:
    assert plain_number(cell) == digits


@pytest.mark.parametrize("cell", [None, "", "eighteen", "18個", "1 2", "12,34", True, float("nan"), float("inf")])
def test_answer_that_is_not_a_number_has_no_digits(cell: object) -> None:
    assert plain_number(cell) is None


@pytest.mark.parametrize("reading", READINGS)
@given(text=st.text(alphabet="0123456789０,.-−+万千百$^m ()答え個\n\\{}") | st.text())
def test_no_text_breaks_a_reading(reading: str, text: str) -> None:
    number = READINGS[reading](text)
    assert number is None or number.is_finite()


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    "piece",
    ["1", "1,", "1,234,", "1万", "-", ".", "^", "1.", "12個-", "\\boxed{", "{", "\\boxed{1}", "\\boxed{{{", "1\\,234"],
)
def test_degenerate_repetitions_are_read_in_linear_time(reading: str, piece: str) -> None:
    start = time.perf_counter()
    READINGS[reading](piece * 20_000)
    assert time.perf_counter() - start < 5  # linear: 0.05 s


@pytest.mark.parametrize("name", READINGS)
def test_reading_is_found_by_name(name: str) -> None:
    assert reading(name) is READINGS[name]


def test_unknown_reading_is_refused_with_the_names_of_the_others() -> None:
    with pytest.raises(UsageError, match="default, strict_paper, not 'loose'"):
        reading("loose")
