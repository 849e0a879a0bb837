"""Responses from a model of the transformers library that stays in memory; candidates are copied into it."""

import bisect
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optmerge.engines import continuous
from optmerge.engines.batch_limit import BatchLimit
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

log = logging.getLogger(__name__)


@dataclass
class Options:
    """Settings of the engine.

    Attributes:
        device: `auto` takes the GPU where there is one.
        batch_size: Most requests answered at once; halved where memory runs out. By default as many as memory allows,
            which is found by trying; 256 on the CPU.
        continuous: Let a response take the place of one that has ended (`optmerge.engines.continuous`), where nothing
            needs plain batches. By default on a CUDA GPU in 16 bits with flash attention installed.
        compile: Compile what computes the next token in plain batches, over keys and values of fixed size; not for
            paths, each of which would be compiled anew. The first batches wait for the compiler.
        threads: Threads for work on the CPU. By default all cores, or one where the model is tiny: there, handing
            work to a second thread takes longer than the work.
    """

    device: str = "auto"
    batch_size: int | None = None
    continuous: bool | None = None
    compile: bool = False
    threads: int | None = None


def pick_device(options: Options) -> str:
    """The device that the options mean on this machine.

    Raises:
        UsageError: If there is no such device here, or an option is out of its range.
    """
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"engine.batch_size must be at least 1, got {options.batch_size}")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"engine.threads must be at least 1, got {options.threads}")
    device = _device(options.device)
    if options.compile and device.startswith("cpu"):
        from optmerge.merge.kernels import cpp_compiler

        if cpp_compiler() is None:
            raise UsageError(
                "engine.compile=true: on the CPU it needs a C++ compiler (g++ or clang++), and there is none"
            )
    return device


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.empty(0, device=name).device.type
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UsageError(f"engine.device={name} is not to be had here: {reason}") from error
    if kind not in ("cpu", "cuda", "mps", "xpu"):
        raise UsageError(f"engine.device={name} cannot run models; known are auto, cpu, cuda, mps, xpu")
    return name


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
        self._limits = {kind: BatchLimit.of(options.batch_size, self.device) for kind in (Generate, LogLikelihood)}
        try:
            self._wording = Wording(folder)
            model = _load_model(folder, getattr(torch, dtype)).to(self.device).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError) as error:
            raise OptmergeError(f"transformers cannot load {folder}: {_first_line(error)}") from error
        threads = options.threads or (1 if model.num_parameters() < _TINY else None)
        if threads:
            torch.set_num_threads(threads)
        self._model = model
        self._state: dict[str, Any] = self._model.state_dict()
        self._layers: LiveLayers | None = None
        wanted = continuous.attention_for(model) is not None if options.continuous is None else options.continuous
        self._compiled = options.compile
        self._continuous = wanted and continuous.can_generate(model)

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
        asked = [self._read(place, request) for place, request in enumerate(requests)]
        asked.sort(key=lambda one: (-one.length, one.place))
        kinds: dict[object, list[_Asked]] = {}
        for one in asked:
            kinds.setdefault(one.kind, []).append(one)
        responses: dict[int, Response] = {}
        for alike in kinds.values():
            answered = self._continuously(alike) or self._in_batches(alike)
            responses.update(zip((one.place for one in alike), answered, strict=True))
        return [responses[place] for place in range(len(requests))]

    def _continuously(self, alike: "Sequence[_Asked]") -> list[Response] | None:
        """Responses to requests of one kind by continuous batching; None if they are for plain batches."""
        request = alike[0].request
        if not isinstance(request, Generate) or request.stop or request.stop_loops:
            return None
        if not self._continuous or self._layers is not None:
            return None
        prompts = [one.rows[0].tokens for one in alike]
        try:
            found = continuous.generate(self._model, prompts, request.max_new_tokens, sorted(self._wording.ends))
            return [self._wording.response(tokens, request) for tokens in found]
        except OptmergeError:
            raise
        except Exception as error:  # whatever the library does
            log.warning("continuous batching fails; from now on there are plain batches: %s", _first_line(error))
        self._continuous = False
        _free_memory(self.device)
        return None

    def _in_batches(self, alike: "Sequence[_Asked]") -> list[Response]:
        """Responses to requests of one kind, batch by batch."""
        limit = self._limits[type(alike[0].request)]
        before, responses = replace(limit), list[Response]()
        while waiting := alike[len(responses) :]:
            length = waiting[0].length
            most = limit.fitting(length)
            ends = list(itertools.accumulate(len(one.rows) for one in waiting))
            batch = waiting[: max(1, bisect.bisect_right(ends, most))]
            rows = min(most, ends[len(batch) - 1])
            answered = self._tried(batch, most)
            if answered is not None:
                responses += answered
                if ends[-1] > most:  # there would have been more
                    limit.worked(rows, length)
            elif rows > 1:
                limit.failed(rows, length)
            else:
                self._limits[type(alike[0].request)] = before  # it says nothing of what others need
                raise OptmergeError(f"memory runs out on a single request (engine.device={self.device})")
        return responses

    def _read(self, place: int, request: Request) -> "_Asked":
        if isinstance(request, Generate):
            rows = [Row(self._wording.prompt(request.prompt), 0)]
            kind = (request.stop, request.max_new_tokens, request.stop_loops)
            return _Asked(place, request, rows, len(rows[0].tokens) + request.max_new_tokens, kind)
        rows = [Row(*self._wording.row(request.prompt, text)) for text in request.continuations]
        return _Asked(place, request, rows, max(len(row.tokens) for row in rows), None)

    def _tried(self, batch: "Sequence[_Asked]", most: int) -> list[Response] | None:
        """Responses to requests that one call can answer; None if memory runs out."""
        try:
            return self._answer(batch, most)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise OptmergeError(f"generating failed: {_first_line(error)}") from error
        _free_memory(self.device)  # only now: while there is the error, there are the tensors of where it came from
        return None

    def _answer(self, batch: "Sequence[_Asked]", most: int) -> list[Response]:
        if isinstance(batch[0].request, Generate):
            return self._generate([asked.rows[0].tokens for asked in batch], batch[0].request)
        found = scores(self._model, [asked.rows for asked in batch], self._wording.padding, most)
        return [
            comparison(asked.request, [row.scored for row in asked.rows], *zip(*some, strict=True))
            for asked, some in zip(batch, found, strict=True)
            if isinstance(asked.request, LogLikelihood)
        ]

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

    def _compiling(self) -> dict[str, Any]:
        """What makes generation run compiled code, which stays valid as candidates' weights are written in place."""
        from transformers import CompileConfig

        if not self._compiled or self._layers is not None:
            return {}
        config: Any = CompileConfig(mode="default", dynamic=True)  # batches differ in rows and length
        config._compile_all_devices = True  # the CPU too
        return {"cache_implementation": "static", "compile_config": config}

    def _generate(self, prompts: Sequence[list[int]], request: Generate) -> list[Response]:
        """Responses to prompts, to each as the request says."""
        import torch

        ids, mask = padded(prompts, self._wording.padding)
        width = ids.shape[1]
        arguments = self._stopping(request) | self._compiling()
        if request.stop_loops:
            arguments["stopping_criteria"] = [_stop_loops(width)]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=request.max_new_tokens,
                do_sample=False,
                pad_token_id=self._wording.padding,
                logits_processor=[_refuse_nan],
                **arguments,
            )
        return [self._wording.response(tokens, request) for tokens in output[:, width:].tolist()]


@dataclass(frozen=True)
class _Asked:
    """A request in tokens.

    Attributes:
        place: Its number among the requests.
        request: The request.
        rows: The prompt, or the continuations.
        length: Tokens of the longest row, the response included.
        kind: Requests of the same kind can be answered together.
    """

    place: int
    request: Request
    rows: Sequence[Row]
    length: int
    kind: object


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _free_memory(device: str) -> None:
    import torch

    module = torch.get_device_module(torch.device(device).type)
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error).lower()  # what CPUs, Apple's GPUs and cuBLAS say
    return any(part in said for part in ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed"))
