"""Any task of lm-evaluation-harness, of local yaml files too, asked of the live candidate.

A problem is a document of the task. Its prompt with few-shot examples, its filters and its scores are lm-eval's own;
only the answers come from our engine, so nothing is saved or loaded for a trial. What is searched for is a metric that
is a mean over documents.

In a group each subtask has the same say, however many documents it has: of N problems, n of them of a subtask among S,
the objective of one of them is its metric times N / (S n), so that the mean over all problems is the mean of the
subtasks' means. (lm-eval itself gives many groups a mean over all documents.) What the subtasks' own metrics are is
under SUBTASK/METRIC, as it is, and for the subtask's problems only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, cast

from optmerge.engines import Request, Response
from optmerge.errors import UsageError
from optmerge.registered import did_you_mean
from optmerge.tasks import lm_eval_index
from optmerge.tasks.lm_eval_subtask import Asked, Part, Subtask, plain_document, told
from optmerge.tasks.problem_files import ProblemFile, slice_of
from optmerge.tasks.public_tests import check_private
from optmerge.tasks.questions import question_id
from optmerge.tasks.task import APART, SORTING, SPLITS, Guard, Objective, Problem, Split, sha256_of

_SHARES = ("acc", "exact_match")  # what the names of metrics begin with that are shares of documents
_PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass  # not frozen: OmegaConf makes a frozen one read-only, and nothing could override it
class Documents:
    """Which documents of an lm-eval task a split has.

    Attributes:
        split: The task's `train`, `validation` or `test` split; by default the one that lm-eval evaluates.
        rows: Which of them, as a slice of Python: ":" all, ":200" the first 200, "-50:" the last 50; of each subtask
            of a group.
        without: Subtasks of a group that are left out.
    """

    split: str | None = None
    rows: str | None = None
    without: list[str] = field(default_factory=list)


@dataclass
class Options:
    """What a configuration may set under `task`.

    Attributes:
        task: A task of lm-eval, or a group or a tag of several.
        include_path: A folder with yaml files of one's own tasks, whose functions are run.
        num_fewshot: Examples before a document; by default as many as the task says. As in lm-eval, a task that says
            none has none.
        metric: What is searched for: METRIC, or METRIC/FILTER where a task has several filters; its first by default.
        search: Documents that a search scores its trials on.
        validation: Documents that choose among finalists; None for a search whose finalists are not validated.
        test: Documents that are scored once, after the search.
        search_on_public_test: Search although lm-eval evaluates these documents, or they are of a well-known test set:
            the merge can then not be compared with others on them.
    """

    task: str | None = None
    include_path: str | None = None
    num_fewshot: int | None = None
    metric: str | None = None
    search: Documents = field(default_factory=lambda: Documents("train"))
    validation: Documents | None = None
    test: Documents = field(default_factory=Documents)
    search_on_public_test: bool = False


@dataclass(frozen=True)
class Document(Problem):
    """A problem that is a document of an lm-eval task.

    Attributes:
        subtask: The task.
        asked: How it is put to a model.
        weight: What its metric counts in the mean over all problems; more where its task has few.
    """

    subtask: str = ""
    asked: Asked = field(default_factory=lambda: Asked("", "", "", {}, ()), compare=False, repr=False)
    weight: float = 1.0


def build(options: Options) -> "LmEvalTask":
    """The task; it is looked up, and its data are read, when they are needed.

    Raises:
        UsageError: If lm-eval is not installed, or an option cannot be used; names it.
    """
    return LmEvalTask(options)


class LmEvalTask:
    """A task or a group of tasks of lm-eval.

    Args:
        options: Which, and which documents of it.

    Raises:
        UsageError: If an option cannot be used.
    """

    def __init__(self, options: Options) -> None:
        if not options.task:
            raise UsageError("task.task is missing: the name of a task of lm-eval, such as gsm8k or arc_easy")
        self._version = lm_eval_index.version()
        if options.num_fewshot is not None and options.num_fewshot < 0:
            raise UsageError(f"task.num_fewshot must be at least 0, not {options.num_fewshot}")
        self._options = options
        self._name = options.task
        self._parts = {"search": options.search, "validation": options.validation, "test": options.test}
        for split, documents in self._parts.items():
            if documents is not None and documents.split not in (None, *_PARTS):
                hint = did_you_mean(str(documents.split), _PARTS)
                raise UsageError(f"task.{split}.split={documents.split}: unknown{hint}; known are {', '.join(_PARTS)}")
        self._loaded: Mapping[str, Subtask] | None = None
        self._read: dict[Split, Sequence[Problem]] = {}

    @property
    def objectives(self) -> Sequence[Objective]:
        """The metric that is searched for; of a group the mean of its subtasks' metrics, which is called as it is."""
        chosen = {name: task.metrics[task.metric(self._options.metric)] for name, task in self._subtasks.items()}
        directions = {metric.direction for metric in chosen.values()}
        if len(directions) > 1:
            raise UsageError(f"task.metric: of the tasks of {self._name} some want more and some less; name one metric")
        shares = all(metric.key[0].startswith(_SHARES) for metric in chosen.values())
        return (Objective(self._objective, directions.pop(), share=shares),)

    @property
    def goal(self) -> Objective:
        return self.objectives[0]

    @property
    def guards(self) -> Sequence[Guard]:
        return ()

    @property
    def ease(self) -> str:
        """The score that tells easy problems from hard ones: what is searched for, one subtask after the other."""
        return SORTING if self._selection.group else self._objective

    @property
    def facts(self) -> Mapping[str, object]:
        """The version of lm-eval, and how many examples come first."""
        shots = {name: task.num_fewshot for name, task in self._subtasks.items()}
        same = len(set(shots.values())) == 1
        return {"lm_eval": self._version, "num_fewshot": next(iter(shots.values())) if same else shots}

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, read once; none if validation is None.

        Raises:
            UsageError: If they cannot be had, or a search would use what lm-eval evaluates; names the option.
        """
        if split not in self._read:
            documents = self._parts[split]
            try:
                self._read[split] = () if documents is None else self._problems(documents, split == "search")
            except UsageError as error:
                text = str(error)
                raise UsageError(text if text.startswith("task.") else f"task.{split}: {text}") from error
        return self._read[split]

    def missing(self) -> list[str]:
        """What keeps documents from being read now: a line for each task whose data are not at hand."""
        if self._loaded is not None:
            return []
        lines = map(lm_eval_index.missing_data, self._selection.definitions)
        return [f"task.task={self._name}: {line}" for line in lines if line is not None]

    def request(self, problem: Problem) -> Request:
        """What an engine is asked for a problem."""
        document = cast("Document", problem)
        return self._subtasks[document.subtask].request(document.asked)

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        """The metrics of a response by name; of a group also the objective, as the module says, and how easy it was."""
        document = cast("Document", problem)
        task = self._subtasks[document.subtask]
        metric = task.metric(self._options.metric)
        found = task.score(document.asked, response, metric)
        if not self._selection.group:
            return found
        value = found[metric]
        return {
            self._name: value * document.weight,
            SORTING: APART * list(self._subtasks).index(document.subtask) + value,
            **{f"{document.subtask}/{name}": own for name, own in found.items()},
        }

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> dict[str, str]:
        """SHA-256 of everything that decides a score, by setting: a study continues only where all are the same."""
        settings: dict[str, object] = {
            "task": self._name,
            "metric": [task.metric(self._options.metric) for task in self._subtasks.values()],
            "definition": {name: task.definition() for name, task in self._subtasks.items()},
            **self.facts,
        }
        asked: dict[str, object] = {
            split: [
                (problem.id, problem.answer, asdict(self.request(problem)), plain_document(problem.row))
                for problem in self.problems(split)
            ]
            for split in splits
        }
        return {name: sha256_of(value) for name, value in {**asked, **settings}.items()}

    @cached_property
    def _selection(self) -> lm_eval_index.Selection:
        return lm_eval_index.find(self._name, self._options.include_path)

    @property
    def _objective(self) -> str:
        if self._selection.group:
            return self._name
        return next(iter(self._subtasks.values())).metric(self._options.metric)

    @property
    def _subtasks(self) -> Mapping[str, Subtask]:
        """The tasks by name, loaded with their data when they are first needed."""
        if self._loaded is None:
            for line in self.missing():
                raise UsageError(line)
            import datasets

            datasets.disable_progress_bars()
            try:
                loaded = self._selection.manager.load(self._name)["tasks"]
            except Exception as error:  # whatever a data set, a template or somebody's function does
                raise UsageError(f"task.task={self._name}: lm-eval cannot load it: {told(error)}") from error
            self._loaded = {name: Subtask(task, self._options.num_fewshot) for name, task in loaded.items()}
        return self._loaded

    def _problems(self, documents: Documents, searched: bool) -> Sequence[Problem]:
        for name in documents.without:
            if name not in self._subtasks:
                hint = did_you_mean(name, list(self._subtasks))
                raise UsageError(f"without names {name}, which is none of {self._name}'s tasks{hint}")
        tasks = {name: task for name, task in self._subtasks.items() if name not in documents.without}
        if not tasks:
            raise UsageError("without leaves no task")
        rows = slice_of(documents.rows)
        found = {}
        for name, task in tasks.items():
            part = cast("Part", documents.split or task.evaluated)
            if searched and not self._options.search_on_public_test and part == task.evaluated:
                raise UsageError(
                    f"the {part} split of {name} is what lm-eval evaluates: a merge that was searched on it cannot be "
                    "compared on it; take another split, or say task.search_on_public_test=true"
                )
            found[name] = list(task.documents(part, rows))
            if searched and not self._options.search_on_public_test:
                _check_private(task, part, found[name])
        total = sum(map(len, found.values()))
        return tuple(
            Document(
                question_id(f"{name}\0{asked.key}"),
                asked.question,
                asked.answer,
                asked.doc,
                name,
                asked,
                total / len(found[name]) / len(tasks),
            )
            for name in found
            for asked in found[name]
        )


def _check_private(task: Subtask, part: Part, documents: Sequence[Asked]) -> None:
    """Refuse documents of a public test set, which a task of one's own may take for a training set."""
    config: Any = task.task.config
    splits = {"train": config.training_split, "validation": config.validation_split, "test": config.test_split}
    source = ProblemFile(hub=config.dataset_path, config=config.dataset_name, split=str(splits[part]))
    check_private(source, [Problem("", str(asked.doc.get("question", asked.question)), "") for asked in documents])
