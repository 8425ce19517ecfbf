"""Teachers and students, by name."""

from wsl_sweep.models.registry import build

__all__ = ["build"]
