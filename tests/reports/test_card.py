"""Model cards: read back as the hub's own library reads them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id

from optmerge.models.form import Form
from optmerge.models.licences import combine, declared
from optmerge.models.source_licences import declared_in, recipe_licence
from optmerge.recipe import CheckpointNode, Group, Hop, MergeNode, Node, PathNode, Recipe
from optmerge.reports.card import is_as_written, likeness_in, model_card, tells_results

BASE = CheckpointNode("org/base-7b", "b" * 64, revision="0123456789abcdef", licence="apache-2.0")
JA = CheckpointNode("/home/me/secret project/ja", "a" * 64, licence="mit")
LORA = CheckpointNode("~/secret/lora", "c" * 64, over=BASE, licence="llama3.1")
CACHED = CheckpointNode("/x/hub/models--maker--math-7b/snapshots/fedcba", "d" * 64, licence="apache-2.0")


def merged(**sources: Node) -> MergeNode:
    groups = {
        f"layers.{number:02}": Group(
            (f"model.layers.{number}.*",),
            {alias: {"weight": 0.1 + number, "density": 0.5} for alias in sources if alias != "base"},
        )
        for number in range(3)
    }
    return MergeNode("dare_ties", sources, "base", "ja", "bfloat16", groups)


RECIPE = Recipe(merged(base=BASE, ja=JA, math=CACHED), "e" * 64, "cpu")
PATH = Recipe(
    PathNode(
        {"evolved": RECIPE.root, "ja": JA},
        (Hop("evolved", 0), Hop("evolved", 1), Hop("ja", 1, 0.9), Hop("evolved", 2)),
        "ja",
        "evolved",
        "evolved",
        "float32",
    )
)


def result(**changes: Any) -> dict[str, Any]:
    score = {"score": 0.52346, "low": 0.4, "high": 0.6}
    tested = {"test": {"score": 0.1, "low": 0.05, "high": 0.15}}
    return {
        "study": "demo-seed0",
        "winner": {
            "trial": 7,
            "search": 0.61,
            "validation": 0.55,
            "test": score,
            "means": {"acc_ja": 0.52346, "acc": 0.75, "ease": 2.0},
            "selection": {"finalists": 8, "not_separated": [1, 2]},
        },
        "sources": {"base": tested, "ja": tested},
        "baselines": {"best pair": {"setting": "ja + math", **tested}, "average": {"setting": "", **tested}},
        "trials": {"complete": 90, "pruned": 10, "failed": 0},
        "problem_evaluations": 4000,
        "seconds": 9000.0,
        "objective": {"name": "acc_ja", "direction": "maximize", "aggregate": "mean", "share": True},
        "task": {"name": "math_ja", "language": "py3langid 0.4.0"},
        "languages": ["ja"],
        "data": {"test": {"hub": "juletxara/mgsm", "file": "mgsm_ja.tsv"}},
        "search": {"sampler": "cmaes", "pruner": "racing", "seed": 3, "problems": 200},
        **changes,
    }


def card(recipe: Recipe = RECIPE, **options: Any) -> ModelCard:
    text = model_card(recipe, recipe_licence(recipe), **{"name": "my-merge", "result": result(), **options})
    # Strictly: what the library cannot read, it refuses. Writing it again must change nothing.
    found = ModelCard(text, ignore_metadata_errors=False)
    assert str(found) == text
    assert ModelCardData(**found.data.to_dict()).to_dict() == found.data.to_dict()
    return found


def test_metadata_says_what_the_hub_asks_of_a_merge() -> None:
    data = card().data
    assert data.base_model == ["org/base-7b", "maker/math-7b"]  # "ja" is a folder here, and may be a name there
    assert [validate_repo_id(name) for name in data.base_model] == [None] * 2
    assert (data.base_model_relation, data.license, data.language) == ("merge", "apache-2.0", ["ja"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.tags == ["merge", "optmerge", "dare_ties"]


def test_results_come_back_as_the_hub_reads_them() -> None:
    data = card().data
    expected = EvalResult(
        task_type="text-generation",
        dataset_type="juletxara/mgsm",
        dataset_name="juletxara/mgsm mgsm_ja.tsv",
        dataset_split="test",
        metric_type="accuracy",
        metric_name="acc_ja",
        metric_value=0.5235,
        verified=False,
    )
    number = dataclasses.replace(expected, metric_name="acc", metric_value=0.75)
    assert data.eval_results == [expected, number]
    assert data.model_name == "my-merge"


def test_without_results_nothing_is_claimed() -> None:
    found = card(result=None)
    assert found.data.eval_results is None and "## Results" not in found.text and "%" not in found.text
    assert "nothing was measured" in found.text


def test_people_read_what_it_is_how_it_was_found_and_what_to_beware_of() -> None:
    text = card(pictures={"test.png": "Scores on test."}).text
    for heading in ("Results", "How it was found", "Recipe", "Limits", "Licence", "Use it, and make it again"):
        assert f"\n## {heading}\n" in text
    assert "| **evolved merge** | 52.3% | 40.0% to 60.0% |" in text
    assert "| best pair (ja + math) | 10.0% | 5.0% to 15.0% |" in text
    assert "scored 61.0% in the search and 55.0% on validation" in text
    assert "2 of the other 7 finalists cannot be told from it" in text
    assert "100 trials by cmaes, seed 3, each on up to 200 problems, 10 of them stopped early; 4000 answers" in text
    assert "| base | [org/base-7b](https://huggingface.co/org/base-7b) at 0123456789ab |" in text
    assert "| density 0.5, weight 0.1 to 2.1 |" in text
    assert "rebuild --check recipe.yaml" in text and "no legal advice" in text
    assert "(test.png)" in text and "path.png" not in text
    assert "public test set" not in text
    assert "public test set" in card(result=result(search_on_public_test=True)).text


def test_card_is_known_again_until_somebody_edits_it() -> None:
    text = str(card())
    assert is_as_written(text) and is_as_written(text.rstrip()) and tells_results(text)
    assert not tells_results(str(card(result=None)))
    # The first and the last byte of what it says, and the metadata too.
    for edited in (text.replace("---", "--- ", 1), text.replace("<!--", " <!--"), text.replace("mit", "gpl-3.0")):
        assert edited != text and not is_as_written(edited)
    assert not is_as_written("# mine\n") and not is_as_written("")


def test_pictures_have_words_for_who_does_not_see_them() -> None:
    text = card(pictures={"path.png": "Hops [0 to 3].", "front.png": "4 on the front."}).text
    results, recipe = text.index("## Results"), text.index("## Recipe")
    assert results < text.index("![4 on the front.](front.png)\n") < recipe
    assert recipe < text.index("![Hops (0 to 3).](path.png)\n")
    assert "test.png" not in text


def test_weights_in_another_form_are_not_told_to_load_as_they_were() -> None:
    form = Form("gguf", "Q8_0", ("model-q8_0.gguf",), "33 of 38 are the same, and others 1.2e-03 apart")
    found = card(name="me/x", form=form)
    assert found.data.library_name == "gguf" and {"gguf", "merge"} < set(found.data.tags)
    assert found.data.eval_results is None and found.data.model_name is None
    assert "\n# me/x (GGUF, Q8_0)\n" in found.text and "transformers" not in found.text
    assert 'Llama.from_pretrained("me/x", "model-q8_0.gguf")' in found.text
    assert likeness_in(str(found)) == form.likeness and "## Results" in found.text
    unheard = card(form=Form("gguf", files=("a.gguf", "b.gguf")))
    assert "`a.gguf` and `b.gguf` are GGUF files" in unheard.text and likeness_in(str(unheard)) == ""
    int8 = card(form=Form("int8", likeness="all of them"))
    assert int8.data.library_name == "transformers" and "torchao" in int8.data.tags
    assert "(int8, torchao)\n" in int8.text and "pip install torchao" in int8.text
    assert "from_pretrained" in int8.text and likeness_in(str(int8)) == "all of them"


def test_guard_that_was_broken_is_told() -> None:
    winner = result()["winner"] | {"broken": {"english": 0.05}}
    assert "fails its guard english by 0.05" in card(result=result(winner=winner)).text


def test_path_is_told_hop_by_hop_with_the_merge_below_it() -> None:
    found = card(PATH, result=result(winner=result()["winner"] | {"path_sha256": "f" * 64}))
    assert found.data.tags == ["merge", "optmerge", "data-flow"]
    assert found.data.base_model == ["org/base-7b", "maker/math-7b"]
    assert "evolved 0 to 1, ja 1 (x 0.9), evolved 2" in found.text and "**evolved path**" in found.text
    assert "| evolved | a merge by `dare_ties` of the sources below it |" in found.text
    assert "| evolved / math | [maker/math-7b](https://huggingface.co/maker/math-7b) |" in found.text


def test_no_folder_of_this_machine_is_named() -> None:
    recipe = Recipe(merged(base=BASE, ja=JA, math=LORA))
    text = str(card(recipe)) + str(card(PATH))
    assert [word for word in ("/home", "secret", "/x/hub", "~") if word in text] == []
    assert "lora" not in text and "| math | math, an adapter over [org/base-7b]" in text


@pytest.mark.parametrize("alias", ["evolved", "a-b"])
def test_terms_that_travel_are_passed_on_word_for_word(alias: str) -> None:
    recipe = Recipe(merged(**{"base": BASE, "ja": JA, alias: LORA}))
    found = card(recipe)
    assert found.data.license == "llama3.1" and "license_name" not in found.data.to_dict()
    assert "> Built with Llama. Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright ©" in found.text
    assert "- put a copy of the Llama 3.1 Community License Agreement beside the weights" in found.text


def test_licence_that_the_hub_has_no_word_for_is_named_and_read_again() -> None:
    sources = {"wizard": declared("microsoft-research-license", "card"), "gemma": declared("gemma", "card")}
    text = model_card(RECIPE, combine(sources), name="x")
    data = ModelCard(text).data
    assert (data.license, data.license_name) == ("other", "gemma-and-microsoft-research-license")
    assert "no commercial use" in text
    section = text.partition("## Licence")[2]
    assert "[Gemma Terms of Use](https://ai.google.dev/gemma/terms), [Microsoft Research License](https://" in section
    assert declared_in(text).ids == ("gemma", "microsoft-research-license")
    alone = ModelCard(model_card(RECIPE, combine({"wizard": sources["wizard"]}), name="x")).data
    assert alone.license_link.endswith("/WizardMath-7B-V1.1/resolve/main/LICENSE")


def test_unknown_licence_stays_unknown_and_says_whose() -> None:
    recipe = Recipe(merged(base=BASE, ja=dataclasses.replace(JA, licence=None)))
    found = card(recipe)
    assert found.data.license == "unknown" and "ja is under no known licence" in found.text


def test_names_with_marks_of_the_metadata_s_language_survive(tmp_path: Path) -> None:
    odd = result(study="no: 'one' #2", languages=["ja", "no"])
    path = tmp_path / "README.md"
    path.write_text(model_card(RECIPE, recipe_licence(RECIPE), name="no: #1", result=odd), encoding="utf-8")
    data = ModelCard.load(path).data
    assert data.model_name == "no: #1" and data.language == ["ja", "no"]
