"""Which version of a registered model is the champion, and what is known and kept of each."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from optmerge.study.touched import touch
from optmerge.tasks import Objective
from optmerge.tracking.mlflow import Options
from optmerge.tracking.registry import Registry
from tracking.followed import follow, judged, model_folder, result

HALF = [1] * 20 + [0] * 20
BETTER = [1] * 26 + [0] * 14  # six more, and none lost: McNemar's exact test gives 2 ** -6
LUCKIER = [1] * 24 + [0] * 16  # four more: 2 ** -4


class Store:
    """A store with one registered model, to which studies are added."""

    def __init__(self, folder: Path, uri: str, model: str) -> None:
        self._folder = folder
        self.options = Options(uri, str(folder / "artifacts"), experiment=folder.name, model=model)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._studies = 0

    def add(self, scores: list[int] | None, problems: str = "v", goal: Objective | None = None, **facts: Any) -> str:
        """Add a study whose winner has these scores on validation; gives what is said of it."""
        self._studies += 1
        study = facts.pop("study", f"study{self._studies}")
        options = replace(self.options, **{name: facts.pop(name) for name in ("keep", "level") if name in facts})
        answered = judged(scores, tested=facts.pop("tested", ("r" * 64,)))
        licence = {"licence": facts.pop("licence")} if "licence" in facts else {}
        best = self._folder / study / "best"
        if not best.exists():
            model_folder(best)
        document = result(facts.pop("weights", f"{self._studies:x}" * 64), study=study, **facts) | licence
        said = follow(options, best, [], document, answered, problems=problems, goal=goal or Objective("acc"))
        assert said is not None
        return said

    def titles(self) -> dict[str, int]:
        aliases = self.client.get_registered_model(self.options.model).aliases
        return {alias: int(number) for alias, number in aliases.items()}

    def tags(self, number: int) -> dict[str, str]:
        return dict(self.client.get_model_version(self.options.model, str(number)).tags)

    def files(self, number: int) -> set[str]:
        """Of a version's folder, as the registry gives it."""
        version = self.client.get_model_version(self.options.model, str(number))
        where = str(version.tags["model"])
        return {Path(item.path).name for item in self.client.list_artifacts(str(version.run_id), where)}


@pytest.fixture
def store(tmp_path: Path, uri: str, request: pytest.FixtureRequest) -> Store:
    return Store(tmp_path, uri, str(request.node.name).replace("[", "-").replace("]", ""))


def test_only_one_that_is_better_beyond_chance_becomes_champion(store: Store) -> None:
    assert store.add(HALF).startswith(f"models:/{store.options.model}@champion (version 1)")
    assert "not better beyond chance than version 1" in store.add(LUCKIER)
    assert store.titles() == {"champion": 1, "challenger": 2}
    assert "better than version 1 on the same validation problems (one-sided paired test, p = 0.016)" in store.add(
        BETTER
    )
    assert store.titles() == {"champion": 3, "challenger": 2}


def test_the_level_is_a_setting(store: Store) -> None:
    store.add(HALF)
    store.add(LUCKIER, level=0.1)
    assert store.titles() == {"champion": 2}


def test_test_scores_are_shown_and_decide_nothing(store: Store) -> None:
    store.add(HALF)
    store.add(HALF, test={"score": 0.99, "low": 0.9, "high": 1.0})
    assert store.titles() == {"champion": 1, "challenger": 2}
    assert (store.tags(2)["test"], store.tags(2)["test/low"]) == ("0.99", "0.9")


def test_where_less_is_better_the_lower_wins(store: Store) -> None:
    goal = Objective("acc", direction="minimize", share=False)
    store.add(BETTER, goal=goal)
    store.add(HALF, goal=goal)
    assert store.titles() == {"champion": 2}


def test_versions_with_other_validation_problems_have_titles_of_their_own(store: Store) -> None:
    store.add(HALF)
    said = store.add(BETTER, problems="w")
    assert "@champion-77777777 (version 2): the first version with these validation problems" in said
    store.add(HALF, problems="w")
    assert store.titles() == {"champion": 1, "champion-77777777": 2, "challenger-77777777": 3}


