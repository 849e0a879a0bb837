"""A search whose answers are the weights themselves: the real space, bench and objective, and no language model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
import pytest
import torch

from optmerge.commands.assembly import Assembly, assemble, find_plugins
from optmerge.config import compose_config
from optmerge.engines import Candidate, Request, Response
from optmerge.merge import Workbench
from optmerge.study.objective import Objective
from optmerge.study.pruners import none
from optmerge.tasks import Objective as Goal
from optmerge.tasks import Problem
from optmerge.tasks.task import Split

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class Scale:
    """An engine that answers every request with the size of the mounted weights."""

    needs: Literal["weights"] = "weights"
    device: str = "cpu"
    size: float = math.nan

    def mount(self, candidate: Candidate) -> None:
        self.size = sum(float(tensor.square().sum()) for _, tensor in candidate.tensors()) ** 0.5

    def run(self, requests: Sequence[Request]) -> list[Response]:
        return [Response(f"{self.size} {request.prompt}", 1, "stop") for request in requests]


@dataclass
class Target:
    """A task whose problems are sizes; the nearer the weights' size, the better."""

    objectives: Sequence[Goal] = (Goal("near"),)
    sizes: Sequence[float] = field(default=(10.0, 12.0, 14.0))

    def problems(self, split: Split) -> list[Problem]:
        return [Problem(str(i), str(size), str(size)) for i, size in enumerate(self.sizes)]

    def request(self, problem: Problem) -> Request:
        return Request(problem.question, 1)

    def score(self, problem: Problem, response: Response) -> Mapping[str, float]:
        size, wanted = map(float, response.text.split())
        return {"near": 1 / (1 + abs(size - wanted))}

    def missing(self) -> list[str]:
        return []

    def fingerprint(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="session")
def assembly(zoo: Path) -> Assembly:
    config = compose_config(["models.maker=null", f"models.folder={zoo}", "space=model", "tracking=none"])
    return assemble(config, find_plugins(config), lambda text: None)


@pytest.fixture(scope="session")
def objective(assembly: Assembly) -> Objective:
    bench = Workbench(assembly.opened(), assembly.fit, torch.device("cpu"), resident=True)
    return Objective(assembly.space, bench, Scale(), Target(), none.build(none.Options()), seed=1)
