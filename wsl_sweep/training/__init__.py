"""One training of one student, and of its teacher. Runs without Ray, Optuna and MLflow."""

from wsl_sweep.training.bank import BankSettings
from wsl_sweep.training.teachers import FrozenTeacher, TeacherStore
from wsl_sweep.training.trial import Job, TrialTraining, evaluate_on_test, train_teacher

__all__ = ["BankSettings", "FrozenTeacher", "Job", "TeacherStore", "TrialTraining", "evaluate_on_test", "train_teacher"]
