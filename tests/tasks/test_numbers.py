import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optmerge.tasks import ProblemFile, read_problems
from optmerge.tasks.numbers import READINGS, last_number, last_number_strict_paper, plain_number

MGSM = Path(__file__).parents[3] / "shared" / "data" / "mgsm_ja.tsv"
FULL_WIDTH = str.maketrans("0123456789,.-", "０１２３４５６７８９，．－")


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
        (r"\boxed{-3}", "-3"),
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
        ("答えは18です", "18"),
        ("1,234", "234"),
        ("70,000", "000"),
        ("-5", "5"),
        ("１２", "12"),
        ("18.", "18"),
        ("18.0", "18"),
        ("3 .5", ".5"),
        ("1.2.3", ".3"),
        ("5m2", "2"),
        ("12-5", "5"),
    ],
)
def test_strict_paper_reads_the_papers_pattern(text: str, number: str) -> None:
    assert last_number_strict_paper(text) == Decimal(number)


def test_strict_paper_finds_no_number_in_text_without_digits() -> None:
    assert last_number_strict_paper("答えはありません。") is None


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


SENTENCES = [
    "答えは{}です。",
    "答え: {}",
    "まず3個を足して、1,000で割ると、彼女は毎日{}ドルを手に入れます。",
    "16-3-4=9、したがって答えは{}",
    "計算すると{}円になります。以上。",
    "合計 = {}",
    "ステップ1：7を引く。\nステップ2：足す。\n{}",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_answer_of_mgsm_is_read_back(sentence: str) -> None:
    if not MGSM.is_file():
        pytest.skip("the shared problem set mgsm_ja.tsv is not beside this checkout")
    problems = read_problems(ProblemFile(path=str(MGSM), columns=["question", "answer"]))
    assert len(problems) == 250
    for number in (Decimal(problem.answer) for problem in problems):
        for written in (f"{number}", f"{number:,}", f"{number:,}".translate(FULL_WIDTH), f"{number:,}.0"):
            assert last_number(sentence.format(written)) == number


@given(
    number=st.decimals(min_value=-(10**12), max_value=10**12, places=3) | st.integers(-(10**30), 10**30).map(Decimal),
    separators=st.booleans(),
    full_width=st.booleans(),
    sentence=st.sampled_from(SENTENCES),
)
def test_any_number_in_a_japanese_sentence_is_read_back(
    number: Decimal, separators: bool, full_width: bool, sentence: str
) -> None:
    written = f"{number:,f}" if separators else f"{number:f}"
    assert last_number(sentence.format(written.translate(FULL_WIDTH) if full_width else written)) == number


@pytest.mark.parametrize("reading", READINGS)
@given(text=st.text(alphabet="0123456789０,.-−+万千百$^m ()答え個\n") | st.text())
def test_no_text_breaks_a_reading(reading: str, text: str) -> None:
    number = READINGS[reading](text)
    assert number is None or number.is_finite()


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("piece", ["1", "1,", "1,234,", "1万", "-", ".", "^", "1.", "12個-"])
def test_degenerate_repetitions_are_read_in_linear_time(reading: str, piece: str) -> None:
    start = time.perf_counter()
    READINGS[reading](piece * 20_000)
    assert time.perf_counter() - start < 5  # linear: 0.05 s
