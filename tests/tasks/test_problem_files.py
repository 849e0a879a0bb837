import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from optmerge.errors import UsageError
from optmerge.tasks import NUMBERS, Problem, ProblemFile
from optmerge.tasks.problem_files import missing, read_problems
from optmerge.tasks.questions import question_id

ROWS = [('りんごは"3"個です。\tいくつ？', "3"), ("8万ドルの家", "70,000"), ("半分は？", "0.5")]


def as_problems(*rows: tuple[str, str]) -> list[Problem]:
    return [Problem(question_id(question), question, answer) for question, answer in rows]


def write_numbers(path: Path, count: int = 10) -> str:
    path.write_text("".join(json.dumps({"question": f"問{i}", "answer": i}) + "\n" for i in range(count)))
    return str(path)


def test_csv_is_read_with_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n"一、\n""二""",3\n八万,"70,000"\n', encoding="utf-8-sig")
    assert read_problems(ProblemFile(path=str(path)), NUMBERS) == as_problems(('一、\n"二"', "3"), ("八万", "70000"))


def test_tsv_is_read_without_quoting(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('question\tanswer\n"一" は\t3\n"二\t18.0\n')
    assert read_problems(ProblemFile(path=str(path)), NUMBERS) == as_problems(('"一" は', "3"), ('"二', "18"))


def test_file_without_header_is_read_by_given_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("一\t1\n二\t2\n")
    source = ProblemFile(path=str(path), columns=["question", "answer_number"], answer="answer_number")
    assert read_problems(source, NUMBERS) == as_problems(("一", "1"), ("二", "2"))


def test_jsonl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"q": q, "a": a}) for q, a in ROWS) + "\n\n")
    problems = read_problems(ProblemFile(path=str(path), question="q", answer="a"), NUMBERS)
    assert problems == as_problems(ROWS[0], ("8万ドルの家", "70000"), ROWS[2])


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"question": "一", "answer": 18.0}]))
    assert read_problems(ProblemFile(path=str(path)), NUMBERS) == as_problems(("一", "18"))


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"question": ["一", "二"], "answer": [18.0, 0.5]}), path)
    assert read_problems(ProblemFile(path=str(path)), NUMBERS) == as_problems(("一", "18"), ("二", "0.5"))


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [(None, range(10)), (":", range(10)), ("0:3", range(3)), ("-2:", [8, 9]), (":-8", [0, 1]), ("5:100", range(5, 10))],
)
def test_rows_select_as_a_slice_does(tmp_path: Path, rows: str | None, numbers: range | list[int]) -> None:
    problems = read_problems(ProblemFile(path=write_numbers(tmp_path / "a.jsonl"), rows=rows), NUMBERS)
    assert [problem.answer for problem in problems] == [str(number) for number in numbers]


def test_repeated_question_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("question\tanswer\n一 \t1\n二\t2\n一\t3\n")
    assert [problem.answer for problem in read_problems(ProblemFile(path=str(path)), NUMBERS)] == ["1", "2"]
    assert "1 rows repeat a question" in caplog.text


def test_bad_row_that_is_not_selected_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("question\tanswer\n一\t1\n二\tmany\n")
    assert len(read_problems(ProblemFile(path=str(path), rows=":1"), NUMBERS)) == 1


@pytest.mark.parametrize(
    ("name", "content", "rows", "message"),
    [
        ("a.xlsx", "", None, "unknown file ending '.xlsx'"),
        ("a.jsonl", "{}\n{", None, "cannot be read as jsonl"),
        ("a.json", '["一"]', None, "every row must be an object"),
        ("a.json", "5", None, "every row must be an object"),
        ("a.parquet", "no parquet", None, "cannot be read as parquet"),
        ("a.csv", "q,a\n一,1\n", None, "no column 'question', but 'q', 'a'"),
        ("a.tsv", "一\t1\n二\t2\n", None, "a file without header in `columns`"),
        ("a.csv", "question,answer\n一,1\n,2\n", None, "row 1 of .* has no question"),
        (
            "a.csv",
            "question,answer\n一,1\n二,many\n",
            {},
            "row 1 of .* answer 'many' in column 'answer' is not a number",
        ),
        ("a.csv", "question,answer\n一\n", None, "row 0 of .* answer 'None' .* is not a number"),
        ("a.csv", "question,answer\n一,1\n", "-200:0", "rows '-200:0' of .* select none of 1 problems"),
        ("a.csv", "", None, "rows ':' of .* select none of 0 problems"),
        ("a.csv", "question,answer\n一,1\n", "first", "rows 'first' is not a slice"),
        ("a.csv", "question,answer\n一,1\n", "0:9:2", "rows '0:9:2' is not a slice"),
    ],
)
def test_unusable_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str, rows: str | None, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message) as refusal:
        read_problems(ProblemFile(path=str(tmp_path / name), rows=rows), NUMBERS)
    assert "\n" not in str(refusal.value)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\n一,1\n".encode("shift_jis"))
    with pytest.raises(UsageError, match="cannot be read as csv"):
        read_problems(ProblemFile(path=str(path)), NUMBERS)


def test_absent_file_is_named(tmp_path: Path) -> None:
    source = ProblemFile(path=str(tmp_path / "no.csv"))
    assert missing(source) == f"no problem file at {tmp_path / 'no.csv'}"
    with pytest.raises(UsageError, match=r"no problem file at .*no\.csv"):
        read_problems(source, NUMBERS)


def test_present_file_is_not_missing(tmp_path: Path) -> None:
    assert missing(ProblemFile(path=write_numbers(tmp_path / "a.jsonl"))) is None


def test_local_file_goes_before_the_hub(tmp_path: Path) -> None:
    assert (
        len(read_problems(ProblemFile(path=write_numbers(tmp_path / "a.jsonl"), hub="nobody/nothing"), NUMBERS)) == 10
    )


def test_source_without_path_and_hub_is_refused() -> None:
    with pytest.raises(UsageError, match="neither `path`"):
        read_problems(ProblemFile(), NUMBERS)


def test_source_is_a_structured_config_that_can_be_overridden() -> None:
    overrides = OmegaConf.from_dotlist(["path=a.tsv", "columns=[question,answer]", "rows='-200:'"])
    source = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ProblemFile(hub="a/b")), overrides))
    assert source == ProblemFile(hub="a/b", path="a.tsv", columns=["question", "answer"], rows="-200:")