def test_what_was_never_validated_reigns_only_until_something_was(store: Store) -> None:
    assert "@champion (version 1)" in store.add(None, validation=None)
    assert f"models:/{store.options.model}/2: it was not validated" in store.add(None, validation=None)
    store.add(HALF)
    assert store.titles() == {"champion": 3}


def test_one_that_breaks_a_guard_dethrones_none_that_keeps_all(store: Store) -> None:
    store.add(HALF)
    assert "breaks a guard" in store.add(BETTER, broken={"chat": 0.1})
    assert store.titles() == {"champion": 1, "challenger": 2}
    assert store.tags(2)["broken_guards"] == "chat"


def test_one_whose_rival_has_lost_its_scores_is_challenger(store: Store, tmp_path: Path) -> None:
    store.add(HALF)
    (table,) = (tmp_path / "artifacts").rglob("validation.json")
    table.unlink()
    assert "cannot be compared with the champion, version 1" in store.add(BETTER)


def test_the_same_result_again_changes_nothing(store: Store) -> None:
    first = store.add(HALF, study="mine", weights="a" * 64)
    store.add(BETTER)
    titles = store.titles()
    again = store.add(HALF, study="mine", weights="a" * 64)
    assert "champion" in first and "champion" not in again.partition(":")[2].partition(":")[0]
    assert store.titles() == titles == {"champion": 2}
    assert len(store.client.search_model_versions(f"name = '{store.options.model}'")) == 2


def test_another_winner_of_the_same_study_is_another_version(store: Store) -> None:
    store.add(HALF, study="mine", weights="a" * 64)
    store.add(BETTER, study="mine", weights="b" * 64)
    assert store.titles() == {"champion": 2}
    assert store.files(1) == store.files(2) == {"model.safetensors", "config.json", "recipe.yaml"}


def test_a_version_names_what_it_is(store: Store) -> None:
    store.add(HALF, licence="apache-2.0", weights="a" * 64)
    tags = store.tags(1)
    expected = {
        "licence": "apache-2.0",
        "study": "study1",
        "seed": "0",
        "task": "gsm8k",
        "recipe_sha256": "r" * 64,
        "weights_sha256": "a" * 64,
        "validation_sha256": "76" * 32,
        "search": "0.5",
        "validation": "0.4",
        "test/mean/length": "12",
        "sources": "base, ja",
        "source/ja": "org/ja@main (weights aaaaaaaaaaaa)",
        "source/base": "/models/base (weights bbbbbbbbbbbb)",
    }
    assert {name: tags[name] for name in expected} == expected
    assert "licence" not in store.tags(add_second(store))


def add_second(store: Store) -> int:
    store.add(HALF)
    return 2


def test_how_many_models_have_seen_a_test_set_is_counted(store: Store) -> None:
    store.add(HALF, tested=["a" * 64, "b" * 64])
    store.add(HALF, tested=["b" * 64, "c" * 64])
    tags = store.client.get_registered_model(store.options.model).tags
    assert {name: value for name, value in tags.items() if name.startswith("tested/")} == {"tested/747474747474": "3"}


def test_old_versions_lose_their_weights_and_nothing_else(store: Store) -> None:
    for number in range(1, 5):
        store.add(HALF, keep=1)
        assert store.titles()["champion"] == 1
        assert store.titles().get("challenger", 2) == max(2, number)
    assert [("model.safetensors" in store.files(number)) for number in (1, 2, 3, 4)] == [True, False, False, True]
    assert store.files(2) == {"config.json", "recipe.yaml"}
    assert store.tags(2)["weights"] == "removed"
    assert "weights" not in store.tags(4)


def test_weights_that_another_registered_model_has_too_stay(store: Store, tmp_path: Path, uri: str) -> None:
    other = Store(tmp_path, uri, "another")
    for number in range(3):
        for registry in (store, other):
            registry.add(HALF, study=f"shared{number}", weights=f"{number}" * 64)
    store.add(HALF, keep=1)
    assert "model.safetensors" in store.files(2)


