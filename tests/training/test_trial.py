"""One trial: the same bits whoever ran before, the same pictures for all variants, and no look at the test part."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsl_sweep.data import load
from wsl_sweep.data.dataset import load_test
from wsl_sweep.distill import Objective, Step, StepTerms
from wsl_sweep.errors import DivergedError, WslSweepError
from wsl_sweep.training import Job, TeacherStore, TrialTraining, evaluate_on_test, trial
from wsl_sweep.training.trial import load_student
from wsl_sweep.training.weights import load_tensors

from .conftest import make_job

UNTIMED = ("timestamp", "train/seconds")

Result = tuple[list[dict[str, float]], dict[str, Tensor]]

WSL: tuple[str, ...] = ()
CE = ("distillation.method=none",)
KD = ("distillation.weighting.kind=none",)
DROPPING = ("distillation.keep.regularization=0.5", "distillation.keep.other=0.7")
PERMUTED = ("distillation.weighting.kind=permuted",)
MASKED = ("distillation.mask=renormalised",)
IN_TRAIN_MODE = ("teacher.mode=train",)

QUANTILES = {"weight/q05": 0.05, "weight/q25": 0.25, "weight/q50": 0.5, "weight/q75": 0.75, "weight/q95": 0.95}


def job_of(sets: tuple[str, ...], *more: str, **options: Any) -> Job:
    """A job with one of the settings above."""
    return make_job(*sets, *more, teacher=sets != CE, **options)


def run(job: Job, store: TeacherStore) -> Result:
    """Rows without their times, and the student's weights."""
    with TrialTraining(job, store) as training:
        rows = [{name: value for name, value in row.items() if name not in UNTIMED} for row in training]
    return rows, {name: tensor.clone() for name, tensor in training.student.state_dict().items()}


def same(one: Result, other: Result) -> bool:
    """Bit for bit."""
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


# --- the same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [WSL, CE, KD, DROPPING, PERMUTED, MASKED, IN_TRAIN_MODE])
def test_a_job_done_twice_gives_the_same_bits(sets: tuple[str, ...], store: TeacherStore) -> None:
    job = job_of(sets)
    assert same(run(job, store), run(job, store))


@pytest.mark.parametrize("sets", [WSL, DROPPING])
def test_a_teacher_trained_now_or_found_makes_no_difference(sets: tuple[str, ...], tmp_path: Path) -> None:
    job, store = job_of(sets), TeacherStore(tmp_path / "one")
    training_it = run(job, store)
    finding_it = run(job, store)
    anew = run(job, TeacherStore(tmp_path / "another"))
    assert same(training_it, finding_it)
    assert same(training_it, anew)


def meddle_dtype() -> None:
    torch.set_default_dtype(torch.float64)


def meddle_seeds() -> None:
    torch.manual_seed(987)
    random.seed(987)
    np.random.seed(987)


def meddle_threads() -> None:
    torch.set_num_threads(2)


def meddle_gradients() -> None:
    torch.set_grad_enabled(False)


MEDDLING: list[Callable[[], None]] = [meddle_dtype, meddle_seeds, meddle_threads, meddle_gradients]


@pytest.mark.parametrize("meddle", MEDDLING)
def test_what_a_process_did_before_does_not_show(meddle: Callable[[], None], store: TeacherStore) -> None:
    job = job_of(DROPPING)
    first = run(job, store)
    meddle()
    assert same(run(job, store), first)


@pytest.mark.parametrize("meddle", MEDDLING)
def test_nor_does_it_show_in_a_teacher(meddle: Callable[[], None], tmp_path: Path) -> None:
    job = job_of(WSL)
    first = run(job, TeacherStore(tmp_path / "one"))
    meddle()
    assert same(run(job, TeacherStore(tmp_path / "another")), first)


@pytest.mark.parametrize(
    ("sets", "options"),
    [
        (DROPPING, {"seed": 9}),
        (CE, {}),
        (PERMUTED, {"seed": 3}),
        ((*KD, "student.model=convnet_4", "dataset.padding=2", "dataset.flip=true"), {}),
        (IN_TRAIN_MODE, {"part": "train+validation"}),
        ((*WSL, "dataset.label_noise=0.3", "dataset.views=2", "precision=bfloat16"), {}),
        (("schedule.epochs=1", "teacher.schedule.epochs=1"), {"threads": 2}),
    ],
)
def test_whoever_ran_before_on_this_worker_does_not_show(
    sets: tuple[str, ...], options: dict[str, Any], store: TeacherStore
) -> None:
    job = job_of(WSL)
    first = run(job, store)
    run(job_of(sets, **options), store)
    assert same(run(job, store), first)


