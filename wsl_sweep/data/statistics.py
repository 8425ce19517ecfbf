"""Mean and standard deviation of a data set's pictures, computed once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json

import torch
from torch import Tensor

from wsl_sweep.data.raw import RawData
from wsl_sweep.errors import TrialError
from wsl_sweep.files import write_json
from wsl_sweep.paths import cache_folder


def mean_and_std(raw: RawData, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) mean and standard deviation of ``rows`` of the pictures, in [0, 1].

    From counts of each value of a byte, so exact but for one rounding. Kept in the user's cache by the pictures' hash
    and the rows. A channel that is constant has a standard deviation of 1.
    """
    key = hashlib.sha256(raw.digest.encode() + rows.numpy().tobytes()).hexdigest()[:16]
    path = cache_folder() / "data" / f"statistics-{key}.json"
    try:
        kept = json.loads(path.read_text())
        return torch.tensor(kept["mean"], dtype=torch.float32), torch.tensor(kept["std"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    values = torch.arange(256, dtype=torch.float64) / raw.scale
    means, stds = [], []
    for channel in range(raw.images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for part in torch.split(rows, 4096):
            counts += torch.bincount(raw.images[part, channel].flatten(), minlength=256)
        share = counts / counts.sum()
        mean = (share * values).sum()
        variance = (share * (values - mean).square()).sum()
        means.append(float(mean))
        stds.append(float(variance.sqrt()) or 1.0)
    with contextlib.suppress(TrialError):  # it is computed again next time
        write_json(path, {"mean": means, "std": stds})
    return torch.tensor(means, dtype=torch.float32), torch.tensor(stds, dtype=torch.float32)
