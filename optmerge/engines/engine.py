"""What an engine does: answer requests with a mounted candidate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from optmerge.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from optmerge.flow import LiveCandidate


class Message(NamedTuple):
    """A message of a conversation.

    Attributes:
        role: Who says it: `system`, `user` or `assistant`.
        content: What is said.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Generate:
    """A request to continue a prompt, greedily.

    Attributes:
        prompt: Text, as the tokenizer takes it; or messages, which its chat template turns into text.
        max_new_tokens: Most tokens to add.
        stop: Strings at which to stop; the response ends before the first of them.
        stop_loops: Stop a response that has begun to repeat itself (`optmerge.engines.loops`).
    """

    prompt: str | tuple[Message, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    stop_loops: bool = False


@dataclass(frozen=True)
class LogLikelihood:
    """A request for how likely a model finds some continuations of a prompt.

    Attributes:
        prompt: What comes before; it may be empty.
        continuations: The texts, each to follow the prompt directly.
    """

    prompt: str
    continuations: tuple[str, ...]


Request = Generate | LogLikelihood


@dataclass(frozen=True)
class Response:
    """What a model answered.

    Attributes:
        text: Without the prompt, special tokens and stop string. Of log-likelihoods, the likeliest continuation.
        tokens: How many were generated, or scored.
        finish: `stop` if the model ended by itself or by a stop string, `length` if it was cut off, `loop` if it was
            stopped as it repeated itself.
        log_likelihoods: Natural logarithm of the probability of each continuation after the prompt; empty for what was
            generated.
        greedy: Whether each continuation is what the model would have written by itself; empty where it is not known.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length", "loop"] = "stop"
    log_likelihoods: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()


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
