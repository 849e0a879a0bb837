"""Tasks over rows of data: what they share. What is asked and how it is scored is for each task to say."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optmerge.engines import Generate, Request, Response
from optmerge.errors import UsageError
from optmerge.tasks.problem_files import Answers, ProblemFile, missing, read_problems
from optmerge.tasks.prompting import Asker, Prompting, check_prompting, columns_of, missing_examples
from optmerge.tasks.public_tests import check_private
from optmerge.tasks.tables import Row
from optmerge.tasks.task import SPLITS, Guard, Objective, Problem, Split, sha256_of

# Metadata of options that decide no score by themselves: where something lies, of which the contents matter.
NO_SCORE = {"decides_scores": False}


@dataclass  # not frozen: OmegaConf makes a frozen one read-only, and nothing could override it
class DataOptions(Prompting):
    """What a configuration may set under `task` for any task over rows of data.

    Attributes:
        search: Problems that a search scores its trials on.
        validation: Problems that choose among finalists; None for a search whose finalists are not validated.
        test: Problems that are scored once, after the search.
        search_on_public_test: Search although the search problems are among those of a well-known test set, on which
            the merge can then not be compared with others.
    """

    search: ProblemFile = field(default_factory=ProblemFile, metadata=NO_SCORE)
    validation: ProblemFile | None = field(default=None, metadata=NO_SCORE)
    test: ProblemFile = field(default_factory=ProblemFile, metadata=NO_SCORE)
    search_on_public_test: bool = field(default=False, metadata=NO_SCORE)


@dataclass(frozen=True)
class Scoring:
    """How a task scores.

    Attributes:
        objectives: Of the scores, those that are searched for.
        answers: How right answers are read.
        score: The scores of a response by name.
        facts: What else decides scores, by name; plain data.
        columns: Columns beside question and answer that make a problem what it is.
        request: What is asked, from the problem and its prompt, where it is not to write a response.
        ease: The score that tells easy problems from hard ones, if it is not the first objective.
        fields: What else a template may show, from the row.
    """

    objectives: Sequence[Objective]
    answers: Answers
    score: Callable[[Problem, Response], Mapping[str, float]]
    facts: Mapping[str, object] = field(default_factory=dict)
    columns: Sequence[str] = ()
    request: Callable[[Problem, str], Request] | None = None
    ease: str | None = None
    fields: Callable[[Row], Mapping[str, str]] = lambda row: {}


class DataTask:
    """A task over rows of data.

    Args:
        options: Where they are, and how they are asked.
        scoring: How responses are scored.

    Raises:
        UsageError: If an option cannot be used; names it.
    """

    def __init__(self, options: DataOptions, scoring: Scoring) -> None:
        check_prompting(options)
        if scoring.request is not None and options.chat:
            raise UsageError("task.chat: log-likelihoods are of plain text; leave it false")
        self._options = options
        self._scoring = scoring
        self._files = {"search": options.search, "validation": options.validation, "test": options.test}
        self._asker = Asker(options, scoring.fields)
        self._read: dict[Split, Sequence[Problem]] = {}

    @property
    def objectives(self) -> Sequence[Objective]:
        return self._scoring.objectives

    @property
    def goal(self) -> Objective:
        return self.objectives[0]

    @property
    def guards(self) -> Sequence[Guard]:
        return ()

    @property
    def ease(self) -> str:
        """The score that tells easy problems from hard ones."""
        return self._scoring.ease or self.objectives[0].name

    @property
    def facts(self) -> Mapping[str, object]:
        """What scores are made with that results should say."""
        return self._scoring.facts

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of a split, read once; none if validation is None.

        Raises:
            UsageError: If they cannot be had, or a search would use those of a public test set; names the option.
        """
        if split not in self._read:
            source = self._files[split]
            try:
                self._read[split] = () if source is None else self._problems(source)
                if split == "search" and source is not None and not self._options.search_on_public_test:
                    check_private(source, self._read[split])
            except UsageError as error:
                self._read.pop(split, None)
                raise UsageError(f"task.{split}: {error}") from error
        return self._read[split]

    def _problems(self, source: ProblemFile) -> Sequence[Problem]:
        named = [*columns_of(self._options.prompt), *self._scoring.columns]
        shown = [name for name in dict.fromkeys(named) if name != "question"]
        return tuple(read_problems(source, self._scoring.answers, shown))

    def missing(self) -> list[str]:
        """What keeps problems from being read now: a line for each split that lacks something, quickly."""
        lines = {split: missing(source) for split, source in self._files.items() if source is not None}
        found = [f"task.{split}: {line}" for split, line in lines.items() if line is not None]
        return found + missing_examples(self._options)

    def request(self, problem: Problem) -> Request:
        """What an engine is asked for a problem."""
        prompt = self._asker.prompt(problem.question, dict(problem.row))
        if self._scoring.request is not None:
            assert isinstance(prompt, str)
            return self._scoring.request(problem, prompt)
        options = self._options
        return Generate(prompt, options.max_new_tokens, tuple(options.stop), options.stop_loops)

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        """The scores of a response by name."""
        return self._scoring.score(problem, response)

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> dict[str, str]:
        """SHA-256 of everything that decides a score, by option: a study continues only where all are the same."""
        problems: dict[str, Any] = {split: [(p.id, p.answer) for p in self.problems(split)] for split in splits}
        settings = {
            field.name: getattr(self._options, field.name)
            for field in dataclasses.fields(self._options)
            if field.metadata.get("decides_scores", True)
        }
        if self._options.examples is not None:
            settings["examples"] = [self._options.examples.separator, *self._asker.examples()]
        found = {**problems, **settings, **self._scoring.facts}
        return {name: sha256_of(value) for name, value in found.items()}
