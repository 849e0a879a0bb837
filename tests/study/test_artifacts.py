"""Files of studies and trials, as Optuna's own functions find them."""

from pathlib import Path

import optuna
from optuna.artifacts import download_artifact, get_all_artifact_meta

from optmerge.space import Gene
from optmerge.study.artifacts import artifact_store, attach_to_study, attach_to_trials, attached
from optmerge.study.charter import OpenStudy
from optmerge.study.database import Database
from study.studies import begin, proposer, scored, search

GENES = [Gene("weight")]


def finished(database: Database, name: str = "mine") -> OpenStudy:
    proposing = proposer("random", GENES)
    opened = begin(database, proposing, name=name)
    search(opened, proposing, scored(lambda genome: 1.0), 2)
    return opened


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_files_of_trials_that_have_ended_are_found_by_optuna(either: Database, tmp_path: Path) -> None:
    opened = finished(either)
    table = written(tmp_path, "any.csv", "id,acc\na,1\n")
    attach_to_trials(opened, tmp_path, {1: {"problems.csv": table}})
    trials = optuna.load_study(study_name="mine", storage=either).get_trials()
    assert get_all_artifact_meta(trials[0], storage=either) == []
    (meta,) = get_all_artifact_meta(trials[1], storage=either)
    assert (meta.filename, meta.mimetype) == ("problems.csv", "text/csv")
    download_artifact(
        artifact_store=artifact_store(tmp_path), artifact_id=meta.artifact_id, file_path=str(tmp_path / "back")
    )
    assert (tmp_path / "back").read_bytes() == table.read_bytes()


def test_to_attach_a_file_again_replaces_it(either: Database, tmp_path: Path) -> None:
    opened = finished(either)
    for text in ("first", "second"):
        path = written(tmp_path, "any.txt", text)
        attach_to_study(opened, tmp_path, {"note.txt": path})
        attach_to_trials(opened, tmp_path, {0: {"note.txt": path}})
    (meta,) = get_all_artifact_meta(opened.study)
    assert attached(opened) == {"note.txt": meta.artifact_id}
    (of_trial,) = get_all_artifact_meta(opened.study.trials[0], storage=either)
    for number in (meta.artifact_id, of_trial.artifact_id):
        assert (tmp_path / "artifacts" / number).read_text() == "second"
    assert len(list((tmp_path / "artifacts").iterdir())) == 2


def test_studies_do_not_share_files_of_the_same_name(database: Database, tmp_path: Path) -> None:
    for name in ("one", "two"):
        attach_to_study(finished(database, name), tmp_path, {"note.txt": written(tmp_path, "any.txt", name)})
    assert sorted(path.read_text() for path in (tmp_path / "artifacts").iterdir()) == ["one", "two"]


def test_a_recipe_is_text_that_a_browser_shows(database: Database, tmp_path: Path) -> None:
    opened = finished(database)
    attach_to_study(opened, tmp_path, {"recipe.yaml": written(tmp_path, "recipe.yaml", "root: a")})
    (meta,) = get_all_artifact_meta(opened.study)
    assert meta.mimetype == "text/plain"
