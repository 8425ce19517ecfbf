"""What soft label weights do to single examples: a student of a sweep and its teacher, example by example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from wsl_sweep.app.results import best_student
from wsl_sweep.app.students import SweepOnDisk, choose_trial, data_of, read_sweep, student_of
from wsl_sweep.errors import WslSweepError

if TYPE_CHECKING:
    from torch import Tensor

    from wsl_sweep.data import Examples
    from wsl_sweep.data.dataset import Part

SHOWN = 1000
"""Examples of a part that is streamed."""


@dataclass(frozen=True)
class SoftLabels:
    """Examples as a finished student and its teacher see them, without augmentation. N examples, C classes.

    Attributes:
        trial_id: the student's.
        temperature: τ of its training, at which regularization samples are told.
        pictures: (N, channels, H, W) float32, each scaled to [0, 1] for showing; None where examples are none: of text,
            and of a user's own task whose inputs are not (N, channels, H, W) with 1 or 3 channels.
        labels: (N,) int64, as the student was trained on them.
        ids: (N,) int64, each example's number in the whole data set.
        student_logits: (N, C) float32.
        teacher_logits: (N, C) float32.
        weights: (N,) ``w = 1 - exp(-L_ce(student) / L_ce(teacher))`` (WSL eq. 6), whatever the trial weighted by.
        regularization: (N,) bool, whether an example is a regularization sample (WSL §3.2).
    """

    trial_id: str
    temperature: float
    pictures: Tensor | None
    labels: Tensor
    ids: Tensor
    student_logits: Tensor
    teacher_logits: Tensor
    weights: Tensor
    regularization: Tensor


def soft_labels(
    name: str, trial: str | None = None, *, part: Literal["train", "validation"] = "train", storage: str | None = None
) -> SoftLabels:
    """The soft labels of a trial, at the end of its training.

    Args:
        name: of the sweep.
        trial: id of a trial with a teacher whose student was kept, or how it begins; by default the best student
            that has one.
        part: of the data; where they do not lie in memory, SHOWN examples from all over it.
        storage: folder of sweeps.

    Raises:
        WslSweepError: there is no such sweep, trial, student or teacher.
    """
    from wsl_sweep.distill import regularization_sample_mask, soft_label_weights
    from wsl_sweep.models import build
    from wsl_sweep.training import FrozenTeacher, Job, TeacherStore, train_teacher
    from wsl_sweep.training.loop import predict
    from wsl_sweep.training.trial import teacher_weights

    sweep = read_sweep(name, storage)
    one = choose_trial(sweep, trial if trial is not None else _best_distilled(sweep))
    known = one.trial
    job = Job(dict(known.config), cast("Part", known.part), known.threads, processes=known.processes)
    if job.teacher() is None or job.config["distillation"]["method"] == "none":
        raise WslSweepError(f"{known.trial_id} has no teacher; name a trial of a distillation")
    data = data_of(one)
    examples = _few(data.train if part == "train" else data.validation, known.config["dataset"])
    student, _ = student_of(sweep, one, data)
    store, config = TeacherStore(), job.config["teacher"]
    train_teacher(job, store)
    weights = teacher_weights(job, store)
    model = build(config["model"], data.num_classes, data.in_channels)
    teacher = FrozenTeacher.load(model, weights, config["model"], examples)
    student_logits, teacher_logits = predict(student, examples), teacher.validation_logits()
    temperature = float(job.config["distillation"].get("temperature", 1.0))
    return SoftLabels(
        trial_id=known.trial_id,
        temperature=temperature,
        pictures=_shown(examples),
        labels=examples.labels,
        ids=examples.ids,
        student_logits=student_logits,
        teacher_logits=teacher_logits,
        weights=soft_label_weights(student_logits, teacher_logits, examples.labels),
        regularization=regularization_sample_mask(student_logits, teacher_logits, examples.labels, temperature),
    )


def _few(examples: Examples, dataset: Mapping[str, Any]) -> Examples:
    """The examples, or SHOWN of those that do not lie in memory."""
    import torch

    if not examples.views.streamed or len(examples) <= SHOWN or examples.task is None:
        return examples
    rows = torch.linspace(0, len(examples) - 1, SHOWN).long()
    inputs = examples.task.inputs(dataset, examples.ids[rows], "cpu", training=False)
    return replace(examples, views=inputs, labels=examples.labels[rows], ids=examples.ids[rows], groups={})


def _best_distilled(sweep: SweepOnDisk) -> str:
    best = best_student(sweep.summary, distilled=True)
    if best is None:
        raise WslSweepError(
            f"no trial of {sweep.name} that has a teacher is among its best; name one: wsl-sweep status {sweep.name}"
        )
    return str(best["trial_id"])


def _shown(examples: Examples) -> Tensor | None:
    """The plain pictures, (N, channels, H, W), each stretched to [0, 1]; None where they are none."""
    import torch

    one = examples.views.plain(torch.zeros(1, dtype=torch.int64))
    if one.ndim != 4 or one.shape[1] not in (1, 3) or not one.is_floating_point():
        return None
    pictures = examples.views.plain(torch.arange(len(examples)))
    low, high = (bound(pictures.flatten(1), dim=1).view(-1, 1, 1, 1) for bound in (torch.amin, torch.amax))
    return ((pictures - low) / (high - low).clamp_min(1e-12)).contiguous()
