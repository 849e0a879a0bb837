"""The process that trains one model of the zoo: `python -m optmerge.zoo.one_training JOB`, a job being JSON."""

import json
import sys
from pathlib import Path

from optmerge.zoo.plan import plan_from_json
from optmerge.zoo.training import train_and_save


def main(job: str) -> None:
    """Train the model that the job names."""
    asked = json.loads(job)
    train_and_save(
        Path(asked["folder"]),
        asked["name"],
        plan_from_json(asked["plan"]),
        asked["seed"],
        # A parent that died has closed the pipe, and the next line of progress ends this process too.
        report=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    main(sys.argv[1])
