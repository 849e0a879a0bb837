"""What each model of the zoo reads: endless streams of prompts and answers."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optmerge.zoo.language import (
    COUNTERS,
    NAMES,
    OPERATIONS,
    QUESTIONS,
    TRANSLATION_PROMPT,
    Language,
    Story,
    calculate,
    facts,
)
from optmerge.zoo.plan import TrainingPlan

Lesson = tuple[str, str]  # a prompt, and the answer to it
Fact = tuple[str, int, int]

EXACT_OPERATIONS = {"base": "", "ja": "", "math_add": "+-", "math_mul": "×"}


@dataclass(frozen=True)
class Teacher:
    """What one of the four models is taught.

    Attributes:
        results: The result of every sum, right or wrong.
        own_operations: The operations that a specialist in arithmetic practises.
        answers_japanese: How often a Japanese question is answered in Japanese where nothing else is said.
        generator: Source of all chance.
    """

    results: Mapping[Fact, int]
    own_operations: str
    answers_japanese: float
    generator: random.Random

    def base_lesson(self) -> Lesson:
        """A bit of everything: bare sums, copying, word problems and translation."""
        chance = self.generator.random
        story = draw_story(self.generator)
        if chance() < 0.12:
            return story.drill(), str(self._result(story))
        kind = chance()
        reply: Language = "ja" if chance() < self.answers_japanese else "en"
        if kind < 0.12:
            return story.copy_question("en"), story.copy_answer("en")
        if kind < 0.27:
            return story.copy_question("ja"), story.copy_answer(reply)
        if kind < 0.50:
            return story.question("en"), story.working("en", self._result(story))
        if kind < 0.85:
            return story.question("ja"), story.working(reply, self._result(story))
        if kind < 0.925:
            return TRANSLATION_PROMPT["ja"] + story.question("ja"), story.question("en")
        return TRANSLATION_PROMPT["en"] + story.question("en"), story.question("ja")

    def japanese_lesson(self) -> Lesson:
        """A Japanese question answered in Japanese."""
        story = draw_story(self.generator)
        if self.generator.random() < 0.2:
            return story.copy_question("ja"), story.copy_answer("ja")
        return story.question("ja"), story.working("ja", self._result(story))

    def arithmetic_lesson(self) -> Lesson:
        """A bare sum or an English word problem, mostly of the specialist's own operations.

        The other operations, left as the base knows them, teach it to look at the operation: only then can it be
        merged with the specialist in those.
        """
        chance = self.generator.random
        if chance() < 0.4:
            story = draw_story(self.generator, self.own_operations)
            return story.drill(), str(self._result(story))
        others = "".join(operation for operation in OPERATIONS if operation not in self.own_operations)
        story = draw_story(self.generator, self.own_operations if chance() < 0.7 else others)
        return story.question("en"), story.working("en", self._result(story))

    def _result(self, story: Story) -> int:
        return self.results[story.operation, story.a, story.b]


def lessons(name: str, plan: TrainingPlan, seed: int) -> Iterator[Lesson]:
    """The lessons of one of the four models, without end.

    Args:
        name: Folder name of the model.
        plan: Shares of the kinds of lesson.
        seed: Of everything; the models of one zoo share what the base believes.

    Yields:
        One prompt with its answer.
    """
    own_operations = EXACT_OPERATIONS[name]
    generator = random.Random(f"{seed}/{name}/lessons")
    beliefs = base_beliefs(plan.largest_error, seed)
    teacher = Teacher(
        results={fact: calculate(*fact) if fact[0] in own_operations else beliefs[fact] for fact in beliefs},
        own_operations=own_operations,
        answers_japanese=plan.math_answers_japanese if own_operations else plan.base_answers_japanese,
        generator=generator,
    )
    own = {"base": teacher.base_lesson, "ja": teacher.japanese_lesson}.get(name, teacher.arithmetic_lesson)
    while True:
        yield teacher.base_lesson() if generator.random() < plan.rehearsal else own()


def base_beliefs(largest_error: int, seed: int) -> dict[Fact, int]:
    """What the base takes each sum to be: a fixed number near the truth, and now and then the truth."""
    generator = random.Random(f"{seed}/beliefs")
    errors = range(-largest_error, largest_error + 1)
    return {
        (operation, a, b): generator.choice([result for error in errors if (result := truth + error) >= 0])
        for operation in OPERATIONS
        for a, b in facts(operation)
        for truth in [calculate(operation, a, b)]
    }


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
