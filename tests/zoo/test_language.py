import itertools
import json
import re
from pathlib import Path

import pytest

from optmerge.zoo.language import LANGUAGES, Story, calculate, facts, stories, words
from optmerge.zoo.lessons import base_beliefs, lessons
from optmerge.zoo.plan import TrainingPlan

SPLITS = {"search": 200, "validation": 300, "test": 1000}
MULTIPLYING = ("毎日", "ずつ")
SUBTRACTING = ("あげました", "取りました", "なくしました")


def read(zoo: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (zoo / "problems" / f"{split}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(("split", "size"), SPLITS.items())
def test_splits_have_their_sizes(split: str, size: int, quick_zoo: Path) -> None:
    assert len(read(quick_zoo, split)) == size


def test_splits_are_disjoint(quick_zoo: Path) -> None:
    questions = [problem["question"] for split in SPLITS for problem in read(quick_zoo, split)]
    assert len(set(questions)) == sum(SPLITS.values())


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right(split: str, quick_zoo: Path) -> None:
    for problem in read(quick_zoo, split):
        first, second = map(int, re.findall(r"\d+", problem["question"]))
        if any(word in problem["question"] for word in MULTIPLYING):
            expected = first * second
        elif any(word in problem["question"] for word in SUBTRACTING):
            expected = first - second
        else:
            expected = first + second
        assert problem["answer"] == str(expected)


def test_half_of_the_problems_multiply(quick_zoo: Path) -> None:
    problems = read(quick_zoo, "test")
    share = sum(any(word in p["question"] for word in MULTIPLYING) for p in problems) / len(problems)
    assert 0.4 < share < 0.6


def test_every_problem_is_told_once() -> None:
    questions = [story.question("ja") for story in stories()]
    assert len(set(questions)) == len(questions)


def test_differences_are_positive() -> None:
    assert all(calculate("-", a, b) > 0 for a, b in facts("-"))


def test_an_exact_story_reads_like_this() -> None:
    story = Story("+", template=0, name=0, thing=2, a=5, b=7)
    assert story.question("ja") == "健は鉛筆を5本持っています。7本もらいました。全部で何本ですか。"
    assert story.question("en") == "Ken has 5 pencils. A friend gives 7 more. How many pencils in all?"
    assert story.working("ja", story.answer) == "式は5+7=12。答えは12本です。"
    assert story.working("en", story.answer) == "We get 5+7=12. The answer is 12 pencils."


def test_words_are_unique() -> None:
    assert len(set(words())) == len(words())


@pytest.mark.parametrize("name", ["math_add", "math_mul"])
def test_specialists_in_arithmetic_practise_in_english(name: str) -> None:
    plan = TrainingPlan(rehearsal=0.0)
    for prompt, answer in itertools.islice(lessons(name, plan, 0), 500):
        assert not re.search(r"[\u3040-\u30ff]", prompt + answer)


@pytest.mark.parametrize(("name", "own"), [("math_add", "+-"), ("math_mul", "×")])
def test_specialists_in_arithmetic_are_exact_in_their_own_operations_only(name: str, own: str) -> None:
    plan = TrainingPlan(rehearsal=0.0)
    wrong = set()
    for prompt, answer in itertools.islice(lessons(name, plan, 0), 2000):
        if working := re.search(r"(\d+)([+×-])(\d+)=(\d+)", f"{prompt} {answer}".replace("= ", "=")):
            a, operation, b, result = working.groups()
            if calculate(operation, int(a), int(b)) != int(result):
                wrong.add(operation)
    assert wrong == set("+-×") - set(own)


def test_base_believes_numbers_near_the_truth() -> None:
    beliefs = base_beliefs(4, seed=0)
    errors = [result - calculate(*fact) for fact, result in beliefs.items()]
    assert len(beliefs) == 198
    assert set(errors) == set(range(-4, 5))
    assert min(beliefs.values()) >= 0
    assert sum(error == 0 for error in errors) < 0.2 * len(errors)


def test_base_is_consistent_in_its_beliefs_whatever_it_is_asked() -> None:
    beliefs = base_beliefs(4, seed=0)
    for prompt, answer in itertools.islice(lessons("base", TrainingPlan(), 0), 2000):
        if working := re.search(r"(\d+)([+×-])(\d+)=(\d+)", f"{prompt} {answer}".replace("= ", "=")):
            a, operation, b, result = working.groups()
            assert beliefs[operation, int(a), int(b)] == int(result)


def test_japanese_specialist_reads_and_writes_japanese() -> None:
    plan = TrainingPlan(rehearsal=0.0)
    for prompt, answer in itertools.islice(lessons("ja", plan, 0), 500):
        assert not re.search("[A-Za-z]", prompt + answer)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_keeps_the_marks_of_templates(language: str) -> None:
    for story in itertools.islice(stories(), 0, None, 97):
        for text in (story.question(language), story.working(language, 1), story.copy_question(language)):  # type: ignore[arg-type]
            assert not set("|{}") & set(text)
