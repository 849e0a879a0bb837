"""What a trial has answered already is not asked again, whoever goes on with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from optmerge.engines import Candidate, Request, Response
from optmerge.study.database import Database
from optmerge.study.memory import Memory
from optmerge.study.objective import Objective, RememberAs
from optmerge.study.slots import Ledger, Slot
from optmerge.study.trial_scores import PROBLEMS, SAME_AS, SCORES
from optmerge.tasks import Problem
from study.conftest import Scale, Target
from study.studies import begin, proposer, search

PROBLEM = Problem("a1", "?", "1")
RESPONSES = [Response("一\n二", 2, "stop"), Response("", 0, "length", (-1.5, -2.0), (True, False))]


def test_responses_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "one.jsonl"
    problems = [PROBLEM, Problem("b2", "?", "2")]
    Memory(path).add(problems, RESPONSES)
    assert [Memory(path).get(problem) for problem in problems] == RESPONSES
    assert Memory(path).get(Problem("c3", "?", "3")) is None


def test_a_line_that_a_killed_worker_left_half_written_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    Memory(path).add([PROBLEM], RESPONSES[:1])
    path.write_bytes(path.read_bytes()[:-9])
    other = Problem("b2", "?", "2")
    Memory(path).add([other], RESPONSES[1:])
    assert Memory(path).get(PROBLEM) is None
    assert Memory(path).get(other) == RESPONSES[1]


def test_a_character_that_was_cut_in_two_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    Memory(path).add([PROBLEM], [Response("漢字", 2)])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("字".encode()) + 1])
    assert Memory(path).get(PROBLEM) is None
    separator = Response("a\u2028b\u0085c", 3)
    Memory(path).add([PROBLEM], [separator])
    assert Memory(path).get(PROBLEM) == separator


def test_what_has_ended_is_forgotten_or_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "responses" / ".one.jsonl"
    memory = Memory(path)
    memory.add([PROBLEM], RESPONSES[:1])
    memory.end(keep_as="3-1.jsonl")
    assert [found.name for found in path.parent.iterdir()] == ["3-1.jsonl"]
    memory = Memory(path)
    memory.add([PROBLEM], RESPONSES[:1])
    memory.end(keep_as=None)
    assert [found.name for found in path.parent.iterdir()] == ["3-1.jsonl"]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    memory = Memory(tmp_path / "file" / "one.jsonl")
    memory.add([PROBLEM], RESPONSES[:1])
    memory.end(keep_as=None)
    assert "responses are not remembered" in caplog.text


# In a trial


@dataclass
class Counting(Scale):
    """Counts what it is asked, and is killed after so many requests."""

    asked: list[str] = field(default_factory=list)
    mounted: int = 0
    last: int | None = None

    def mount(self, candidate: Candidate) -> None:
        self.mounted += 1
        super().mount(candidate)

    def run(self, requests: Sequence[Request]) -> list[Response]:
        if self.last is not None and len(self.asked) + len(requests) > self.last:
            raise KeyboardInterrupt
        self.asked += [str(getattr(request, "prompt", "")) for request in requests]
        return super().run(requests)


class InTwos:
    """Batches of two problems, and nobody is beaten."""

    def batch_sizes(self, problems: int) -> list[int]:
        return [2] * (problems // 2)

    def reference(self, survivors: object, population: int) -> None:
        return None


@pytest.fixture
def counting(objective: Objective, tmp_path: Path) -> Objective:
    task = Target(sizes=tuple(float(size) for size in range(10, 18)))
    memory = RememberAs(tmp_path / "responses", "key" * 10)
    return replace(objective, engine=Counting(), task=task, pruner=InTwos(), memory=memory)  # type: ignore[arg-type]


def test_a_trial_that_is_run_again_asks_only_for_what_is_missing(counting: Objective, database: Database) -> None:
    opened = begin(database, proposer("random", list(counting.space.genes)))
    genome = {gene.name: 0.3 for gene in counting.space.genes}

    def run(engine: Counting) -> Mapping[str, object]:
        ledger = Ledger(opened.plan)
        return replace(counting, engine=engine)(Slot(0, 1), genome, ledger, lambda step, value: None).attributes

    died, undisturbed = Counting(last=4), Counting()
    with pytest.raises(KeyboardInterrupt):
        run(died)
    heir = Counting()
    again = run(heir)
    assert len(died.asked) == 4 and len(heir.asked) == 4
    assert not set(died.asked) & set(heir.asked)
    alone = run(undisturbed)
    assert len(undisturbed.asked) == 8, "what has ended is not remembered"
    assert again[SCORES] == alone[SCORES]


def test_a_genome_that_gives_a_known_recipe_costs_nothing(counting: Objective, database: Database) -> None:
    genes = list(counting.space.genes)
    starts = [{gene.name: value for gene in genes} for value in (0.3, 0.6, 0.3, 0.3, 0.9)]
    proposing = proposer("cmaes", genes, starts=starts, population=3)
    trials = search(begin(database, proposing, starts=starts), proposing, counting, 5)
    assert [trial.user_attrs.get(SAME_AS) for trial in trials] == [None, None, 0, 0, None]
    assert [trial.user_attrs[PROBLEMS] for trial in trials] == [8, 8, 0, 0, 8]
    assert trials[3].value == trials[2].value == trials[0].value
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    engine = counting.engine
    assert isinstance(engine, Counting) and engine.mounted == 3


def test_responses_are_kept_where_they_are_wanted(counting: Objective, database: Database, tmp_path: Path) -> None:
    memory = replace(counting.memory, keep=True)  # type: ignore[type-var]
    proposing = proposer("random", list(counting.space.genes))
    search(begin(database, proposing), proposing, replace(counting, memory=memory), 3)
    assert sorted(path.name for path in (tmp_path / "responses").iterdir()) == ["0-0.jsonl", "0-1.jsonl", "0-2.jsonl"]
