"""Interchange: configurations of other programs read as recipes, and recipes written in other programs' forms.

Importing this room is cheap: what it needs of torch is imported by the functions that need it.
"""

from optmerge.interchange.configuration import Configuration, read_configuration
from optmerge.interchange.experiment import experiment
from optmerge.interchange.export import FORMATS, Export, export_recipe
from optmerge.interchange.importing import Imported, import_configuration

__all__ = [
    "FORMATS",
    "Configuration",
    "Export",
    "Imported",
    "experiment",
    "export_recipe",
    "import_configuration",
    "read_configuration",
]
