"""The engine that keeps a vLLM model in memory, held against the one that uses the transformers library.

`make test-vllm` makes an environment with vLLM and runs these.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("vllm", reason="vLLM cannot be imported: `make test-vllm` runs these tests", exc_type=ImportError)

from flow.conftest import CHARACTERS, FAMILIES, make

from optmerge.engines import Generate, LogLikelihood, Message, transformers
from optmerge.engines.vllm import Options, VllmEngine, build
from optmerge.errors import OptmergeError, UsageError
from optmerge.flow import PathBench
from optmerge.merge import Workbench
from optmerge.models import Checkpoint, check_fit, weights_sha256
from optmerge.recipe import CheckpointNode, Group, Hop, MergeNode, PathNode, Recipe, node_sha256
from optmerge.zoo import QUICK_PLAN
from optmerge.zoo import make as make_zoo

ALIASES = ("base", "ja", "math_add", "math_mul")
LAYERS, MAX_HOPS = 3, 7
SWAPS = 20


@dataclass(frozen=True)
class Models:
    """Models of one shape, and what is made of them.

    Attributes:
        folders: By alias.
        bench: Makes candidates of recipes.
        nodes: The models, for recipes.
    """

    folders: Mapping[str, Path]
    bench: PathBench
    nodes: Mapping[str, CheckpointNode]

    @property
    def aliases(self) -> list[str]:
        return sorted(self.nodes)

    def merge(self, rng: random.Random) -> Any:
        """A candidate of parameter space."""
        return self._merged(Group(("*",), {alias: {"weight": rng.uniform(0, 1)} for alias in self.aliases}))

    def source(self, alias: str) -> Any:
        """A model as it is."""
        return self._merged(Group(("*",), source=alias))

    def _merged(self, group: Group) -> Any:
        root = MergeNode("linear", self.nodes, None, self.aliases[0], "float32", {"all": group})
        return self.bench.candidate(Recipe(root))

    def path(self, rng: random.Random, hops: int, depth: int, target: str) -> Any:
        """A candidate of data-flow space."""
        taken = tuple(
            Hop(rng.choice(self.aliases), rng.randrange(depth), rng.choice((-1, 1, 1, 1)) * rng.uniform(0.6, 1.5))
            for _ in range(hops)
        )
        ends = rng.choices(self.aliases, k=2)
        return self.bench.candidate(
            Recipe(PathNode(self.nodes, taken, ends[0], ends[1], self.aliases[0], "float32", target))
        )


def models_in(folders: Mapping[str, Path]) -> Models:
    checkpoints = {alias: Checkpoint.open(folder, alias) for alias, folder in folders.items()}
    nodes = {
        alias: CheckpointNode(str(c.folder), weights_sha256((name, c.tensor(name)) for name in c.names()))
        for alias, c in checkpoints.items()
    }
    fit = check_fit(checkpoints, base=None, tokenizer=min(folders), same_depth=False)
    opened = {node_sha256(nodes[alias]): checkpoint for alias, checkpoint in checkpoints.items()}
    return Models(folders, PathBench(Workbench(opened, fit, torch.device("cpu"))), nodes)


def untied(zoo: Path, folder: Path) -> Models:
    """The zoo's models with output heads of their own: a little noise tells them from the embeddings."""
    generator = torch.Generator().manual_seed(0)
    for alias in ALIASES:
        shutil.copytree(zoo / alias, folder / alias)
        file = folder / alias / "model.safetensors"
        tensors = load_file(file)
        embedding = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = embedding + 0.02 * torch.randn(embedding.shape, generator=generator)
        save_file(tensors, file, {"format": "pt"})
        config = json.loads((folder / alias / "config.json").read_text(encoding="utf-8"))
        text = json.dumps({**config, "tie_word_embeddings": False})
        (folder / alias / "config.json").write_text(text, encoding="utf-8")
    return models_in({alias: folder / alias for alias in ALIASES})


