"""One task of lm-evaluation-harness: how its documents become requests, and responses its scores.

Few-shot examples, prompts, filters and scores are lm-eval's own, from the same random numbers as in its command line;
tests hold them against `lm_eval.simple_evaluate`, document by document.
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optmerge.engines import Generate, LogLikelihood, Request, Response
from optmerge.errors import UsageError
from optmerge.tasks.questions import shortened
from optmerge.tasks.task import sha256_of

Part = Literal["train", "validation", "test"]
_SPLITS: dict[Part, str] = {"train": "training_split", "validation": "validation_split", "test": "test_split"}

_SEED = 1234  # what lm-eval draws few-shot examples with unless told otherwise

# Aggregations that score each document by itself and take the mean; the second estimates it by the bootstrap.
_MEANS = ("lm_eval.api.metrics.brier_score", "lm_eval.tasks.japanese_leaderboard.ja_leaderboard_xlsum.rouge2_agg")

_BY_ITSELF = "it asks whether the model would write a text by itself"

# Settings of a task that say where its data lie; what matters are the data.
_WHEREABOUTS = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata", "task", "task_alias", "tag")


@dataclass(frozen=True)
class Asked:
    """A document of a task, as it is put to a model.

    Attributes:
        key: What makes it the document it is: the question, and how often the split had it before.
        question: What is asked, without few-shot examples.
        answer: The right answer.
        doc: The document.
        instances: lm-eval's requests for it.
    """

    key: str
    question: str
    answer: str
    doc: Mapping[str, Any]
    instances: Sequence[Any]


@dataclass(frozen=True)
class Metric:
    """A metric that a document has by itself, so that a task's score is the mean over its documents.

    Attributes:
        key: What lm-eval calls it, and the filter before it.
        value: From what lm-eval says of a document to a number.
        direction: Whether more is better.
        greedy: Whether it asks if the model would write a text by itself.
    """

    key: tuple[str, str]
    value: Callable[[Any], float]
    direction: Literal["maximize", "minimize"]
    greedy: bool = False


class Subtask:
    """A task of lm-eval.

    Args:
        task: lm-eval's object.
        num_fewshot: How many examples come first, unless the task insists on none; None for the task's own number.

    Raises:
        UsageError: If our engines cannot answer what it asks.
    """

    def __init__(self, task: Any, num_fewshot: int | None) -> None:
        self.task = task
        self.name: str = task.task_name
        own = task.config.num_fewshot
        self.num_fewshot: int = (own or 0) if num_fewshot is None or own == 0 else num_fewshot
        if getattr(task, "MULTIMODAL", False):
            raise UsageError(f"task.task={self.name}: it shows images or sound, which engines here do not take")

    @property
    def evaluated(self) -> Part:
        """The split whose documents lm-eval evaluates."""
        return "test" if self.task.has_test_docs() else "validation"

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics that are means over documents, by name: METRIC, or METRIC/FILTER if there are several filters."""
        return {name: found for name, found in self._probed.items() if isinstance(found, Metric)}

    def metric(self, name: str | None) -> str:
        """The metric to search for.

        Args:
            name: METRIC or METRIC/FILTER; None for the first.

        Raises:
            UsageError: If there is none of that name, or it is no mean over documents.
        """
        known = f"known are {', '.join(self.metrics) or 'none'}"
        called = next((full for full in self._probed if name in (None, full, full.split("/")[0])), None)
        if called is None:
            raise UsageError(f"task.metric={name}: {self.name} has no such metric; {known}")
        reason = self._probed[called]
        if not isinstance(reason, Metric):
            raise UsageError(f"task.metric={called}: {reason}, so it cannot be searched for in {self.name}; {known}")
        return called

    def documents(self, part: Part, rows: slice) -> Iterator[Asked]:
        """Documents of a split, as lm-eval asks them.

        Few-shot examples are drawn document by document, so that a document's prompt is the same whichever rows are
        asked for. No document is among its own examples, which in the split that lm-eval evaluates is for the task to
        see to.

        Args:
            part: The split.
            rows: Which of its documents.

        Raises:
            UsageError: If the task has no such split, no row is selected, or the documents cannot be asked.
        """
        docs = self._docs(part)
        chosen = set(range(len(docs))[rows])
        if not chosen:
            raise UsageError(f"rows select none of the {len(docs)} documents of {self.name}, split {part}")
        self.task.set_fewshot_seed(_SEED)
        seen: Counter[str] = Counter()
        with _Naming(self.task, part, self.evaluated):
            for i in range(max(chosen) + 1):
                doc = docs[i]
                try:
                    question = self._question(doc)
                    seen[question] += 1
                    context = self._context(doc) if self.num_fewshot or i in chosen else None
                    if i in chosen:
                        number = f"\0{seen[question]}" if seen[question] > 1 else ""
                        instances = self._instances(doc, context, i)
                        yield Asked(question + number, question, self._answer(doc), doc, instances)
                except UsageError:
                    raise
                except Exception as error:  # whatever a template or somebody's function does
                    raise UsageError(f"document {i} of {self.name} cannot be asked: {told(error)}") from error

    def request(self, asked: Asked) -> Request:
        """What an engine is asked for a document."""
        kind, first = asked.instances[0].request_type, asked.instances[0].args
        if kind == "generate_until":
            return _generate(self.name, *first)
        if kind == "loglikelihood_rolling":
            return LogLikelihood("", (first[0],))
        return _comparison([instance.args for instance in asked.instances])

    def score(self, asked: Asked, response: Response, wanted: str) -> dict[str, float]:
        """The metrics of a document by name, without those that ask what the engine does not say.

        Args:
            asked: The document.
            response: What a model answered.
            wanted: The metric that cannot be left out.

        Raises:
            UsageError: If that one asks what the engine does not say.
        """
        greedy = response.greedy if _has_one_context(asked.instances) else ()
        known = {name: metric for name, metric in self.metrics.items() if greedy or not metric.greedy}
        if wanted not in known:
            raise UsageError(f"task.metric={wanted}: {_BY_ITSELF}, which this engine does not say")
        found = self._found(asked, response, greedy or (False,) * len(asked.instances))
        return {name: metric.value(found[metric.key]) for name, metric in known.items()}

    def definition(self) -> object:
        """What decides its scores beside the documents: plain data."""
        own = {field.name: getattr(self.task.config, field.name) for field in fields(self.task.config)}
        return _plain({name: value for name, value in own.items() if name not in _WHEREABOUTS})

    def _docs(self, part: Part) -> Any:
        config = self.task.config
        if getattr(config, _SPLITS[part]) is None:
            has = [name for name, setting in _SPLITS.items() if getattr(config, setting) is not None]
            raise UsageError(f"{self.name} has no {part} split, but {', '.join(has)}; take another, or leave it out")
        try:
            reading = {"train": "training_docs", "validation": "validation_docs", "test": "test_docs"}
            return getattr(self.task, reading[part])()
        except Exception as error:  # a split that the data set does not have, somebody's process_docs
            raise UsageError(f"the {part} split of {self.name} cannot be read: {told(error)}") from error

    def _context(self, doc: Any, shots: int | None = None) -> Any:
        shots = self.num_fewshot if shots is None else shots
        return self.task.fewshot_context(doc, num_fewshot=shots, gen_prefix=self.task.doc_to_prefix(doc))

    def _instances(self, doc: Any, context: Any, number: int) -> list[Any]:
        metadata = (self.name, number, self.task.config.repeats)
        found = self.task.construct_requests(doc=doc, ctx=context, metadata=metadata)
        instances = sorted(found if isinstance(found, list) else [found], key=lambda instance: int(instance.idx))
        kinds = {instance.request_type for instance in instances}
        if len(kinds) > 1 or (len(instances) > 1 and kinds != {"loglikelihood"}):
            raise UsageError(f"task.task={self.name}: it asks several things about a document, which is not supported")
        return instances

    def _choices(self, doc: Any) -> list[str]:
        return list(self.task.doc_to_choice(doc)) if self.task.config.doc_to_choice is not None else []

    def _question(self, doc: Any) -> str:
        text = self.task.doc_to_text(doc) if self.task.OUTPUT_TYPE != "loglikelihood_rolling" else ""
        fixed = isinstance(self.task.config.doc_to_choice, (list, dict))
        parts = [text if isinstance(text, str) else "", *([] if fixed else self._choices(doc))]
        return "\n".join(parts).strip() or str(self.task.doc_to_target(doc))

    def _answer(self, doc: Any) -> str:
        target = self.task.doc_to_text(doc) if self.task.multiple_input else self.task.doc_to_target(doc)
        choices = self._choices(doc)
        right = target if isinstance(target, list) else [target]
        return "\n".join(
            choices[one] if isinstance(one, int) and 0 <= one < len(choices) else str(one) for one in right
        )

    def _found(self, asked: Asked, response: Response, greedy: Sequence[bool]) -> dict[tuple[str, str], Any]:
        """What lm-eval says of a document, by metric and filter.

        Args:
            asked: The document.
            response: What a model answered.
            greedy: Whether it would write each continuation by itself.
        """
        answers = _answers(asked.instances, response, greedy)
        instances = [
            replace(instance, resps=answer, filtered_resps={})
            for instance, answer in zip(asked.instances, answers, strict=True)
        ]
        try:
            for ensemble in self.task._filters:
                ensemble.apply(instances)
            return {
                (metric, name): value
                for name in instances[0].filtered_resps
                for metric, value in self.task.process_results(
                    asked.doc, [instance.filtered_resps[name] for instance in instances]
                ).items()
            }
        except Exception as error:  # whatever somebody's function does
            raise UsageError(f"task.task={self.name}: a response cannot be scored: {told(error)}") from error

    @cached_property
    def _probed(self) -> Mapping[str, Metric | str]:
        """Every metric by name, or why it is no mean over documents: from made-up responses to one document."""
        doc = self.task.eval_docs[0]
        instances = self._instances(doc, self._context(doc, 0), 0)
        asked = Asked("", "", "", doc, instances)
        request = self.request(asked)
        if isinstance(request, Generate):
            response = Response(self._answer(doc), 1)
        else:
            made_up = tuple(-1.0 - i for i in range(len(request.continuations)))
            response = Response("", 1, log_likelihoods=made_up)
        found, other = (self._found(asked, response, (greedy,) * len(instances)) for greedy in (False, True))
        alike = _has_one_context(instances)
        filters = {name for _, name in found}
        return {
            metric if len(filters) == 1 else f"{metric}/{name}": self._measure(metric, name, value, other[key], alike)
            for key, value in found.items()
            for metric, name in (key,)
        }

    def _measure(self, metric: str, name: str, value: Any, other: Any, alike: bool) -> Metric | str:
        """How a metric is read off a document, or why it cannot be.

        Args:
            metric: What lm-eval calls it.
            name: The filter.
            value: What lm-eval says of some document.
            other: The same if the continuation, or all, were what the model would write.
            alike: Whether all continuations follow the same text.
        """
        from lm_eval.api.metrics import mean

        aggregation = self.task.aggregation().get(metric, mean)
        called = f"{aggregation.__module__}.{getattr(aggregation, '__qualname__', type(aggregation).__name__)}"
        if aggregation is not mean and called not in _MEANS:
            return f"it is of all documents together ({called.rpartition('.')[2]}), not a mean over them"
        number: Callable[[Any], float] = float if aggregation is mean else lambda value: float(aggregation([value]))
        if aggregation is mean and not isinstance(value, (int, float, np.number, np.bool_)):
            return "it is not a number for each document"
        greedy = number(value) != number(other)
        if greedy and not alike:
            return f"{_BY_ITSELF} after others, which engines here do not say"
        better = self.task.higher_is_better().get(metric, True)
        return Metric((metric, name), number, "maximize" if better else "minimize", greedy)


