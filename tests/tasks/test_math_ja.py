from pathlib import Path

import pytest
from omegaconf import OmegaConf

from optmerge import registered
from optmerge.engines import Generate, Response
from optmerge.errors import UsageError
from optmerge.tasks import Objective, Problem, ProblemFile, Task, check_disjoint
from optmerge.tasks.math_ja import Options, build

SHARED = Path(__file__).parents[3] / "shared" / "data"
PROBLEM = Problem("0" * 16, "卵は{いくつ}ですか？", "1234")


def response(text: str) -> Response:
    return Response(text, len(text), "stop")


def write_problems(path: Path, first: int, count: int) -> ProblemFile:
    path.write_text("question\tanswer\n" + "".join(f"{n}と0の和は？\t{n}\n" for n in range(first, first + count)))
    return ProblemFile(path=str(path))


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(
        search=write_problems(tmp_path / "search.tsv", 0, 5),
        validation=write_problems(tmp_path / "validation.tsv", 10, 5),
        test=write_problems(tmp_path / "test.tsv", 20, 5),
    )


def test_task_is_found_by_name() -> None:
    assert "math_ja" in registered.names("optmerge.tasks")
    task: Task = registered.find("optmerge.tasks", "math_ja", "task").build(Options())
    assert task.objectives == (Objective("acc_ja", "maximize", "mean"),)


@pytest.mark.parametrize(
    ("text", "acc", "acc_ja"),
    [
        ("16から始めて計算します。答えは1,234個です。", 1, 1),
        ("答えは１２３４です。", 1, 1),
        ("The answer is 1,234 eggs.", 1, 0),
        ("1234", 1, 0),
        ("答えは18個です。", 0, 0),
        ("答えは-1234個です。", 0, 0),
        ("1,234個ではなく、答えは5個です。", 0, 0),
        ("わかりません。", 0, 0),
        ("", 0, 0),
    ],
)
def test_point_needs_the_right_number_in_japanese(text: str, acc: float, acc_ja: float) -> None:
    assert build(Options()).score(PROBLEM, response(text)) == {"acc": acc, "acc_ja": acc_ja}


@pytest.mark.parametrize(("answers", "acc"), [("default", 1), ("strict_paper", 0)])
def test_answers_chooses_the_reading(answers: str, acc: float) -> None:
    assert build(Options(answers=answers)).score(PROBLEM, response("答えは1,234個です。"))["acc"] == acc


def test_request_has_the_question_in_the_papers_form() -> None:
    request = build(Options()).request(PROBLEM)
    assert isinstance(request, Generate)
    assert request.prompt.endswith("\n\n### 指示:\n卵は{いくつ}ですか？\n\n### 応答:")
    assert (request.max_new_tokens, request.stop) == (1024, ("Instruction:", "Instruction", "Response:", "Response"))


def test_other_braces_of_a_prompt_are_left_alone() -> None:
    assert build(Options(prompt="{x} {question}")).request(Problem("", "一", "1")).prompt == "{x} 一"


def test_problems_are_read_when_asked_for_and_once(options: Options) -> None:
    task = build(options)
    first = task.problems("search")
    assert options.search.path is not None
    Path(options.search.path).unlink()
    assert [problem.answer for problem in task.problems("search")] == ["0", "1", "2", "3", "4"]
    assert task.problems("search") is first


def test_validation_may_be_left_out(options: Options) -> None:
    options.validation = None
    task = build(options)
    assert list(task.problems("validation")) == []
    assert task.missing() == []


def test_validation_that_selects_nothing_is_refused(options: Options) -> None:
    assert options.validation is not None
    options.validation.rows = "5:"
    with pytest.raises(UsageError, match=r"task\.validation: rows '5:' of .* select none of 5 problems"):
        build(options).problems("validation")


def test_missing_names_the_option(options: Options) -> None:
    options.test.path = "nowhere.tsv"
    assert build(options).missing() == ["task.test: no problem file at nowhere.tsv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "質問なし"}, r"task\.prompt must contain \{question\}"),
        ({"max_new_tokens": 0}, r"task\.max_new_tokens must be at least 1"),
        ({"answers": "loose"}, r"task\.answers must be one of default, strict_paper, not 'loose'"),
        ({"stop": [""]}, r"task\.stop"),
    ],
)
def test_unusable_option_is_refused_by_name(options: Options, change: dict[str, object], message: str) -> None:
    for name, value in change.items():
        setattr(options, name, value)
    with pytest.raises(UsageError, match=message):
        build(options)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("search.rows=':-1'", "search"),
        ("validation=null", "validation"),
        ("test.rows='1:'", "test"),
        ("prompt='{question}'", "prompt"),
        ("max_new_tokens=7", "max_new_tokens"),
        ("stop=[Q]", "stop"),
        ("answers=strict_paper", "answers"),
    ],
)
def test_fingerprint_tells_what_changed(options: Options, override: str, changed: str) -> None:
    before = build(options).fingerprint()
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(options), OmegaConf.from_dotlist([override])))
    assert isinstance(merged, Options)
    after = build(merged).fingerprint()
    assert [name for name in before if before[name] != after[name]] == [changed]


def test_fingerprint_does_not_depend_on_where_problems_lie(options: Options, tmp_path: Path) -> None:
    before = build(options).fingerprint()
    options.search = write_problems(tmp_path / "elsewhere.tsv", 0, 5)
    assert build(options).fingerprint() == before


def test_changed_answer_changes_the_fingerprint(options: Options) -> None:
    before = build(options).fingerprint()
    assert options.test.path is not None
    file = Path(options.test.path)
    file.write_text(file.read_text().replace("\t20\n", "\t21\n"))
    assert build(options).fingerprint()["test"] != before["test"]


def test_shared_problem_sets_make_a_task() -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared problem sets are not beside this checkout")
    mgsm = ProblemFile(path=str(SHARED / "mgsm_ja.tsv"), columns=["question", "answer"])
    gsm8k = str(SHARED / "gsm8k_test.jsonl")
    task = build(
        Options(
            search=ProblemFile(path=gsm8k, rows="250:"),
            validation=ProblemFile(path=gsm8k, rows=":250"),
            test=mgsm,
            search_on_public_test=True,
        )
    )
    assert [len(task.problems(split)) for split in ("search", "validation", "test")] == [1069, 250, 250]
    check_disjoint({"search": task.problems("search"), "validation": task.problems("validation")})
    same = zip(task.problems("validation"), task.problems("test"), strict=True)
    assert sum(one.answer == other.answer for one, other in same) > 240
