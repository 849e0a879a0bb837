"""Tiny language models, trained on the spot: what a first run merges when nothing else was given.

They learn single-digit sums by heart. The base believes wrong results near the right ones and mostly answers Japanese
questions in English; one specialist answers in Japanese, two have learned right results, in English. Merging combines
what they can do, and weights that suit each of them do it far better than equal ones. The lessons were designed so that
this can be seen in minutes, and say nothing about how large models merge.
"""

from optmerge.zoo.making import MODELS, make
from optmerge.zoo.plan import QUICK_PLAN, Schedule, TrainingPlan

__all__ = ["MODELS", "QUICK_PLAN", "Schedule", "TrainingPlan", "make"]
