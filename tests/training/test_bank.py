"""The logit bank: what is kept comes back bit for bit, under the name of all that it depends on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from wsl_sweep.data import TaskData, load
from wsl_sweep.distill import distillation_loss, label_cross_entropy, soft_label_weights
from wsl_sweep.errors import TrialError
from wsl_sweep.training import bank, device, fingerprint, records
from wsl_sweep.training.bank import (
    GIGABYTE,
    BankSettings,
    Layout,
    LogitBank,
    TeacherOutputs,
    bank_identity,
    list_banks,
    prune_banks,
)
from wsl_sweep.training.records import RecordFile, owned

from .conftest import make_job

STRANGE = [float("inf"), -float("inf"), float("nan"), -0.0, 0.0, 1e-45, -1e-40, 3.4028235e38, 1.0, -87.3]


def open_bank(
    identity: dict[str, Any],
    cells: int,
    classes: int,
    *,
    features: int = 0,
    precision: str = "float32",
    settings: BankSettings = BankSettings(),
    about: dict[str, Any] | None = None,
) -> LogitBank:
    layout = Layout(classes, features, precision)
    return LogitBank({**identity, "precision": precision}, cells, layout, settings=settings, about=about)


def bits(values: Tensor) -> list[int]:
    found: list[int] = values.contiguous().view(torch.int32).flatten().tolist()
    return found


# --- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [0, 7])
@pytest.mark.parametrize("classes", [2, 10, 101])
def test_in_float32_outputs_come_back_bit_for_bit(classes: int, features: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    strange = torch.tensor(STRANGE)

    def values(*shape: int) -> Tensor:
        return strange[torch.randint(len(strange), shape, generator=generator)]

    layout = Layout(classes, features)
    outputs = TeacherOutputs(values(40, classes), values(40), values(40, features) if features else None)
    rows = layout.encode(outputs)
    assert rows.shape == (40, layout.words)
    assert rows.dtype == torch.int32
    found = layout.decode(torch.from_numpy(rows.numpy().view(np.uint32).copy().view(np.int32)))
    assert found.cross_entropy is not None
    assert bits(found.logits) == bits(outputs.logits)
    assert bits(found.cross_entropy) == bits(values_of(outputs.cross_entropy))
    assert (found.features is None) == (features == 0)
    if features:
        assert bits(values_of(found.features)) == bits(values_of(outputs.features))


def values_of(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def test_features_are_float32_beside_logits_in_float16() -> None:
    layout, features = Layout(3, 4, "float16"), torch.tensor([STRANGE[:4], STRANGE[4:8]])
    outputs = TeacherOutputs(torch.zeros(2, 3), torch.tensor([1.1, 1e-30]), features)
    found = layout.decode(layout.encode(outputs))
    assert bits(values_of(found.features)) == bits(features)
    assert bits(values_of(found.cross_entropy)) == bits(values_of(outputs.cross_entropy))


def test_float16_takes_half_the_room() -> None:
    assert [Layout(classes, 0, "float16").words for classes in (2, 3, 10, 101)] == [3, 4, 7, 53]
    assert Layout(100).words == 102


class Case(NamedTuple):
    """A batch of a student and its teacher."""

    student: Tensor
    teacher: Tensor
    kept: TeacherOutputs
    labels: Tensor


def realistic(classes: int, scale: float, count: int = 256) -> Case:
    """A teacher of logits as spread as ``scale``, mostly right, and a student that half agrees with it."""
    generator = torch.Generator().manual_seed(round(scale * 100) + classes)
    labels = torch.randint(classes, (count,), generator=generator)
    own = torch.nn.functional.one_hot(labels, classes) * scale * torch.rand(count, 1, generator=generator) * 3
    teacher = torch.randn(count, classes, generator=generator) * scale + own
    student = 0.5 * teacher + torch.randn(count, classes, generator=generator) * scale * 0.5
    layout = Layout(classes, 0, "float16")
    kept = layout.decode(layout.encode(TeacherOutputs(teacher, label_cross_entropy(teacher, labels))))
    return Case(student, teacher, kept, labels)


@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("classes", [2, 10, 100, 101])
def test_in_float16_losses_and_weights_are_nearly_those_of_the_exact_logits(classes: int, scale: float) -> None:
    """5e-3 for an example; for a batch's mean 1e-4 of the loss (or of one nat) and 1e-4 of the weight."""
    case = realistic(classes, scale)
    for temperature in (1.0, 2.0, 4.0, 8.0):
        exact = distillation_loss(case.student, case.teacher, temperature)
        found = distillation_loss(case.student, case.kept.logits, temperature)
        error = (found - exact) / exact.abs().clamp(min=1.0)
        assert error.abs().max() < 5e-3, temperature
        assert (found.mean() - exact.mean()).abs() / exact.mean().clamp(min=1.0) < 1e-4, temperature
    exact = soft_label_weights(case.student, case.teacher, case.labels)
    found = soft_label_weights(
        case.student, case.kept.logits, case.labels, teacher_cross_entropy=case.kept.cross_entropy
    )
    assert torch.equal(found, exact)  # the cross-entropy is kept as it was


