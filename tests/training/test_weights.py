"""What is written is whole; what is loaded is checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.files import write_json, write_whole
from wsl_sweep.models import build
from wsl_sweep.training.weights import (
    build_with_seed,
    load_into,
    load_tensors,
    save_tensors,
)


def fails_with(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# --- writing ---------------------------------------------------------------------------------------


def test_a_file_holds_what_was_written_and_its_folder_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_whole(path, b"one")
    write_whole(path, b"another")
    assert path.read_bytes() == b"another"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_the_old_file_or_none_and_says_so(
    step: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    if there:
        path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fails_with(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(TrialError, match=r"cannot write .*file\.bin: No space left on device"):
        write_whole(path, b"new" * 1000)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == (["file.bin"] if there else [])
    assert not there or path.read_bytes() == b"old"


def test_an_interruption_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fails_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_bytes_are_on_disk_before_they_have_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (order.append(name), real(*args))[1])
    write_whole(tmp_path / "file.bin", b"content")
    assert order[:2] == ["fsync", "replace"]


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrialError, match="cannot write"):
        write_whole(tmp_path / "file" / "inner.bin", b"content")


def test_a_folder_in_the_way_of_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inner").mkdir(parents=True)
    with pytest.raises(TrialError, match="cannot write"):
        write_whole(tmp_path / "taken", b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"name": "α", "list": [1, 2.5, None, True], "inner": {"x": 1e-300}}
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text()) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_not_written(number: float, tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": number})
    assert json.loads(path.read_text()) == {"loss": 1.0}


# --- tensors ---------------------------------------------------------------------------------------


def test_tensors_come_back_bit_for_bit_with_the_hash_of_their_file(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    tensors = {
        "transposed": torch.randn(3, 5).T,
        "learned": torch.randn(4, requires_grad=True),
        "tiny": torch.tensor([1e-40, -0.0, float("inf")]),
        "labels": torch.arange(4),
        "scalar": torch.tensor(3),
    }
    digest = save_tensors(path, tensors)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    found = load_tensors(path)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name
    assert set(load_file(path)) == set(tensors)  # any reader of the format will do


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"\x80\x04pickle"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(WslSweepError, match=r"weights\.safetensors: not a readable safetensors file"):
        load_tensors(path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WslSweepError, match="not a readable safetensors file"):
        load_tensors(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match=r"weights\.safetensors: no such file"):
        load_tensors(tmp_path / "weights.safetensors")


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(WslSweepError):
        load_tensors(tmp_path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    """Nothing unpickles a file that a user was handed."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "weights.safetensors"
    torch.save({"model": Trap()}, path)
    with pytest.raises(WslSweepError, match="not a readable safetensors file"):
        load_into(nn.Linear(2, 2), path, "linear")
    assert not (tmp_path / "sprung").exists()


# --- weights into a model --------------------------------------------------------------------------


def test_a_model_is_its_saved_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    saved, fresh = build("convnet_2", 10, 1), build("convnet_2", 10, 1)
    saved(torch.rand(8, 1, 8, 8))  # moves the running statistics
    save_tensors(path, saved.state_dict())
    load_into(fresh, path, "convnet_2")
    for name, tensor in saved.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_what_is_missing_too_much_or_of_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    tensors = dict(build("convnet_2", 10, 1).state_dict())
    tensors["module.extra"] = torch.zeros(1)
    del tensors["classifier.bias"]
    tensors["classifier.weight"] = torch.zeros(5, 8)
    save_tensors(path, tensors)
    with pytest.raises(WslSweepError) as caught:
        load_into(build("convnet_2", 10, 1), path, "convnet_2")
    message = str(caught.value)
    assert str(path) in message
    assert "missing: classifier.bias" in message
    assert "not in convnet_2: module.extra" in message
    assert "classifier.weight is (5, 8), convnet_2 has (10, 8)" in message


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"x": torch.zeros(1)})
    model = build("convnet_2", 10, 1)
    with pytest.raises(WslSweepError, match=f"and {len(model.state_dict()) + 1 - 5} more$"):
        load_into(model, path, "convnet_2")


def test_weights_that_do_not_fit_leave_the_model_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, build("convnet_3", 10, 1).state_dict())
    model = build("convnet_2", 10, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WslSweepError, match="does not hold the weights of convnet_2"):
        load_into(model, path, "convnet_2")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# --- initialisation --------------------------------------------------------------------------------


def test_building_with_a_seed_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    one = build_with_seed(lambda: nn.Linear(3, 3), 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(55)
    again, other = (build_with_seed(lambda: nn.Linear(3, 3), seed) for seed in (1, 2))
    assert torch.equal(one.weight, again.weight)  # type: ignore[arg-type]
    assert not torch.equal(one.weight, other.weight)  # type: ignore[arg-type]
