"""What is searched: genes, and the spaces that decode them into recipes."""

from optmerge.space.gene import Gene, Kind, SearchSpace, Value
from optmerge.space.groups import By, group_tensors
from optmerge.space.naive import Ingredients, naive_merges
from optmerge.space.parameter_space import ParameterSpace, Range, searched_ranges

__all__ = [
    "By",
    "Gene",
    "Ingredients",
    "Kind",
    "ParameterSpace",
    "Range",
    "SearchSpace",
    "Value",
    "group_tensors",
    "naive_merges",
    "searched_ranges",
]