class _Naming:
    """While it lasts, lm-eval takes a split for the one it evaluates: no document is then among its own examples.

    lm-eval leaves a document out of its examples where the few-shot split is called as the test split is.
    """

    def __init__(self, task: Any, part: Part, evaluated: Part) -> None:
        self._config, self._fewshot = task.config, task.fewshot_cfg
        self._before = (self._config.test_split, self._fewshot.split)
        self._split = self._config.test_split if part == evaluated else getattr(self._config, _SPLITS[part])
        self._changes = part != evaluated

    def __enter__(self) -> None:
        if not self._changes:
            return
        if self._fewshot.split is None and self._fewshot.samples is None:  # where lm-eval then takes them from
            own = (getattr(self._config, _SPLITS[part]) for part in _SPLITS)
            self._fewshot.split = next(split for split in own if split is not None)
        self._config.test_split = self._split

    def __exit__(self, *_: object) -> None:
        self._config.test_split, self._fewshot.split = self._before


def told(error: Exception) -> str:
    """An error of somebody else's in one line."""
    return shortened(f"{type(error).__name__}: {error}", 200)


def _generate(name: str, context: str, settings: Mapping[str, Any]) -> Generate:
    """A request to write, from what lm-eval would tell a model."""
    from lm_eval.models.utils import normalize_gen_kwargs

    given = dict(normalize_gen_kwargs(dict(settings)))
    if given.pop("do_sample", False) or float(given.pop("temperature", 0) or 0) > 0:
        raise UsageError(f"task.task={name}: it asks for random responses (do_sample); engines here answer greedily")
    until, most = given.pop("until", None) or [], int(given.pop("max_gen_toks"))
    for harmless in ("top_p", "top_k", "min_p", "num_return_sequences"):  # to a greedy choice
        given.pop(harmless, None)
    if given:
        raise UsageError(f"task.task={name}: engines here do not know its generation_kwargs {', '.join(given)}")
    return Generate(context, most, tuple(text for text in ([until] if isinstance(until, str) else until) if text))


