"""What trials leave beside their metrics, read as arrays: logits, and who was a regularization sample. Without torch.

Files that are missing or damaged are None; a storage that cannot be read is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wsl_sweep.errors import StorageError
from wsl_sweep.storage import Place
from wsl_sweep.training.files import (
    REGULARIZATION_SAMPLES,
    TEACHER_LOGITS,
    TEST_LOGITS,
    VALIDATION_LOGITS,
    teacher_logits_name,
    unpacked,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Logits:
    """What a model says of a part of a data set.

    Attributes:
        logits: (N, C) float32, finite.
        labels: (N,) int64 in [0, C).
        ids: (N,) int64, which examples of the data set they are.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SampleMasks:
    """Which training examples were regularization samples while a student was trained (WSL §3.2).

    Attributes:
        masks: (E, N) bool, by epoch: each example as it was in the step that showed it; False where none did.
        labels: (N,) int64, as they were trained on, with label noise.
        ids: (N,) int64, which examples of the data set they are.
    """

    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


def kept_logits(folder: Place, trial_id: str, part: Literal["validation", "test"] = "validation") -> Logits | None:
    """What a trial's student says at the end of its training; of the test part only where it was evaluated on it.

    Args:
        folder: the sweep's.
        trial_id: the trial's.
        part: of which part.

    Raises StorageError: it cannot be read now.
    """
    return _logits(folder / "trials" / trial_id / (VALIDATION_LOGITS if part == "validation" else TEST_LOGITS))


def kept_masks(folder: Place, trial_id: str) -> SampleMasks | None:
    """Who was a regularization sample in each epoch of a trial; None also where its loss does not tell.

    Args:
        folder: the sweep's.
        trial_id: the trial's.

    Raises StorageError: it cannot be read now.
    """
    found = _arrays(folder / "trials" / trial_id / REGULARIZATION_SAMPLES, "masks")
    if found is None:
        return None
    masks, labels, ids = found
    try:
        return SampleMasks(unpacked(masks, len(labels)), labels, ids)
    except ValueError:
        return None


def teacher_logits(folder: Place, teacher_id: str, like: Logits) -> Logits | None:
    """What a teacher of a sweep says of the validation part.

    Args:
        folder: the sweep's.
        teacher_id: the teacher's.
        like: a student's, of exactly the examples that are wanted, with their labels, in their order.

    Raises StorageError: it cannot be read now.
    """
    import numpy as np

    found = _logits(folder / TEACHER_LOGITS / teacher_logits_name(teacher_id, like.ids, like.labels))
    if found is None or found.logits.shape != like.logits.shape:
        return None
    same = np.array_equal(found.ids, like.ids) and np.array_equal(found.labels, like.labels)
    return found if same else None


def _logits(path: Place) -> Logits | None:
    """The logits in a file, all of it checked."""
    import numpy as np

    found = _arrays(path, "logits")
    if found is None:
        return None
    logits, labels, ids = found
    fits = logits.dtype == np.float32 and logits.ndim == 2 and len(logits) == len(labels)
    if not fits or labels.max() >= logits.shape[1] or not np.isfinite(logits).all():
        return None
    return Logits(logits, labels, ids)


def _arrays(path: Place, name: str) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]] | None:
    """What a safetensors file holds of its examples under a name, their labels and ids, these two checked."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        arrays = load(content)
        found, labels, ids = arrays[name], arrays["labels"], arrays["ids"]
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None
    if labels.ndim != 1 or labels.shape != ids.shape or labels.dtype != np.int64 or ids.dtype != np.int64:
        return None
    return (found, labels, ids) if len(labels) and labels.min() >= 0 else None
