"""What an engine does: answer requests with a mounted candidate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from optmerge.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from optmerge.flow import LiveCandidate


@dataclass(frozen=True)
class Generate:
    """A request to continue a prompt, greedily.

    Attributes:
        prompt: Text, as the tokenizer takes it.
        max_new_tokens: Most tokens to add.
        stop: Strings at which to stop; the response ends before the first of them.
    """

    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()


Request = Generate


@dataclass(frozen=True)
class Response:
    """What a model answered.

    Attributes:
        text: Without the prompt, special tokens and stop string.
        tokens: How many were generated.
        finish: `stop` if the model ended by itself or by a stop string, `length` if it was cut off.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Candidate(Protocol):
    """A recipe made available: its weights."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def path(self) -> None:
        """What tells it from a path over resident layers, see `optmerge.flow.LiveCandidate`."""

    @property
    def names(self) -> Sequence[str]:
        """Its tensors, sorted."""

    def tensors(self) -> Iterator[tuple[str, "Tensor"]]:
        """Its tensors, streamed in name order in their final type."""

    def write_into(self, targets: Mapping[str, "Tensor"]) -> None:
        """Put its tensors where a live model has its own."""


class Bench(Protocol):
    """Makes recipes available."""

    def candidate(self, recipe: Recipe) -> "Candidate | LiveCandidate":
        """A recipe, for a trial."""

    def final(self, recipe: Recipe) -> "Candidate | LiveCandidate":
        """A recipe as the model that is kept in the end."""


class Engine(Protocol):
    """Runs requests with a mounted candidate."""

    @property
    def needs(self) -> Literal["weights", "adapters", "nothing"]: ...

    @property
    def device(self) -> str:
        """Where candidates are best merged."""

    def mount(self, candidate: "Candidate | LiveCandidate") -> None:
        """Put a candidate's weights, or its path, into the live model: nothing is written, nothing reloaded."""

    def run(self, requests: Sequence[Request]) -> Sequence[Response]:
        """One response a request, in order."""
