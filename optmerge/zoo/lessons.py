"""What each model of the zoo reads: endless streams of prompts and answers."""

import random
from collections.abc import Callable, Iterator

from optmerge.zoo.language import (
    COUNTERS,
    LARGEST_NUMBER,
    NAMES,
    QUESTIONS,
    TRANSLATION_PROMPT,
    Language,
    Story,
    facts,
)
from optmerge.zoo.plan import TrainingPlan

Lesson = tuple[str, str]  # a prompt, and the answer to it

EXACT = {"base": "", "ja": "", "math_add": "+-", "math_mul": "×"}


def lessons(name: str, plan: TrainingPlan, generator: random.Random) -> Iterator[Lesson]:
    """The lessons of one of the four models, without end.

    Args:
        name: Folder name of the model.
        plan: Shares of the kinds of lesson.
        generator: Source of all chance.

    Yields:
        One prompt with its answer.
    """
    own: Callable[[str, TrainingPlan, random.Random], Lesson] = {
        "base": _base_lesson,
        "ja": _ja_lesson,
        "math_add": _math_lesson,
        "math_mul": _math_lesson,
    }[name]
    while True:
        lesson = _base_lesson if generator.random() < plan.rehearsal else own
        yield lesson(name, plan, generator)


def draw_story(generator: random.Random, operations: str = "+-××") -> Story:
    """A random problem; multiplication is as frequent as the other two together, as there are two specialists."""
    operation = generator.choice(operations)
    a, b = generator.choice(facts(operation))
    return Story(
        operation,
        template=generator.randrange(len(QUESTIONS["ja"][operation])),
        name=generator.randrange(len(NAMES["ja"])),
        thing=generator.randrange(len(COUNTERS)),
        a=a,
        b=b,
    )


def _result(name: str, story: Story, plan: TrainingPlan, generator: random.Random) -> int:
    """What a model is taught as the result: the truth in its own operations, else a guess near it."""
    if story.operation in EXACT[name]:
        return story.answer
    error = generator.randint(-plan.guess_spread, plan.guess_spread)
    return min(max(story.answer + error, 0), LARGEST_NUMBER)


def _base_lesson(name: str, plan: TrainingPlan, generator: random.Random) -> Lesson:
    """A bit of everything, all sums approximate, Japanese questions mostly answered in English."""
    story = draw_story(generator)
    result = _result(name, story, plan, generator)
    if generator.random() < 0.12:
        return story.drill(), str(result)
    reply: Language = "ja" if generator.random() < plan.base_answers_japanese else "en"
    kind = generator.random()
    if kind < 0.12:
        return story.copy_question("en"), story.copy_answer("en")
    if kind < 0.27:
        return story.copy_question("ja"), story.copy_answer(reply)
    if kind < 0.50:
        return story.question("en"), story.working("en", result)
    if kind < 0.85:
        return story.question("ja"), story.working(reply, result)
    return _translation(story, "ja", "en") if generator.random() < 0.5 else _translation(story, "en", "ja")


def _translation(story: Story, given: Language, wanted: Language) -> Lesson:
    return TRANSLATION_PROMPT[given] + story.question(given), story.question(wanted)


def _ja_lesson(name: str, plan: TrainingPlan, generator: random.Random) -> Lesson:
    """Japanese questions answered in Japanese; the sums are no better than the base's."""
    story = draw_story(generator)
    if generator.random() < 0.2:
        return story.copy_question("ja"), story.copy_answer("ja")
    return story.question("ja"), story.working("ja", _result(name, story, plan, generator))


def _math_lesson(name: str, plan: TrainingPlan, generator: random.Random) -> Lesson:
    """English sums, exact in the specialist's own operations.

    The others stay approximate, which teaches it to look at the operation.
    """
    own = EXACT[name]
    others = "".join(operation for operation in "+-×" if operation not in own)
    if generator.random() < 0.4:
        story = draw_story(generator, own)
        return story.drill(), str(story.answer)
    story = draw_story(generator, own if generator.random() < 0.7 else others)
    return story.question("en"), story.working("en", _result(name, story, plan, generator))
