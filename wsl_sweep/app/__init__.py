"""What the commands do, as functions that a notebook can call too."""

from wsl_sweep.app.comparing import compare_sweeps, paper_table, sweep_records
from wsl_sweep.app.folders import find_logs, list_sweeps, open_sweep, sweep_trials
from wsl_sweep.app.options import Finished, RunOptions
from wsl_sweep.app.planning import Outlook, outlook
from wsl_sweep.app.running import extend_sweep, resume_sweep, run_sweep
from wsl_sweep.app.single import train_once
from wsl_sweep.app.syncing import sync_sweep
from wsl_sweep.app.teachers import import_teacher, list_teachers, show_teacher, train_teacher_only
from wsl_sweep.app.teaching import banks, prune
from wsl_sweep.app.upkeep import clean_sweep, stop_sweep

__all__ = [
    "Finished",
    "Outlook",
    "RunOptions",
    "banks",
    "clean_sweep",
    "compare_sweeps",
    "extend_sweep",
    "find_logs",
    "import_teacher",
    "list_sweeps",
    "list_teachers",
    "open_sweep",
    "outlook",
    "paper_table",
    "prune",
    "resume_sweep",
    "run_sweep",
    "show_teacher",
    "stop_sweep",
    "sweep_records",
    "sweep_trials",
    "sync_sweep",
    "train_once",
    "train_teacher_only",
]
