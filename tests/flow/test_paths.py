"""Paths over live layers against ordinary models, and against their own weights when scales are folded into them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from flow.conftest import FAMILIES, VOCABULARY, Pair
from optmerge.commands.rebuild import write_model
from optmerge.engines import LogLikelihood
from optmerge.engines.transformers import Options, build
from optmerge.errors import UsageError
from optmerge.flow import LiveLayers, family_of
from optmerge.models import companions
from optmerge.recipe import Hop

Pairs = Callable[[str], Pair]

HOPS = (Hop("a", 0), Hop("b", 1), Hop("a", 1), Hop("a", 1), Hop("b", 3), Hop("b", 2), Hop("a", 3))
SCALES = (0.9, 1.3, 0.6, 1.1, -0.8, 1.4, 0.7)
SCALED = tuple(Hop(hop.source, hop.layer, scale) for hop, scale in zip(HOPS, SCALES, strict=True))

families = pytest.mark.parametrize("family", FAMILIES)
targets = pytest.mark.parametrize("target", ["hidden", "branch"])


def prompts() -> tuple[Tensor, Tensor]:
    """Two prompts, longer than the sliding windows; the second is shorter, and padded on the left."""
    torch.manual_seed(11)
    ids = torch.randint(3, VOCABULARY, (2, 12))
    mask = torch.ones_like(ids)
    ids[1, :4], mask[1, :4] = 0, 0
    return ids, mask


def running(pair: Pair, hops: tuple[Hop, ...], target: str = "hidden") -> Any:
    """A live model that runs a path."""
    model = pair.model()
    live = LiveLayers(model, family_of(model.config.model_type).mlp_module)
    live.mount(pair.bench.candidate(pair.recipe(hops, target)))
    return model


def logits(model: Any) -> Tensor:
    ids, mask = prompts()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        found: Tensor = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return found[mask.bool()]


def distance(found: Tensor, wanted: Tensor) -> float:
    """The greatest difference, in units of the greatest logit."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def written(pair: Pair, hops: tuple[Hop, ...], folder: Path, target: str = "hidden") -> Any:
    """The folded model, as plain transformers loads it."""
    write_model(pair.recipe(hops, target), pair.bench, companions(pair.bench.workbench.fit), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return model.eval()


@families
def test_path_through_all_layers_of_a_model_is_that_model(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    whole = tuple(Hop("a", layer) for layer in range(4))
    assert torch.equal(logits(running(pair, whole)), logits(pair.model()))


@families
def test_unscaled_path_is_the_ordinary_model_of_these_layers(pairs: Pairs, family: str, tmp_path: Path) -> None:
    pair = pairs(family)
    model = written(pair, HOPS, tmp_path / "out")
    assert model.config.num_hidden_layers == len(HOPS)
    assert distance(logits(running(pair, HOPS)), logits(model)) < 1e-6


@families
@targets
def test_folded_scales_give_the_same_logits(pairs: Pairs, family: str, target: str, tmp_path: Path) -> None:
    pair = pairs(family)
    path, folded = running(pair, SCALED, target), written(pair, SCALED, tmp_path / "out", target)
    assert distance(logits(folded), logits(path)) < 1e-4
    assert distance(logits(path), logits(running(pair, HOPS))) > 1e-3  # the scales do something


@families
@targets
def test_greedy_text_with_a_cache_is_that_without(pairs: Pairs, family: str, target: str) -> None:
    model = running(pairs(family), SCALED, target)
    ids, mask = prompts()
    settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.inference_mode():
        cached = model.generate(input_ids=ids, attention_mask=mask, **settings)
        plain = model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **settings)
    assert cached.shape == (2, 22)
    assert torch.equal(cached, plain)


@families
def test_hops_share_the_tensors_of_their_layers(pairs: Pairs, family: str) -> None:
    model = running(pairs(family), HOPS)
    layers = getattr(model.base_model, "layers", None) or model.base_model.h
    addresses = [[parameter.data_ptr() for parameter in layer.parameters()] for layer in layers]
    assert len(layers) == len(HOPS)
    assert addresses[2] == addresses[3]
    assert addresses[1] != addresses[2]


def test_next_path_does_not_remember_the_last(pairs: Pairs) -> None:
    pair = pairs("mistral")
    model = pair.model()
    live = LiveLayers(model, "mlp")
    for hops, target in ((SCALED, "branch"), (SCALED[::-1], "hidden"), (HOPS, "hidden")):
        live.mount(pair.bench.candidate(pair.recipe(hops, target)))
    assert torch.equal(logits(model), logits(running(pair, HOPS)))


@families
def test_a_prompt_is_shared_by_its_continuations(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    engine = build(Options(device="cpu", threads=1), pair.folders["a"], "float32")
    prompt = "a long prompt with many continuations"
    texts = ("abc", "no", "(others)")
    for hops in (SCALED, HOPS[:2], HOPS):  # deeper than the model, less deep, and deeper again
        engine.mount(pair.bench.candidate(pair.recipe(hops)))
        (together,) = engine.run([LogLikelihood(prompt, texts)])
        alone = [engine.run([LogLikelihood(prompt, (text,))])[0] for text in texts]
        wanted = [response.log_likelihoods[0] for response in alone]
        assert together.log_likelihoods == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        assert together.greedy == tuple(response.greedy[0] for response in alone)


def test_folded_candidate_runs_as_it_is_written(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("gemma3_text")
    model = pair.model()
    live = LiveLayers(model, family_of("gemma3_text").mlp_module)
    live.mount(pair.bench.candidate(pair.recipe(SCALED)))
    live.mount(pair.bench.final(pair.recipe(SCALED)))
    assert torch.equal(logits(model), logits(written(pair, SCALED, tmp_path / "out")))


# Scales of the stream wear the epsilon out; those of a branch leave the stream's unit as it is.
LONG = [(family, "hidden", *bounds) for family in FAMILIES for bounds in ((0.5, 1.5, 1e-3), (0.8, 1.2, 1e-4))]
LONG += [(family, "branch", 0.5, 1.5, 1e-3) for family in ("llama", "gemma3_text", "gpt2")]


@pytest.mark.parametrize(("family", "target", "low", "high", "tolerance"), LONG)
def test_folding_holds_over_65_hops(
    pairs: Pairs, family: str, target: str, low: float, high: float, tolerance: float, tmp_path: Path
) -> None:
    pair, random = pairs(family), torch.Generator().manual_seed(5)
    picks = torch.randint(8, (65,), generator=random).tolist()
    scales = (low + (high - low) * torch.rand(65, generator=random, dtype=torch.float64)).tolist()
    hops = tuple(Hop("ab"[pick % 2], pick // 2, scale) for pick, scale in zip(picks, scales, strict=True))
    found = logits(written(pair, hops, tmp_path / "out", target))
    assert distance(found, logits(running(pair, hops, target))) < tolerance


def test_scale_multiplies_the_stream_or_the_last_branch(pairs: Pairs) -> None:
    """Two hops worked out by hand, from the outputs of the modules."""
    pair = pairs("llama")
    model = pair.model()
    ids = prompts()[0][:1]
    seen: dict[str, Tensor] = {}
    body = model.model
    positions = torch.arange(ids.shape[1])[None]
    rotary = body.rotary_emb(body.embed_tokens(ids), positions)

    def block(layer: Any, stream: Tensor) -> tuple[Tensor, Tensor]:
        """What is in the stream after attention, and what the MLP adds."""
        causal = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)[None, None]
        attention, _ = layer.self_attn(layer.input_layernorm(stream), position_embeddings=rotary, attention_mask=causal)
        stream = stream + attention
        return stream, layer.mlp(layer.post_attention_layernorm(stream))

    with torch.inference_mode():
        start = body.embed_tokens(ids)
        stream, added = block(body.layers[0], 0.7 * start)
        seen["hidden"] = sum(block(body.layers[2], -1.2 * (stream + added)))
        seen["branch"] = sum(block(body.layers[2], stream + -1.2 * added))
        for target, end in seen.items():
            live = running(pair, (Hop("a", 0, 0.7), Hop("a", 2, -1.2)), target)
            found = live(input_ids=ids, use_cache=False).logits
            torch.testing.assert_close(found, model.lm_head(body.norm(end)), rtol=1e-4, atol=1e-4)


def test_negative_and_zero_scales_of_a_branch_are_folded(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("qwen2")
    hops = (Hop("a", 0, -0.5), Hop("b", 1, 0.0), Hop("a", 2, -1.5), Hop("a", 3, 1.0))
    found = logits(written(pair, hops, tmp_path / "out", "branch"))
    assert distance(found, logits(running(pair, hops, "branch"))) < 1e-3


def test_zero_scale_of_the_stream_is_refused(pairs: Pairs) -> None:
    pair = pairs("qwen2")
    candidate = pair.bench.final(pair.recipe((Hop("a", 0), Hop("a", 1, 0.0))))
    with pytest.raises(UsageError, match="hop 1 has scale 0"):
        list(candidate.tensors())


def test_configuration_of_the_folded_model_names_the_mask_of_every_hop(pairs: Pairs, tmp_path: Path) -> None:
    written(pairs("gemma2"), HOPS, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    full, sliding = "full_attention", "sliding_attention"  # gemma2 begins with a sliding window, then they alternate
    assert config["layer_types"] == [sliding, full, full, full, full, sliding, full]


@pytest.mark.parametrize(
    ("model_type", "said"), [("olmo2", "without a norm"), ("mamba", "unknown to data-flow space; known are llama")]
)
def test_families_that_cannot_be_folded_are_refused(model_type: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        family_of(model_type)