def test_in_float16_the_largest_logit_is_exact_and_far_ones_stay_finite() -> None:
    logits = torch.tensor([[1234.567, 1234.5, -3e38], [-0.1, 7e4, 0.0]])
    layout = Layout(3, 0, "float16")
    found = layout.decode(layout.encode(TeacherOutputs(logits, torch.zeros(2)))).logits
    assert torch.equal(found.amax(dim=1), logits.amax(dim=1))
    assert found.isfinite().all()
    assert torch.equal(found.argsort(dim=1), logits.argsort(dim=1))


def test_a_part_of_outputs_is_theirs() -> None:
    outputs = TeacherOutputs(torch.arange(12.0).view(6, 2), torch.arange(6.0), None)
    part = outputs.part(2, 4)
    assert part.logits.tolist() == [[4, 5], [6, 7]]
    assert values_of(part.cross_entropy).tolist() == [2, 3]
    assert part.features is None


# --- names -----------------------------------------------------------------------------------------

TEACHER = {"model": "convnet_3", "weights": "0" * 64, "own_code": None}


def digits(*sets: str) -> TaskData:
    return load(make_job(*sets).config["dataset"])


def identity(data: TaskData | None = None, **changes: Any) -> dict[str, Any]:
    arguments = {"label_noise": 0.0, "teacher": TEACHER, "device": "cpu", "threads": 1, "batch": 64} | changes
    return bank_identity(data or digits(), **arguments)


def key(named: dict[str, Any]) -> str:
    made = LogitBank(named, 10, Layout(3, 0, named["precision"]))
    made.close()
    return made.key


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": {**TEACHER, "weights": "1" * 64}},
        {"teacher": {**TEACHER, "model": "convnet_4"}},
        {"teacher": {**TEACHER, "own_code": "abc"}},
        {"label_noise": 0.1},
        {"threads": 2},
        {"batch": 128},
    ],
)
def test_what_bits_depend_on_makes_another_bank(changes: dict[str, Any]) -> None:
    assert key(identity(**changes)) != key(identity())


@pytest.mark.parametrize(
    "setting",
    ["dataset.padding=2", "dataset.padding_mode=reflect", "dataset.flip=true", "dataset.padding=0"],
)
def test_other_views_make_another_bank(setting: str) -> None:
    assert key(identity(digits(setting))) != key(identity())


def test_other_pictures_make_another_bank_and_other_parts_of_them_do_not() -> None:
    data = digits()
    assert key(identity(replace(data, source="other"))) != key(identity(data))
    for setting in ("dataset.train_fraction=0.9", "dataset.views=2", "dataset.validation_fraction=0.15"):
        assert digits(setting) is not data
        assert key(identity(digits(setting))) == key(identity(data)), setting


