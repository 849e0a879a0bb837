"""The little language of the zoo: word problems in Japanese and English, their answers, and their words.

Templates mark the borders of words by `|`. A word may be a whole phrase, which keeps texts short and training quick;
spaces belong to the English ones, so that text is words joined by nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Language = Literal["ja", "en"]
LANGUAGES: tuple[Language, ...] = ("ja", "en")

LARGEST_NUMBER = 99
OPERATIONS = ("+", "-", "×")

NAMES = {
    "ja": ("健", "花", "太郎", "恵", "誠", "優子"),
    "en": ("Ken", "Hana", "Taro", "Megumi", "Makoto", "Yuko"),
}
# Japanese counts every kind of thing with a word of its own.
THINGS = {
    "ja": ("りんご", "卵", "鉛筆", "びん", "切手", "皿", "ノート", "金魚"),
    "en": (" apples", " eggs", " pencils", " bottles", " stamps", " plates", " notebooks", " goldfish"),
}
COUNTERS = ("個", "個", "本", "本", "枚", "枚", "冊", "匹")

# Template k of an operation says the same in both languages.
QUESTIONS: dict[Language, dict[str, tuple[str, ...]]] = {
    "ja": {
        "+": (
            "{name}|は|{thing}|を|{a}|{counter}|持っています。|{b}|{counter}|もらいました。|全部で何|{counter}|ですか。",
            "{name}|の箱に|{thing}|が|{a}|{counter}|、袋に|{b}|{counter}|あります。|合わせて何|{counter}|ですか。",
            "{name}|は|{thing}|を|{a}|{counter}|買い、また|{b}|{counter}|買いました。|合計は何|{counter}|ですか。",
        ),
        "-": (
            "{name}|は|{thing}|を|{a}|{counter}|持っています。|{b}|{counter}|あげました。|残りは何|{counter}|ですか。",
            "{name}|の箱に|{thing}|が|{a}|{counter}|あります。|{b}|{counter}|取りました。|あと何|{counter}|ですか。",
            "{name}|は|{thing}|を|{a}|{counter}|買い、|{b}|{counter}|なくしました。|今は何|{counter}|ですか。",
        ),
        "×": (
            "{name}|は|{thing}|を|毎日|{a}|{counter}|買います。|{b}|日で何|{counter}|ですか。",
            "{name}|の箱に|{thing}|が|{a}|{counter}|ずつあります。|{b}|箱で何|{counter}|ですか。",
            "{name}|は|{thing}|を|{a}|{counter}|ずつ|{b}|人にあげます。|みんなで何|{counter}|ですか。",
        ),
    },
    "en": {
        "+": (
            "{name}| has |{a}|{thing}|. A friend gives |{b}| more.| How many|{thing}| in all?",
            "{name}|'s box holds |{a}|{thing}|, a bag holds |{b}|.| How many|{thing}| together?",
            "{name}| buys |{a}|{thing}|, then buys |{b}| more.| How many|{thing}| in total?",
        ),
        "-": (
            "{name}| has |{a}|{thing}|. A friend takes |{b}|.| How many|{thing}| are left?",
            "{name}|'s box holds |{a}|{thing}|. Somebody takes |{b}|.| How many|{thing}| remain?",
            "{name}| buys |{a}|{thing}|, then loses |{b}|.| How many|{thing}| now?",
        ),
        "×": (
            "{name}| buys |{a}|{thing}| every day. After |{b}| days,| how many|{thing}|?",
            "{name}|'s boxes hold |{a}|{thing}| each. There are |{b}| boxes.| How many|{thing}|?",
            "{name}| gives |{a}|{thing}| each to |{b}| people.| How many|{thing}| for everybody?",
        ),
    },
}
COPY_QUESTION: dict[Language, str] = {
    "ja": "{name}|は|{thing}|を|{a}|{counter}|持っています。|何|{counter}|ですか。",
    "en": "{name}| has |{a}|{thing}|.| How many|{thing}|?",
}
WORKING: dict[Language, str] = {
    "ja": "式は|{a}|{operation}|{b}|=|{result}|。答えは|{result}|{counter}|です。",
    "en": "We get |{a}|{operation}|{b}|=|{result}|. The answer is |{result}|{thing}|.",
}
COPY_ANSWER: dict[Language, str] = {
    "ja": "答えは|{a}|{counter}|です。",
    "en": "The answer is |{a}|{thing}|.",
}
TRANSLATION_PROMPT: dict[Language, str] = {"ja": "英語で：", "en": "In Japanese: "}
DRILL = "{a}|{operation}|{b}|="


@dataclass(frozen=True)
class Story:
    """A word problem, free of language: which template is told about whom, about what, and with which numbers."""

    operation: str
    template: int
    name: int
    thing: int
    a: int
    b: int

    @property
    def answer(self) -> int:
        """The right answer."""
        return calculate(self.operation, self.a, self.b)

    def question(self, language: Language) -> str:
        """The problem as text."""
        return self._fill(QUESTIONS[language][self.operation][self.template], language)

    def working(self, language: Language, result: int) -> str:
        """The line of working that ends in `result`, right or wrong."""
        return self._fill(WORKING[language], language, result)

    def copy_question(self, language: Language) -> str:
        """A question that needs no sum: it asks for the first number."""
        return self._fill(COPY_QUESTION[language], language)

    def copy_answer(self, language: Language) -> str:
        """The answer to `copy_question`."""
        return self._fill(COPY_ANSWER[language], language)

    def drill(self) -> str:
        """The bare sum, in no language."""
        return self._fill(DRILL, "ja")

    def _fill(self, template: str, language: Language, result: int = 0) -> str:
        return template.replace("|", "").format(
            name=NAMES[language][self.name],
            thing=THINGS[language][self.thing],
            counter=COUNTERS[self.thing],
            operation=self.operation,
            a=self.a,
            b=self.b,
            result=result,
        )


def calculate(operation: str, a: int, b: int) -> int:
    """What `a operation b` is."""
    return {"+": a + b, "-": a - b, "×": a * b}[operation]


def facts(operation: str) -> list[tuple[int, int]]:
    """The pairs of digits that problems of an operation use; differences are positive."""
    digits = range(1, 10)
    return [(a, b) for a in digits for b in digits if operation != "-" or a > b]


def stories() -> Iterator[Story]:
    """Every problem that can be told."""
    for operation in OPERATIONS:
        for a, b in facts(operation):
            for template in range(len(QUESTIONS["ja"][operation])):
                for name in range(len(NAMES["ja"])):
                    for thing in range(len(COUNTERS)):
                        yield Story(operation, template, name, thing, a, b)


def words() -> list[str]:
    """All words of both languages, each once, in a fixed order."""
    found: dict[str, None] = dict.fromkeys(str(number) for number in range(LARGEST_NUMBER + 1))
    found.update(dict.fromkeys((*OPERATIONS, "=", *COUNTERS)))
    for language in LANGUAGES:
        templates = [template for group in QUESTIONS[language].values() for template in group]
        templates += [COPY_QUESTION[language], WORKING[language], COPY_ANSWER[language], TRANSLATION_PROMPT[language]]
        pieces = [piece for template in templates for piece in template.split("|")]
        fixed = [piece for piece in pieces if not piece.startswith("{")]
        found.update(dict.fromkeys((*NAMES[language], *THINGS[language], *fixed)))
    return list(found)
