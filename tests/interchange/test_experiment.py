"""An experiment written beside a recipe searches around it: the search starts at the recipe itself."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from interchange.conftest import NAMES, Import
from interchange.test_export import PAIR, sliced
from interchange.test_import import refused
from optmerge.config import Config, compose_config
from optmerge.interchange.grouping import values_by_tensor
from optmerge.recipe import load_recipe
from optmerge.space import Grouping, Ingredients, ParameterSpace, Range, Searched, group_tensors

LAYERED = {"weight": [0.25, 1.0]}


def composed(here: Path) -> Config:
    return compose_config([f"hydra.searchpath=['file://{here / 'conf'}']", "+experiment=around"])


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("ties", {"weight": 0.5, "density": 0.3}),
        ("ties", {"weight": -0.5, "density": [0.5, 0.9], "lambda": 0.8, "normalize": False}),
        ("task_arithmetic", LAYERED),
        (
            "task_arithmetic",
            {"weight": [{"filter": "self_attn", "value": 2.5}, {"filter": "mlp", "value": 1}, {"value": 0}]},
        ),
        ("task_arithmetic", {"weight": 1, "lambda": [0.5, 1]}),
        ("task_arithmetic", {"weight": [{"filter": "self_attn", "value": [0, 1]}, {"value": [0.2, 0.9]}]}),
        ("della_linear", {"weight": 1, "density": 0.5, "epsilon": 0.1}),
    ],
)
def test_the_search_starts_at_the_recipe(imported: Import, here: Path, method: str, parameters: Any) -> None:
    models = [{"model": "alpha", "parameters": {"weight": 0.75}}, {"model": "beta"}]
    imported(
        {"merge_method": method, **PAIR, "models": models, "parameters": parameters},
        "search=conf/experiment/around.yaml",
    )
    recipe = load_recipe(here / "recipe.yaml").root
    start = started(composed(here), recipe)
    assert values_by_tensor(start.groups, NAMES) == values_by_tensor(recipe.groups, NAMES)
    assert dataclasses.replace(start, groups={}) == dataclasses.replace(recipe, groups={})


def started(config: Config, recipe: Any) -> Any:
    """The recipe with which a search begins."""
    space = config.space
    grouping = Grouping(space.groups, kinds=space.kinds, embeddings=space.embeddings, patterns=space.patterns)  # type: ignore[arg-type]
    searched = Searched(
        method=config.method.name,
        ranges={name: Range(**vars(given)) for name, given in config.method.parameters.items()},
        genes={pattern: Range(**vars(given)) for pattern, given in config.method.genes.items()},
        options=config.method.options,
    )
    ingredients = Ingredients(recipe.sources, config.models.base, config.models.tokenizer, config.models.dtype, 0)
    found = ParameterSpace(searched=searched, groups=group_tensors(NAMES, grouping), ingredients=ingredients)
    return found.decode({gene.name: gene.start() for gene in found.genes}).root


def test_values_that_the_search_cannot_tell_apart_start_at_their_mean(
    imported: Import, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = [{"filter": "q_proj", "value": 2}, {"value": 1}]
    imported(
        {"merge_method": "task_arithmetic", **PAIR, "parameters": {"weight": weight}},
        "--search",
        "conf/experiment/around.yaml",
    )
    assert "starts from their means" in capsys.readouterr().out
    genes = yaml.safe_load((here / "conf/experiment/around.yaml").read_text(encoding="utf-8"))["method"]["genes"]
    assert {gene["initial"] for name, gene in genes.items() if "attention" in name} == {1.25}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (sliced("passthrough", [("alpha", 0, 3)]), "this configuration moves layers"),
        ({"merge_method": "model_stock", **PAIR}, "model_stock has no parameter to search"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], document: Any, message: str
) -> None:
    (here / "merge.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert message in refused(capsys, "import", "merge.yaml", "recipe.yaml", "search=around.yaml")
    assert not (here / "recipe.yaml").exists()
    assert not (here / "around.yaml").exists()
