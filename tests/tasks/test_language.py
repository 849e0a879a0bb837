import hashlib
import pickle
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from optmerge.errors import UsageError
from optmerge.tasks.language import identifier, is_japanese

# What a tiny model of fastText learns its languages from, a few sentences each.
LESSONS = {
    "ja": ["答えは十八です。", "残りの卵は九個なので、毎日十八ドルになります。", "彼女は市場で卵を売ります。"],
    "en": ["The answer is eighteen.", "She sells nine eggs every day at the market.", "He paid for the house."],
    "zh": ["答案是十八。", "她每天卖九个鸡蛋。", "所以总共需要三卷。"],
}


def train(path: Path, languages: tuple[str, ...] = ("ja", "en", "zh")) -> Path:
    """A real fastText model, labelled and subdivided into letters as lid.176 is."""
    fasttext = pytest.importorskip("fasttext", reason="the extra `fasttext` is not installed")
    if not hasattr(fasttext, "train_supervised"):
        pytest.skip("this build of fastText cannot train")
    lessons = path.with_suffix(".txt")
    lessons.write_text("".join(f"__label__{name} {line}\n" for name in languages for line in LESSONS[name]), "utf-8")
    settings = {"dim": 8, "minn": 1, "maxn": 2, "bucket": 1000, "minCount": 1}
    fasttext.train_supervised(str(lessons), epoch=200, lr=0.5, thread=1, verbose=0, **settings).save_model(str(path))
    return path


@pytest.fixture(scope="module")
def lid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("fasttext") / "lid.tiny.bin")


@pytest.mark.parametrize(
    "text",
    [
        "式は5+7=12。答えは12本です。",
        "答え: 12",
        "答え: 276,000",
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


def test_default_identifier_says_which_version_it_is() -> None:
    assert identifier().name == identifier("py3langid").name == f"py3langid {version('py3langid')}"
    assert identifier().is_japanese("答えは18です。")
    assert not identifier().is_japanese("The answer is 18.")


@pytest.mark.parametrize(
    ("text", "japanese"),
    [
        ("答えは18です。", True),
        ("残りの卵は9個です。\n彼女は毎日18ドルで売ります。", True),
        ("The answer is 18.", False),
        ("She sells nine eggs\nevery day at the market.", False),
        ("答案是18。", False),
        ("The answer is 18. 答えは", False),
        ("The answer \x00 is \ud800 18.", False),
    ],
)
def test_fasttext_tells_japanese_from_others(lid: Path, text: str, japanese: bool) -> None:
    assert identifier("fasttext", str(lid)).is_japanese(text) == japanese


def test_fasttext_is_fed_as_the_released_evaluation_feeds_it(lid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = identifier("fasttext", str(lid))
    fed: list[tuple[str, int]] = []
    probability = 0.5

    class Model:
        def predict(self, text: str, k: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
            fed.append((text, k))
            return ("__label__en", "__label__ja"), (1 - probability, probability)

    monkeypatch.setattr("optmerge.tasks.language._fasttext_model", lambda path, sha256: Model())
    assert not judge.is_japanese("一１\n\n２ \n")
    probability = 0.51
    assert judge.is_japanese("")
    assert fed == [("一１２ ", -1), ("", -1)]  # newlines deleted, width kept, all labels asked for


def test_label_that_fasttext_leaves_out_has_no_probability(lid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = identifier("fasttext", str(lid))
    model = type("Model", (), {"predict": lambda self, text, k: (("__label__en",), (1.0,))})
    monkeypatch.setattr("optmerge.tasks.language._fasttext_model", lambda path, sha256: model())
    assert not judge.is_japanese("答えは18です。")


def test_fasttext_identifier_is_named_by_file_and_content(lid: Path, tmp_path: Path) -> None:
    name = f"fasttext lid.tiny.bin sha256:{hashlib.sha256(lid.read_bytes()).hexdigest()[:8]}"
    assert identifier("fasttext", str(lid)).name == name
    other = train(tmp_path / "lid.tiny.bin", ("ja", "en"))
    assert identifier("fasttext", str(other)).name != name


def test_identifier_works_in_another_process_and_folder(
    lid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lid.parent)
    judge = identifier("fasttext", lid.name)
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(judge)).is_japanese("答えは18です。")


def test_unknown_identifier_is_refused() -> None:
    with pytest.raises(UsageError, match="one of py3langid, fasttext, not 'lingua'"):
        identifier("lingua")


def test_file_for_the_default_identifier_is_refused() -> None:
    with pytest.raises(UsageError, match="would leave lid.176.ftz unused"):
        identifier("py3langid", "lid.176.ftz")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "needs the path of its language identification file"),
        ("nowhere/lid.176.ftz", "no fastText file at nowhere/lid.176.ftz"),
        (".", "no fastText file at \\."),
    ],
)
def test_fasttext_without_its_file_is_refused_in_one_line(path: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        identifier("fasttext", path)
    assert "\n" not in str(caught.value)
    assert "lid.176.bin" in str(caught.value)


def test_fasttext_without_its_package_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lid.176.ftz").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(UsageError, match=r"pip install 'optmerge\[fasttext\]'") as caught:
        identifier("fasttext", str(tmp_path / "lid.176.ftz"))
    assert "\n" not in str(caught.value)


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fasttext", reason="the extra `fasttext` is not installed")
    (tmp_path / "lid.176.ftz").write_text("<html>404</html>")
    with pytest.raises(UsageError, match="cannot identify languages with .*lid.176.ftz"):
        identifier("fasttext", str(tmp_path / "lid.176.ftz"))


def test_model_without_japanese_is_refused(tmp_path: Path) -> None:
    path = train(tmp_path / "english.bin", ("en", "zh"))
    with pytest.raises(UsageError, match="has no label __label__ja"):
        identifier("fasttext", str(path))
