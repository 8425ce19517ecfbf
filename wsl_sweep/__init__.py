"""Search and ablate knowledge distillation with weighted soft labels (WSL, ICLR 2021)."""

import os

# Before anything computes: else what MKL makes of an example depends, in its last bits, on its place in the batch.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
