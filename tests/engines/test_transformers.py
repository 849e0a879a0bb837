"""The engine that keeps a model of the transformers library in memory."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from optmerge.commands.assembly import Assembly
from optmerge.engines import Generate, LogLikelihood, Response
from optmerge.engines.transformers import Options, TransformersEngine, build, pick_device
from optmerge.errors import OptmergeError, UsageError
from optmerge.merge import MergeCandidate, Workbench
from optmerge.models import weights_sha256
from optmerge.recipe import Recipe


def middle(assembly: Assembly, bench: Workbench) -> MergeCandidate:
    return bench.candidate(assembly.space.decode({gene.name: gene.start() for gene in assembly.space.genes}))


def requests(assembly: Assembly, **changes: Any) -> list[Generate]:
    task = assembly.plugins.task
    asked = [task.request(problem) for problem in task.problems("search")[:10]]
    return [replace(request, **{"max_new_tokens": 20, **changes}) for request in asked]


def one_by_one(engine: TransformersEngine, asked: list[Generate]) -> list[Response]:
    return [response for request in asked for response in engine.run([request])]


@dataclass(frozen=True)
class Changed:
    """A candidate of which a tensor is missing, or that has one more."""

    recipe: Recipe
    kept: dict[str, Tensor]
    path: None = None

    @property
    def names(self) -> list[str]:
        return sorted(self.kept)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from sorted(self.kept.items())

    def write_into(self, targets: Mapping[str, Tensor]) -> None:
        for name, tensor in self.tensors():
            targets[name].copy_(tensor)


def test_mounting_gives_the_live_model_the_candidates_weights(
    assembly: Assembly, bench: Workbench, engine: TransformersEngine
) -> None:
    candidate = middle(assembly, bench)
    engine.mount(candidate)
    live = engine._model.state_dict()
    mounted = {name: tensor for name, tensor in live.items() if name in assembly.fit.names}
    assert weights_sha256(sorted(mounted.items())) == weights_sha256(candidate.tensors())


def test_tied_head_follows_the_embedding(assembly: Assembly, bench: Workbench, engine: TransformersEngine) -> None:
    engine.mount(middle(assembly, bench))
    live = engine._model
    assert torch.equal(live.get_output_embeddings().weight, live.get_input_embeddings().weight)


def test_mounting_leaves_nothing_of_the_candidate_before(
    assembly: Assembly, bench: Workbench, engine: TransformersEngine
) -> None:
    asked = requests(assembly)
    before = engine.run(asked)
    engine.mount(bench.candidate(assembly.space.ingredients.source("math_add")))
    between = engine.run(asked)
    engine.mount(bench.candidate(assembly.space.ingredients.source("ja")))
    assert between != before
    assert engine.run(asked) == before


def by_the_library(assembly: Assembly, dtype: torch.dtype) -> list[str]:
    """What the Japanese specialist answers, one by one."""
    folder = assembly.checkpoints["ja"].folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found = []
    for request in requests(assembly):
        prompt = tokenizer(request.prompt, return_tensors="pt")
        output = model.generate(**prompt, max_new_tokens=request.max_new_tokens, do_sample=False)[0]
        found.append(tokenizer.decode(output[prompt["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


def test_responses_equal_those_of_the_library_one_by_one(assembly: Assembly, engine: TransformersEngine) -> None:
    expected = by_the_library(assembly, torch.float32)
    assert len(set(expected)) > 3
    assert [response.text for response in engine.run(requests(assembly))] == expected


def test_in_bfloat16_too_where_a_batch_is_one_request(assembly: Assembly, bench: Workbench) -> None:
    """In larger ones a near tie may fall otherwise, which is why these are not compared."""
    engine = build(Options(device="cpu", batch_size=1, threads=1), assembly.checkpoints["base"].folder, "bfloat16")
    engine.mount(bench.candidate(assembly.space.ingredients.source("ja")))
    assert {tensor.dtype for tensor in engine._model.parameters()} == {torch.bfloat16}
    assert [response.text for response in engine.run(requests(assembly))] == by_the_library(assembly, torch.bfloat16)
    (compared,) = engine.run([LogLikelihood("太郎は卵を3個買いました。", ("合計", "答えは3個です。"))])
    assert all(-100 < value < 0 for value in compared.log_likelihoods)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_folder_without_weights_gives_the_same_model_once_mounted(
    assembly: Assembly, bench: Workbench, tmp_path: Path, dtype: str
) -> None:
    whole = assembly.checkpoints["base"].folder
    bare = Path(shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))
    engines = [build(Options(device="cpu", threads=1), folder, dtype) for folder in (whole, bare)]
    for engine in engines:
        engine.mount(bench.candidate(assembly.space.ingredients.source("ja")))
    models = [engine._model for engine in engines]
    kept = [dict(model.named_buffers()) for model in models]
    assert kept[0].keys() == kept[1].keys() and all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert models[0].generation_config == models[1].generation_config
    assert engines[0].run(requests(assembly)) == engines[1].run(requests(assembly))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_responses_do_not_depend_on_the_batch(
    assembly: Assembly, bench: Workbench, engine: TransformersEngine, batch_size: int
) -> None:
    other = build(
        Options(device="cpu", batch_size=batch_size, threads=1), assembly.checkpoints["base"].folder, "float32"
    )
    other.mount(bench.candidate(assembly.space.ingredients.source("ja")))
    assert other.run(requests(assembly)) == engine.run(requests(assembly))


def test_responses_do_not_depend_on_the_order(assembly: Assembly, engine: TransformersEngine) -> None:
    asked = requests(assembly)
    assert engine.run(asked[::-1]) == engine.run(asked)[::-1]


def test_responses_do_not_depend_on_the_padding(assembly: Assembly, engine: TransformersEngine) -> None:
    asked = requests(assembly)
    long = replace(asked[0], prompt=str(asked[0].prompt) * 3)
    with_long = [one for request in asked for one in (request, long)]
    assert engine.run(with_long)[::2] == engine.run(asked)


@pytest.fixture
def letters(babbler: Path) -> TransformersEngine:
    return build(Options(device="cpu", batch_size=4, threads=1), babbler, "float32")


def babble(**changes: Any) -> list[Generate]:
    prompts = ["hello", "a", "merge", "xyz", "evolution", "no", "tasks", "vector", "q"]
    return [replace(Generate(prompt, 20), **changes) for prompt in prompts]


def common_text(responses: list[Response]) -> str:
    """Two letters from within the responses, that some of them contain and others not."""
    pairs = [response.text[i : i + 2] for response in responses for i in range(1, len(response.text) - 1)]
    return next(pair for pair in pairs if 0 < sum(pair in response.text for response in responses) < len(responses))


def test_stop_strings_cut_the_response(letters: TransformersEngine) -> None:
    whole = letters.run(babble())
    stop = common_text(whole)
    cut = letters.run(babble(stop=(stop,)))
    assert [response.text for response in cut] == [response.text.partition(stop)[0] for response in whole]


def test_the_first_of_several_stop_strings_cuts(letters: TransformersEngine) -> None:
    whole = letters.run(babble()[:1])[0].text
    cut = letters.run(babble(stop=(whole[9:11], whole[4:6]))[:1])[0].text
    assert cut == whole[: min(whole.find(whole[4:6]), whole.find(whole[9:11]))]


def test_a_response_that_a_stop_string_ends_says_so(letters: TransformersEngine) -> None:
    whole = letters.run(babble())
    stop = common_text(whole)
    cut = letters.run(babble(stop=(stop,)))
    assert {response.finish for response, before in zip(cut, whole, strict=True) if stop in before.text} == {"stop"}


def test_stopped_responses_do_not_depend_on_the_batch(letters: TransformersEngine) -> None:
    asked = babble(stop=(common_text(letters.run(babble())),))
    assert letters.run(asked) == one_by_one(letters, asked)


def test_requests_with_their_own_stops_and_limits_are_kept_apart(letters: TransformersEngine) -> None:
    stop = common_text(letters.run(babble()))
    mixed = [
        replace(request, stop=(stop,) if i % 2 else (), max_new_tokens=6 + i % 3) for i, request in enumerate(babble())
    ]
    assert [r.text for r in letters.run(mixed)] == [r.text for r in one_by_one(letters, mixed)]


def test_stop_strings_work_where_the_vocabulary_lacks_letters(assembly: Assembly, engine: TransformersEngine) -> None:
    whole = engine.run(requests(assembly))
    stop = common_text(whole)
    cut = engine.run(requests(assembly, stop=(stop,)))
    assert [response.text for response in cut] == [response.text.partition(stop)[0] for response in whole]


def test_a_response_that_is_cut_off_says_so(assembly: Assembly, engine: TransformersEngine) -> None:
    responses = engine.run(requests(assembly, max_new_tokens=2))
    assert {(response.tokens, response.finish) for response in responses} == {(2, "length")}


def test_a_response_that_ends_by_itself_says_so(assembly: Assembly, engine: TransformersEngine) -> None:
    ended = [r for r in engine.run(requests(assembly, max_new_tokens=40)) if r.finish == "stop"]
    assert ended and all(response.tokens < 40 for response in ended)


def test_no_requests_have_no_responses(engine: TransformersEngine) -> None:
    assert engine.run([]) == []


def test_a_missing_tensor_is_an_error(assembly: Assembly, bench: Workbench, engine: TransformersEngine) -> None:
    candidate = middle(assembly, bench)
    kept = dict(candidate.tensors())
    kept.pop("model.norm.weight")
    with pytest.raises(OptmergeError, match="the candidate has no tensor model.norm.weight"):
        engine.mount(Changed(candidate.recipe, kept))


def test_a_strange_tensor_is_an_error(assembly: Assembly, bench: Workbench, engine: TransformersEngine) -> None:
    candidate = middle(assembly, bench)
    kept = {**dict(candidate.tensors()), "model.bias": torch.zeros(1)}
    with pytest.raises(OptmergeError, match="the model has no tensor model.bias"):
        engine.mount(Changed(candidate.recipe, kept))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(batch_size=0), "engine.batch_size must be at least 1, got 0"),
        (Options(threads=0), "engine.threads must be at least 1, got 0"),
        (Options(device="moon"), "engine.device=moon is not to be had here"),
        (Options(device="cuda:99"), "engine.device=cuda:99 is not to be had here"),
    ],
)
def test_settings_that_cannot_be_had_are_usage_errors(options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pick_device(options)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptmergeError, match="transformers cannot load"):
        build(Options(device="cpu"), tmp_path, "float32")