@pytest.fixture(scope="module")
def narrow_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with one head of 32 numbers: vLLM's attention on the CPU takes none that are narrower."""
    sizes = {"search_problems": 24, "validation_problems": 12, "test_problems": 16}
    folder = tmp_path_factory.mktemp("zoo") / "narrow"
    make_zoo(folder, seed=0, report=lambda line: None, plan=replace(QUICK_PLAN, layers=LAYERS, heads=1, **sizes))
    return folder


@pytest.fixture(scope="module")
def asked(narrow_zoo: Path) -> list[Generate]:
    """Every problem of the zoo."""
    lines = [line for file in sorted(narrow_zoo.glob("problems/*.jsonl")) for line in file.open(encoding="utf-8")]
    return [Generate(json.loads(line)["question"], 32) for line in lines]


@pytest.fixture(scope="module", params=["tied", "untied"])
def models(request: pytest.FixtureRequest, narrow_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    if request.param == "tied":
        return models_in({alias: narrow_zoo / alias for alias in ALIASES})
    return untied(narrow_zoo, tmp_path_factory.mktemp("untied"))


_engines: list[VllmEngine] = []  # kept: when one goes, others of the process go with it


def started(folder: Path, **options: Any) -> VllmEngine:
    _engines.append(
        build(Options(**{"kv_cache": 0.1, "threads": 1, "max_hops": MAX_HOPS, **options}), folder, "float32")
    )
    return _engines[-1]


@pytest.fixture(scope="module")
def engine(models: Models) -> VllmEngine:
    return started(models.folders["base"])


def library(models: Models, folder: str = "base") -> transformers.TransformersEngine:
    return transformers.build(transformers.Options(device="cpu", threads=1), models.folders[folder], "float32")


def test_responses_are_the_librarys_before_and_after_twenty_swaps(
    models: Models, engine: VllmEngine, asked: list[Generate]
) -> None:
    rng, wanted = random.Random(1), library(models)
    first = models.merge(rng)
    for candidate in [first, *(models.merge(rng) for _ in range(SWAPS)), *map(models.source, ALIASES), first]:
        wanted.mount(candidate)
        engine.mount(candidate)
        responses = engine.run(asked)
        assert responses == wanted.run(asked)
        assert len({response.text for response in responses}) > 3


@pytest.mark.parametrize("target", ["hidden", "branch"])
def test_paths_of_any_length_answer_as_over_live_layers(
    models: Models, engine: VllmEngine, asked: list[Generate], target: str
) -> None:
    rng, wanted = random.Random(2), library(models)
    for hops in (4, 1, MAX_HOPS, 2, 5):
        path = models.path(rng, hops, LAYERS, target)
        wanted.mount(path)
        engine.mount(path)
        assert engine.run(asked) == wanted.run(asked)


def test_a_path_as_it_is_kept_in_the_end_answers_alike(
    models: Models, engine: VllmEngine, asked: list[Generate]
) -> None:
    path = models.path(random.Random(3), 4, LAYERS, "hidden")
    engine.mount(path)
    live = engine.run(asked)
    engine.mount(models.bench.final(path.recipe))
    assert engine.run(asked) == live


def test_weights_and_paths_take_turns(models: Models, engine: VllmEngine, asked: list[Generate]) -> None:
    rng, wanted = random.Random(4), library(models)
    merged = models.merge(rng)
    wanted.mount(merged)
    for hops in (1, MAX_HOPS):
        engine.mount(models.path(rng, hops, LAYERS, "hidden"))
        engine.mount(merged)
        assert engine.run(asked) == wanted.run(asked)


def test_likelihoods_are_the_librarys(models: Models, engine: VllmEngine, asked: list[Generate]) -> None:
    wanted, merged = library(models), models.merge(random.Random(5))
    wanted.mount(merged)
    engine.mount(merged)
    written = wanted.run([replace(request, max_new_tokens=4) for request in asked[:10]])
    compared = [
        LogLikelihood(request.prompt, ("12", "答えは12です。", "The answer", response.text))
        for request, response in zip(asked, written, strict=False)
    ]
    compared.append(LogLikelihood("", ("はい",)))
    responses = engine.run(compared)
    for ours, theirs in zip(responses, wanted.run(compared), strict=True):
        assert ours.log_likelihoods == pytest.approx(theirs.log_likelihoods, abs=1e-4)
        assert replace(ours, log_likelihoods=()) == replace(theirs, log_likelihoods=())
    assert {first for response in responses for first in response.greedy} == {True, False}


def test_requests_of_all_kinds_are_answered_in_order(models: Models, engine: VllmEngine, asked: list[Generate]) -> None:
    wanted, merged = library(models), models.merge(random.Random(6))
    wanted.mount(merged)
    engine.mount(merged)
    said = wanted.run(asked[:1])[0].text
    mixed = [
        asked[0],
        LogLikelihood("a", ("b", "c")),
        replace(asked[0], stop=(said[3:5], said[1:3])),
        replace(asked[1], max_new_tokens=2),
    ]
    for ours, theirs in zip(engine.run(mixed), wanted.run(mixed), strict=True):
        assert (ours.text, ours.finish) == (theirs.text, theirs.finish)


def test_no_requests_have_no_responses(engine: VllmEngine) -> None:
    assert engine.run([]) == []


@dataclass(frozen=True)
class Changed:
    """A candidate with other tensors, or too few or many; or whose merging fails."""

    recipe: Recipe
    kept: dict[str, Tensor]
    fails_at: str | None = None
    path: None = None

    @property
    def names(self) -> list[str]:
        return sorted(self.kept)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.names:
            if name == self.fails_at:
                raise OptmergeError("merging gives NaN or infinity")
            yield name, self.kept[name]

    def write_into(self, targets: Mapping[str, Tensor]) -> None:
        raise NotImplementedError


Change = Callable[[dict[str, Tensor]], str | None]  # gives the tensor at which merging fails, if it is to fail


def _drop(name: str) -> Change:
    return lambda tensors: tensors.__delitem__(name)


BROKEN: dict[str, tuple[Change, str]] = {
    "lacks one": (_drop("model.norm.weight"), "the candidate has no tensor model.norm.weight"),
    "lacks a part of a fused one": (
        _drop("model.layers.1.self_attn.k_proj.weight"),
        "the candidate has no tensor model.layers.1.self_attn.k_proj.weight",
    ),
    "has one more": (lambda t: t.update({"model.bias": torch.zeros(1)}), "the model has no tensor model.bias"),
    "has a layer more": (
        lambda t: t.update({"model.layers.3.mlp.up_proj.weight": torch.zeros(48, 32)}),
        "the model has no tensor model.layers.3.mlp.up_proj.weight",
    ),
    "fails halfway": (lambda t: "model.layers.1.self_attn.k_proj.weight", "merging gives NaN or infinity"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_candidate_is_an_error_and_harms_no_other(
    models: Models, engine: VllmEngine, asked: list[Generate], what: str
) -> None:
    change, message = BROKEN[what]
    merged = models.merge(random.Random(7))
    engine.mount(merged)
    before = engine.run(asked)
    tensors = dict(models.source("ja").tensors())
    broken = Changed(merged.recipe, tensors, change(tensors))
    with pytest.raises(OptmergeError, match=message):
        engine.mount(broken)
    engine.mount(merged)
    assert engine.run(asked) == before


def test_logits_that_are_no_numbers_are_an_error(models: Models, engine: VllmEngine, asked: list[Generate]) -> None:
    merged = models.merge(random.Random(8))
    tensors = {name: tensor.clone() for name, tensor in merged.tensors()}
    tensors["model.norm.weight"][0] = torch.nan
    engine.mount(Changed(merged.recipe, tensors))
    with pytest.raises(OptmergeError, match="logits are not numbers"):
        engine.run(asked)
    engine.mount(merged)
    assert engine.run(asked)


def test_a_path_that_is_too_long_is_a_usage_error(models: Models, engine: VllmEngine) -> None:
    with pytest.raises(UsageError, match=f"engine.max_hops must be at least {MAX_HOPS + 1}"):
        engine.mount(models.path(random.Random(0), MAX_HOPS + 1, LAYERS, "hidden"))


def test_a_scale_of_zero_is_a_usage_error(models: Models, engine: VllmEngine) -> None:
    path = PathNode(models.nodes, (Hop("ja", 0, 0.0),), "ja", "ja", "ja", "float32")
    with pytest.raises(UsageError, match="hop 0 has scale 0, which cannot be folded"):
        engine.mount(models.bench.candidate(Recipe(path)))


def test_messages_without_a_chat_template_are_an_error(models: Models, engine: VllmEngine) -> None:
    with pytest.raises(OptmergeError, match="the tokenizer has no chat template"):
        engine.run([Generate((Message("user", "hello"),), 4)])


def test_a_prompt_that_is_too_long_is_an_error(models: Models, engine: VllmEngine) -> None:
    with pytest.raises(OptmergeError, match="a prompt has .* tokens, .* at most 128: engine.max_model_len"):
        engine.run([Generate("健" * 200, 4)])


def test_a_response_ends_where_the_model_has_no_more_positions(models: Models, engine: VllmEngine) -> None:
    merged = models.merge(random.Random(9))
    engine.mount(merged)
    prompt = "健は切手を7枚買い、" * 12
    ids = len(engine._wording.prompt(prompt))
    assert ids < 128 < ids + 100
    (response,) = engine.run([Generate(prompt, 100)])
    assert response.tokens <= 128 - ids


def test_threads_can_still_be_chosen(engine: VllmEngine) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models whose layers differ in their attention mask."""
    folder = tmp_path_factory.mktemp("gemma3")
    with pytest.MonkeyPatch.context() as patch:
        for key in ("head_dim", "query_pre_attn_scalar"):
            patch.setitem(FAMILIES["gemma3_text"], key, 32)
        for seed, alias in enumerate("ab"):
            make(folder / alias, "gemma3_text", seed)
    return models_in({alias: folder / alias for alias in "ab"})


def random_prompts(rng: random.Random, longest: int) -> list[Generate]:
    return [Generate("".join(rng.choices(CHARACTERS, k=rng.randint(1, longest))), 20) for _ in range(30)]


def test_paths_keep_the_mask_of_each_layer(masked: Models) -> None:
    rng, wanted, engine = random.Random(0), library(masked, "a"), started(masked.folders["a"], max_hops=6)
    asked = random_prompts(rng, 60)  # longer than the sliding window of 6
    for hops in (6, 2, 5):
        path = masked.path(rng, hops, 4, "hidden")
        wanted.mount(path)
        engine.mount(path)
        assert engine.run(asked) == wanted.run(asked)
    engine.mount(masked.source("b"))
    unmoved = library(masked, "b")
    assert engine.run(asked) == unmoved.run(asked)


def test_nothing_is_kept_of_long_prompts_when_weights_change(masked: Models) -> None:
    engine = started(masked.folders["a"], max_hops=None)
    asked = [Generate("".join(random.Random(i).choices(CHARACTERS, k=200)), 20) for i in range(5)]
    for alias in "aba":
        engine.mount(masked.source(alias))
        assert engine.run(asked) == library(masked, alias).run(asked)


def test_narrow_heads_are_a_usage_error(tmp_path: Path) -> None:
    make(tmp_path, "llama", 0)
    with pytest.raises(UsageError, match="attention heads must be 32, .* wide, and here they are 8"):
        build(Options(), tmp_path, "float32")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptmergeError, match="vLLM cannot load"):
        build(Options(), tmp_path, "float32")
