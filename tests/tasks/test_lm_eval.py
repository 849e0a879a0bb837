"""Tasks of lm-evaluation-harness, local ones, held against what lm-eval itself says of the same model."""

import json
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from optmerge.__main__ import run
from optmerge.config import compose_config, options_of
from optmerge.engines import Generate, LogLikelihood, Response
from optmerge.errors import UsageError
from optmerge.tasks import Problem, Task, check_disjoint

pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed")

# In words that the zoo's tokenizer knows: others are all one to it.
QUESTIONS = [
    {
        "question": f"太郎は卵を{n + 1}個買い、また{n + 2}個買いました。合計は何個ですか。",
        "answer": str(2 * n + 3),
        "right": n % 3,
    }
    for n in range(40)
]
GENERATE: dict[str, Any] = {
    "task": "sums",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "target_delimiter": "",
    "doc_to_target": "答えは{{answer}}個です。",
    "training_split": "train",
    "validation_split": "validation",
    "test_split": "test",
    "fewshot_split": "train",
    "num_fewshot": 2,
    "generation_kwargs": {"until": ["\n\n", "です"], "max_gen_toks": 12, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}
CHOICE: dict[str, Any] = {
    **{name: value for name, value in GENERATE.items() if name not in ("generation_kwargs", "metric_list")},
    "task": "choices",
    "output_type": "multiple_choice",
    "doc_to_target": "{{right}}",
    "doc_to_choice": "{{['答えは' ~ answer, '答えは5個です。', 'りんご']}}",
    "metric_list": [
        {"metric": metric, "aggregation": aggregation, "higher_is_better": metric != "brier_score"}
        for metric, aggregation in (("acc", "mean"), ("acc_norm", "mean"), ("brier_score", "brier_score"))
    ],
}


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


Define = Callable[..., Path]


@pytest.fixture
def define(tmp_path: Path) -> Define:
    """Writes yaml files of tasks, over the same questions unless they have data of their own."""
    folder = tmp_path / "tasks"
    folder.mkdir()

    def write(*configs: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = QUESTIONS, code: str = "") -> Path:
        (folder / "code.py").write_text(code, encoding="utf-8")
        for config in configs:
            name = config.get("group") or config["task"]
            parts = {"train": rows[:16], "validation": rows[16:24], "test": rows[24:]}
            parts = {part: some for part, some in parts.items() if some}
            for part, some in parts.items():
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
                (folder / f"{name}_{part}.jsonl").write_text(text, encoding="utf-8")
            files = {part: str(folder / f"{name}_{part}.jsonl") for part in parts}
            data = {} if "group" in config else {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
            text = yaml.safe_dump({**data, **config}, allow_unicode=True)
            (folder / f"{name}.yaml").write_text(text.replace("FUNCTION ", "!function "), encoding="utf-8")
        return folder

    return write


def made(folder: Path | None, task_name: str | None, **settings: Any) -> Task:
    """The task as a configuration makes it."""
    given = {"name": "lm_eval", "task": task_name, "include_path": str(folder) if folder else None, **settings}
    module, options = options_of("task", given, "optmerge.tasks")
    task: Task = module.build(options)
    return task


def of_lm_eval(folder: Path, model: Path, name: str, add_bos_token: bool | None = None, **settings: Any) -> Any:
    """What lm-eval says."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    harness = HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=8, add_bos_token=add_bos_token)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(harness, tasks=[name], task_manager=manager, bootstrap_iters=0, **settings)


def of_ours(task: Task, model: Path) -> tuple[Sequence[Problem], Sequence[Response], list[Mapping[str, float]]]:
    """The test problems, responses and scores."""
    from optmerge.engines.transformers import Options, build

    engine = build(Options(device="cpu", threads=1), model, "float32")
    problems = task.problems("test")
    responses = engine.run([task.request(problem) for problem in problems])
    return problems, responses, [task.score(*pair) for pair in zip(problems, responses, strict=True)]


def prepared(task: Task) -> object:
    """What a search wants of it before it begins."""
    return [task.request(problem) for problem in task.problems("test")], task.objectives


def mean(scores: Sequence[Mapping[str, float]], name: str) -> float:
    found = [one[name] for one in scores if name in one]
    return math.fsum(found) / len(found)


# The same as lm-eval, document by document


@pytest.mark.parametrize("shots", [None, 0, 3])
def test_generated_answers_score_as_in_lm_eval(define: Define, zoo: Path, shots: int | None) -> None:
    texts = [(zoo / "problems" / f"{split}.jsonl").read_text("utf-8") for split in ("search", "test")]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    metrics = [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "regexes_to_ignore": ["[^0-9]"]}
    ]
    filters = [
        {"name": "first", "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}]},
        {"name": "whole", "filter": [{"function": "take_first"}]},
        {"name": "constant", "filter": [{"function": "map", "mapping_dict": {}, "default_value": rows[24]["answer"]}]},
    ]
    filters[2]["filter"].append({"function": "take_first"})  # type: ignore[attr-defined]
    config = {**GENERATE, "metric_list": metrics, "filter_list": filters, "repeats": 2}
    folder = define({**config, "num_fewshot": 1, "doc_to_target": "{{answer}}"}, rows=rows)
    theirs = of_lm_eval(folder, zoo / "ja", "sums", num_fewshot=shots)
    task = made(folder, "sums", num_fewshot=shots)
    _, responses, scores = of_ours(task, zoo / "ja")
    samples = theirs["samples"]["sums"]
    assert len(samples) == 3 * len(scores)
    for sample in samples:
        i, name = sample["doc_id"], f"exact_match/{sample['filter']}"
        assert responses[i].text == sample["resps"][0][0]
        assert scores[i][name] == pytest.approx(sample["exact_match"], abs=1e-6)
    for name in ("first", "whole", "constant"):
        expected = theirs["results"]["sums"][f"exact_match,{name}"]
        assert mean(scores, f"exact_match/{name}") == pytest.approx(expected, abs=1e-6)
    assert mean(scores, "exact_match/constant") > 0
    assert task.objectives[0].name == "exact_match/first"


@pytest.mark.parametrize("shots", [None, 0])
def test_choices_score_as_in_lm_eval(define: Define, zoo: Path, shots: int | None) -> None:
    folder = define(CHOICE)
    theirs = of_lm_eval(folder, zoo / "base", "choices", num_fewshot=shots)
    _, responses, scores = of_ours(made(folder, "choices", num_fewshot=shots), zoo / "base")
    for sample in theirs["samples"]["choices"]:
        found = responses[sample["doc_id"]].log_likelihoods
        assert found == pytest.approx([resp[0][0] for resp in sample["resps"]], abs=1e-4)
        for metric in ("acc", "acc_norm"):
            assert scores[sample["doc_id"]][metric] == pytest.approx(sample[metric], abs=1e-6)
    for metric in ("acc", "acc_norm", "brier_score"):
        assert mean(scores, metric) == pytest.approx(theirs["results"]["choices"][f"{metric},none"], abs=1e-6)
    assert 0 < mean(scores, "acc") < 1


@pytest.mark.parametrize(("kind", "metric"), [("loglikelihood", "acc"), ("multiple_choice", "exact_match")])
def test_what_a_model_would_write_by_itself_scores_as_in_lm_eval(
    define: Define, zoo: Path, kind: str, metric: str
) -> None:
    from optmerge.engines.transformers import Options, build

    engine = build(Options(device="cpu", threads=1), zoo / "ja", "float32")
    written = engine.run([Generate(str(row["question"]), 4) for row in QUESTIONS])
    rows = [
        {**row, "answer": response.text if n % 2 else "りんご", "right": 0}
        for n, (row, response) in enumerate(zip(QUESTIONS, written, strict=True))
    ]
    choices = {"doc_to_choice": "{{[answer, '個です']}}", "doc_to_target": "{{right}}"}
    config = {**CHOICE, "task": "lambada", "output_type": kind, "num_fewshot": 0, "metric_list": [{"metric": metric}]}
    config |= choices if kind == "multiple_choice" else {"doc_to_choice": None, "doc_to_target": "{{answer}}"}
    folder = define(config, rows=rows)
    theirs = of_lm_eval(folder, zoo / "ja", "lambada")
    task = made(folder, "lambada")
    _, _, scores = of_ours(task, zoo / "ja")
    assert task.objectives[0].name == metric
    for sample in theirs["samples"]["lambada"]:
        assert scores[sample["doc_id"]] == {metric: sample[metric]}
    assert mean(scores, metric) == pytest.approx(theirs["results"]["lambada"][f"{metric},none"])
    assert 0 < mean(scores, metric) < 1


def test_an_engine_that_cannot_say_what_a_model_would_write_scores_the_rest(define: Define) -> None:
    metrics = [{"metric": "acc"}, {"metric": "exact_match"}]
    folder = define({**CHOICE, "metric_list": metrics})
    response = Response("", 3, log_likelihoods=(-1.0, -2.0, -3.0))
    task = made(folder, "choices")
    assert task.score(task.problems("test")[0], response) == {"acc": 1.0}
    task = made(folder, "choices", metric="exact_match")
    with pytest.raises(
        UsageError, match=r"task\.metric=exact_match: it asks whether .* which this engine does not say"
    ):
        task.score(task.problems("test")[0], response)


def test_what_a_model_would_write_after_several_contexts_cannot_be_searched_for(define: Define) -> None:
    rows = [{"question": f"{n}個", "right": n % 2, "rest": " は5個買う"} for n in range(40)]
    inputs = {"doc_to_text": "{{right}}", "doc_to_target": "{{rest}}", "doc_to_choice": "{{[question, 'りんご']}}"}
    folder = define({**CHOICE, **inputs, "metric_list": [{"metric": "exact_match"}]}, rows=rows)
    with pytest.raises(UsageError, match=r"task\.metric=exact_match: it asks whether .* by itself after others"):
        assert made(folder, "choices").objectives


def test_contexts_that_differ_and_mutual_information_score_as_in_lm_eval(define: Define, zoo: Path) -> None:
    rows = [
        {"a": f"{n}個の箱と 太郎", "b": f"{n}個の箱と 花子さん", "right": n % 2, "rest": " は5個買う"}
        for n in range(40)
    ]
    blank = {
        **CHOICE,
        "task": "blank",
        "doc_to_text": "{{right}}",
        "doc_to_target": "{{rest}}",
        "doc_to_choice": "{{[a, b]}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    mutual = {**CHOICE, "task": "mutual", "metric_list": [{**blank["metric_list"][0], "metric": "acc_mutual_info"}]}
    folder = define(mutual)
    define(blank, rows=rows)
    for name, metric in (("blank", "acc"), ("mutual", "acc_mutual_info")):
        theirs = of_lm_eval(folder, zoo / "base", name)
        task = made(folder, name)
        problems, responses, scores = of_ours(task, zoo / "base")
        for sample in theirs["samples"][name]:
            assert scores[sample["doc_id"]] == {metric: sample[metric]}
            asked: Any = problems[sample["doc_id"]]
            from optmerge.tasks.lm_eval_subtask import _likelihoods

            pairs = [instance.args for instance in asked.asked.instances]
            found = _likelihoods(pairs, responses[sample["doc_id"]].log_likelihoods)
            assert found == pytest.approx([resp[0][0] for resp in sample["resps"]], abs=1e-4)
    assert problems[0].question


def test_whole_texts_score_as_in_lm_eval(define: Define, zoo: Path) -> None:
    code = "def bits(doc, results):\n    return {'bits': -results[0] / len(doc['question'])}\n"
    config = {
        **{name: value for name, value in GENERATE.items() if name != "generation_kwargs"},
        "output_type": "loglikelihood_rolling",
        "num_fewshot": 0,
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "process_results": "FUNCTION code.bits",
        "metric_list": [{"metric": "bits", "aggregation": "mean", "higher_is_better": False}],
    }
    folder = define(config, code=code)
    # Of a tokenizer that begins texts with a token of its own, lm-eval would score that token too.
    theirs = of_lm_eval(folder, zoo / "base", "sums", add_bos_token=False)
    task = made(folder, "sums")
    problems, _, scores = of_ours(task, zoo / "base")
    assert task.request(problems[0]) == LogLikelihood("", (problems[0].question,))
    assert [one["bits"] for one in scores] == pytest.approx([one["bits"] for one in theirs["samples"]["sums"]], 1e-5)
    assert (task.objectives[0].name, task.objectives[0].direction) == ("bits", "minimize")


def test_each_task_of_a_group_has_the_same_say(define: Define, zoo: Path) -> None:
    group = {
        "group": "both",
        "task": ["sums", "choices"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}],
    }
    folder = define(GENERATE, group)
    define(CHOICE, rows=QUESTIONS[:29])
    theirs = of_lm_eval(folder, zoo / "base", "both")["results"]
    task = made(folder, "both", metric=None)
    problems, _, scores = of_ours(task, zoo / "base")
    assert len(problems) == 16 + 5
    assert mean(scores, "sums/exact_match") == pytest.approx(theirs["sums"]["exact_match,none"])
    assert mean(scores, "choices/acc") == pytest.approx(theirs["choices"]["acc,none"])
    assert mean(scores, "choices/brier_score") == pytest.approx(theirs["choices"]["brier_score,none"], abs=1e-6)
    both = (theirs["sums"]["exact_match,none"] + theirs["choices"]["acc,none"]) / 2
    assert mean(scores, "both") == pytest.approx(both)
    assert task.objectives[0].name == "both"
    ease = [one[task.ease] for one in scores]
    assert max(ease[:16]) < min(ease[16:]), "problems are easy among those of their own task"
    alone = made(folder, "both", test={"without": ["sums"]})
    _, _, scores = of_ours(alone, zoo / "base")
    assert mean(scores, "both") == pytest.approx(theirs["choices"]["acc,none"])


# What is asked


def test_a_request_has_the_stop_strings_and_the_length_of_the_task(define: Define) -> None:
    until = {"until": ["\n\n", "です", ""], "max_new_tokens": 12}
    folder = define(
        {**GENERATE, "num_fewshot": 0, "generation_kwargs": until}, {**GENERATE, "task": "more", "num_fewshot": None}
    )
    task = made(folder, "sums", num_fewshot=4)
    request = task.request(task.problems("test")[0])
    assert request == Generate(QUESTIONS[24]["question"], 12, ("\n\n", "です")), "a task that says 0 has none"
    task = made(folder, "more", num_fewshot=4)
    assert str(task.request(task.problems("test")[0])).count("合計は") == 5


@pytest.mark.parametrize("fewshot", ["train", None])
@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_no_document_is_among_its_own_examples(define: Define, fewshot: str | None, sampler: str) -> None:
    config = {**GENERATE, "fewshot_split": fewshot, "num_fewshot": 9, "fewshot_config": {"sampler": sampler}}
    task = made(define(config), "sums", search={"split": "train"})
    problems = task.problems("search")
    assert len(problems) == 16
    for problem in problems:
        assert str(task.request(problem)).count(problem.question) == 1


def test_a_prompt_is_the_same_whichever_rows_are_asked_for(define: Define) -> None:
    folder = define(GENERATE)
    every = made(folder, "sums")
    prompts = {problem.id: every.request(problem) for problem in every.problems("test")}
    some = made(folder, "sums", test={"rows": "-3:"})
    assert [some.request(problem) for problem in some.problems("test")] == list(prompts.values())[-3:]
    assert [problem.id for problem in some.problems("test")] == list(prompts)[-3:]


def test_documents_that_repeat_a_question_are_problems_of_their_own(define: Define) -> None:
    problems = made(define(GENERATE, rows=[*QUESTIONS[:25], *QUESTIONS[24:26]]), "sums").problems("test")
    assert [problem.question for problem in problems] == [QUESTIONS[n]["question"] for n in (24, 24, 25)]
    assert len({problem.id for problem in problems}) == 3


def test_splits_are_told_apart_by_questions(define: Define) -> None:
    task = made(define(GENERATE), "sums", validation={"split": "train", "rows": "8:"}, search={"rows": "4:12"})
    check_disjoint({"search": task.problems("search"), "test": task.problems("test")} | {"validation": ()})
    with pytest.raises(UsageError, match=r"share 4 problems"):
        check_disjoint({"search": task.problems("search"), "validation": task.problems("validation")})


def test_whatever_decides_scores_changes_the_fingerprint(define: Define) -> None:
    def fingerprint(**changes: Any) -> Mapping[str, str]:
        settings = {"search": {"split": "train"}, **changes.pop("settings", {})}
        code = changes.pop("code", "def nothing(doc, results):\n    return {'exact_match': 0}\n")
        folder = define({**GENERATE, "process_results": "FUNCTION code.nothing", **changes}, code=code)
        return made(folder, "sums", **settings).fingerprint()

    from optmerge.tasks import lm_eval_index

    def changed(**changes: Any) -> set[str]:
        lm_eval_index._manager.cache_clear()
        other = fingerprint(**changes)
        return {name for name in before if before[name] != other[name]}

    before = fingerprint()
    assert changed() == set()
    assert changed(settings={"num_fewshot": 1}) == {"num_fewshot", "search", "test"}
    assert changed(doc_to_target="{{right}}") == {"definition", "search", "test"}
    assert changed(code="def nothing(doc, results):\n    return {'exact_match': 1}\n") == {"definition"}
    assert changed(settings={"search": {"split": "train", "rows": ":3"}}) == {"search"}


# What is refused


def test_searching_on_what_lm_eval_evaluates_must_be_said(define: Define) -> None:
    folder = define(GENERATE)
    with pytest.raises(UsageError, match=r"task\.search: the test split of sums is what lm-eval evaluates.*=true"):
        made(folder, "sums", search={"split": "test", "rows": ":4"}).problems("search")
    told = made(folder, "sums", search={"split": "test", "rows": ":4"}, search_on_public_test=True)
    assert len(told.problems("search")) == 4
    assert len(made(folder, "sums", search={"split": "validation"}).problems("search")) == 8


def test_a_public_test_set_under_another_name_is_recognised(shared: Path, define: Define) -> None:
    lines = (shared / "data" / "gsm8k_test.jsonl").read_text("utf-8").splitlines()[:40]
    task = made(define(GENERATE, rows=[json.loads(line) for line in lines]), "sums", search={"split": "train"})
    with pytest.raises(UsageError, match=r"16 of 16 problems are of GSM8K test"):
        task.problems("search")


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"task_name": "summs"}, r"task\.task=summs: lm-eval 0\.4\.\d+ has no such task.* has sums"),
        ({}, {"task_name": None}, r"task\.task is missing"),
        ({}, {"include_path": "nowhere"}, r"task\.include_path=nowhere: no such folder"),
        ({}, {"num_fewshot": -1}, r"task\.num_fewshot must be at least 0"),
        ({}, {"num_fewshot": 17}, r"task\.test: document 0 of sums cannot be asked: ValueError"),
        ({}, {"metric": "accc"}, r"task\.metric=accc: sums has no such metric; known are exact_match"),
        ({}, {"test": {"split": "tests"}}, r"task\.test\.split=tests: unknown \(did you mean 'test'\?\)"),
        ({}, {"test": {"rows": "99:"}}, r"task\.test: rows select none of the 16 documents of sums, split test"),
        ({}, {"test": {"rows": "a:b"}}, r"task\.test: rows 'a:b' is not a slice"),
        ({}, {"test": {"without": ["sum"]}}, r"without names sum, which is none of sums's tasks.*'sums'"),
        (
            {"training_split": None, "num_fewshot": 0},
            {"test": {"split": "train"}},
            r"sums has no train split, but vali",
        ),
        ({"test_split": "best"}, {}, r"task\.task=sums: lm-eval cannot load it: KeyError: 'best'"),
        ({"doc_to_text": "{{question"}, {}, r"task\.task=sums: lm-eval cannot load it: TemplateSyntaxError"),
        ({"metric_list": [{"metric": "bleu"}]}, {}, r"bleu: it is of all documents together \(bleu\), not a mean"),
        ({"metric_list": [{"metric": "wer"}]}, {}, r"metric wer is none of lm-eval's own, and code that"),
        (
            {"metric_list": [{"metric": "exact_match", "hf_evaluate": True}]},
            {},
            r"metric exact_match is none of lm-eval",
        ),
        ({"unsafe_code": True}, {}, r"runs code that models write"),
        ({"class": "FUNCTION code.Task"}, {}, r"it is a Python class"),
        (
            {"generation_kwargs": {"until": "x", "do_sample": True, "temperature": 1.0}},
            {},
            r"asks for random responses",
        ),
        ({"generation_kwargs": {"until": "x", "num_beams": 2}}, {}, r"do not know its generation_kwargs num_beams"),
        ({"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, {}, r"sums reads gone\.jsonl: no such file"),
    ],
)
def test_what_cannot_be_used_is_refused(
    define: Define,
    changes: Mapping[str, Any],
    settings: Mapping[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from optmerge.tasks import lm_eval_index

    manager = lm_eval_index._manager  # without lm-eval's own tasks, which take ten seconds to list
    monkeypatch.setattr(lm_eval_index, "_manager", lambda path, built_in: manager(path, False))
    folder = define({**GENERATE, **changes})
    with pytest.raises(UsageError, match=message) as caught:
        prepared(made(folder, **{"task_name": "sums", **settings}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "metric", "message"),
    [
        ("loglikelihood", "perplexity", r"it is of all documents together \(perplexity\), not a mean over them"),
        ("loglikelihood_rolling", "word_perplexity", r"it is of all documents together \(weighted_perplexity\)"),
        ("multiple_choice", "f1", r"it is of all documents together \(f1_score\).*known are acc"),
    ],
)
def test_only_means_over_documents_are_searched_for(define: Define, kind: str, metric: str, message: str) -> None:
    metrics = [{"metric": name} for name in dict.fromkeys([metric, *(["acc"] if kind == "multiple_choice" else [])])]
    changes = {} if kind == "multiple_choice" else {"doc_to_choice": None, "doc_to_target": "{{answer}}"}
    folder = define({**CHOICE, "output_type": kind, "num_fewshot": 0, "metric_list": metrics, **changes})
    with pytest.raises(UsageError, match=rf"task\.metric={metric}: {message}"):
        assert made(folder, "choices", metric=metric).objectives


def test_functions_outside_of_the_folder_are_not_run(define: Define, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\ndef text(doc):\n    return ''\n", encoding="utf-8")
    (tmp_path / "evil.yaml").write_text("doc_to_text: !function evil.text\n", encoding="utf-8")
    config = {name: value for name, value in GENERATE.items() if name != "doc_to_text"}
    folder = define({**config, "include": "../evil.yaml"})
    with pytest.raises(UsageError, match=r"evil\.yaml names functions with !function, and lies outside"):
        prepared(made(folder, "sums"))
    assert not ran.exists()


def test_a_data_set_that_is_not_at_hand_is_told_at_once(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    task = made(define({**GENERATE, "dataset_path": "nobody/nothing", "dataset_kwargs": None}), "sums")
    (line,) = task.missing()
    assert "sums: data set nobody/nothing is not in the local cache, and the hub cannot be reached" in line
    with pytest.raises(UsageError, match="nobody/nothing"):
        task.problems("test")


def test_without_lm_eval_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UsageError, match=r"pip install 'optmerge\[lm-eval\]'"):
        made(None, "gsm8k")


# As a command, and as configured


def test_evaluate_scores_a_model_on_a_local_task(
    define: Define, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = define(CHOICE), tmp_path / "scores.json"
    settings = ["task=lm_eval", "task.task=choices", f"task.include_path={folder}", "task.test.rows=':6'"]
    assert run(["evaluate", str(zoo / "base"), f"json={path}", *settings, "engine.device=cpu"]) == 0
    document = json.loads(path.read_text("utf-8"))
    theirs = of_lm_eval(folder, zoo / "base", "choices", limit=6)
    assert document["scores"]["acc"]["score"] == pytest.approx(theirs["results"]["choices"]["acc,none"])
    assert [one["scores"]["acc"] for one in document["problems"]] == [
        one["acc"] for one in theirs["samples"]["choices"]
    ]
    assert document["facts"]["num_fewshot"] == 2
    assert "lm_eval: 0.4." in capsys.readouterr().out


def test_the_japanese_leaderboard_is_a_group_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval import tasks

    from optmerge.tasks import lm_eval_index

    manager, folder = lm_eval_index._manager, Path(tasks.__file__).parent / "japanese_leaderboard"
    monkeypatch.setattr(lm_eval_index, "_manager", lambda path, built_in: manager(str(folder), False))
    module, options = options_of("task", compose_config(["task=jp_lmeh"]).task, "optmerge.tasks")
    found = [definition.name for definition in module.build(options)._selection.definitions]
    names = {name for name in found if name.startswith("ja_leaderboard_")}
    assert len(names) == 8
    assert {*options.search.without, *options.validation.without} < names
