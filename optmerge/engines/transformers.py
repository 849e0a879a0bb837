"""Responses from a model of the transformers library that stays in memory; candidates are copied into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optmerge.engines.engine import Candidate, Request, Response
from optmerge.errors import OptmergeError, UsageError

if TYPE_CHECKING:
    from optmerge.flow import LiveCandidate, LiveLayers

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
        from transformers import AutoTokenizer

        self.device = pick_device(options)
        self._batch_size = options.batch_size
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, padding_side="left", local_files_only=True, trust_remote_code=False
            )
            model = _load_model(folder, getattr(torch, dtype)).to(self.device).eval().requires_grad_(False)
        except (OSError, ValueError, RuntimeError) as error:
            raise OptmergeError(f"transformers cannot load {folder}: {str(error).splitlines()[0]}") from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
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
        """Answer requests, the longest prompts first so that batches are padded little."""
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].prompt), i))
        responses: dict[int, Response] = {}
        while order:
            batch = self._alike(requests, order[: self._batch_size])
            try:
                for i, response in zip(batch, self._generate([requests[i] for i in batch]), strict=True):
                    responses[i] = response
            except RuntimeError as error:
                if not _out_of_memory(error) or len(batch) == 1:
                    raise OptmergeError(f"generating failed: {str(error).splitlines()[0]}") from error
                self._batch_size = len(batch) // 2
                continue
            order = [i for i in order if i not in responses]
        return [responses[i] for i in range(len(requests))]

    def _alike(self, requests: Sequence[Request], order: Sequence[int]) -> list[int]:
        """Those that one call can answer: same stop strings and limit as the first."""
        first = requests[order[0]]
        return [
            i for i in order if (requests[i].stop, requests[i].max_new_tokens) == (first.stop, first.max_new_tokens)
        ]

    def _stopping(self, stop: Sequence[str]) -> dict[str, Any]:
        """What makes generation end at stop strings; they are cut from the text anyway, so this only saves time."""
        from transformers import StopStringCriteria

        if not stop:
            return {}
        try:
            StopStringCriteria(self._tokenizer, list(stop))
        except ValueError:  # it cannot place them in a vocabulary without Latin letters
            return {}
        return {"stop_strings": list(stop), "tokenizer": self._tokenizer}

    def _generate(self, requests: Sequence[Request]) -> list[Response]:
        import torch

        stop = requests[0].stop
        prompts = self._tokenizer([request.prompt for request in requests], return_tensors="pt", padding=True)
        width = prompts["input_ids"].shape[1]
        arguments = self._stopping(stop)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=prompts["input_ids"].to(self.device),
                attention_mask=prompts["attention_mask"].to(self.device),
                max_new_tokens=requests[0].max_new_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
                **arguments,
            )
        added = output[:, width:].tolist()
        texts = self._tokenizer.batch_decode(added, skip_special_tokens=True)
        ends = self._model.generation_config.eos_token_id
        # Rows that stopped early are filled up with the pad token.
        ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.pad_token_id}
        return [_response(text, tokens, ends, stop) for text, tokens in zip(texts, added, strict=True)]


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


def _response(text: str, tokens: list[int], ends: set[int], stop: Sequence[str]) -> Response:
    length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    cut = min((at for string in stop if (at := text.find(string)) >= 0), default=None)
    ended = cut is not None or length < len(tokens)
    return Response(text if cut is None else text[:cut], length, "stop" if ended else "length")


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
