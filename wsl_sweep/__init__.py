"""Search and ablate knowledge distillation with weighted soft labels (WSL, ICLR 2021)."""

__version__ = "0.1.0"
