"""The report's pictures: pure functions from its data to matplotlib figures, and from a figure to SVG."""

from wsl_sweep.analysis.plots.calibration import learnability, reliability
from wsl_sweep.analysis.plots.coordinates import best_tenth, parallel_coordinates
from wsl_sweep.analysis.plots.epochs import learning_curve, rank_correlation, weight_fan
from wsl_sweep.analysis.plots.heat import heat_map
from wsl_sweep.analysis.plots.losses import rungs, tolerance
from wsl_sweep.analysis.plots.responses import response
from wsl_sweep.analysis.plots.rows import differences, forest, importance
from wsl_sweep.analysis.plots.shares import class_shares, how_often
from wsl_sweep.analysis.plots.style import Look, looks_of
from wsl_sweep.analysis.plots.svg import to_svg
from wsl_sweep.analysis.plots.tradeoff import bias_variance_bars, bias_variance_changes

__all__ = [
    "Look",
    "best_tenth",
    "bias_variance_bars",
    "bias_variance_changes",
    "class_shares",
    "differences",
    "forest",
    "heat_map",
    "how_often",
    "importance",
    "learnability",
    "learning_curve",
    "looks_of",
    "parallel_coordinates",
    "rank_correlation",
    "reliability",
    "response",
    "rungs",
    "to_svg",
    "tolerance",
    "weight_fan",
]
