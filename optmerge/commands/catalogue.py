"""The table of all commands: data alone, so that help and completion come at once.

A new command is an entry here and a function `run_NAME(arguments, console)` in the module optmerge/commands/NAME.py,
which parses its own words. Forms of options, usages and examples are written as people write them; in a form,
`split=search|validation` lists the choices, and RECIPE, MODEL, CONFIG, OUT, FOLDER, DIR and FILE stand for paths.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option or a setting that a command has of its own.

    Attributes:
        form: How it is written, such as `--plugin FILE` or `json=FILE`.
        about: What it does.
    """

    form: str
    about: str


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: Its name.
        summary: What it does, in a line.
        usage: What may follow `python -m optmerge`, a line each.
        examples: The same with values; a comment may follow after two spaces and a #.
        options: Its own.
        settings: Whether it takes settings of a search too, in Hydra's grammar.
        run: The function that runs it, `module:function`, where that is not the one that its name says.
    """

    name: str
    summary: str
    usage: tuple[str, ...]
    examples: tuple[str, ...]
    options: tuple[Option, ...] = ()
    settings: bool = False
    run: str = ""

    @property
    def function(self) -> str:
        """Where the function is that runs it, `module:function`."""
        return self.run or f"optmerge.commands.{self.name}:run_{self.name}"


PLUGIN = Option("--plugin FILE", "a task of your own, in a Python file that is trusted and run")
CONFIG_DIR = Option("--config-dir DIR", "look for groups in DIR too, such as DIR/experiment/mine.yaml")
SOURCES = Option("sources.ALIAS=FOLDER", "where a source is now, if no longer where the recipe says")
STUDY = (
    Option("study.name=NAME", "which study"),
    Option("study.folder=FOLDER", "where databases and results are: studies, unless told otherwise"),
    Option("storage.url=URL", "its database, if not the one in study.folder; storage.url_file=FILE to hide a password"),
)

EVERYWHERE = (
    Option("-h, --help", "say how a command is used"),
    Option("--version", "print the version"),
    Option("--completion bash|zsh|fish", "print what makes that shell complete the words of `optmerge`"),
)

COMMANDS = (
    Command(
        name="search",
        summary="run, resume or report a search; the embedded demo by default",
        usage=("[search] [SETTING ...]",),
        examples=(
            "  # the demo: tiny models, trained and merged in minutes",
            "study.trials=20 study.name=short",
            "-m study.seed=0,1,2  # three searches, and a table of them",
            "+experiment=math_ja --dry-run",
            "--config-dir my +experiment=mine method=ties",
        ),
        options=(
            Option("--dry-run", "print groups, genes, problems, memory and time, and start nothing"),
            Option("-m, --multirun", "one search for every combination of comma-separated values"),
            Option("--cfg job", "print the composed configuration"),
            CONFIG_DIR,
            PLUGIN,
        ),
        settings=True,
        run="optmerge.commands.search_words:run_words",
    ),
    Command(
        name="worker",
        summary="join a search, from any machine that reaches its database",
        usage=("worker study.name=NAME [SETTING ...]",),
        examples=(
            "worker study.name=demo-seed0",
            "worker study.name=math_ja-seed0 storage.url_file=url.txt models.sources.ja.path=/scratch/ja",
        ),
        options=(*STUDY, PLUGIN),
        settings=True,
    ),
    Command(
        name="status",
        summary="show workers, trials, the best, rate and time left of a search",
        usage=("status study.name=NAME",),
        examples=("status study.name=demo-seed0", "status study.name=demo-seed0 study.folder=/data/studies"),
        options=STUDY,
    ),
    Command(
        name="stop",
        summary="let the workers of a search finish the trials at hand and leave",
        usage=("stop study.name=NAME",),
        examples=("stop study.name=demo-seed0",),
        options=STUDY,
        run="optmerge.commands.status:run_stop",
    ),
    Command(
        name="fork",
        summary="start a new search from the best of an old one",
        usage=("fork study.name=OLD as=NEW [SETTING ...]",),
        examples=(
            "fork study.name=demo-seed0 as=second",
            "fork study.name=math_ja-seed0 as=longer study.trials=2000",
        ),
        options=(Option("as=NEW", "name of the new study: OLD-fork, unless told otherwise"), *STUDY, PLUGIN),
        settings=True,
    ),
    Command(
        name="rebuild",
        summary="write the weights that a recipe describes, or prove that they are those that were scored",
        usage=(
            "rebuild RECIPE|FOLDER OUT [sources.ALIAS=FOLDER ...]",
            "rebuild --check RECIPE|FOLDER [sources.ALIAS=FOLDER ...]",
        ),
        examples=(
            "rebuild --check studies/demo-seed0  # its winner: the same weights, proven by hash",
            "rebuild recipe.yaml out/ sources.ja=/elsewhere/ja",
        ),
        options=(Option("--check", "write nothing; compare the weights with those that were scored"), SOURCES),
    ),
    Command(
        name="evaluate",
        summary="score a recipe, a model folder or a hub id on a task's problems",
        usage=("evaluate MODEL [split=SPLIT] [json=FILE] [SETTING ...]",),
        examples=(
            "evaluate studies/demo-seed0/best  # its score, with its interval",
            "evaluate best/recipe.yaml split=validation json=responses.json",
            "evaluate my-org/my-7b task=gsm8k task.chat=true",
            "evaluate gpt-oss engine=openai engine.base_url=http://localhost:8000/v1 task=gsm8k",
        ),
        options=(
            Option("split=search|validation|test", "which problems: test, unless told otherwise"),
            Option("json=FILE", "write every problem's response and scores"),
            SOURCES,
            CONFIG_DIR,
            PLUGIN,
        ),
        settings=True,
    ),
    Command(
        name="report",
        summary="write what a study has found on one page, with pictures; of a running one what there is so far",
        usage=("report study.name=NAME [out=FOLDER] [watts=NUMBER]",),
        examples=("report study.name=demo-seed0", "report study.name=math_ja-seed0 out=/srv/www/math watts=700"),
        options=(
            *STUDY,
            Option("out=FOLDER", "where to; report in the study's folder, unless told otherwise"),
            Option("watts=NUMBER", "what a machine or GPU at work draws, for the estimate of energy"),
        ),
    ),
    Command(
        name="compare",
        summary="versions of a registered model side by side, with paired significance",
        usage=("compare [NAME] [csv=FILE] [json=FILE] [tracking.uri=URI]",),
        examples=(
            "compare optmerge csv=versions.csv",
            "compare optmerge tracking.uri=sqlite:///studies/mlflow.db json=versions.json",
        ),
        options=(
            Option("csv=FILE", "write the table"),
            Option("json=FILE", "write the table, and which problems each alone solves"),
            Option("tracking.uri=URI", "where the runs are: studies/mlflow.db, unless told otherwise"),
            Option(
                "study.folder=FOLDER", "which counts what has answered test problems: studies, unless told otherwise"
            ),
        ),
    ),
    Command(
        name="dashboard",
        summary="show a study and its runs in a browser, on this machine alone",
        usage=("dashboard [study.name=NAME] [port=8080] [mlflow_port=5000] [genes=20]",),
        examples=(
            "dashboard study.name=demo-seed0",
            "dashboard study.name=math_ja-seed0 storage.url_file=url.txt port=9000 genes=all",
        ),
        options=(
            *STUDY,
            Option("port=N", "of optuna-dashboard; another where that is taken"),
            Option("mlflow_port=N", "of MLflow's pages"),
            Option("genes=N|all", "so many genes of a study are shown, those that go most with the fitness"),
        ),
    ),
    Command(
        name="show",
        summary="print the family tree of any model that optmerge has made",
        usage=("show MODEL|RECIPE|FILE [--json]",),
        examples=(
            "show studies/demo-seed0/best",
            "show model.safetensors --json  # from the metadata of the weights alone",
        ),
        options=(Option("--json", "as JSON"),),
    ),
    Command(
        name="push",
        summary="upload a model with card, recipe and pictures to the Hugging Face hub",
        usage=("push FOLDER USER/NAME [--dry-run] [private=true] [licence=ID] [out=FOLDER]",),
        examples=(
            "push studies/demo-seed0 me/my-merge --dry-run  # the folder exactly as it would be uploaded",
            "push studies/math_ja-seed0/best me/ja-math-7b private=true",
            "push out/ me/ja-math-7b-gguf  # what export format=gguf wrote",
        ),
        options=(
            Option("--dry-run", "write the folder exactly as it would be uploaded, and upload nothing"),
            Option("private=true", "nobody else sees the repository"),
            Option("licence=ID", "of the merge, where it does not follow from its sources"),
            Option("out=FOLDER", "of --dry-run: where to"),
        ),
    ),
    Command(
        name="convert",
        summary="make safetensors of a checkpoint that has only .bin files",
        usage=("convert MODEL OUT",),
        examples=("convert GAIR/Abel-7B-002 abel/",),
    ),
    Command(
        name="import",
        summary="make a recipe of a mergekit configuration, or of a published data-flow model",
        usage=("import CONFIG [RECIPE] [search=FILE] [sources.ALIAS=FOLDER ...]",),
        examples=(
            "import mergekit.yaml  # writes mergekit.recipe.yaml beside it",
            "import mergekit.yaml recipe.yaml search=my/experiment/around.yaml",
            "import EvoLLM-JP-v1-10B recipe.yaml  # the folder of a published model",
        ),
        options=(
            Option("search=FILE", "write an experiment too, which searches around the recipe"),
            Option("sources.ALIAS=FOLDER", "where a model is, if not where the configuration says"),
        ),
        run="optmerge.commands.interchange:run_import",
    ),
    Command(
        name="export",
        summary="write a recipe in another program's form; a path over layers as an ordinary model too",
        usage=("export RECIPE|FOLDER OUT format=FORMAT [prompts=FILE] [sources.ALIAS=FOLDER ...]",),
        examples=(
            "export recipe.yaml out/ format=mergekit  # a configuration for mergekit-yaml",
            "export path.yaml out/ format=fold  # an ordinary model",
            "export studies/demo-seed0 out/ format=gguf_q8_0  # its winner for llama.cpp, in 8 bits",
        ),
        options=(
            Option(
                "format=evomistral|fold|gguf|gguf_q8_0|int8|mergekit",
                "which form; evomistral: as published, each layer once; gguf: for llama.cpp; int8: by torchao",
            ),
            Option("prompts=FILE", "what to ask it: a prompt a line, or jsonl with a question a line"),
            SOURCES,
        ),
        run="optmerge.commands.interchange:run_export",
    ),
    Command(
        name="zoo",
        summary="make the demo's tiny models and problems",
        usage=("zoo [FOLDER] [SETTING ...]",),
        examples=("zoo", "zoo my-zoo models.seed=1"),
        options=(
            Option("models.seed=N", "of training and of the problems"),
            CONFIG_DIR,
        ),
        settings=True,
    ),
    Command(
        name="list",
        summary="list what there is to choose: experiments, methods, tasks, samplers, ...",
        usage=("list [GROUP]",),
        examples=("list", "list methods", "list experiments --config-dir my"),
        options=(CONFIG_DIR,),
    ),
)

BY_NAME = {command.name: command for command in COMMANDS}
