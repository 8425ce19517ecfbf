"""From the ledger to numbers that a decision can rest on."""

from wsl_sweep.analysis.statistics import t_interval
from wsl_sweep.analysis.summary import build_summary

__all__ = ["build_summary", "t_interval"]
