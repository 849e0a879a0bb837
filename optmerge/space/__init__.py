"""What is searched: genes, and the spaces that decode them into recipes."""

from optmerge.space.encoding import genome_of
from optmerge.space.gene import Gene, Kind, SearchSpace, Value
from optmerge.space.groups import GENES, JOIN, By, Grouping, Kinds, TensorGroup, group_tensors
from optmerge.space.naive import Ingredients, naive_merges
from optmerge.space.parameter_space import ParameterSpace
from optmerge.space.path_space import PathSettings, PathSpace
from optmerge.space.ranges import Range
from optmerge.space.searched import Searched

__all__ = [
    "GENES",
    "JOIN",
    "By",
    "Gene",
    "Grouping",
    "Ingredients",
    "Kind",
    "Kinds",
    "ParameterSpace",
    "PathSettings",
    "PathSpace",
    "Range",
    "SearchSpace",
    "Searched",
    "TensorGroup",
    "Value",
    "genome_of",
    "group_tensors",
    "naive_merges",
]
