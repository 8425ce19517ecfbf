"""Who was a regularization sample in which epoch: told by the example, whatever order the epochs had, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor

from wsl_sweep.distill import Objective, Step, StepTerms
from wsl_sweep.storage import place
from wsl_sweep.training import TeacherStore, TrialTraining
from wsl_sweep.training.attempts import Attempts
from wsl_sweep.training.files import check_packed, packed, unpacked
from wsl_sweep.training.loop import train_epochs
from wsl_sweep.training.samples import RegularizationSamples

from .conftest import make_job
from .test_loop import SGD, Teacher, data, linear, plain_loss, schedule
from .test_resuming import STEPS, chain, run, small

FILE = "regularization_samples.safetensors"


# --- one epoch -----------------------------------------------------------------------------------------------------


def test_an_epochs_masks_are_put_where_its_examples_are() -> None:
    samples = RegularizationSamples()
    samples.steps = [torch.tensor([True, False, True, False]), torch.tensor([False, True])]
    samples.end_epoch(torch.tensor([9, 3, 0, 8, 1, 6, 2, 4, 7, 5]))  # which shows six examples of ten
    assert [one.tolist() for one in samples.epochs] == [[0b10000010, 0b01000000]]  # 0, 6 and 9
    assert samples.epochs[0].dtype == torch.uint8
    assert samples.steps == []


def test_an_epoch_without_masks_leaves_none() -> None:
    samples = RegularizationSamples()
    samples.end_epoch(torch.arange(10))
    assert samples.epochs == []
    samples.steps = [torch.ones(4, dtype=torch.bool)]
    samples.begin_epoch()
    samples.end_epoch(torch.arange(10))
    assert samples.epochs == []


@pytest.mark.parametrize("examples", [1, 7, 8, 9, 16, 23])
def test_bits_come_back_as_the_masks_that_they_were(examples: int) -> None:
    masks = np.random.default_rng(examples).random((3, examples)) < 0.4
    bits = packed(masks)
    assert bits.shape == (3, (examples + 7) // 8)
    assert np.array_equal(unpacked(bits, examples), masks)
    assert unpacked(bits, examples).dtype == np.bool_


def test_bits_of_another_number_of_examples_are_refused() -> None:
    bits = packed(np.ones((2, 12), dtype=np.bool_))
    check_packed(bits, 12)
    check_packed(bits, 13)  # the last of them is none
    for wrong, examples in [(bits, 11), (bits, 8), (bits, 17), (bits[0], 12), (bits[:0], 12), (bits.astype(int), 12)]:
        with pytest.raises(ValueError, match="masks of"):
            check_packed(wrong, examples)


# --- a training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [11, 9])
def test_masks_are_by_example_and_epoch(train: int) -> None:
    """The loss names its samples by the rows that the teacher's logits are; of nine examples one is left out."""
    on, samples, shown = data(train=train), RegularizationSamples(), list[Tensor]()

    def step_loss(step: Step) -> StepTerms:
        assert step.teacher_logits is not None
        rows = step.teacher_logits[:, 0].long()
        shown.append(rows)
        made = plain_loss(step.logits, None, step.labels, None, None)
        return StepTerms(made.loss, made.cross_entropy, None, (rows + step.epoch) % 3 > 0)

    arguments: dict[str, Any] = {"optimizer": SGD, "schedule": schedule(epochs=3), "seed": 4, "teacher": Teacher(on)}
    list(train_epochs(linear(), on, step_loss, samples=samples, **arguments))
    found = unpacked(torch.stack(samples.epochs).numpy(), train)
    assert found.shape == (3, train)
    steps = len(shown) // 3
    for epoch in range(3):
        rows = torch.cat(shown[epoch * steps : (epoch + 1) * steps]).tolist()
        assert len(set(rows)) == len(rows) == (11 if train == 11 else 8)
        assert [bool(one) for one in found[epoch]] == [
            row in rows and (row + epoch + 1) % 3 > 0 for row in range(train)
        ]


def test_a_loss_without_samples_leaves_none() -> None:
    samples = RegularizationSamples()

    def step_loss(step: Step) -> StepTerms:
        return plain_loss(step.logits, None, step.labels, None, None)

    list(train_epochs(linear(), data(), step_loss, optimizer=SGD, schedule=schedule(), seed=0, samples=samples))
    assert samples.epochs == samples.steps == []


