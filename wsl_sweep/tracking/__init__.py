"""MLflow: one writer, from the ledger to the tracking server."""

from wsl_sweep.tracking.settings import Tracking, redact, resolve_tracking
from wsl_sweep.tracking.writer import MlflowWriter

__all__ = ["MlflowWriter", "Tracking", "redact", "resolve_tracking"]
