import pytest

from optmerge.tasks.language import is_japanese


@pytest.mark.parametrize(
    "text",
    [
        "式は5+7=12。答えは12本です。",
        "答え: 12",
        "答え：18",
        "答えは18です",
        "18ドル",
        "ﾄﾞﾙ 18",
        "合計: 3巻です",
        "答えは x = 3 である",
        "従って、合計は 70000 ドル。",
        "残りの卵: 16 - 3 - 4 = 9\n収入: 9 * 2 = $18",
        "16-3-4=9個\n9×2=18ドル\n18ドル",
        "ステップ1: total = 16 - 3 - 4 = 9\nステップ2: profit = 9 * 2 = 18\n答え: 18",
        "まず、青色の繊維は2巻です。白色はその半分の1巻です。合計で3巻必要です。",
        "アヒルは16個の卵を生みます。\\[ \\frac{16-3-4}{1} = 9 \\times 2 = 18 \\] 答えは \\boxed{18} です。",
    ],
)
def test_japanese_answer_is_japanese(text: str) -> None:
    assert is_japanese(text)


@pytest.mark.parametrize(
    "text",
    [
        "we get 5 + 7 = 12 . answer 12 bottles .",
        "Therefore the answer is 18ドル",
        "The answer is 18.",
        "Answer: 12",
        "#### 18",
        "Step 1: ジャネット has 16 eggs. Step 2: She eats 3 and uses 4 for muffins. So the answer is 18.",
        "she sells 9 eggs. アヒルの卵 9 x 2 = 18 dollars per day.",
    ],
)
def test_english_answer_is_not_japanese(text: str) -> None:
    assert not is_japanese(text)


@pytest.mark.parametrize(
    "text",
    [
        "答案是12。",
        "解：5+7=12，答：12瓶。",
        "所以总共需要3卷。",
        "她每天賺18美元。所以答案是18。",
        "首先，计算总数：16-3-4=9。\n然后，9×2=18。\n因此答案是18ドル。",
        "ジャネット的鸭子每天下16个蛋。她吃3个，用4个做松饼。剩下9个，每个卖2美元，所以总共18美元。答案是18。",
    ],
)
def test_chinese_answer_is_not_japanese(text: str) -> None:
    assert not is_japanese(text)


@pytest.mark.parametrize("text", ["답은 18입니다.", "La respuesta es 18.", "Die Antwort ist 18.", "Ответ: 18"])
def test_answer_in_another_language_is_not_japanese(text: str) -> None:
    assert not is_japanese(text)


@pytest.mark.parametrize("text", ["", " \n", "18", "5 + 7 = 12", "$18$", "x = 3", "...", "😀 18", "\x00\ud800"])
def test_text_without_words_is_not_japanese(text: str) -> None:
    assert not is_japanese(text)
