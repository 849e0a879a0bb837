"""Tiny language models, trained on the spot: what a first run merges when nothing else was given."""

from optmerge.zoo.making import MODELS, make
from optmerge.zoo.plan import QUICK_PLAN, Schedule, TrainingPlan

__all__ = ["MODELS", "QUICK_PLAN", "Schedule", "TrainingPlan", "make"]
