"""What tasks over rows of data ask, and how they score, against cases worked by hand."""

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from optmerge.config import options_of
from optmerge.engines import Generate, LogLikelihood, Message, Response
from optmerge.errors import UsageError
from optmerge.tasks import Problem, Task

QA = [{"question": f"{n} + {n}?", "answer": f"{2 * n}"} for n in range(6)]
CAPITALS = [
    {"question": "日本の首都は？", "choices": ["京都", "東京", "大阪"], "answer": "B"},
    {"question": "フランスの首都は？", "choices": ["パリ", "ニース"], "answer": "パリ"},
    {"question": "英国の首都は？", "choices": ["リーズ", "ロンドン", "バース"], "answer": 1},
]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def made(name: str, path: str, **settings: Any) -> Task:
    """The task as a configuration makes it, whose test problems are those of the file."""
    _, options = options_of("task", {"name": name, "test": {"path": path}, **settings}, "optmerge.tasks")
    task: Task = importlib.import_module(f"optmerge.tasks.{name}").build(options)
    return task


def said(text: str) -> Response:
    return Response(text, len(text), "stop")


def prompt_of(task: Task, problem: Problem) -> Any:
    request = task.request(problem)
    return request.prompt


# Prompts


@pytest.fixture
def qa(tmp_path: Path) -> str:
    return write(tmp_path / "qa.jsonl", QA)


def test_examples_come_first_each_with_its_answer(qa: str) -> None:
    task = made("gsm8k", qa, test={"path": qa, "rows": "4:"}, examples={"path": qa, "rows": ":2"})
    problem = task.problems("test")[0]
    expected = "Question: 0 + 0?\nAnswer:0\n\nQuestion: 1 + 1?\nAnswer:2\n\nQuestion: 4 + 4?\nAnswer:"
    assert prompt_of(task, problem) == expected


def test_a_conversation_has_the_examples_as_turns(qa: str) -> None:
    task = made("exact_match", qa, chat=True, system="Be brief.", examples={"path": qa, "rows": ":1"})
    assert prompt_of(task, task.problems("test")[3]) == (
        Message("system", "Be brief."),
        Message("user", "0 + 0?"),
        Message("assistant", "0"),
        Message("user", "3 + 3?"),
    )


def test_a_template_may_show_any_column_and_leaves_other_braces_alone(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "passage": "It was {me}.", "answer": "me"}]
    task = made("exact_match", write(tmp_path / "p.jsonl", rows), prompt="{passage} {question} {none} {}")
    assert prompt_of(task, task.problems("test")[0]) == "It was {me}. Who? {none} {}"


