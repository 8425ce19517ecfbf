"""Teachers and students, by name."""

from wsl_sweep.models.features import with_features
from wsl_sweep.models.registry import build

__all__ = ["build", "with_features"]