def test_a_job_that_failed_half_way_does_not_show(store: TeacherStore) -> None:
    job = job_of(WSL)
    first = run(job, store)
    with pytest.raises(DivergedError):
        run(job_of(WSL, "optimizer.lr=1e30"), store)
    next(iter(TrialTraining(job_of(WSL, seed=4), store)))
    assert same(run(job, store), first)


def test_a_seed_is_a_student_of_its_own(store: TeacherStore) -> None:
    rows = [run(job_of(WSL, seed=seed), store)[0][-1]["validation/loss"] for seed in (0, 1, 2)]
    assert len(set(rows)) == 3


# --- the same pictures -----------------------------------------------------------------------------


def pictures_seen(job: Job, store: TeacherStore) -> list[Tensor]:
    """The student's training batches, in order."""
    training, seen = TrialTraining(job, store), list[Tensor]()

    def remember(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            seen.append(inputs[0].clone())

    training.student.register_forward_pre_hook(remember)
    for _ in training:
        pass
    return seen


def test_variants_of_a_seed_see_the_same_pictures_in_the_same_order(store: TeacherStore) -> None:
    wanted = pictures_seen(job_of(WSL), store)
    assert len(wanted) == 14  # two epochs of 402 examples in batches of 64, the last one of 18
    for sets in (CE, KD, DROPPING, PERMUTED, MASKED, IN_TRAIN_MODE, ("student.model=convnet_4", "optimizer.lr=0.01")):
        found = pictures_seen(job_of(sets), store)
        assert len(found) == len(wanted)
        assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True)), sets


def test_another_seed_or_epoch_sees_them_in_another_order(store: TeacherStore) -> None:
    one, other = (pictures_seen(job_of(CE, seed=seed), store) for seed in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one[:7], one[7:], strict=True))


def test_variants_of_a_seed_start_from_the_same_student(store: TeacherStore) -> None:
    students = [TrialTraining(job_of(sets), store).student.state_dict() for sets in (WSL, CE, KD)]
    for other in students[1:]:
        assert all(torch.equal(students[0][name], tensor) for name, tensor in other.items())
    another = TrialTraining(job_of(CE, seed=1), store).student.state_dict()
    assert not torch.equal(students[0]["body.0.weight"], another["body.0.weight"])


def test_every_example_is_seen_once_an_epoch(store: TeacherStore) -> None:
    job = job_of(CE, "dataset.padding=0", "schedule.epochs=1")
    seen = torch.cat(pictures_seen(job, store)).flatten(1)
    train = load(job.config["dataset"]).train
    wanted = train.views.plain(torch.arange(len(train))).flatten(1)
    assert seen.shape == wanted.shape
    assert sorted(seen.tolist()) == sorted(wanted.tolist())


def test_with_one_fixed_view_every_epoch_shows_the_same_pictures(store: TeacherStore) -> None:
    seen = torch.cat(pictures_seen(job_of(CE, "dataset.views=1"), store)).flatten(1)
    first, second = seen.chunk(2)
    assert sorted(first.tolist()) == sorted(second.tolist())
    free = torch.cat(pictures_seen(job_of(CE), store)).flatten(1)
    first, second = free.chunk(2)
    assert sorted(first.tolist()) != sorted(second.tolist())


# --- what settings do ------------------------------------------------------------------------------


def last_row(job: Job, store: TeacherStore) -> dict[str, float]:
    return run(job, store)[0][-1]


def test_a_row_of_distillation_holds_all_its_metrics(store: TeacherStore) -> None:
    row = last_row(job_of(WSL), store)
    assert set(row) == {
        "epoch",
        "train/loss",
        "train/accuracy",
        "weight/mean",
        *QUANTILES,
        "regularization_samples/fraction",
        "validation/accuracy",
        "validation/loss",
        "validation/ece",
        "teacher/agreement",
        "teacher/kl",
    }
    assert all(np.isfinite(value) for value in row.values())
    shares = set(row) - {"epoch", "train/loss", "validation/loss", "teacher/kl"}
    assert all(0 <= row[name] <= 1 for name in shares)


