"""A sweep as one of the paper's tables, with published figures beside ours."""

from wsl_sweep.analysis.paper.formats import FORMATS
from wsl_sweep.analysis.paper.layouts import LAYOUTS
from wsl_sweep.analysis.paper.model import PUBLISHED_METRIC, PaperTable
from wsl_sweep.analysis.paper.tables import layout_of, set_out

__all__ = ["FORMATS", "LAYOUTS", "PUBLISHED_METRIC", "PaperTable", "layout_of", "set_out"]