def test_weights_are_linked_not_copied(store: Store, tmp_path: Path) -> None:
    store.add(HALF)
    (kept,) = (tmp_path / "artifacts").rglob("model.safetensors")
    assert os.path.samefile(kept, tmp_path / "study1" / "best" / "model.safetensors")


@pytest.mark.parametrize("links", [True, False])
def test_a_winner_that_is_written_anew_is_on_the_disk_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    from optmerge.models.staging import staged

    store.add(HALF, study="mine", weights="a" * 64)
    best = tmp_path / "mine" / "best"
    with staged(best, nbytes=1, replace=True) as folder:  # as an extended study writes it
        shutil.copytree(best, folder, dirs_exist_ok=True)
    (kept,) = (tmp_path / "artifacts").rglob("model.safetensors")
    assert not os.path.samefile(kept, best / "model.safetensors")
    if not links:
        monkeypatch.setattr(os, "link", refuse_to_link)
    store.add(HALF, study="mine", weights="a" * 64)
    assert os.path.samefile(kept, best / "model.safetensors") == links
    assert {path.name for path in kept.parent.iterdir()} == store.files(1)
    assert kept.read_bytes() == b"weights"


def refuse_to_link(*_: Any) -> None:
    raise OSError(errno.EXDEV, "another disk")


def test_weights_that_were_removed_stay_so_when_a_study_is_extended(store: Store) -> None:
    for study in ("first", "second", "third"):
        store.add(HALF, study=study, weights=study[0] * 64, keep=1)
    store.add(HALF, study="second", weights="s" * 64)
    assert store.files(2) == {"config.json", "recipe.yaml"}


def test_another_winner_in_the_folder_leaves_a_version_as_it_was(store: Store, tmp_path: Path) -> None:
    from optmerge.models.staging import staged

    store.add(HALF)
    with staged(tmp_path / "study1" / "best", nbytes=1, replace=True) as folder:  # as a search writes its winner
        (folder / "model.safetensors").write_bytes(b"others")
    (kept,) = (tmp_path / "artifacts").rglob("model.safetensors")
    assert kept.read_bytes() == b"weights"


def test_where_links_cannot_be_made_weights_are_copied(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse_to_link)
    store.add(HALF)
    (kept,) = (tmp_path / "artifacts").rglob("model.safetensors")
    assert kept.read_bytes() == b"weights"
    assert not os.path.samefile(kept, tmp_path / "study1" / "best" / "model.safetensors")


@pytest.mark.parametrize("call", ["set_registered_model_alias", "set_model_version_tag", "set_registered_model_tag"])
def test_a_registration_that_broke_off_is_made_good(store: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(self: MlflowClient, *_: Any) -> None:
        raise MlflowException("the server is gone")

    store.add(HALF)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, fail)
        with pytest.raises(Exception, match="the server is gone"):
            store.add(BETTER, study="mine", weights="a" * 64)
    store.add(BETTER, study="mine", weights="a" * 64)
    assert store.titles() == {"champion": 2}
    assert store.tags(2)["decided"].startswith("better than")


def test_a_version_of_another_program_disturbs_nothing(store: Store, tmp_path: Path) -> None:
    store.client.create_registered_model(store.options.model)
    store.client.create_model_version(store.options.model, source="/somewhere")
    store.client.set_registered_model_alias(store.options.model, "champion", "1")
    store.add(HALF, keep=1)
    assert store.titles() == {"champion": 2}
    registry = Registry(store.client, store.options.model, tmp_path)
    assert registry.tests() == {"74" * 32: 1}
    (answered,) = (version.tags["tested"] for version in registry.versions() if "tested" in version.tags)
    touch(tmp_path, "74" * 32, [answered, "a model that no study has registered"], "evaluate")
    touch(tmp_path, "75" * 32, ["a model that answered other problems"], "evaluate")
    assert registry.tests() == {"74" * 32: 2}
