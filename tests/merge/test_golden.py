"""The merge methods against the outputs of another implementation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from optmerge.errors import OptmergeError
from optmerge.merge import get_method, merge_tensors
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


def cancels(entry: Mapping[str, Any]) -> bool:
    return bool(entry["parameters"].get("normalize")) and sum(entry["parameters"]["weight"]) == 0


@pytest.mark.parametrize("entry", [case for case in entries("cases") if not cancels(case.values[0])])
def test_merge_equals_the_reference(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    if "rescale" in entry["parameters"] and "rescale" not in get_method(entry["method"]).options:
        pytest.skip(f"{entry['method']} has no rescale to the norm before trimming")
    clear = unambiguous(entry, tensors)
    assert clear.float().mean() > 0.8
    torch.testing.assert_close(
        merge(entry, tensors)[clear], tensors[entry["output"]][clear].float(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("entry", [case for case in entries("cases") if cancels(case.values[0])])
def test_reference_that_divides_by_nothing_is_refused_here(
    entry: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    with pytest.raises(OptmergeError, match="cancel"):
        merge(entry, tensors)


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
