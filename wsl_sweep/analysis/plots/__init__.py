"""The report's pictures: pure functions from its data to matplotlib figures, and from a figure to SVG."""

from wsl_sweep.analysis.plots.coordinates import best_tenth, parallel_coordinates
from wsl_sweep.analysis.plots.epochs import learning_curve, rank_correlation, weight_fan
from wsl_sweep.analysis.plots.responses import response
from wsl_sweep.analysis.plots.rows import differences, forest, importance
from wsl_sweep.analysis.plots.style import Look, looks_of
from wsl_sweep.analysis.plots.svg import to_svg

__all__ = [
    "Look",
    "best_tenth",
    "differences",
    "forest",
    "importance",
    "learning_curve",
    "looks_of",
    "parallel_coordinates",
    "rank_correlation",
    "response",
    "to_svg",
    "weight_fan",
]
