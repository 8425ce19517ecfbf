"""What the commands do, as functions that a notebook can call too."""

from wsl_sweep.app.bias_variance import Diagnosed, diagnose_bias_variance
from wsl_sweep.app.comparing import compare_sweeps, paper_table, sweep_records
from wsl_sweep.app.diagnosing import diagnose_teacher, teacher_page
from wsl_sweep.app.examples import SoftLabels, soft_labels
from wsl_sweep.app.export_formats import load_exported
from wsl_sweep.app.exporting import Exported, export_student
from wsl_sweep.app.folders import find_logs, list_sweeps, open_sweep, sweep_trials
from wsl_sweep.app.left_behind import LeftBehind, left_behind
from wsl_sweep.app.options import Finished, RunOptions
from wsl_sweep.app.planning import Outlook, outlook
from wsl_sweep.app.reporting import report_sweep
from wsl_sweep.app.running import extend_sweep, resume_sweep, run_sweep
from wsl_sweep.app.single import train_once
from wsl_sweep.app.syncing import sync_sweep
from wsl_sweep.app.teachers import import_teacher, list_teachers, show_teacher, train_teacher_only
from wsl_sweep.app.teaching import banks, prune
from wsl_sweep.app.upkeep import clean_sweep, stop_sweep

__all__ = [
    "Diagnosed",
    "Exported",
    "Finished",
    "LeftBehind",
    "Outlook",
    "RunOptions",
    "SoftLabels",
    "banks",
    "clean_sweep",
    "compare_sweeps",
    "diagnose_bias_variance",
    "diagnose_teacher",
    "export_student",
    "extend_sweep",
    "find_logs",
    "import_teacher",
    "left_behind",
    "list_sweeps",
    "list_teachers",
    "load_exported",
    "open_sweep",
    "outlook",
    "paper_table",
    "prune",
    "report_sweep",
    "resume_sweep",
    "run_sweep",
    "show_teacher",
    "soft_labels",
    "stop_sweep",
    "sweep_records",
    "sweep_trials",
    "sync_sweep",
    "teacher_page",
    "train_once",
    "train_teacher_only",
]
