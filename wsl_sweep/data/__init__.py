"""Data sets and their views: the augmented forms of an example, in memory or brought while a model is trained."""

from wsl_sweep.data.dataset import available, class_names, forget, load, prepare, shape, some_inputs, superclasses
from wsl_sweep.data.inputs import Inputs
from wsl_sweep.data.task import Examples, Task, TaskData
from wsl_sweep.data.views import Views

__all__ = [
    "Examples",
    "Inputs",
    "Task",
    "TaskData",
    "Views",
    "available",
    "class_names",
    "forget",
    "load",
    "prepare",
    "shape",
    "some_inputs",
    "superclasses",
]
