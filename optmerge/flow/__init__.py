"""Data-flow space: a path over layers, run in place, and folded into an ordinary model."""

from optmerge.flow.agreement import Agreement, agreement
from optmerge.flow.bench import FoldedCandidate, PathBench, PathCandidate
from optmerge.flow.families import FAMILIES, Family, family_of
from optmerge.flow.fold import Folds, fold
from optmerge.flow.live import LiveCandidate, LiveLayers
from optmerge.flow.path import LiveHop, LivePath

__all__ = [
    "FAMILIES",
    "Agreement",
    "Family",
    "FoldedCandidate",
    "Folds",
    "LiveCandidate",
    "LiveHop",
    "LiveLayers",
    "LivePath",
    "PathBench",
    "PathCandidate",
    "agreement",
    "family_of",
    "fold",
]
