"""The merge methods against the outputs of another implementation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from optmerge.merge import merge_tensors
from optmerge.registered import names

MANIFEST = Path(__file__).parents[3] / "shared" / "golden" / "manifest.json"
DOCUMENT = json.loads(MANIFEST.read_text(encoding="utf-8")) if MANIFEST.exists() else {}
METHODS = names("optmerge.merge.methods")


def entries(section: str) -> list[Any]:
    """Parameter sets, one a reference of a method that we have."""
    found = [entry for entry in DOCUMENT.get(section, []) if entry.get("method") in METHODS]
    return [pytest.param(entry, id=entry["id"]) for entry in found]


@pytest.fixture(scope="module")
def tensors(shared: Path) -> dict[str, Tensor]:
    return load_file(shared / "golden" / "golden.safetensors")


def merge(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], **more: object) -> Tensor:
    """Merge a reference's inputs under our names for its parameters."""
    sources = dict(enumerate(entry["inputs"]))
    base = None if entry["base_index"] is None else tensors[sources.pop(entry["base_index"])]
    ours = {{"lambda": "lambda_"}.get(name, name): value for name, value in entry["parameters"].items()}
    ours.pop("int8_mask", None)
    if "rescale" in ours:
        ours["rescale"] = "l1_norm" if ours["rescale"] else "none"
    return merge_tensors(entry["method"], [tensors[key] for key in sources.values()], base=base, **ours, **more)


def unambiguous(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    """Entries whose selection by magnitude is not arbitrary in any source."""
    clear = torch.ones_like(tensors[entry["output"]], dtype=torch.bool)
    for name, selection in (entry.get("selection") or {}).items():
        if selection["ambiguous"]:
            position = entry["input_names"].index(name)
            task_vector = tensors[entry["inputs"][position]] - tensors[entry["inputs"][entry["base_index"]]]
            clear &= task_vector.abs() != selection["threshold"]
    return clear


@pytest.mark.parametrize("entry", entries("cases"))
def test_merge_equals_the_reference(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    clear = unambiguous(entry, tensors)
    assert clear.float().mean() > 0.8
    # Where nearly parallel tensors make the sphere ill-conditioned, the references say so.
    atol = 1e-5 if "near_colinear_probably_lerp" in entry["flags"] else 1e-6
    torch.testing.assert_close(
        merge(entry, tensors)[clear], tensors[entry["output"]][clear].float(), rtol=1e-5, atol=atol
    )


@pytest.mark.parametrize("entry", entries("random_statistics"))
def test_means_over_random_masks_equal_the_reference(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    seeds = 256
    base = tensors[entry["inputs"][entry["base_index"]]]
    mean = (
        sum(merge(entry, tensors, seed=seed, name="tensor", rescale="l1_norm") - base for seed in range(seeds)) / seeds
    )
    # Both means are estimates: theirs over n_seeds, ours over fewer.
    error = (tensors[entry["delta_var"]] * (1 / entry["n_seeds"] + 1 / seeds)).sqrt()
    assert ((mean - tensors[entry["delta_mean"]]).abs() <= 5 * error + 1e-6).all()
    assert error.max() < 0.02
