"""A bench with the quick zoo's four checkpoints on it."""

from pathlib import Path

import pytest
import torch

from optmerge.commands.assembly import Assembly, assemble, find_plugins
from optmerge.config import compose_config
from optmerge.merge import Workbench


@pytest.fixture(scope="session")
def assembly(zoo: Path) -> Assembly:
    config = compose_config(["models.maker=null", f"models.folder={zoo}", "space=model", "tracking=none"])
    return assemble(config, find_plugins(config), lambda text: None)


@pytest.fixture(scope="session")
def bench(assembly: Assembly) -> Workbench:
    return Workbench(assembly.opened(), assembly.fit, torch.device("cpu"))
