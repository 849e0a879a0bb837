"""Which version of the program this is."""

import importlib.metadata
import subprocess
from pathlib import Path

import optmerge


def version_tags() -> dict[str, str]:
    """The version of the package, and of a checkout its commit, under the name that MLflow shows as the version."""
    tags = {"optmerge.version": importlib.metadata.version("optmerge")}
    root = Path(optmerge.__file__).parents[1]
    if not (root / ".git").exists():
        return tags
    try:
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of somebody else
        return tags
    return tags | {"mlflow.source.git.commit": done.stdout.strip()}
