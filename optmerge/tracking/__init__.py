"""The memory of a search outside its database: runs and registered models. One module a tracker, found by name."""

from optmerge.tracking.tracker import Tracker

__all__ = ["Tracker"]
