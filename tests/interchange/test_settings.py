"""Gradients and filters give what mergekit's own functions gave."""

import json
from pathlib import Path
from typing import Any

import pytest

from optmerge.errors import UsageError
from optmerge.interchange.settings import check_settings, first_found, resolve
from optmerge.interchange.their_methods import THEIR_METHODS


@pytest.fixture(scope="module")
def manifest(shared: Path) -> Any:
    return json.loads((shared / "golden" / "manifest.json").read_text(encoding="utf-8"))


def test_gradients_equal_the_reference(manifest: Any) -> None:
    assert manifest["gradients"]
    for case in manifest["gradients"]:
        count = case["num_layers"]
        ts = [i / (count - 1) for i in range(count)] if count > 1 else [1.0]
        assert [resolve(case["values"], "name", t, float, "") for t in ts] == case["resolved"]


def test_filters_equal_the_reference(manifest: Any) -> None:
    filters = manifest["filters"]
    for case in filters["resolved"]:
        assert resolve(filters["setting"], case["tensor"], case["t"], float, "") == case["value"]


def test_parameters_of_methods_equal_the_reference(manifest: Any) -> None:
    assert set(THEIR_METHODS) == set(manifest["methods"])
    for method, declared in manifest["methods"].items():
        listed = {p["name"]: p for p in declared["parameters"]}
        ours = THEIR_METHODS[method]
        assert set(ours) == set(listed), method
        for name, theirs in listed.items():
            assert (ours[name].scope, ours[name].kind.__name__ in theirs["type"]) == (theirs["scope"], True)
            # A scale that is not given is 1.
            assert ours[name].default == (1.0 if name == "scale" else theirs["default"])


@pytest.mark.parametrize(
    ("setting", "kind", "expected"),
    [
        (0.5, float, 0.5),
        ("1e-3", float, 0.001),
        (True, float, 1.0),
        ([1, 3], float, 2.0),
        ([4], float, 4.0),
        ([], float, None),
        ([False, True], bool, False),
        ([False, True, True], bool, True),
        ("no", bool, False),
        (1.0, bool, True),
        (12, int, 12),
        ({"value": 0.25}, float, 0.25),
        ([{"filter": "mlp", "value": 1}], float, None),
        ([{"filter": "*", "value": 1}, {"value": 2}], float, 1.0),
        ([{"filter": "attn", "value": []}, {"value": 2}], float, None),
    ],
)
def test_a_setting_half_way_through_the_layers(setting: Any, kind: type, expected: Any) -> None:
    found = resolve(setting, "layers.1.self_attn.q_proj", 0.5, kind, "")
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("setting", "kind"), [("many", float), ([1, "x"], float), (3, bool), (1.5, int)])
def test_a_value_of_another_kind_is_refused_where_it_stands(setting: Any, kind: type) -> None:
    with pytest.raises(UsageError, match=r"^parameters\.weight: expected"):
        resolve(setting, "name", 0.5, kind, "parameters.weight")


def test_a_scope_that_says_nothing_about_a_tensor_leaves_it_to_the_next() -> None:
    scopes = [({"weight": [{"filter": "mlp", "value": 1}]}, "a"), ({}, "b"), ({"weight": 2}, "c")]
    assert first_found(scopes, "weight", "layers.0.mlp.up_proj", 0, float) == 1
    assert first_found(scopes, "weight", "layers.0.self_attn.q_proj", 0, float) == 2
    assert first_found(scopes, "density", "layers.0.mlp.up_proj", 0, float) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (3, "expected parameters and their values"),
        ({"t": None}, r"p\.t: expected a value"),
        ({"t": [0, [1]]}, r"p\.t: expected a value"),
        ({"t": [{"value": 1}, 2]}, r"p\.t\[1\]: expected \{filter"),
        ({"t": {"filter": "mlp"}}, r"p\.t\[0\]: expected \{filter"),
        ({"t": {"value": 1, "filters": "mlp"}}, r"p\.t\[0\]\.filters: no such key"),
        ({"t": {"value": 1, "filter": 3}}, r"p\.t\[0\]\.filter: expected a part"),
    ],
)
def test_settings_in_no_known_form_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_settings(settings, "p")
