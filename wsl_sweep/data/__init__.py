"""Data sets, resident on a device, and their views: the finitely many augmented forms of an example."""

from wsl_sweep.data.dataset import Examples, VisionData, available, class_names, forget, load, prepare, shape
from wsl_sweep.data.views import Views

__all__ = ["Examples", "Views", "VisionData", "available", "class_names", "forget", "load", "prepare", "shape"]
