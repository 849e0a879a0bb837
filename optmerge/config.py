"""The typed schema of conf/, and the way from a command line to a checked configuration.

Groups whose members are plug-ins (task, engine, sampler, pruner, tracking) are open in the schema: the module that a
group's `name` finds declares its settings in a dataclass `Options`, and `options_of` holds the group against it.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optmerge.errors import UsageError
from optmerge.groups import CONF as CONF
from optmerge.recipe import UNION
from optmerge.registered import did_you_mean, find
from optmerge.space.path_space import FREE, PathSettings


@dataclasses.dataclass
class SourceConfig:
    """A source: a checkpoint, a LoRA adapter, or the winner of a search that runs first.

    Attributes:
        path: Folder or hub id.
        search: Settings of the search whose winner it is, such as `+experiment=demo`; it gives the path.
        licence: What it is under, such as `apache-2.0`; by default what its model card says.
        revision: Branch, tag or commit on the hub.
        over: For an adapter: alias of the checkpoint that it is merged into. By default `models.base`.
    """

    path: str = ""
    revision: str | None = None
    over: str | None = None
    search: list[str] = dataclasses.field(default_factory=list)
    licence: str | None = None


@dataclasses.dataclass
class ModelsConfig:
    """The checkpoints that take part.

    Attributes:
        sources: Alias to `SourceConfig`, the base among them.
        base: Alias of the checkpoint that task vectors are measured from, if there is one.
        tokenizer: Alias of the source that gives tokenizer, configuration and vocabulary rows; `base` for what `base`
            names, or `union` for the tokens of all sources.
        pad_vocabulary_to: Vocabulary rows are rounded up to a multiple of this.
        dtype: Type of the merged weights.
        maker: What makes the sources first, if they are not simply there.
        folder: Where the maker works.
        seed: The maker's seed.
    """

    sources: dict[str, Any] = dataclasses.field(default_factory=dict)
    base: str | None = None
    tokenizer: str = MISSING
    pad_vocabulary_to: int | None = None
    dtype: str = "bfloat16"
    maker: str | None = None
    folder: str | None = None
    seed: int = 0


@dataclasses.dataclass
class SpaceConfig:
    """Which tensors share their genes, and which sources take part; or, where `path` is given, what paths there are.

    All but the last three are those of `optmerge.space.Grouping`, which says more.

    Attributes:
        groups: One group for the whole `model`, for `blocks` of layers, or for each of the `layers`.
        block_layers: Layers in a block.
        kinds: `none`, `sublayers` (attention and MLP apart) or `kinds` (attention, MLP and norms apart).
        embeddings: `genes` of their own, `join` the first group, or the alias of the source that they are taken from.
        head: The same for the output head; like `embeddings` by default.
        patterns: Name of a further group to shell patterns over tensor names.
        patterns_by: These for the whole `model`, `blocks` or `layers`.
        smooth: Number of anchors between which the layers' values are interpolated.
        sources: `all` take part, or the search is to `choose`.
        least_sources: So many take part at least.
        path: Data-flow space instead; then all others and the method mean nothing.
    """

    groups: str = "blocks"
    block_layers: int = 4
    kinds: str = "none"
    embeddings: str = "genes"
    head: str | None = None
    patterns: dict[str, Any] = dataclasses.field(default_factory=dict)
    patterns_by: str = "model"
    smooth: int | None = None
    sources: str = "all"
    least_sources: int = 1
    path: PathSettings | None = None


@dataclasses.dataclass
class GeneConfig:
    """Where some genes are searched, or the fixed `value` that they have instead; see `optmerge.space.Range`."""

    low: float | None = None
    high: float | None = None
    initial: float | None = None
    sigma: float | None = None
    value: float | None = None


@dataclasses.dataclass
class RangeConfig(GeneConfig):
    """The same for a parameter of the method; `tied`: all sources have one value together."""

    tied: bool = False


@dataclasses.dataclass
class MethodConfig:
    """The merge method; see `optmerge.space.Searched`.

    Attributes:
        name: The method.
        choices: Methods from which the search chooses, `name` among them.
        parameters: Name of a parameter to its `RangeConfig`.
        genes: Shell pattern over names of genes to the `GeneConfig` of what is different there.
        options: Options.
    """

    name: str = MISSING
    choices: list[str] = dataclasses.field(default_factory=list)
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    genes: dict[str, Any] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class MergingConfig:
    """How merges are computed; the values are the same whatever is chosen.

    Attributes:
        placement: Where the sources lie: on the `device`, on the `host` (memory-mapped), or on `disk`; `auto` takes the
            first that fits.
        compile: Whether merge kernels are compiled: `always`, `never`, or `auto`, where the model is large enough.
    """

    placement: str = "auto"
    compile: str = "auto"


@dataclasses.dataclass
class StorageConfig:
    """The database that holds the study.

    Attributes:
        url: An SQLAlchemy URL, such as `sqlite:///studies/studies.db` or `postgresql://user:password@host/database`.
        url_file: A file that holds the URL, so that its password stands in no command line.
        patience: Seconds for which workers wait for a server that does not answer.
        beat: Seconds between two signs of life of a worker.
        grace: Seconds without one, after which its trial is given to another.
    """

    url: str = MISSING
    url_file: str | None = None
    patience: float = 600.0
    beat: float = 15.0
    grace: float = 60.0


@dataclasses.dataclass
class StudyConfig:
    """The study.

    Attributes:
        name: By default the experiment and the seed.
        seed: Of the sampler, of random masks, and of the order of problems.
        trials: How many are to finish.
        problems: How many search problems a trial answers, others in every generation; all by default.
        folder: Where databases and results go.
        selection: Whether the winner is chosen on validation, or is the best trial (`paper`).
        finalists: How many of the best trials race on validation.
        baselines: Whether naive merges are scored too.
        keep_responses: Whether the responses of all trials, and of what is judged at the end, are kept in the
            study's folder.
        warm_start: Recipe files to begin with.
        stagnation: End after so many generations without a better trial; None never does.
        max_retries: How often a trial is tried again whose worker died.
    """

    name: str | None = None
    seed: int = 0
    trials: int = 100
    problems: int | None = None
    warm_start: list[str] = dataclasses.field(default_factory=list)
    stagnation: int | None = None
    max_retries: int = 3
    folder: str = "studies"
    selection: str = "validation"
    finalists: int = 8
    baselines: bool = True
    keep_responses: bool = False

    @property
    def own_folder(self) -> Path:
        """Where the results of this study go."""
        return Path(self.folder) / str(self.name)


@dataclasses.dataclass
class PolicyConfig:
    """Under what a winner is to be published.

    Attributes:
        licence: The licence that it is to carry; sources that forbid it are refused. None takes what the sources give.
        language: Languages for the model card, such as `ja`; by default what the task says.
    """

    licence: str | None = None
    language: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Config:
    """A whole run."""

    models: ModelsConfig = dataclasses.field(default_factory=ModelsConfig)
    space: SpaceConfig = dataclasses.field(default_factory=SpaceConfig)
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    merging: MergingConfig = dataclasses.field(default_factory=MergingConfig)
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    engine: dict[str, Any] = dataclasses.field(default_factory=dict)
    sampler: dict[str, Any] = dataclasses.field(default_factory=dict)
    pruner: dict[str, Any] = dataclasses.field(default_factory=dict)
    storage: StorageConfig = dataclasses.field(default_factory=StorageConfig)
    tracking: dict[str, Any] = dataclasses.field(default_factory=dict)
    launcher: dict[str, Any] = dataclasses.field(default_factory=dict)
    study: StudyConfig = dataclasses.field(default_factory=StudyConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    dry_run: bool = False


def register() -> None:
    """Make the schema known to Hydra, under the name that conf/config.yaml gives it."""
    ConfigStore.instance().store(name="schema", node=Config)


def compose_config(overrides: Sequence[str]) -> Config:
    """The configuration that conf/ and some overrides make.

    Args:
        overrides: In Hydra's grammar, such as `study.trials=100`, `method=ties`, `+experiment=math_ja`.

    Raises:
        UsageError: In one line: which group, option or value is not right.
    """
    register()
    try:
        with _outside_of_hydra(), initialize_config_dir(version_base="1.3", config_dir=str(CONF), job_name="optmerge"):
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
            choices = dict(composed.hydra.runtime.choices)
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]
            return typed_config(composed, choices)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(explain(error)) from error


@contextlib.contextmanager
def _outside_of_hydra() -> Iterator[None]:
    """Set aside the Hydra that runs us, if one does: in a multirun, the search of a source is composed inside of it."""
    known = GlobalHydra.instance()
    outer = known.hydra
    known.clear()
    try:
        yield
    finally:
        known.clear()
        if outer is not None:
            known.initialize(outer)


def typed_config(composed: DictConfig, choices: Mapping[str, str]) -> Config:
    """A composed configuration as dataclasses, refusing what the schema does not know (`+foo=1`).

    Args:
        composed: What Hydra composed.
        choices: Which file each group came from.

    Raises:
        UsageError: If a setting is unknown, of another type, missing, or out of its range.
    """
    try:
        # Merged into the schema anew, as plain data: composing alone, and merging what is typed already, let unknown
        # settings pass that were added with `+`.
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.to_container(composed)))
    except OmegaConfBaseException as error:
        raise UsageError(explain(error)) from error
    assert isinstance(config, Config)
    # These are open in the schema, because Hydra cannot add an entry to a dictionary of dataclasses.
    for entries, kind, where in (
        (config.models.sources, SourceConfig, "models.sources"),
        (config.method.parameters, RangeConfig, "method.parameters"),
        (config.method.genes, GeneConfig, "method.genes"),
    ):
        for name, entry in entries.items():
            entries[name] = _filled(kind, entry, f"{where}.{name}")
    if config.storage.url_file is not None:
        config.storage.url = _url_in(Path(config.storage.url_file))
    if config.study.name is None:
        config.study.name = f"{choices.get('experiment', 'demo')}-seed{config.study.seed}"
    if config.models.tokenizer == "base" and "base" not in config.models.sources and config.models.base is not None:
        config.models.tokenizer = config.models.base
    _check(config)
    return config


def _url_in(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"storage.url_file={path}: cannot be read: {reason}") from error


def _check(config: Config) -> None:
    study = config.study
    if not re.fullmatch(r"[\w][\w.+-]*", study.name or ""):
        raise UsageError(f"study.name={study.name!r}: use letters, digits, '.', '_', '+' and '-'; it names a folder")
    leasts = {"trials": 1, "finalists": 1, "seed": 0, "max_retries": 0, "stagnation": 1, "problems": 1}
    for name, least in leasts.items():
        value = getattr(study, name)
        if value is not None and value < least:
            raise UsageError(f"study.{name} must be at least {least}, got {value}")
    _one_of("study.selection", study.selection, ("validation", "paper"))
    _one_of("merging.placement", config.merging.placement, ("auto", "device", "host", "disk"))
    _one_of("merging.compile", config.merging.compile, ("auto", "always", "never"))
    _one_of("models.dtype", config.models.dtype, ("float32", "bfloat16", "float16"))
    storage = config.storage
    for name, seconds in (("patience", storage.patience), ("beat", storage.beat), ("grace", storage.grace)):
        if seconds <= 0:
            raise UsageError(f"storage.{name} must be more than 0 seconds, got {seconds:g}")
    if storage.grace < 2 * storage.beat:
        raise UsageError(
            f"storage.grace ({storage.grace:g} s) must be at least twice storage.beat ({storage.beat:g} s), or living "
            "workers lose their trials"
        )
    sources = config.models.sources
    if not sources:
        raise UsageError("models.sources is empty: name each checkpoint, as in models.sources.ALIAS.path=FOLDER")
    if UNION in sources:
        raise UsageError(f"models.sources.{UNION}: the word stands for the vocabulary of all; rename the source")
    padding = config.models.pad_vocabulary_to
    if padding is not None and padding < 1:
        raise UsageError(f"models.pad_vocabulary_to must be at least 1, got {padding}")
    for setting, alias in (("base", config.models.base), ("tokenizer", config.models.tokenizer)):
        if alias is not None and alias not in sources and (setting, alias) != ("tokenizer", UNION):
            raise UsageError(
                f"models.{setting}={alias}: no such source; models.sources has {', '.join(sorted(sources))}"
            )
    for alias in sources:
        if not re.fullmatch(r"[\w.-]+", alias):
            raise UsageError(f"models.sources: the alias {alias!r} must be made of letters, digits, '.', '_' and '-'")
        if not sources[alias].path and not sources[alias].search:
            raise UsageError(f"models.sources.{alias}.path is missing: a folder, or an id on the hub")
        if sources[alias].search and config.space.path is None:
            raise UsageError(f"models.sources.{alias}.search: only data-flow space takes the winner of another search")
        over = sources[alias].over
        if over is not None and (over not in sources or over == alias):
            others = ", ".join(sorted(set(sources) - {alias}))
            raise UsageError(f"models.sources.{alias}.over={over}: no such other source; there are {others or 'none'}")
    _check_space(config)


def _check_path(config: Config, path: PathSettings) -> None:
    known = [alias for alias in config.models.sources if alias != config.models.base]
    if not path.order:
        path.order = sorted(known, key=lambda alias: (alias != config.models.tokenizer, alias))
    ends = [alias for alias in (path.alias("first"), path.alias("last")) if alias != FREE]
    for setting, aliases in (
        ("order", path.order),
        ("first or last", ends),
        ("embeddings or head", [path.alias("embeddings"), path.alias("head")]),
    ):
        for alias in aliases:
            if alias not in config.models.sources:
                raise UsageError(
                    f"space.path: {alias}, named by {setting}, is no source; models.sources has "
                    f"{', '.join(sorted(config.models.sources))}"
                )
    for alias in ends:
        if alias not in path.order:
            raise UsageError(f"space.path: the first or last hop is of {alias}, which is not in space.path.order")


def _check_space(config: Config) -> None:
    if config.space.path is not None:
        _check_path(config, config.space.path)
    space, by = config.space, ("model", "blocks", "layers")
    _one_of("space.groups", space.groups, by)
    _one_of("space.kinds", space.kinds, ("none", "sublayers", "kinds"))
    _one_of("space.patterns_by", space.patterns_by, by)
    _one_of("space.sources", space.sources, ("all", "choose"))
    known = ("genes", "join", *sorted(config.models.sources))
    space.embeddings = {"True": "genes", "False": "join"}.get(space.embeddings, space.embeddings)
    _one_of("space.embeddings", space.embeddings, known)
    if space.head is not None:
        space.head = {"True": "genes", "False": "join"}.get(space.head, space.head)
        _one_of("space.head", space.head, known)
    for name, patterns in space.patterns.items():
        space.patterns[name] = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(space.patterns[name], list) or not all(isinstance(p, str) for p in space.patterns[name]):
            raise UsageError(f"space.patterns.{name}: expected shell patterns such as ['*q_proj*'], got {patterns!r}")


def _one_of(setting: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{setting}={value}: unknown{did_you_mean(value, list(known))}; known are {', '.join(known)}")


def options_of(group: str, settings: Mapping[str, Any], package: str) -> tuple[ModuleType, Any]:
    """The module that a group's `name` finds, and its `Options` filled from the group's other settings.

    Args:
        group: Name of the group, for messages.
        settings: The group, `name` among them.
        package: Folder of the plug-ins, such as `optmerge.study.samplers`.

    Raises:
        UsageError: If the name is unknown, or a setting is not one of its options or of another type.
    """
    if settings.get("name") is None:
        raise UsageError(f"{group}.name is missing: it says which one of {package} is meant")
    module = find(package, str(settings["name"]), group)
    given = {key: value for key, value in settings.items() if key != "name"}
    return module, _filled(module.Options, given, group)


def _filled(kind: type, settings: Any, where: str) -> Any:
    """A dataclass of that kind with these settings, and its defaults for the others."""
    if not isinstance(settings, Mapping):
        raise UsageError(f"{where}: expected settings such as {dataclasses.fields(kind)[0].name}, got {settings!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    for key in settings:
        if key not in known:
            raise UsageError(
                f"{where}.{key}: no such setting{did_you_mean(key, known)}; known are {', '.join(known) or 'none'}"
            )
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), settings))
    except OmegaConfBaseException as error:
        joint = "." if error.full_key else ": "
        raise UsageError(f"{where}{joint}{explain(error)}") from error


def explain(error: Exception) -> str:
    """What Hydra or OmegaConf objects to, in one line for people."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        known = f"; known are {', '.join(options)}" if options else ""
        return f"unknown {group or 'config'} {name!r}{did_you_mean(name, options)}{known}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {masked(error.override)!r}: {masked(str(error).splitlines()[0])}"
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None) or ""
    text = str(error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error)
    overridden = re.search(r"Could not override '([^']+)'", str(error))
    if overridden:
        name = overridden[1]
        if "No match in the defaults list" in str(error):
            return f"{name}: no such group" + ("; write +experiment=NAME" if name == "experiment" else "")
        key = key or name
    unknown = re.search(r"Key '([^']+)' (?:not in|is not in struct)", text)
    if unknown:
        return f"{key or unknown[1]}: no such setting; one that the files leave out is added with a + before it"
    reason = " ".join(
        line.strip() for line in text.splitlines() if not re.match(r"\s*(full_key|object_type|reference_type)", line)
    )
    reason = masked(reason).removeprefix("Merge error: ")
    return f"{key}: {reason}" if key and key not in reason else reason


def masked(text: str) -> str:
    """Without what may be a password in an address."""
    return re.sub(r"(?i)(pass\w*=)[^&\s]+", r"\1***", re.sub(r"://[^\s]*@", "://***@", text))
