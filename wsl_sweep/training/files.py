"""The files that a finished trial leaves: their names, and how masks are packed into bits. Without torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STUDENT = "student.safetensors"
VALIDATION_LOGITS = "validation_logits.safetensors"
TEST_LOGITS = "test_logits.safetensors"
REGULARIZATION_SAMPLES = "regularization_samples.safetensors"

TEACHER_LOGITS = "teacher_logits"
"""The folder of a sweep's teachers' validation logits."""


def examples_digest(ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """Says which examples they are: the SHA-256 of the bytes of their (N,) ids and, after them, (N,) labels."""
    return hashlib.sha256(ids.tobytes() + labels.tobytes()).hexdigest()


def teacher_logits_name(teacher_id: str, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """The name of the file of what a teacher says of these examples; the same teacher has another for others."""
    return f"{teacher_id}-{examples_digest(ids, labels)[:8]}.safetensors"


def packed(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(…, ceil(N / 8)) bytes of (…, N) masks: the first example is the highest bit of the first byte."""
    import numpy as np

    return np.packbits(masks, axis=-1)


def check_packed(masks: NDArray[np.uint8], examples: int) -> None:
    """Raises ValueError unless these are (E, ceil(N / 8)) bytes of masks of N >= 1 ``examples``, E >= 1."""
    import numpy as np

    if masks.dtype != np.uint8 or masks.ndim != 2 or len(masks) == 0 or masks.shape[1] != -(-examples // 8):
        raise ValueError(f"masks of {examples} examples cannot be {masks.dtype} of the shape {masks.shape}")
    if examples % 8 and (masks[:, -1] & (0xFF >> examples % 8)).any():
        raise ValueError(f"there are masks of more than {examples} examples")


def unpacked(masks: NDArray[np.uint8], examples: int) -> NDArray[np.bool_]:
    """(E, N) masks from what ``packed`` made of them. Raises ValueError, see ``check_packed``."""
    import numpy as np

    check_packed(masks, examples)
    return np.unpackbits(masks, axis=1, count=examples).astype(np.bool_)
