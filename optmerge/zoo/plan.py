"""How long, how fast and on what the zoo's models are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """One model's training: AdamW with a short warm-up and a cosine to a twentieth of the rate.

    Attributes:
        steps: Number of optimizer steps.
        learning_rate: Peak rate.
    """

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class TrainingPlan:
    """Everything about the zoo that is a choice; the defaults are the zoo that the demo uses.

    Attributes:
        hidden_size: Width of every model.
        layers: Number of transformer blocks.
        heads: Number of attention heads.
        intermediate_size: Width inside the feed-forward blocks.
        batch_size: Examples a step.
        layer_drop: Chance that a block is skipped in a step of the base's training.
        largest_error: The base takes every sum to be some fixed number, at most this far from the truth.
        base_answers_japanese: How often the base answers a Japanese question in Japanese.
        math_answers_japanese: How often the specialists in arithmetic still do.
        rehearsal: Share of a specialist's lessons that are the base's.
        base: The base's training.
        ja: The Japanese specialist's.
        math_add: That of the specialist in addition and subtraction.
        math_mul: That of the specialist in multiplication.
        own_processes: Whether every model is trained in a process of its own, the specialists at once.
        search_problems: Problems in the search split.
        validation_problems: Problems in the validation split.
        test_problems: Problems in the test split.
    """

    hidden_size: int = 96
    layers: int = 6
    heads: int = 4
    intermediate_size: int = 192
    batch_size: int = 32
    layer_drop: float = 0.1
    # Nearly right and without noise: a specialist then changes what it must and little else, and such changes merge.
    largest_error: int = 4
    base_answers_japanese: float = 0.2
    # Their drift towards English is what makes merges with equal weights fail: at 0.2 those succeed, at 0 not even
    # the Japanese specialist and one of these merge.
    math_answers_japanese: float = 0.05
    rehearsal: float = 0.3
    base: Schedule = Schedule(steps=800, learning_rate=3e-3)
    ja: Schedule = Schedule(steps=40, learning_rate=3e-4)
    math_add: Schedule = Schedule(steps=350, learning_rate=8e-4)
    math_mul: Schedule = Schedule(steps=250, learning_rate=8e-4)
    own_processes: bool = True
    search_problems: int = 200
    validation_problems: int = 300
    test_problems: int = 1000

    def schedule(self, name: str) -> Schedule:
        """The training of one of the four models, by its folder's name."""
        return {"base": self.base, "ja": self.ja, "math_add": self.math_add, "math_mul": self.math_mul}[name]


def plan_from_json(values: Mapping[str, Any]) -> TrainingPlan:
    """A plan from what `dataclasses.asdict` made of it."""
    schedules = {name: Schedule(**value) for name, value in values.items() if isinstance(value, dict)}
    return TrainingPlan(**{**values, **schedules})


# Long enough to write whole sentences, far too short to be right: for tests.
QUICK_PLAN = TrainingPlan(
    hidden_size=32,
    layers=2,
    heads=2,
    intermediate_size=48,
    batch_size=16,
    layer_drop=0.0,
    # Starting a process takes longer than such a training.
    own_processes=False,
    base=Schedule(steps=150, learning_rate=1e-2),
    ja=Schedule(steps=40, learning_rate=5e-3),
    math_add=Schedule(steps=40, learning_rate=5e-3),
    math_mul=Schedule(steps=40, learning_rate=5e-3),
)
