"""Answers written in many ways are read back, and responses that only look right score nothing."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optmerge.engines import Response
from optmerge.tasks import Problem
from optmerge.tasks.math_ja import Options, build
from optmerge.tasks.numbers import last_number, plain_number

FULL_WIDTH = str.maketrans("0123456789,.-", "０１２３４５６７８９，．－")
POWERS = {"兆": 10**12, "億": 10**8, "万": 10**4}

# Each holds the number in one of the forms of `written` below.
SENTENCES = [
    "答えは{plain}です。",
    "答え: {plain}",
    "まず16個から3個と4個を引くと9個が残ります。したがって、答えは{grouped}個です。",
    "計算すると、彼女は毎日${grouped}を手に入れます。",
    "よって、合計の金額は¥{grouped}となりました。",
    "答えは{wide}本です。",
    "これらを足すと、全部で￥{wide_grouped}になります。以上です。",
    "ステップ1：7を引きます。\nステップ2：2を足します。\n答えは次のとおりです。\n{plain}",
    "16-3-4=9、9×2={plain}なので、答えは{plain}ドルになります。",
    "途中の計算は 5 + 7 = 12 です。合計 = {grouped}",
    "**答え：{plain}ドル**（税込）",
    "最終的な答えは \\boxed{{{plain}}} です。",
    "したがって、答えは \\boxed{{\\${latex}}} です。ただし、1個あたり2ドルで計算しました。",
    "したがって、求める金額は $ {thin} $ ドルです。",
    "彼は合計で{units}円を払いました。",
    "彼の利益は{wide_units}ドルでした。",
    "値段はちょうど{plain}.00ドルです。",
    "面積を求めると、答えは{grouped}m2になります。",
    "1,000人のうち3人を除くと、答えは約{plain}%です！",
    "#### 答え\n\n1. まず足します。\n2. 次に割ります。\n\n#### {grouped}",
]


def written(number: int) -> dict[str, str]:
    """A number in every form that a sentence may want."""
    grouped = f"{number:,}"
    units, rest = "", abs(number)
    for unit, power in POWERS.items():
        units += f"{rest // power}{unit}" if rest >= power else ""
        rest %= power
    units = ("-" if number < 0 else "") + units + (str(rest) if rest or not units else "")
    return {
        "plain": str(number),
        "grouped": grouped,
        "wide": str(number).translate(FULL_WIDTH),
        "wide_grouped": grouped.translate(FULL_WIDTH),
        "latex": grouped.replace(",", "{,}"),
        "thin": grouped.replace(",", r"\,"),
        "units": units,
        "wide_units": units.translate(FULL_WIDTH),
    }


@pytest.fixture(scope="module")
def mgsm(shared: Path) -> list[str]:
    rows = (shared / "data" / "mgsm_ja.tsv").read_text(encoding="utf-8").splitlines()
    answers = [plain_number(row.split("\t")[1]) for row in rows]
    assert len(answers) == 250
    return [answer for answer in answers if answer is not None]


def score(response: str, answer: str) -> tuple[float, float]:
    scores = build(Options()).score(Problem("0" * 16, "卵はいくつですか？", answer), Response(response, 1, "stop"))
    return scores["acc"], scores["acc_ja"]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_answer_of_mgsm_is_read_back_from_a_japanese_sentence(sentence: str, mgsm: list[str]) -> None:
    assert len(mgsm) == 250
    for answer in mgsm:
        assert score(sentence.format(**written(int(answer))), answer) == (1, 1)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentence_with_another_number_is_wrong(sentence: str) -> None:
    for answer in (3, 18, 2125, 276000):
        assert score(sentence.format(**written(answer + 1)), str(answer)) == (0, 0)
        assert score(sentence.format(**written(-answer)), str(answer)) == (0, 0)


@given(number=st.integers(-(10**16) + 1, 10**16 - 1), sentence=st.sampled_from(SENTENCES))
def test_any_integer_in_any_form_is_read_back(number: int, sentence: str) -> None:
    assert last_number(sentence.format(**written(number))) == number


@given(
    number=st.decimals(-(10**12), 10**12, places=3) | st.integers(-(10**30), 10**30).map(Decimal),
    separators=st.booleans(),
    minus=st.sampled_from(["-", "－", "−", "マイナス"]),
    currency=st.sampled_from(["", "$", "¥", "￥", r"\$", "€"]),
    sign_first=st.booleans(),
    unit=st.sampled_from(["", "ドル", "円", " 円", "個", "%", "％", "℃", "m2", "cm^2", "kg", "人です。", "."]),
    box=st.booleans(),
    full_width=st.booleans(),
)
def test_any_number_with_sign_currency_and_unit_is_read_back(
    number: Decimal,
    separators: bool,
    minus: str,
    currency: str,
    sign_first: bool,
    unit: str,
    box: bool,
    full_width: bool,
) -> None:
    sign = minus if number < 0 else ""
    size = number.copy_abs()  # abs() would round to 28 digits
    digits = f"{size:,f}" if separators else f"{size:f}"
    if full_width:
        digits = digits.translate(FULL_WIDTH)
    text = (sign + currency if sign_first else currency + sign) + digits + unit
    response = f"答えは\\boxed{{{text}}}です。3人います。" if box else f"3個と4個から、答えは{text}"
    assert last_number(response) == number


@given(number=st.integers(1, 9999), unit=st.sampled_from("百千万億兆"), rest=st.integers(0, 99))
def test_power_of_ten_multiplies_what_stands_before_it(number: int, unit: str, rest: int) -> None:
    power = {"百": 100, "千": 1000, **POWERS}[unit]
    assert last_number(f"およそ{number}{unit}{rest or ''}円です。") == number * power + rest


RIGHT_BUT_NOT_JAPANESE = [
    "Janet sells 16 - 3 - 4 = 9 duck eggs a day. She makes 9 * 2 = $18 every day. The answer is 18.",
    "The answer is \\boxed{18}.",
    "首先，计算总数：16-3-4=9。\n然后，9×2=18。\n因此答案是18。",
    "她每天賺18美元。所以答案是18。",
    "Janet vend 9 œufs par jour et gagne donc 18 dollars.",
    "답은 18입니다.",
    "18",
    "16 - 3 - 4 = 9, 9 * 2 = 18",
    "The answer is 18. " * 50,
]

JAPANESE_BUT_WRONG = [
    "答えは18です。卵は1日に16個でした。",  # the number in the middle
    "答えは18ドルです。つまり、9個を2ドルで売りました。",
    "18個から3個を引いて、答えは15個です。",
    "答えは18、20、22のどれかです。",
    "答えは18です。\n### 指示:\n次の問題です。\n答えは7です。",
    "答えは18です。" * 40 + "答えは1",  # a loop that was cut
    "卵を2個売ります。" + "卵を18個売ります。卵を2個売ります。" * 40,
    "答えは18です。答えは19です。" * 40,
    "最初は\\boxed{18}でしたが、正しい答えは\\boxed{9}です。",
    "答えは-18です。",
    "答えは18万円です。",
    "答えは1.8です。",
    "答えは118です。",
    "答えは1,8です。",
    "答えは十八です。",
    "答えはわかりません。",
]


@pytest.mark.parametrize("response", RIGHT_BUT_NOT_JAPANESE)
def test_right_number_in_another_language_is_only_accurate(response: str) -> None:
    assert score(response, "18") == (1, 0)


@pytest.mark.parametrize("response", JAPANESE_BUT_WRONG)
def test_right_number_that_is_not_the_last_scores_nothing(response: str) -> None:
    assert score(response, "18") == (0, 0)


@pytest.mark.parametrize("response", ["", " \n", "。", "答え：", "$$", "\\boxed{}"])
def test_response_without_a_number_scores_nothing(response: str) -> None:
    assert score(response, "0") == (0, 0)


@pytest.mark.parametrize("response", ["答えは18です。" * 40, "答えは18です。\n" * 40, "答えは18です。" * 40 + "答え"])
def test_loop_of_the_right_answer_is_right(response: str) -> None:
    assert score(response, "18") == (1, 1)


@pytest.mark.parametrize(
    ("response", "japanese"),
    [
        ("Janet sells 9 eggs for $2 each at the market every day. 答えは18です。", False),
        ("16個の卵から3個と4個を引くと9個です。毎日2ドルで売ります。So the answer is 18.", True),
        ("所以答案是18个鸡蛋，每天在市场上卖。答えは18です。", False),
    ],
)
def test_mixed_response_is_of_the_language_that_most_of_it_is(response: str, japanese: bool) -> None:
    assert score(response, "18") == (1, float(japanese))