def test_the_same_question_about_two_passages_is_two_problems(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "passage": f"{n}", "answer": "me"} for n in (1, 2, 2)]
    path = write(tmp_path / "p.jsonl", rows)
    assert len(made("exact_match", path, prompt="{passage} {question}").problems("test")) == 2
    assert len(made("exact_match", path).problems("test")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search": {"path": "nowhere.jsonl"}}, r"task\.search: no problem file at nowhere\.jsonl"),
        ({"system": "Be brief."}, r"task\.system .* task\.chat=true"),
        ({"prompt": "no place"}, r"task\.prompt must contain \{question\}"),
        ({"look_at": "middle"}, r"task\.look_at=middle: unknown"),
    ],
)
def test_what_cannot_be_asked_is_refused(qa: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made("exact_match", qa, **settings).fingerprint()


def test_examples_that_are_missing_are_told_before_a_search(qa: str) -> None:
    task = made("exact_match", qa, search={"path": qa}, examples={"path": "nowhere.jsonl"})
    assert task.missing() == ["task.examples: no problem file at nowhere.jsonl"]


def test_examples_decide_scores(qa: str, tmp_path: Path) -> None:
    def fingerprint(rows: str, **more: str) -> Mapping[str, str]:
        files = {split: {"path": qa} for split in ("search", "test")}
        return made("exact_match", qa, **files, examples={"path": qa, "rows": rows, **more}).fingerprint()

    one, other, apart = fingerprint(":1"), fingerprint(":2"), fingerprint(":1", separator="\n")
    assert [name for name in one if one[name] != other[name]] == ["examples"]
    assert [name for name in one if one[name] != apart[name]] == ["examples"]


# Metrics


@pytest.mark.parametrize(
    ("text", "right"),
    [("... 2 * 2 = 4. The answer is 4.", 1), ("\\boxed{4}", 1), ("#### 4", 1), ("4 or 5", 0), ("", 0)],
)
def test_gsm8k_reads_the_last_number(qa: str, text: str, right: float) -> None:
    task = made("gsm8k", qa)
    assert task.score(task.problems("test")[2], said(text)) == {"acc": right}


@pytest.mark.parametrize(
    ("language", "text", "right"),
    [
        ("en", "1,234 apples", 1),
        ("de", "Es sind 1.234 Äpfel.", 1),
        ("de", "Das sind 1234,0 Euro.", 1),
        ("es", "Son 1.234.", 1),
        ("fr", "Il y en a 1 234.", 1),
        ("ru", "Ответ: 1\u00a0234", 1),
        ("ja", "1234個です。", 1),
        ("th", "คำตอบคือ 1,234", 1),
        ("th", "คำตอบคือ ๑,๒๓๔", 1),
        ("bn", "উত্তর ১২৩৪।", 1),
        ("te", "౧౨౩౪", 1),
        ("de", "1,234", 1),
        ("de", "1234,5", 0),
        ("en", "1.234", 0),
    ],
)
def test_mgsm_reads_digits_as_its_language_groups_them(tmp_path: Path, language: str, text: str, right: float) -> None:
    task = made("mgsm", write(tmp_path / "a.jsonl", [{"question": "?", "answer": "1234"}]), language=language)
    problem = task.problems("test")[0]
    assert task.score(problem, said(text)) == {"acc": right}
    assert isinstance(task.request(problem), Generate)


def test_mgsm_asks_in_the_language_of_its_problems(qa: str) -> None:
    task = made("mgsm", qa, language="ja")
    assert prompt_of(task, task.problems("test")[0]) == "問題: 0 + 0?\nステップごとの答え:"
    with pytest.raises(UsageError, match=r"task\.language=xx: unknown; known are bn, de"):
        made("mgsm", qa, language="xx")


@pytest.mark.parametrize(
    ("text", "settings", "right"),
    [
        (" 東京。", {}, 1),
        ("ＴＯＫＹＯ", {}, 1),
        ("Tokyo!", {}, 1),
        ("It is Tokyo", {}, 0),
        ("It is Tokyo", {"contained": True}, 1),
        ("Tokyo\nNo: Kyoto", {}, 0),
        ("Tokyo\nNo: Kyoto", {"look_at": "first_line"}, 1),
        ("Hm.\nTokyo", {"look_at": "last_line"}, 1),
        ("", {"look_at": "last_line"}, 0),
        ("", {}, 0),
    ],
)
def test_exact_match(tmp_path: Path, text: str, settings: dict[str, Any], right: float) -> None:
    path = write(tmp_path / "c.jsonl", [{"question": "?", "answer": ["東京", "Tokyo"]}])
    task = made("exact_match", path, **settings)
    assert task.score(task.problems("test")[0], said(text)) == {"exact_match": right}


@pytest.mark.parametrize(("text", "right"), [("-5", 1), ("(-5)", 1), ("5", 0), ("?", 0), ("", 0)])
def test_a_sign_is_part_of_a_number(tmp_path: Path, text: str, right: float) -> None:
    task = made("exact_match", write(tmp_path / "s.jsonl", [{"question": "?", "answer": "-5"}]), contained=True)
    assert task.score(task.problems("test")[0], said(text)) == {"exact_match": right}


# Choices


@pytest.fixture
def capitals(tmp_path: Path) -> str:
    return write(tmp_path / "capitals.jsonl", CAPITALS)


def test_the_right_choice_may_be_named_by_label_text_or_place(capitals: str) -> None:
    assert [problem.answer for problem in made("multiple_choice", capitals).problems("test")] == ["1", "0", "1"]
    from_one = made("multiple_choice", capitals, first_label=1, test={"path": capitals, "rows": "2:"})
    assert [problem.answer for problem in from_one.problems("test")] == ["0"]


def test_choices_may_have_a_column_each_or_labels_of_their_own(tmp_path: Path) -> None:
    columns = [{"question": "?", "a": "x", "b": "y", "answer": 1}]
    task = made("multiple_choice", write(tmp_path / "a.jsonl", columns), choices=["a", "b"])
    assert prompt_of(task, task.problems("test")[0]) == "?\nA. x\nB. y\nAnswer:"
    arc = [{"question": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"}]
    assert made("multiple_choice", write(tmp_path / "b.jsonl", arc)).problems("test")[0].answer == "1"


def test_a_number_is_a_place_even_where_the_choices_are_numbers(tmp_path: Path) -> None:
    rows = [{"question": "?", "choices": ["4", "2", "8", "1"], "answer": 1}]
    assert made("multiple_choice", write(tmp_path / "n.jsonl", rows)).problems("test")[0].answer == "1"


def test_labels_may_be_of_any_width(tmp_path: Path) -> None:
    rows = [{"question": "?", "choices": ["x", "y"], "answer": "②"}]
    task = made("multiple_choice", write(tmp_path / "w.jsonl", rows), labels=["①", "②"])
    assert task.score(task.problems("test")[0], said("答えは②です")) == {"acc": 1.0}


@pytest.mark.parametrize("answer", ["D", "E", 7, "ベルリン", None])
def test_a_right_answer_that_is_no_choice_is_refused(tmp_path: Path, answer: object) -> None:
    path = write(tmp_path / "c.jsonl", [{"question": "?", "choices": ["a", "b", "c"], "answer": answer}])
    with pytest.raises(UsageError, match=r"row 0 of .*: the answer .* is not one of at least two choices in choices"):
        made("multiple_choice", path).problems("test")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", 1),
        (" (B) 東京", 1),
        ("答えはＢです。", 1),
        ("B. A is wrong", 1),
        ("A city: B", 1),
        ("A", 0),
        ("A is right, B is not", 0),
        ("C or B", 0),
        ("Because", 0),
        ("D", 0),
        ("", 0),
    ],
)
def test_multiple_choice_takes_the_first_label_that_stands_by_itself(capitals: str, text: str, right: float) -> None:
    task = made("multiple_choice", capitals)
    assert task.score(task.problems("test")[0], said(text)) == {"acc": right}


def test_choice_logprob_compares_what_the_model_finds_likely(capitals: str) -> None:
    task = made("choice_logprob", capitals, prompt="{question}", before="答え:")
    problem = task.problems("test")[0]
    assert task.request(problem) == LogLikelihood("日本の首都は？", ("答え:京都", "答え:東京", "答え:大阪"))
    likelihoods = tuple(math.log(p) for p in (0.02, 0.03, 0.15))
    scores = task.score(problem, Response("", 6, log_likelihoods=likelihoods))
    assert scores == pytest.approx({"p_right": 0.15, "acc": 0.0, "acc_norm": 0.0})
    assert task.objectives[0].name == "p_right"


def test_choice_logprob_by_byte_forgives_long_choices(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", [{"question": "?", "choices": ["ab", "abcd"], "answer": 1}])
    task = made("choice_logprob", path, objective="acc_norm")
    scores = task.score(task.problems("test")[0], Response("", 6, log_likelihoods=(-2.0, -3.0)))
    assert (scores["acc"], scores["acc_norm"]) == (0.0, 1.0)


def test_perplexity_is_in_bits_a_byte(qa: str) -> None:
    task = made("perplexity", qa, prompt="{question} ", before="")
    problem = task.problems("test")[5]
    assert task.request(problem) == LogLikelihood("5 + 5? ", ("10",))
    found = task.score(problem, Response("", 1, log_likelihoods=(6 * -math.log(2),)))
    assert found == pytest.approx({"bits_per_byte": 3.0})
    assert task.objectives[0].direction == "minimize"


@pytest.mark.parametrize(
    ("reference", "response", "rouge1", "longest"),
    [
        ("the cat sat", "the cat sat", 1.0, 1.0),
        ("the cat sat", "sat the cat", 1.0, 2 / 3),
        ("東京は首都です", "首都は東京です", 1.0, None),
        ("東京は首都です", "雨が降る", 0.0, 0.0),
        ("the cat", "", 0.0, 0.0),
    ],
)
def test_rouge_counts_words_of_japanese_too(
    tmp_path: Path, reference: str, response: str, rouge1: float, longest: float | None
) -> None:
    pytest.importorskip("rouge_score")
    task = made("rouge", write(tmp_path / "r.jsonl", [{"question": "?", "answer": reference}]))
    scores = task.score(task.problems("test")[0], said(response))
    assert scores["rouge1"] == pytest.approx(rouge1)
    if longest is not None:
        assert scores["rougeL"] == pytest.approx(longest)


# Public test sets


def test_searching_on_a_public_test_set_must_be_said(shared: Path) -> None:
    gsm8k = str(shared / "data" / "gsm8k_test.jsonl")
    with pytest.raises(UsageError, match=r"task\.search: 5 of 5 problems are of GSM8K test, a public test set.*=true"):
        made("gsm8k", gsm8k, search={"path": gsm8k, "rows": "100:105"}).problems("search")
    said = made("gsm8k", gsm8k, search={"path": gsm8k, "rows": "100:105"}, search_on_public_test=True)
    assert len(said.problems("search")) == 5
    assert len(said.problems("test")) == 1319, "testing on it is what it is for"


def test_a_copy_of_a_public_test_set_with_other_spaces_is_recognised(shared: Path, tmp_path: Path) -> None:
    rows = (shared / "data" / "mgsm_ja.tsv").read_text(encoding="utf-8").splitlines()[:3]
    copies = [{"question": f" {row.split(chr(9))[0]}　", "answer": "1"} for row in rows]
    path = write(tmp_path / "mine.jsonl", [*copies, {"question": "本当に自分のものは？", "answer": "1"}])
    with pytest.raises(UsageError, match=r"3 of 4 problems are of MGSM Japanese test"):
        made("gsm8k", path, search={"path": path}).problems("search")


def test_ones_own_problems_are_searched_on_freely(qa: str) -> None:
    assert len(made("gsm8k", qa, search={"path": qa}).problems("search")) == 6
