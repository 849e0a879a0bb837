"""From overrides to a checked configuration."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from optmerge.commands.assembly import find_plugins
from optmerge.config import CONF, GeneConfig, compose_config, options_of
from optmerge.errors import UsageError
from optmerge.merge import get_method
from optmerge.registered import names

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
PLUGINS = {
    "task": "optmerge.tasks",
    "engine": "optmerge.engines",
    "sampler": "optmerge.study.samplers",
    "pruner": "optmerge.study.pruners",
    "tracking": "optmerge.tracking",
    "launcher": "optmerge.study.launchers",
}
README = Path(__file__).parents[1] / "README.md"
README_CONFIGS = re.findall(r"```yaml\n(# @package _global_\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
MEMBERS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "experiment"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_finds_its_plugins(experiment: str) -> None:
    find_plugins(compose_config([f"+experiment={experiment}"]))


@pytest.mark.parametrize(("group", "name"), MEMBERS)
def test_every_member_of_every_group_composes(group: str, name: str) -> None:
    # `models=own` is what its name says: the user fills it.
    own = [f"+models.sources.{alias}.path=folder" for alias in ("mine", "other")]
    own += ["models.tokenizer=mine", "models.base=mine"]
    # Some methods merge one source or two, and some have no parameters: the sources can be chosen for any.
    fitting = ["space.sources=choose", "sampler=tpe"] if group == "method" else []
    config = compose_config([f"{group}={name}", *fitting, *(own if (group, name) == ("models", "own") else [])])
    # What composes and is refused all the same.
    refused = {
        ("engine", "openai"): "engine=openai .* cannot run merges; use evaluate",
        ("task", "own"): "task.name is missing",
        ("task", "composite"): "task.parts is empty",
        ("task", "lm_eval"): "task.task is missing|pip install",
    }
    if (group, name) in refused:
        with pytest.raises(UsageError, match=refused[group, name]):
            find_plugins(config)
        return
    try:
        find_plugins(config)
    except UsageError as error:
        if "pip install 'optmerge[" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize(("group", "package"), PLUGINS.items())
def test_every_plugin_has_a_file_that_names_it(group: str, package: str) -> None:
    members = [name for owner, name in MEMBERS if owner == group]
    named = {getattr(compose_config([f"{group}={name}"]), group)["name"] for name in members}
    assert named - {None} == set(names(package))  # task=own is there for files of the user's


def test_every_merge_method_has_a_file_of_its_name() -> None:
    assert {name for group, name in MEMBERS if group == "method"} == set(names("optmerge.merge.methods"))


@pytest.mark.parametrize("name", [name for group, name in MEMBERS if group == "method"])
def test_method_files_have_the_parameters_and_options_of_their_method(name: str) -> None:
    config = compose_config([f"method={name}"]).method
    method = get_method(config.name)
    assert set(config.parameters) == set(method.parameters)
    assert method.options.items() >= config.options.items()


def test_demo_is_what_runs_by_itself() -> None:
    assert compose_config(["+experiment=demo"]) == compose_config([])


def test_a_study_is_named_after_experiment_and_seed() -> None:
    assert compose_config(["+experiment=math_ja", "study.seed=7"]).study.name == "math_ja-seed7"


def test_a_study_keeps_the_name_it_is_given() -> None:
    assert compose_config(["study.name=mine"]).study.name == "mine"


def test_overrides_reach_the_configuration() -> None:
    config = compose_config(["study.trials=7", "method=ties", "sampler=tpe", "sampler.startup_trials=3"])
    assert (config.study.trials, config.method.name, config.sampler) == (
        7,
        "ties",
        {"name": "tpe", "startup_trials": 3},
    )


def test_selection_as_in_the_paper_searches_on_all_problems() -> None:
    task = compose_config(["+experiment=math_ja", "selection=paper"]).task
    assert (task["search"]["rows"], task["validation"]) == (":", None)


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["study.trails=3"], "study.trails"),
        (["+study.trails=3"], "study.trails"),
        (["+foo=1"], "foo"),
        (["foo=1"], "foo"),
        (["study.trials=many"], "study.trials"),
        (["study.trials=0"], "study.trials"),
        (["study.trials=2.5"], "study.trials"),
        (["study.seed=-1"], "study.seed"),
        (["study.finalists=0"], "study.finalists"),
        (["study.folder=null"], "study.folder"),
        (["study.name=a/b"], "study.name"),
        (["study.name=''"], "study.name"),
        (["study.selection=best"], "study.selection"),
        (["models.base=nobody"], "models.base"),
        (["models.tokenizer=nobody"], "models.tokenizer"),
        (["models.dtype=float8"], "models.dtype"),
        (["space.groups=layer"], "space.groups"),
        (["space.kinds=kind"], "space.kinds"),
        (["space.patterns_by=layer"], "space.patterns_by"),
        (["space.sources=some"], "space.sources"),
        (["space.embeddings=nobody"], "space.embeddings"),
        (["space.head=nobody"], "space.head"),
        (["space.smooth=many"], "space.smooth"),
        (["+space.patterns={qk: 3}"], "space.patterns.qk"),
        (["+space.patterns={qk: [[x]]}"], "space.patterns.qk"),
        (["+method.genes={'*/ja/weight': {value: 1}}"], "method.genes"),  # Hydra takes no quotes there
        (["+method.genes={*/ja/weight: {tied: true}}"], "method.genes.*/ja/weight.tied"),
        (["method.choices=ties"], "method.choices"),
        (["+method.parameters.weight.hi=1"], "method.parameters.weight.hi"),
        (["method.parameters.weight.low=zero"], "method.parameters.weight.low"),
        (["study.max_retries=-1"], "study.max_retries"),
        (["study.stagnation=0"], "study.stagnation"),
        (["study.warm_start=recipe.yaml"], "study.warm_start"),
        (["storage.patience=0"], "storage.patience"),
        (["storage.beat=-1"], "storage.beat"),
        (["storage.beat=40"], "storage.grace (60 s) must be at least twice storage.beat (40 s)"),
        (["storage.url_file=/nowhere/url"], "storage.url_file=/nowhere/url: cannot be read"),
        (["launcher=moon"], "launcher 'moon'"),
        (["method=tis"], "method 'tis'"),
        (["sampler=cmas"], "sampler 'cmas'"),
        (["+experiment=dem"], "experiment 'dem'"),
        (["experiment=demo"], "experiment"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_setting(overrides: list[str], setting: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose_config(overrides)
    assert setting in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "tokenizer"),
    [
        (["models.tokenizer=base"], "base"),
        (["models.tokenizer=base", "models.base=ja"], "base"),  # a source of that name comes first
        (["models.tokenizer=base", "models.base=ja", "~models.sources.base"], "ja"),
        (["models.tokenizer=union"], "union"),
    ],
)
def test_word_for_the_tokenizer_means_a_source(overrides: list[str], tokenizer: str) -> None:
    assert compose_config(overrides).models.tokenizer == tokenizer


@pytest.mark.parametrize(("given", "word"), [("true", "genes"), ("false", "join"), ("join", "join"), ("ja", "ja")])
def test_embedding_and_head_have_genes_or_join_or_come_from_a_source(given: str, word: str) -> None:
    space = compose_config([f"space.embeddings={given}", f"space.head={given}"]).space
    assert (space.embeddings, space.head) == (word, word)


def test_head_is_as_the_embedding_unless_told_otherwise() -> None:
    assert compose_config([]).space.head is None


def test_a_single_pattern_needs_no_list() -> None:
    space = compose_config(["+space.patterns={qk: ['*q_proj*', '*k_proj*'], up: '*up_proj*'}"]).space
    assert space.patterns == {"qk": ["*q_proj*", "*k_proj*"], "up": ["*up_proj*"]}


def test_patterns_over_genes_keep_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    genes = 'genes: {"layers.0*/ja/weight": {value: 1}, "*/ja/*": {low: 0.1, high: 0.9}, "embeddings/*": {sigma: 0.1}}'
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\nmethod:\n  {genes}\n")
    config = compose_config(["+experiment=mine", f"hydra.searchpath=['file://{tmp_path}']"])
    assert list(config.method.genes) == ["layers.0*/ja/weight", "*/ja/*", "embeddings/*"]
    assert config.method.genes["*/ja/*"] == GeneConfig(low=0.1, high=0.9)
    find_plugins(config)


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["sampler.populaton=3"], "sampler.populaton"),
        (["+sampler.populaton=3"], "sampler.populaton: .*did you mean 'population'"),
        (["sampler.population=many"], "sampler.population"),
        (["sampler.population=2"], "sampler.population must be at least 3"),
        (["+sampler.sigma=2"], "sampler.sigma must be in"),
        (["sampler=tpe", "sampler.startup_trials=0"], "sampler.startup_trials"),
        (["sampler=nsgaii", "sampler.population=1"], "sampler.population"),
        (["sampler.name=magic"], "unknown sampler 'magic'"),
        (["~sampler.name"], "sampler.name is missing"),
        (["pruner.level=1"], "pruner.level must be between 0 and 1"),
        (["pruner.batch=0"], "pruner.batch must be at least 1"),
        (["pruner.rank=0"], "pruner.rank must be at least 1"),
        (["+pruner.window=12"], "pruner.window: no such setting"),
        (["launcher.name=moon"], "unknown launcher 'moon'"),
        (["launcher.workers=0"], "launcher.workers must be at least 1"),
        (["launcher.workers=many"], "launcher.workers"),
        (["sampler.variant=best"], "sampler.variant=best: unknown; known are auto, full, separable, mixed"),
        (["sampler.pipeline=perhaps"], "sampler.pipeline"),
        (["sampler=optuna_cmaes", "sampler.population=2"], "sampler.population must be at least 3"),
        (["engine.batch_size=many"], "engine.batch_size"),
        (["+engine.batchsize=3"], "engine.batchsize: .*did you mean 'batch_size'"),
        (["task.max_new_tokens=0"], "task.max_new_tokens"),
        (["method.name=magic"], "unknown merge method 'magic'"),
        (["space.block_layers=0"], "space.block_layers must be at least 1"),
        (["space=blocks", "space.smooth=3"], "space.smooth .*: set space.groups=layers"),
        (["+space.patterns={head: '*norm*'}"], "space.patterns.head"),
        (["+method.parameters.weight.value=1"], "method.parameters fixes every value"),
        (["method=slerp"], "models.sources: slerp merges exactly 1 source beside the base, got 3"),
        (["method=model_stock"], "method=model_stock has no parameters to search; .*space.sources=choose"),
        (["method=ramplus_tl"], "method=ramplus_tl: give a range to r or alpha"),
        (["+method.options.lambda_=0.7"], "method.parameters.lambda_.value=0.7"),
        (["method=ties", "method.choices=[ties,dare_tie]"], "'dare_tie' .did you mean 'dare_ties'"),
        (["method=ties", "method.choices=[dare_ties,linear]"], "method.choices has dare_ties, linear"),
        (
            ["method=ties", "method.choices=[ties,linear]", "sampler=optuna_cmaes"],
            "cannot search method, a gene .*: cmaes, nsgaii, random, tpe",
        ),
        (
            ["space.sources=choose", "sampler=optuna_cmaes"],
            "sampler=optuna_cmaes cannot search sources, a gene of kind choice; these can: cmaes, .*tpe",
        ),
        (
            ["space.sources=choose", "sampler.variant=full"],
            "sampler.variant=full cannot search sources, a gene of kind",
        ),
        (["space.sources=choose", "sampler=tpe", "space.least_sources=4"], "space.least_sources must be from 1 to 3"),
    ],
)
def test_a_mistake_in_a_plugins_settings_names_the_setting(overrides: list[str], setting: str) -> None:
    with pytest.raises(UsageError, match=setting) as caught:
        find_plugins(compose_config(overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("group", "package"), PLUGINS.items())
def test_settings_that_are_left_out_take_the_defaults_of_the_plugin(group: str, package: str) -> None:
    for name in names(package):
        _, options = options_of(group, {"name": name}, package)
        assert options == importlib.import_module(f"{package}.{name}").Options()


def test_settings_of_a_plugin_are_typed() -> None:
    _, options = options_of("pruner", {"name": "racing", "level": "0.05"}, PLUGINS["pruner"])
    assert dataclasses.asdict(options)["level"] == 0.05


@pytest.mark.parametrize(("value", "expected"), [("null", None), ("24", 24)])
def test_population_of_cmaes_may_be_left_to_its_rule(value: str, expected: Any) -> None:
    config = compose_config([f"sampler.population={value}"])
    assert options_of("sampler", config.sampler, PLUGINS["sampler"])[1].population == expected


def test_own_configuration_folder_is_searched(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nstudy: {trials: 7}\n")
    config = compose_config(["+experiment=mine", f"hydra.searchpath=['file://{tmp_path}']"])
    assert (config.study.name, config.study.trials) == ("mine-seed0", 7)


@pytest.mark.parametrize("block", README_CONFIGS)
def test_the_configurations_in_the_readme_compose(block: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "readme.yaml").write_text(block)
    config = compose_config(["+experiment=readme", f"hydra.searchpath=['file://{tmp_path}']"])
    find_plugins(config)
    assert config.study.name == "readme-seed0"


def test_a_method_that_needs_a_base_says_so() -> None:
    config = compose_config(["method=dare_ties", "models.base=null"])
    with pytest.raises(UsageError, match="method=dare_ties measures task vectors from a base: set models.base"):
        find_plugins(config)


@pytest.mark.parametrize("address", ["://me:sesame@host/db,", "://host/db?user=me&password=sesame"])
def test_an_address_that_cannot_be_read_is_shown_without_its_password(address: str) -> None:
    with pytest.raises(UsageError, match="storage.url") as caught:
        compose_config([f"storage.url=postgresql{address}"])
    assert "sesame" not in str(caught.value)


def test_the_address_of_the_database_may_come_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compose_config(["study.folder=mine"]).storage.url == "sqlite:///mine/studies.db"
    monkeypatch.setenv("OPTMERGE_STORAGE_URL", "postgresql://me:sesame@host/studies")
    for storage in ("sqlite", "postgresql"):
        assert compose_config([f"storage={storage}"]).storage.url == "postgresql://me:sesame@host/studies"
    (tmp_path / "url").write_text("postgresql://me:sesame@host/others\n")
    config = compose_config([f"storage.url_file={tmp_path / 'url'}"])
    assert config.storage.url == "postgresql://me:sesame@host/others"


def test_a_search_over_methods_and_sources_needs_no_other_sampler() -> None:
    find_plugins(compose_config(["method=ties", "method.choices=[ties,linear]", "space.sources=choose"]))
