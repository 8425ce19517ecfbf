"""From the ledger to numbers that a decision can rest on."""

from wsl_sweep.analysis.comparison import Compared, compare
from wsl_sweep.analysis.from_mlflow import read_sweeps, tracked_sweeps
from wsl_sweep.analysis.grouping import Row, rows_of
from wsl_sweep.analysis.power import seeds_needed, smallest_difference
from wsl_sweep.analysis.records import Record, SweepRecords, records_of
from wsl_sweep.analysis.reporting import report_rows
from wsl_sweep.analysis.responses import answered, coordinates, response_curves
from wsl_sweep.analysis.statistics import (
    Description,
    Difference,
    Improvement,
    describe,
    equivalence_p,
    holm,
    paired_difference,
    probability_of_improvement,
    seeds_and_examples_interval,
    t_interval,
    welch_difference,
)
from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.analysis.verdicts import Comparison, Question, judge

__all__ = [
    "Compared",
    "Comparison",
    "Description",
    "Difference",
    "Improvement",
    "Question",
    "Record",
    "Row",
    "SweepRecords",
    "answered",
    "build_summary",
    "compare",
    "coordinates",
    "describe",
    "equivalence_p",
    "holm",
    "judge",
    "paired_difference",
    "probability_of_improvement",
    "read_sweeps",
    "records_of",
    "report_rows",
    "response_curves",
    "rows_of",
    "seeds_and_examples_interval",
    "seeds_needed",
    "smallest_difference",
    "t_interval",
    "tracked_sweeps",
    "welch_difference",
]