def cross_entropies(logits: Tensor, labels: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    values, rows = logits.detach().double().numpy(), np.arange(len(labels))
    return np.asarray(np.log(np.exp(values).sum(axis=1)) - values[rows, labels.numpy()])


@pytest.mark.parametrize(
    ("sets", "weights_of"),
    [
        (WSL, lambda r: 1 - np.exp(-r)),
        (DROPPING, lambda r: 1 - np.exp(-r)),
        (PERMUTED, lambda r: 1 - np.exp(-r)),
        (("distillation.weighting.kind=sigmoid",), lambda r: r / (1 + r)),
        (("distillation.weighting.kind=constant", "distillation.weighting.value=0.7"), lambda r: np.full(len(r), 0.7)),
        (
            ("distillation.weighting.kind=constant", "distillation.weighting.value=batch_mean"),
            lambda r: np.full(len(r), (1 - np.exp(-r)).mean()),
        ),
    ],
)
def test_a_row_says_how_the_weights_of_its_epoch_are_distributed(
    sets: tuple[str, ...], weights_of: Callable[[Any], Any], store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    compute = Objective.step

    def remembered(self: Objective, step: Step) -> StepTerms:
        student, teacher = cross_entropies(step.logits, step.labels), step.teacher_logits
        assert teacher is not None
        steps.append(weights_of(student / (cross_entropies(teacher, step.labels) + 1e-7)))
        return compute(self, step)

    monkeypatch.setattr(Objective, "step", remembered)
    rows = run(job_of(sets), store)[0]
    for row, own in zip(rows, (steps[:7], steps[7:]), strict=True):
        weights = np.sort(np.concatenate(own))
        assert len(weights) == 402
        assert row["weight/mean"] == pytest.approx(weights.mean(), rel=1e-4)
        for name, level in QUANTILES.items():
            below = int(401 * level)
            wanted = weights[below] + (401 * level - below) * (weights[below + 1] - weights[below])
            assert row[name] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("sets", [CE, KD, ("distillation.method=dist",)])
def test_where_nothing_is_weighted_nothing_is_said_of_it(sets: tuple[str, ...], store: TeacherStore) -> None:
    assert not QUANTILES.keys() & last_row(job_of(sets), store).keys()


def test_cross_entropy_alone_reads_no_teacher(store: TeacherStore) -> None:
    training = TrialTraining(job_of(CE), store)
    assert training.teacher is None
    assert training.teacher_digest is None
    assert not store.root.exists()


def test_distillation_that_weighs_nothing_is_cross_entropy_alone(store: TeacherStore) -> None:
    """``alpha: 0`` and dropping everything give the students of ``method: none``, bit for bit."""
    ce = run(job_of(CE), store)
    for sets in (("distillation.alpha=0.0",), ("distillation.keep.regularization=0", "distillation.keep.other=0")):
        assert all(torch.equal(ce[1][name], tensor) for name, tensor in run(job_of(sets), store)[1].items()), sets


@pytest.mark.parametrize(
    "sets",
    [
        KD,
        CE,
        DROPPING,
        PERMUTED,
        MASKED,
        IN_TRAIN_MODE,
        ("distillation.temperature=1.0",),
        ("distillation.alpha=1.0",),
        ("distillation.ce_weight=0.1",),
        ("distillation.weighting.kind=sigmoid",),
        ("distillation.weighting.kind=constant",),
        ("dataset.padding_mode=reflect",),
        ("dataset.flip=true",),
        ("dataset.label_noise=0.2",),
        ("optimizer.nesterov=true",),
        ("optimizer.weight_decay=0.1",),
        ("schedule.warmup_epochs=1",),
        ("schedule.milestones=[1]",),
        ("schedule.batch_size=32",),
        ("teacher.seed=1",),
    ],
)
def test_every_setting_reaches_the_student(sets: tuple[str, ...], store: TeacherStore) -> None:
    plain, changed = run(job_of(WSL), store)[1], run(job_of(sets), store)[1]
    assert not torch.equal(plain["classifier.weight"], changed["classifier.weight"])


def test_more_epochs_begin_like_fewer(store: TeacherStore) -> None:
    """Without a schedule that looks ahead, the first two of three epochs are the two of two."""
    assert run(job_of(WSL, "schedule.epochs=3"), store)[0][:2] == run(job_of(WSL), store)[0]


def test_a_student_learns(store: TeacherStore) -> None:
    job = job_of(CE, "student.model=convnet_16", "schedule.epochs=3", "dataset.train_fraction=1.0")
    assert last_row(job, store)["validation/accuracy"] > 0.5  # guessing: 0.1


def test_the_student_may_train_in_bfloat16(store: TeacherStore) -> None:
    narrow, wide = (last_row(job_of(WSL, f"precision={precision}"), store) for precision in ("bfloat16", "float32"))
    assert narrow != wide
    assert narrow["train/loss"] == pytest.approx(wide["train/loss"], rel=0.1)


@pytest.mark.parametrize("rate", ["1e30", "1e38"])
def test_a_learning_rate_far_too_high_is_reported_with_its_epoch(rate: str, store: TeacherStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            DivergedError, match=r"(train|validation)/loss became (nan|inf) in epoch 1; lower optimizer\.lr"
        ):
            run(job_of(CE, f"optimizer.lr={rate}"), store)


def test_check_ends_a_trial_between_steps(store: TeacherStore) -> None:
    class Enough(Exception):
        pass

    calls = iter(range(99))

    def check() -> None:
        if next(calls) == 9:
            raise Enough

    rows: Iterator[Any] = iter(TrialTraining(job_of(CE), store, check=check))
    assert next(rows)["epoch"] == 1
    with pytest.raises(Enough):
        next(rows)


# --- the end of a trial, and the test part ---------------------------------------------------------


def finished(job: Job, store: TeacherStore, folder: Path) -> tuple[TrialTraining, dict[str, float]]:
    training = TrialTraining(job, store)
    rows = list(training)
    training.save(folder)
    return training, rows[-1]


def test_what_is_saved_is_the_student_and_its_validation_logits(store: TeacherStore, tmp_path: Path) -> None:
    training, row = finished(job_of(WSL), store, tmp_path / "trial")
    weights = load_tensors(tmp_path / "trial" / "student.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in training.student.state_dict().items())
    saved = load_tensors(tmp_path / "trial" / "validation_logits.safetensors")
    validation = training.data.validation
    assert torch.equal(saved["labels"], validation.labels)
    assert torch.equal(saved["ids"], validation.ids)
    right = (saved["logits"].argmax(dim=1) == saved["labels"]).double().mean().item()
    assert right == row["validation/accuracy"]


def test_a_saved_student_comes_back_bit_for_bit_in_eval_mode(store: TeacherStore, tmp_path: Path) -> None:
    job = job_of(CE)
    training, _ = finished(job, store, tmp_path)
    student = load_student(job, tmp_path, 10, 1)
    assert not student.training
    rows = torch.arange(256)
    with torch.no_grad():
        logits = student(training.data.validation.views.plain(rows))
    assert torch.equal(logits, load_tensors(tmp_path / "validation_logits.safetensors")["logits"][:256])


def test_the_test_part_is_not_loaded_before_the_final_evaluation(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No metric, no file and no picture of it exists until ``evaluate_on_test``."""
    seen: set[bytes] = set()

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.update(picture.numpy().tobytes() for picture in inputs[0])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the test part was asked for")

    job = job_of(WSL, "dataset.padding=0")
    monkeypatch.setattr(trial, "load_test", refuse)
    training = TrialTraining(job, store)
    assert training.teacher is not None
    for module in (training.student, training.teacher.teacher.model):
        module.register_forward_pre_hook(remember)
    rows = list(training)
    training.save(tmp_path / "trial")
    monkeypatch.undo()

    assert not [name for row in rows for name in row if name.startswith("test")]
    assert not [path for path in tmp_path.rglob("*") if "test" in path.name]
    data, test = training.data, load_test(job.config["dataset"])
    known = len(data.train) + len(data.validation)
    assert known - 5 < len(seen - {bytes(256)}) <= known  # a few digits are drawn alike
    pictures = {picture.numpy().tobytes() for picture in test.views.plain(torch.arange(len(test)))}
    assert len(pictures) == len(test)
    assert not seen & pictures


def test_the_final_evaluation_is_of_the_test_part_and_leaves_its_logits(store: TeacherStore, tmp_path: Path) -> None:
    job = job_of(CE, "student.model=convnet_8")
    training, _ = finished(job, store, tmp_path)
    metrics = evaluate_on_test(job, tmp_path)
    assert set(metrics) == {"test/accuracy", "test/loss", "test/ece"}
    saved = load_tensors(tmp_path / "test_logits.safetensors")
    test = load_test(job.config["dataset"])
    assert torch.equal(saved["ids"], test.ids)
    assert torch.equal(saved["labels"], test.labels)
    known = set(training.data.train.ids.tolist()) | set(training.data.validation.ids.tolist())
    assert not known & set(saved["ids"].tolist())
    logits, labels = saved["logits"].double().numpy(), saved["labels"].numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert metrics["test/accuracy"] == (p.argmax(axis=1) == labels).mean()
    assert metrics["test/loss"] == pytest.approx(-np.log(p[np.arange(len(labels)), labels]).mean(), rel=1e-6)
    with torch.no_grad():
        own = training.student.eval()(test.views.plain(torch.arange(256)))
    assert torch.equal(own, saved["logits"][:256])


def test_evaluating_twice_says_the_same(store: TeacherStore, tmp_path: Path) -> None:
    job = job_of(CE)
    finished(job, store, tmp_path)
    first, logits = evaluate_on_test(job, tmp_path), (tmp_path / "test_logits.safetensors").read_bytes()
    meddle_dtype()
    meddle_seeds()
    assert evaluate_on_test(job, tmp_path) == first
    assert (tmp_path / "test_logits.safetensors").read_bytes() == logits


def test_a_student_that_is_not_there_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match=r"student\.safetensors: no such file"):
        evaluate_on_test(job_of(CE), tmp_path)
    assert not (tmp_path / "test_logits.safetensors").exists()