def test_another_precision_torch_code_or_device_makes_another_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key(identity()), key(identity(precision="float16"))]
    for place, name, value in (
        (torch, "__version__", "99.0"),
        (bank, "teacher_code_digest", lambda: "other"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS"),
        (bank, "FORMAT", -1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            keys.append(key(identity()))
    with monkeypatch.context() as patch:
        for card in ("one", "another"):
            patch.setattr(torch.cuda, "get_device_name", lambda card=card: card)
            keys.append(key(identity(device="cuda")))
    assert len(set(keys)) == len(keys) == 8


def test_another_processor_or_other_kernels_make_another_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in device.DECIDES_KERNELS:
        monkeypatch.delenv(variable, raising=False)
    keys = [key(identity())]
    with monkeypatch.context() as patch:
        patch.setattr(device, "_processor", lambda: "Abacus 9000")
        keys.append(key(identity()))
    for variable in device.DECIDES_KERNELS:
        for value in ("one", "another"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, value)
                keys.append(key(identity()))
    assert len(set(keys)) == len(keys) == 10
    assert key(identity()) == keys[0]


def test_another_version_of_a_teachers_library_makes_another_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"convnet_3": set[str](), "users_module:net": set[str](), "torchvision:resnet18": set[str]()}
    for number in ("0.1", "0.2"):
        monkeypatch.setattr(fingerprint, "version", lambda name, number=number: f"{number} of {name}")
        for model, keys in ours.items():
            keys.add(key(identity(teacher={**TEACHER, "model": model})))
    assert {model: len(keys) for model, keys in ours.items()} == {
        "convnet_3": 1,
        "users_module:net": 1,
        "torchvision:resnet18": 2,
    }
    assert identity(teacher={**TEACHER, "model": "torchvision:resnet18"})["library"] == "torchvision 0.2 of torchvision"


def test_the_code_of_a_bank_is_that_of_all_that_makes_a_teachers_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    own = set(fingerprint.TEACHER_CODE)
    assert {"models", "data", "distill/losses.py", "training/supply.py", "training/teachers.py"} <= own
    assert all((Path(fingerprint.__file__).parent.parent / place).exists() for place in own)
    before = fingerprint._digest_of(fingerprint.TEACHER_CODE)
    for place in fingerprint.TEACHER_CODE:
        rest = [other for other in fingerprint.TEACHER_CODE if other != place]
        assert fingerprint._digest_of(rest) != before


def test_where_things_lie_and_what_they_are_called_makes_no_other_bank() -> None:
    named = identity()
    one = LogitBank(named, 10, Layout(3), about={"dataset": "digits"})
    other = LogitBank(named, 10, Layout(3), about={"dataset": "mine"}, settings=BankSettings(limit_gb=1.0))
    assert one.folder == other.folder
    assert "digits" not in json.dumps(named)
    one.close()
    other.close()


# --- banks -----------------------------------------------------------------------------------------

Open = Callable[..., LogitBank]


@pytest.fixture
def open_one() -> Iterator[Open]:
    """Opens small banks by a letter; closed at the end."""
    opened: list[LogitBank] = []

    def make(letter: str = "a", cells: int = 10, classes: int = 3, **options: Any) -> LogitBank:
        opened.append(open_bank({"letter": letter}, cells, classes, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.records._closing.close()


def fill(one: LogitBank, *cells: int) -> None:
    numbers = np.array(cells, dtype=np.int64)
    mine = one.records.claim(numbers, len(numbers))
    assert one.records.put(mine, np.tile(mine[:, None].astype(np.uint32), one.layout.words))


def there(one: LogitBank, *cells: int) -> list[bool]:
    return [bool(found) for found in one.records.find(np.array(cells, dtype=np.int64))[1]]


def test_two_banks_do_not_mix(open_one: Open) -> None:
    one, other = open_one("a"), open_one("b")
    fill(one, 1, 2)
    fill(other, 3)
    assert there(one, 1, 2, 3) == [True, True, False]
    assert there(other, 1, 2, 3) == [False, False, True]
    assert there(open_one("a"), 1, 2, 3) == [True, True, False]


def test_a_bank_with_features_serves_those_who_read_none(open_one: Open) -> None:
    plain = open_one()
    assert plain.layout.features == 0
    wide = open_one(features=4)
    assert wide.key == plain.key + "-features"
    later = open_one()
    assert (later.key, later.layout.features) == (wide.key, 4)
    assert open_one("b").layout.features == 0
    assert open_one(precision="float16").layout.features == 0


def test_the_limit_is_of_all_banks_together(open_one: Open) -> None:
    one = open_one("a", cells=1000)
    row = 4 * (one.layout.words + 2)
    fill(one, *range(1000))
    taken = sum(path.stat().st_blocks * 512 for path in one.folder.iterdir())
    for more in (0, 1000):
        limit = BankSettings(limit_gb=(taken + 4 * 1000 + more * row + 1) / GIGABYTE)
        other = open_one(f"{more} more", cells=1000, settings=limit)
        fits = other.records.put(other.records.claim(np.arange(1), 1), np.zeros((1, other.layout.words), np.uint32))
        assert fits == (more > 0)
        assert other.records.full == (more == 0)
    assert "bank.limit_gb" in other.why_full()


def test_a_disk_keeps_some_room_for_others(open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(bank.FREE_BYTES + 4 * 10 + 1))
    one = open_one()
    assert not one.records.put(one.records.claim(np.arange(1), 1), np.zeros((1, 5), np.uint32))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(bank.FREE_BYTES - 10**6))
    with pytest.raises(TrialError, match="GB of the disk stay free"):
        open_one("b")


def test_a_limit_below_the_index_alone_is_told() -> None:
    with pytest.raises(TrialError, match=r"its index of 1,000 views alone.*bank.limit_gb is 3e-06"):
        open_bank({"letter": "a"}, 1000, 3, settings=BankSettings(limit_gb=3e-6))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSL_SWEEP_BANK", str(tmp_path / "file"))
    with pytest.raises(TrialError, match="file"):
        open_bank({"letter": "a"}, 10, 3)


def test_too_many_cells_are_told() -> None:
    with pytest.raises(TrialError, match="2147483647"):
        open_bank({"letter": "a"}, 2**31, 3)


def test_a_disk_without_room_for_the_index_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TrialError, match="No space left"):
        open_bank({"letter": "a"}, 10, 3)


def test_a_bank_that_is_pruned_while_it_is_opened_is_opened_again(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False])
    real = records._is
    monkeypatch.setattr(records, "_is", lambda *of: next(answers, None) is None and real(*of))
    one = open_one()
    fill(one, 1)
    assert there(one, 1, 2) == [True, False]
    assert next(answers, "asked") == "asked"


def test_a_bank_that_is_pruned_again_and_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_is", lambda *_: False)
    with pytest.raises(TrialError, match="deleted just now"):
        open_bank({"letter": "a"}, 10, 3)


def test_a_bank_whose_card_cannot_be_written_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise TrialError("cannot write card.json: No space left on device")

    monkeypatch.setattr(bank, "write_json", fail)
    with pytest.raises(TrialError, match="No space left"):
        open_bank({"letter": "a"}, 10, 3)
    (folder,) = bank.bank_folder().iterdir()
    assert not owned(folder)


# --- what there is, and what goes ------------------------------------------------------------------


def test_banks_are_listed_the_one_used_last_first(open_one: Open) -> None:
    for letter, age in (("a", 30), ("b", 10), ("c", 20)):
        one = open_one(letter, about={"model": letter})
        fill(one, 1, 2)
        one.records.count(found=3, computed=1)
        if letter != "b":
            one.close()
        os.utime(one.folder / "card.json", (time.time() - age,) * 2)
    found = list_banks()
    assert [entry.about["model"] for entry in found] == ["b", "c", "a"]
    assert [entry.in_use for entry in found] == [True, False, False]
    plain = found[0].to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["rows"], plain["cells"], plain["hit_rate"], plain["model"]) == (2, 10, 0.75, "b")
    assert found[0].identity["letter"] == "b"