def by_definition(step: Step, temperature: float) -> NDArray[np.bool_]:
    """|b| > |a| with a = ∂L_ce/∂z[y] and b = ∂(L_kd - L_ce)/∂z[y] (WSL §3.2)."""

    def of_label(logits: Tensor, divided_by: float) -> NDArray[np.float64]:
        scaled = logits.detach().double().numpy() / divided_by
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = raised[np.arange(len(raised)), step.labels.numpy()] / raised.sum(axis=1)
        return probabilities

    assert step.teacher_logits is not None
    a = of_label(step.logits, 1.0) - 1
    b = temperature * (of_label(step.logits, temperature) - of_label(step.teacher_logits, temperature)) - a
    return np.abs(b) > np.abs(a)


def test_a_trial_leaves_who_were_its_regularization_samples(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each picture that the student sees is told by its content, and asked by the definition itself."""
    job = small("dataset.label_noise=0.3", "dataset.padding=0", "distillation.keep.regularization=0.0")
    steps, pictures = list[Step](), list[Tensor]()
    taken = Objective.step

    def step(self: Objective, one: Step) -> StepTerms:
        steps.append(one)
        return taken(self, one)

    monkeypatch.setattr(Objective, "step", step)
    with TrialTraining(job, store) as training:
        training.student.register_forward_pre_hook(
            lambda module, inputs: pictures.append(inputs[0].clone()) if module.training else None
        )
        rows = list(training)
        training.save(tmp_path)
    train = training.data.train
    of_picture = {picture.numpy().tobytes(): row for row, picture in enumerate(train.views.plain(torch.arange(402)))}
    assert len(of_picture) == 402
    wanted = np.zeros((2, 402), dtype=np.bool_)
    for number, (one, shown) in enumerate(zip(steps, pictures, strict=True)):
        seen = [of_picture[picture.numpy().tobytes()] for picture in shown]
        wanted[number // STEPS, seen] = by_definition(one, job.config["distillation"]["temperature"])

    kept = load_file(tmp_path / FILE)
    assert {name: (value.dtype, value.shape) for name, value in kept.items()} == {
        "masks": (np.uint8, (2, 51)),
        "labels": (np.int64, (402,)),
        "ids": (np.int64, (402,)),
    }
    assert np.array_equal(unpacked(kept["masks"], 402), wanted)
    assert 0 < wanted.sum() < wanted.size
    assert [row["regularization_samples/fraction"] for row in rows] == pytest.approx(wanted.mean(axis=1).tolist())
    assert np.array_equal(kept["ids"], train.ids.numpy())
    assert np.array_equal(kept["labels"], train.labels.numpy())
    assert (kept["labels"] != training.data.validation.task.labels[kept["ids"]].numpy()).mean() > 0.1  # type: ignore[union-attr]


@pytest.mark.parametrize("sets", [(), ("distillation.method=rkd", "distillation.kd_weight=0.0")], ids=["none", "rkd"])
def test_where_the_loss_does_not_tell_them_there_is_no_file(
    sets: tuple[str, ...], store: TeacherStore, tmp_path: Path
) -> None:
    with TrialTraining(make_job("schedule.epochs=1", *sets, teacher=bool(sets)), store) as training:
        (row,) = training
        training.save(tmp_path)
    assert "regularization_samples/fraction" not in row
    assert not (tmp_path / FILE).exists()
    assert (tmp_path / "student.safetensors").exists()


# --- killed, and gone on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, STEPS, STEPS + 1])
def test_ended_anywhere_and_resumed_it_leaves_the_same_bytes(steps: int, store: TeacherStore, tmp_path: Path) -> None:
    job = small()
    with TrialTraining(job, store) as undisturbed:
        list(undisturbed)
    undisturbed.save(tmp_path / "undisturbed")
    last = chain(job, store, place(tmp_path / "trial"), steps)
    last.save(tmp_path / "last")
    assert (tmp_path / "last" / FILE).read_bytes() == (tmp_path / "undisturbed" / FILE).read_bytes()


def test_a_trial_that_was_finished_before_has_them_before_anything_is_asked(
    store: TeacherStore, tmp_path: Path
) -> None:
    first = run(small(), store, place(tmp_path / "trial"), 1)
    second = TrialTraining(small(), store, attempts=Attempts(place(tmp_path / "trial")), attempt=2)
    assert second.resumed == (1, 2, 0)
    for training, folder in ((first, tmp_path / "first"), (second, tmp_path / "second")):
        training.save(folder)
    assert (tmp_path / "first" / FILE).read_bytes() == (tmp_path / "second" / FILE).read_bytes()
