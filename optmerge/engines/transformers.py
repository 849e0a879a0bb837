"""Responses from a model of the transformers library that stays in memory; candidates are copied into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optmerge.engines.engine import Candidate, Generate, LogLikelihood, Request, Response
from optmerge.engines.likelihoods import Row, padded, scores
from optmerge.engines.loops import repeats_itself
from optmerge.engines.wording import BETWEEN_LOOKS, NOT_NUMBERS, Wording, comparison
from optmerge.errors import OptmergeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from optmerge.flow import LiveCandidate, LiveLayers

READS_WEIGHTS = True  # of the folder that it is built with, if there are any

_TINY = 50_000_000  # parameters


@dataclass
class Options:
    """Settings of the engine.

    Attributes:
        device: `auto` takes the GPU where there is one.
        batch_size: Most requests answered at once; halved where memory runs out.
        threads: Threads for work on the CPU. By default all cores, or one where the model is tiny: there, handing
            work to a second thread takes longer than the work.
    """

    device: str = "auto"
    batch_size: int = 256
    threads: int | None = None


def pick_device(options: Options) -> str:
    """The device that the options mean on this machine.

    Raises:
        UsageError: If there is no such device here.
    """
    import torch

    if options.batch_size < 1:
        raise UsageError(f"engine.batch_size must be at least 1, got {options.batch_size}")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"engine.threads must be at least 1, got {options.threads}")
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.empty(0, device=options.device).device.type
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UsageError(f"engine.device={options.device} is not to be had here: {reason}") from error
    if kind not in ("cpu", "cuda", "mps", "xpu"):
        raise UsageError(f"engine.device={options.device} cannot run models; known are auto, cpu, cuda, mps, xpu")
    return options.device


def build(options: Options, folder: Path, dtype: str) -> "TransformersEngine":
    """Load the model that candidates are copied into.

    Args:
        options: Settings.
        folder: Checkpoint that gives architecture and tokenizer; it need not have weights, which candidates bring.
        dtype: Type of the candidates' weights.

    Raises:
        OptmergeError: If transformers cannot load it.
    """
    return TransformersEngine(options, folder, dtype)


class TransformersEngine:
    """A resident model with its tokenizer."""

    needs: Literal["weights"] = "weights"

    def __init__(self, options: Options, folder: Path, dtype: str) -> None:
        import torch

        self.device = pick_device(options)
        self._batch_size = options.batch_size
        try:
            self._wording = Wording(folder)
            model = _load_model(folder, getattr(torch, dtype)).to(self.device).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError) as error:
            raise OptmergeError(f"transformers cannot load {folder}: {str(error).splitlines()[0]}") from error
        threads = options.threads or (1 if model.num_parameters() < _TINY else None)
        if threads:
            torch.set_num_threads(threads)
        self._model = model
        self._state: dict[str, Any] = self._model.state_dict()
        self._layers: LiveLayers | None = None

    def mount(self, candidate: "Candidate | LiveCandidate") -> None:
        """Merge a candidate right into the live model, or let it run the candidate's path.

        Raises:
            OptmergeError: If the candidate lacks a tensor of the model, or has one that the model does not.
        """
        if candidate.path is not None:
            self._mount_path(candidate)
        elif self._layers is not None:
            raise OptmergeError("a model that ran a path has no layers of its own to be merged into")
        else:
            self._mount_weights(candidate)

    def _mount_path(self, candidate: "LiveCandidate") -> None:
        from optmerge.flow import LiveLayers, family_of

        if self._layers is None:
            self._state = {}  # the model's own layers are let go
            self._layers = LiveLayers(self._model, family_of(self._model.config.model_type).mlp_module)
        self._layers.mount(candidate)

    def _mount_weights(self, candidate: Candidate) -> None:
        from optmerge.models import check_complete

        check_complete(candidate.names, self._state)
        candidate.write_into(self._state)

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, the longest first so that batches are padded little, and exhaust memory at once if at all.

        Raises:
            OptmergeError: If the candidate cannot answer: its logits are not numbers, or one request exhausts memory.
        """
        order = sorted(range(len(requests)), key=lambda i: (-_length(requests[i]), i))
        responses: dict[int, Response] = {}
        while order:
            batch = _alike(requests, order[: self._batch_size])
            batch = batch[: max(1, self._batch_size // _rows(requests[batch[0]]))]
            try:
                for i, response in zip(batch, self._answer([requests[i] for i in batch]), strict=True):
                    responses[i] = response
            except RuntimeError as error:
                if not _out_of_memory(error) or len(batch) == 1:
                    raise OptmergeError(f"generating failed: {str(error).splitlines()[0]}") from error
                self._batch_size = len(batch) // 2
                _free_memory()
                continue
            order = [i for i in order if i not in responses]
        return [responses[i] for i in range(len(requests))]

    def _answer(self, requests: Sequence[Request]) -> list[Response]:
        """Responses to requests that one call can answer."""
        if isinstance(requests[0], Generate):
            return self._generate([request for request in requests if isinstance(request, Generate)])
        return self._compare([request for request in requests if isinstance(request, LogLikelihood)])

    def _stopping(self, request: Generate) -> dict[str, Any]:
        """What makes generation end at stop strings; they are cut from the text anyway, so this only saves time."""
        from transformers import StopStringCriteria

        if not request.stop:
            return {}
        try:
            StopStringCriteria(self._wording.tokenizer, list(request.stop))
        except ValueError:  # it cannot place them in a vocabulary without Latin letters
            return {}
        return {"stop_strings": list(request.stop), "tokenizer": self._wording.tokenizer}

    def _generate(self, requests: Sequence[Generate]) -> list[Response]:
        import torch

        first = requests[0]
        ids, mask = padded([self._wording.prompt(request.prompt) for request in requests], self._wording.padding)
        width = ids.shape[1]
        arguments = self._stopping(first)
        if first.stop_loops:
            arguments["stopping_criteria"] = [_stop_loops(width)]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=first.max_new_tokens,
                do_sample=False,
                pad_token_id=self._wording.padding,
                logits_processor=[_refuse_nan],
                **arguments,
            )
        return [self._wording.response(tokens, first) for tokens in output[:, width:].tolist()]

    def _compare(self, requests: Sequence[LogLikelihood]) -> list[Response]:
        """Log-likelihoods of continuations, a row each."""
        groups = [[Row(*self._wording.row(asked.prompt, text)) for text in asked.continuations] for asked in requests]
        found = scores(self._model, groups, self._wording.padding, self._batch_size)
        return [
            comparison(request, [row.scored for row in group], *zip(*some, strict=True))
            for request, group, some in zip(requests, groups, found, strict=True)
        ]


def _load_model(folder: Path, dtype: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.initialization import no_init_weights

    if any(folder.glob("*.safetensors")):
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with no_init_weights():  # mount fills every tensor; what is no tensor of a checkpoint is computed by the modules
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=dtype, trust_remote_code=False
        )
    model.tie_weights()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _alike(requests: Sequence[Request], order: Sequence[int]) -> list[int]:
    """Those that one call can answer: of the first one's kind, with its stop strings and limit."""

    def kind(request: Request) -> object:
        if isinstance(request, LogLikelihood):
            return None
        return request.stop, request.max_new_tokens, request.stop_loops, isinstance(request.prompt, str)

    return [i for i in order if kind(requests[i]) == kind(requests[order[0]])]


def _rows(request: Request) -> int:
    """How many rows of a batch a request takes."""
    return len(request.continuations) if isinstance(request, LogLikelihood) else 1


def _length(request: Request) -> int:
    """About how long a request is."""
    if isinstance(request, LogLikelihood):
        return len(request.prompt) + max(len(text) for text in request.continuations)
    return len(request.prompt if isinstance(request.prompt, str) else "".join(m.content for m in request.prompt))


def _refuse_nan(ids: "Tensor", logits: "Tensor") -> "Tensor":
    """The logits, if they are numbers; a greedy choice among others would be a token without meaning."""
    if bool(logits.isnan().any()):
        raise OptmergeError(NOT_NUMBERS)
    return logits


def _stop_loops(width: int) -> Any:
    """Stops the rows of a batch that have begun to repeat themselves, looking at them now and then.

    Args:
        width: Tokens of the padded prompts.
    """
    import torch

    def criterion(ids: "Tensor", scores: object, **_: object) -> "Tensor":
        if (ids.shape[1] - width) % BETWEEN_LOOKS:
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        return torch.tensor([repeats_itself(row) for row in ids[:, width:].tolist()], device=ids.device)

    return criterion


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
