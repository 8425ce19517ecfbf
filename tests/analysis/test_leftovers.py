"""What trials leave is read back as it was, without torch; what is damaged is nothing, and never an error."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from wsl_sweep.analysis.leftovers import Logits, SampleMasks, kept_logits, kept_masks, teacher_logits
from wsl_sweep.analysis.records import kept_outcomes
from wsl_sweep.errors import StorageError
from wsl_sweep.storage import DiskPlace, Place, place

TRIAL, TEACHER = "0123456789ab", "ba9876543210"
Arrays = dict[str, NDArray[Any]]


def logits_of(seed: int = 0, examples: int = 13, classes: int = 3) -> Arrays:
    generator = np.random.default_rng(seed)
    return {
        "logits": generator.normal(size=(examples, classes)).astype(np.float32),
        "labels": generator.integers(0, classes, examples),
        "ids": generator.permutation(40)[:examples],
    }


MASKS = [[0] * 5 + [1, 0, 0] + [0, 0, 1], [1] * 11]
"""Of two epochs and eleven examples; below the same by hand."""

BITS = [[0b00000100, 0b00100000], [0b11111111, 0b11100000]]


def masks_file(**changes: Any) -> Arrays:
    arrays = {"masks": np.array(BITS, dtype=np.uint8), "labels": np.arange(11) % 3, "ids": np.arange(11) + 5}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


@pytest.fixture(params=["disk", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(tmp_path / "s") if request.param == "disk" else place(f"memory://{uuid.uuid4().hex}") / "s"


@pytest.fixture
def on_disk(tmp_path: Path) -> Place:
    return place(tmp_path / "s")


def put(folder: Place, name: str, content: Arrays | bytes) -> None:
    content = content if isinstance(content, bytes) else save(content)
    (folder / "trials" / TRIAL / f"{name}.safetensors").write(content, lasting=False)


def put_teacher(folder: Place, arrays: Arrays, like: Arrays | None = None) -> None:
    """Under the name of the examples of ``like``, by default its own."""
    named = like or arrays
    digits = hashlib.sha256(named["ids"].tobytes() + named["labels"].tobytes()).hexdigest()[:8]
    (folder / "teacher_logits" / f"{TEACHER}-{digits}.safetensors").write(save(arrays))


def same(found: Logits | None, arrays: Arrays) -> bool:
    assert found is not None
    return all(np.array_equal(getattr(found, name), value) for name, value in arrays.items())


# --- as it was ----------------------------------------------------------------------------------------------------


def test_logits_come_back_by_part(folder: Place) -> None:
    validation, test = logits_of(1), logits_of(2, 7)
    put(folder, "validation_logits", validation)
    assert kept_logits(folder, TRIAL, "test") is None
    put(folder, "test_logits", test)
    assert same(kept_logits(folder, TRIAL), validation)
    assert same(kept_logits(folder, TRIAL, "test"), test)
    assert kept_logits(folder, "another") is None


def test_masks_come_back_by_epoch_and_example(folder: Place) -> None:
    assert kept_masks(folder, TRIAL) is None
    put(folder, "regularization_samples", masks_file())
    found = kept_masks(folder, TRIAL)
    assert isinstance(found, SampleMasks)
    assert found.masks.dtype == np.bool_
    assert found.masks.tolist() == [[bool(one) for one in epoch] for epoch in MASKS]
    assert found.labels.tolist() == [0, 1, 2] * 3 + [0, 1]
    assert found.ids.tolist() == list(range(5, 16))


def test_a_teachers_logits_are_those_of_exactly_the_same_examples(folder: Place) -> None:
    arrays = logits_of(3)
    like, other = Logits(**logits_of(4) | {name: arrays[name] for name in ("labels", "ids")}), Logits(**logits_of(5))
    assert teacher_logits(folder, TEACHER, like) is None
    put_teacher(folder, arrays)
    assert same(teacher_logits(folder, TEACHER, like), arrays)
    assert teacher_logits(folder, TRIAL, like) is None
    assert teacher_logits(folder, TEACHER, other) is None
    put_teacher(folder, logits_of(5))
    assert same(teacher_logits(folder, TEACHER, other), logits_of(5))
    assert same(teacher_logits(folder, TEACHER, like), arrays)


@pytest.mark.parametrize("what", ["ids", "labels", "order", "classes"])
def test_a_file_of_other_examples_under_the_name_of_these_is_none(what: str, on_disk: Place) -> None:
    arrays = logits_of(3)
    wrong = {name: value.copy() for name, value in arrays.items()}
    if what == "classes":
        wrong["logits"] = np.zeros((13, 4), dtype=np.float32)
    elif what == "order":
        wrong["ids"][:2] = wrong["ids"][1::-1]
    else:
        wrong[what][0] = (wrong[what][0] + 1) % 3 if what == "labels" else 99
    put_teacher(on_disk, wrong, like=arrays)
    assert teacher_logits(on_disk, TEACHER, Logits(**arrays)) is None


def test_no_torch_is_needed(on_disk: Place) -> None:
    arrays = logits_of()
    put(on_disk, "validation_logits", arrays)
    put(on_disk, "regularization_samples", masks_file())
    put_teacher(on_disk, arrays)
    program = (
        "import sys\n"
        "from wsl_sweep.analysis.leftovers import *\n"
        "from wsl_sweep.storage import place\n"
        f"folder = place({str(on_disk)!r})\n"
        f"logits, masks = kept_logits(folder, {TRIAL!r}), kept_masks(folder, {TRIAL!r})\n"
        f"print(logits is not None, masks is not None, teacher_logits(folder, {TEACHER!r}, logits) is not None)\n"
        "print(*{'torch', 'ray', 'mlflow'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True True True\n\n", "")


# --- damaged ------------------------------------------------------------------------------------------------------


def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any] | None]) -> Arrays:
    arrays: dict[str, Any] = logits_of()
    arrays[name] = change(arrays[name])
    return {name: value for name, value in arrays.items() if value is not None}


def with_value(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def put_in(array: NDArray[Any]) -> NDArray[Any]:
        array = array.copy()
        array.flat[4] = value
        return array

    return put_in


WRONG_LOGITS: dict[str, Arrays] = {
    "no logits": changed("logits", lambda array: None),
    "no labels": changed("labels", lambda array: None),
    "no ids": changed("ids", lambda array: None),
    "nan": changed("logits", with_value(np.nan)),
    "infinite": changed("logits", with_value(-np.inf)),
    "other floats": changed("logits", lambda array: array.astype(np.float64)),
    "flat": changed("logits", lambda array: array[:, 0]),
    "fewer": changed("logits", lambda array: array[:-1]),
    "no class": changed("logits", lambda array: array[:, :0]),
    "a class too few": changed("logits", lambda array: array[:, :2]),
    "a label below": changed("labels", with_value(-1)),
    "short labels": changed("labels", lambda array: array.astype(np.int32)),
    "labels that are no numbers": changed("labels", lambda array: array.astype(np.float32)),
    "fewer labels": changed("labels", lambda array: array[:-1]),
    "short ids": changed("ids", lambda array: array.astype(np.int32)),
    "fewer ids": changed("ids", lambda array: array[:-1]),
    "ids in two dimensions": changed("ids", lambda array: array[:, None]),
    "nobody": {name: value[:0] for name, value in logits_of().items()},
}


@pytest.mark.parametrize("wrong", WRONG_LOGITS)
def test_logits_that_are_not_whole_are_none(wrong: str, on_disk: Place) -> None:
    put(on_disk, "validation_logits", WRONG_LOGITS[wrong])
    put(on_disk, "test_logits", WRONG_LOGITS[wrong])
    assert kept_logits(on_disk, TRIAL) is None
    assert kept_outcomes(on_disk)(TRIAL) is None


WRONG_MASKS: dict[str, Arrays] = {
    "no masks": masks_file(masks=None),
    "no labels": masks_file(labels=None),
    "no ids": masks_file(ids=None),
    "of more examples": masks_file(masks=np.array([[0, 0b00010000]], dtype=np.uint8)),
    "too wide": masks_file(masks=np.zeros((2, 3), dtype=np.uint8)),
    "too narrow": masks_file(masks=np.zeros((2, 1), dtype=np.uint8)),
    "of no epoch": masks_file(masks=np.zeros((0, 2), dtype=np.uint8)),
    "of another kind": masks_file(masks=np.zeros((2, 2), dtype=np.int8)),
    "flat": masks_file(masks=np.zeros(2, dtype=np.uint8)),
    "not packed": masks_file(masks=np.zeros((2, 11), dtype=np.bool_)),
    "a label below": masks_file(labels=np.arange(11) - 1),
    "short labels": masks_file(labels=np.zeros(11, dtype=np.int32)),
    "other ids": masks_file(ids=np.arange(12)),
}


@pytest.mark.parametrize("wrong", WRONG_MASKS)
def test_masks_that_are_not_whole_are_none(wrong: str, on_disk: Place) -> None:
    put(on_disk, "regularization_samples", WRONG_MASKS[wrong])
    assert kept_masks(on_disk, TRIAL) is None


def test_bytes_that_are_torn_or_turned_are_none_or_whole(on_disk: Place) -> None:
    generator = np.random.default_rng(0)
    for name, content, read in (
        ("validation_logits", save(logits_of()), kept_logits),
        ("regularization_samples", save(masks_file()), kept_masks),
    ):
        for length in range(0, len(content), 7):
            put(on_disk, name, content[:length])
            assert read(on_disk, TRIAL) is None
        for _ in range(300):
            turned = bytearray(content)
            turned[int(generator.integers(len(content)))] ^= int(generator.integers(1, 256))
            put(on_disk, name, bytes(turned))
            read(on_disk, TRIAL)


def test_kinds_of_numbers_that_numpy_does_not_have_are_none(on_disk: Place) -> None:
    arrays = logits_of()
    brain = {"logits": {"dtype": "BF16", "shape": [13, 3], "data_offsets": [0, 78]}}
    for number, name in enumerate(("labels", "ids")):
        brain[name] = {"dtype": "I64", "shape": [13], "data_offsets": [78 + 104 * number, 182 + 104 * number]}
    header = json.dumps(brain).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(78) + arrays["labels"].tobytes()
    put(on_disk, "validation_logits", content + arrays["ids"].tobytes())
    assert safetensors.deserialize((on_disk / "trials" / TRIAL / "validation_logits.safetensors").read_bytes())
    assert kept_logits(on_disk, TRIAL) is None


def test_a_folder_in_the_place_of_a_file_is_none(on_disk: Place, tmp_path: Path) -> None:
    (tmp_path / "s" / "trials" / TRIAL / "validation_logits.safetensors").mkdir(parents=True)
    (tmp_path / "s" / "teacher_logits").write_bytes(b"")
    assert kept_logits(on_disk, TRIAL) is None
    assert teacher_logits(on_disk, TEACHER, Logits(**logits_of())) is None


# --- a storage that cannot be read --------------------------------------------------------------------------------


class Away(DiskPlace):
    """A disk or a store that does not answer."""

    error: Exception

    def __truediv__(self, name: str) -> DiskPlace:
        made = Away(self.path / name)
        made.error = self.error
        return made

    def read_bytes(self) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), "cannot read .*: Stale file handle"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot read .*: Permission denied"),
        (StorageError("no answer"), "no answer"),
    ],
)
def test_a_storage_that_is_gone_is_an_error(error: Exception, told: str, tmp_path: Path) -> None:
    folder = Away(tmp_path)
    folder.error = error
    for read in (
        lambda: kept_logits(folder, TRIAL),
        lambda: kept_masks(folder, TRIAL),
        lambda: teacher_logits(folder, TEACHER, Logits(**logits_of())),
    ):
        with pytest.raises(StorageError, match=told):
            read()
    assert kept_outcomes(folder)(TRIAL) is None  # which takes no verdict away
