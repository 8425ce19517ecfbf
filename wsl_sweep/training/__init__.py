"""One training of one student, and of its teacher. Runs without Ray, Optuna and MLflow.

Its names are imported when they are asked for: what reads only a trial's files needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsl_sweep.training.bank import BankSettings
    from wsl_sweep.training.teacher_store import TeacherStore
    from wsl_sweep.training.teachers import FrozenTeacher
    from wsl_sweep.training.trial import Job, TrialTraining, evaluate_on_test, train_teacher

__all__ = ["BankSettings", "FrozenTeacher", "Job", "TeacherStore", "TrialTraining", "evaluate_on_test", "train_teacher"]

_MODULES = {"BankSettings": "bank", "FrozenTeacher": "teachers", "TeacherStore": "teacher_store"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'trial')}"), name)