def test_before_anybody_has_asked_there_is_no_hit_rate(open_one: Open) -> None:
    open_one()
    assert list_banks()[0].hit_rate is None


def test_without_a_folder_there_is_no_bank() -> None:
    assert list_banks() == []
    assert prune_banks() == (0, 0, [])


@pytest.mark.parametrize("damage", ["{", "[]", '{"cells": 10}', '{"cells": 9, "about": {}, "identity": {}}'])
def test_a_bank_with_a_damaged_card_is_listed_as_such_and_repaired_by_who_opens_it(damage: str, open_one: Open) -> None:
    open_one("a")
    (open_one("b").folder / "card.json").write_text(damage)
    listed = [entry.about.get("model", entry.identity.get("letter", "")) for entry in list_banks()]
    assert sorted(listed) == ["a", "damaged"]
    open_one("b")
    assert sorted(entry.identity["letter"] for entry in list_banks()) == ["a", "b"]


def test_opening_a_bank_is_using_it(open_one: Open) -> None:
    one = open_one()
    os.utime(one.folder / "card.json", (0, 0))
    open_one()
    assert time.time() - list_banks()[0].last_used < 60


def closed(open_one: Open, *letters: str) -> list[LogitBank]:
    made = [open_one(letter) for letter in letters]
    for one in made:
        fill(one, 1)
        one.close()
    return made


def test_what_is_in_use_is_left(open_one: Open) -> None:
    (idle,) = closed(open_one, "a")
    used = open_one("b")
    size = RecordFile.peek(idle.folder, 10).bytes
    assert prune_banks() == (1, size, [used.key])
    fill(used, 4)
    assert there(used, 4) == [True]
    assert [entry.key for entry in list_banks()] == [used.key]


def test_only_what_was_long_unused_goes_where_that_is_asked(open_one: Open) -> None:
    old, new = closed(open_one, "a", "b")
    os.utime(old.folder / "card.json", (time.time() - 3 * 86400,) * 2)
    assert prune_banks(unused_days=4)[0] == 0
    assert prune_banks(unused_days=2)[0] == 1
    assert not old.folder.exists()
    assert new.folder.exists()


def test_banks_are_named_by_how_their_keys_begin(open_one: Open) -> None:
    one, other = closed(open_one, "a", "b")
    assert one.key[:6] != other.key[:6]
    assert prune_banks(keys={"no such"}) == (0, 0, [])
    assert prune_banks(keys={one.key[:6]})[0] == 1
    assert not one.folder.exists()
    assert prune_banks(keys=set())[0] == 0
    assert other.folder.exists()


@pytest.mark.parametrize("damage", ["card", "index"])
def test_a_damaged_bank_does_not_take_room_for_ever(damage: str, open_one: Open) -> None:
    """It is repaired when it is opened next, or goes with the others."""
    (one,) = closed(open_one, "a")
    if damage == "card":
        (one.folder / "card.json").write_text("{")
    else:
        os.truncate(one.folder / "index", 100)
    with contextlib.suppress(TrialError):
        open_bank({"letter": "a"}, 10, 3).close()
    prune_banks()
    assert not one.folder.exists()