def _comparison(pairs: Sequence[tuple[str, str]]) -> LogLikelihood:
    """A request for the log-likelihood of each continuation of a context, in `_likelihoods`' order."""
    if len({context for context, _ in pairs}) == 1:
        return LogLikelihood(pairs[0][0], tuple(text for _, text in pairs))
    prompt = _shared(pairs)
    return LogLikelihood(prompt, tuple(text[len(prompt) :] for text in _texts(pairs)))


def _has_one_context(instances: Sequence[Any]) -> bool:
    """Whether all continuations follow the same text."""
    return len({instance.args[0] for instance in instances}) == 1


def _shared(pairs: Sequence[tuple[str, str]]) -> str:
    """What all contexts begin with, up to the end of a word, so that it is cut into tokens alike in all."""
    found = re.match(r".*\S(?=\s)", commonprefix([context.rstrip() for context, _ in pairs]), re.DOTALL)
    return found[0] if found is not None else ""


def _texts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The contexts and the contexts with their continuations, each once, but for the context that all share."""
    every = [text for context, continuation in pairs for text in (context.rstrip(), context + continuation)]
    return [text for text in dict.fromkeys(every) if text != _shared(pairs)]


def _likelihoods(pairs: Sequence[tuple[str, str]], found: Sequence[float]) -> list[float]:
    """The log-likelihood of each continuation.

    Where contexts differ, a request cannot name them all: it asks how likely each is with and without its
    continuation, after what all share, and the difference is the continuation's.
    """
    if len({context for context, _ in pairs}) == 1:
        return list(found)
    known = {**dict(zip(_texts(pairs), found, strict=True)), _shared(pairs): 0.0}
    return [known[context + continuation] - known[context.rstrip()] for context, continuation in pairs]


def _answers(instances: Sequence[Any], response: Response, greedy: Sequence[bool]) -> list[list[Any]]:
    """What lm-eval's model would have answered to each request; the same every time it is asked again."""
    kind, repeats = instances[0].request_type, instances[0].repeats
    if kind == "generate_until":
        return [[response.text] * repeats]
    if kind == "loglikelihood_rolling":
        return [[response.log_likelihoods[0]] * repeats]
    found = _likelihoods([instance.args for instance in instances], response.log_likelihoods)
    return [[pair] * repeats for pair in zip(found, greedy, strict=True)]


def _plain(value: Any) -> object:
    """Settings as plain data; a function is its name and the hash of the file it is from."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if callable(value):
        source = inspect.getsourcefile(inspect.unwrap(value))
        content = Path(source).read_text(encoding="utf-8") if source else ""
        return [getattr(value, "__qualname__", type(value).__name__), sha256_of(content)]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def plain_document(doc: Mapping[str, Any]) -> object:
    """A document as plain data."""
    return _plain(dict(doc))
