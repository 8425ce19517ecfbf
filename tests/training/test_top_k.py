"""A bank of the largest logits: what of it is exact, how near the rest is; no trial depends on what it holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from wsl_sweep.data import TaskData
from wsl_sweep.distill import (
    distillation_loss,
    label_cross_entropy,
    masked_distillation_loss,
    regularization_sample_mask,
    soft_label_weights,
)
from wsl_sweep.distill.losses import Mask
from wsl_sweep.distill.regularization import label_logit_gradients
from wsl_sweep.training import Job, TeacherStore
from wsl_sweep.training.bank import BankSettings, Layout, TeacherOutputs, bank_identity, list_banks
from wsl_sweep.training.supply import TeacherSupply, supply_for

from .conftest import make_job
from .test_supply import FEATURES, FULL, OFF, TEACHER, Making, asked, damage, distinct, pictures_of, rows_of, same

TEMPERATURES = (1.0, 2.0, 4.0, 20.0)


class Case(NamedTuple):
    """A batch of a student and its teacher."""

    student: Tensor
    teacher: Tensor
    labels: Tensor

    @property
    def outputs(self) -> TeacherOutputs:
        """As a bank gets them."""
        return TeacherOutputs(self.teacher, label_cross_entropy(self.teacher, self.labels))


def realistic(classes: int, scale: float = 3.0, count: int = 200) -> Case:
    """A teacher that is mostly right, and a student that half agrees with it."""
    generator = torch.Generator().manual_seed(round(scale * 100) + classes)
    labels = torch.randint(classes, (count,), generator=generator)
    own = torch.nn.functional.one_hot(labels, classes) * scale * torch.rand(count, 1, generator=generator) * 3
    teacher = torch.randn(count, classes, generator=generator) * scale + own
    student = 0.5 * teacher + torch.randn(count, classes, generator=generator) * scale * 0.5
    return Case(student, teacher, labels)


def kept(case: Case, top_k: int, temperature: float, precision: str = "float32") -> TeacherOutputs:
    """What a bank gives back at a temperature."""
    layout = Layout(case.teacher.shape[1], 0, precision, top_k, TEMPERATURES)
    rows = layout.encode(case.outputs, case.labels)
    assert rows.shape == (len(case.labels), layout.words)
    assert rows.dtype == torch.int32
    return layout.decode(torch.from_numpy(rows.numpy().view(np.uint32).copy().view(np.int32)), temperature)


def exact(case: Case, top_k: int) -> Tensor:
    """(N, C) True where a class is among the largest, or the label."""
    places = case.teacher.topk(top_k, dim=1).indices
    return (
        torch.zeros_like(case.teacher, dtype=torch.bool).scatter(1, places, True).scatter(1, case.labels[:, None], True)
    )


def spread(case: Case, top_k: int, temperature: float) -> Tensor:
    """(N, C) float64 probabilities at τ, those of the classes that are left out replaced by their mean, in a loop."""
    found = (case.teacher.double() / temperature).softmax(dim=1)
    for row, of_row in zip(found, exact(case, top_k), strict=True):
        row[~of_row] = row[~of_row].mean()
    return found


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, check_dtype=False)


# --- what is exact -----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize(("classes", "top_k"), [(3, 1), (10, 3), (101, 50), (101, 99)])
def test_the_largest_and_the_label_are_exact_and_the_others_have_their_mass(
    classes: int, top_k: int, scale: float, temperature: float
) -> None:
    case = realistic(classes, scale)
    found, own = kept(case, top_k, temperature), exact(case, top_k)
    assert torch.equal(found.logits[own], case.teacher[own])
    for others in (row[~of_row] for row, of_row in zip(found.logits, own, strict=True)):
        assert len(others) in (classes - top_k, classes - top_k - 1)
        assert len(others.unique()) == 1
    before, after = (case.teacher / temperature).softmax(dim=1), (found.logits / temperature).softmax(dim=1)
    close(after[own], before[own])
    close(after.masked_fill(own, 0).sum(dim=1), before.masked_fill(own, 0).sum(dim=1))
    close(after, spread(case, top_k, temperature))
    assert torch.equal(found.logits.argmax(dim=1), case.teacher.argmax(dim=1))


def test_the_cross_entropy_and_so_the_weights_are_those_of_all_logits_bit_for_bit() -> None:
    case = realistic(100)
    for temperature in TEMPERATURES:
        found = kept(case, 5, temperature)
        assert found.cross_entropy is not None
        assert torch.equal(found.cross_entropy, label_cross_entropy(case.teacher, case.labels))
        for kind, of in (("exp", None), ("sigmoid", "log_ratio"), ("sigmoid", "difference"), ("sigmoid", "ratio")):
            weights = soft_label_weights(
                case.student, found.logits, case.labels, kind, of, teacher_cross_entropy=found.cross_entropy
            )
            assert torch.equal(weights, soft_label_weights(case.student, case.teacher, case.labels, kind, of))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_regularization_samples_are_those_of_all_logits(temperature: float) -> None:
    case = realistic(100)
    found = kept(case, 5, temperature).logits
    mine = label_logit_gradients(case.student, found, case.labels, temperature)
    wanted = label_logit_gradients(case.student, case.teacher, case.labels, temperature)
    for one, other in zip(mine, wanted, strict=True):
        close(one, other, 1e-5)
    samples = regularization_sample_mask(case.student, found, case.labels, temperature)
    assert torch.equal(samples, regularization_sample_mask(case.student, case.teacher, case.labels, temperature))
    assert 0 < samples.sum() < len(samples)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("top_k", [1, 10, 60])
def test_the_distillation_loss_is_the_approximations_formula(top_k: int, temperature: float) -> None:
    """τ² (Σ_kept p log(p/q) + m log(m/n) - m mean_rest log q), n classes left out with a mass of m."""
    case = realistic(100)
    found = distillation_loss(case.student.double(), kept(case, top_k, temperature).logits, temperature)
    p, log_q = (
        (case.teacher.double() / temperature).softmax(dim=1),
        (case.student.double() / temperature).log_softmax(1),
    )
    wanted = []
    for p_row, log_q_row, own in zip(p, log_q, exact(case, top_k), strict=True):
        mass, count = p_row[~own].sum(), (~own).sum()
        of_kept = (p_row[own] * (p_row[own].log() - log_q_row[own])).sum()
        wanted.append(temperature**2 * (of_kept + mass * (mass / count).log() - mass * log_q_row[~own].mean()))
    close(found, torch.stack(wanted), 2e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("mask", ["drop_term", "detach", "renormalised"])
def test_losses_without_the_label_are_those_of_the_approximated_soft_labels(mask: Mask, temperature: float) -> None:
    case = realistic(100)
    found = masked_distillation_loss(
        case.student.double(), kept(case, 10, temperature).logits, case.labels, temperature, mask
    )
    logits = temperature * spread(case, 10, temperature).log()
    close(found, masked_distillation_loss(case.student.double(), logits, case.labels, temperature, mask), 2e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_more_is_kept_the_nearer_is_the_loss(temperature: float) -> None:
    """Its gradient at any student, which is off by τ times the error of the soft labels; and so the loss itself."""
    case = realistic(1000)
    soft_labels = (case.teacher / temperature).softmax(dim=1)
    wanted = distillation_loss(case.student, case.teacher, temperature)
    of_gradient, of_loss = [], []
    for top_k in (1, 10, 50, 200, 998):
        found = kept(case, top_k, temperature).logits
        of_gradient.append(float(((found / temperature).softmax(dim=1) - soft_labels).norm(dim=1).mean()))
        loss = distillation_loss(case.student, found, temperature)
        of_loss.append(float((loss - wanted).abs().mean() / wanted.mean()))
    assert of_gradient == sorted(of_gradient, reverse=True)
    assert max(of_gradient[-1], of_loss[-1]) < 1e-4
    assert 0.001 < of_loss[2] < (0.05 if temperature == 1.0 else 0.1)
    assert of_loss[3] < of_loss[2]


def test_which_temperatures_are_kept_beside_does_not_change_one() -> None:
    case = realistic(100)
    for temperature in TEMPERATURES:
        layout = Layout(100, 0, "float32", 7, tuple(sorted({1.0, temperature})))
        found = layout.decode(layout.encode(case.outputs, case.labels), temperature)
        assert torch.equal(found.logits, kept(case, 7, temperature).logits)


# --- how it lies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2**15 - 1, 2**15 + 3, 2**16, 2**16 + 1, 80_000])
def test_classes_of_any_number_come_back(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    teacher = torch.randn(4, classes, generator=generator)
    labels = torch.tensor([0, 2**14, classes - 2, classes - 1])
    teacher[0, [classes - 1, classes // 2]] = 9.0
    case = Case(teacher, teacher, labels)
    for top_k in (1, 2, 5):
        found = kept(case, top_k, 1.0).logits
        own = exact(case, top_k) if top_k > 1 else torch.zeros_like(teacher, dtype=torch.bool)
        assert torch.equal(found[own], teacher[own])
        assert torch.equal(found.gather(1, labels[:, None]), teacher.gather(1, labels[:, None]))
        assert [len(row.unique()) for row in found] == [
            len(torch.unique(torch.cat([row.topk(top_k).values, row[label][None]]))) + 1
            for row, label in zip(teacher, labels, strict=True)
        ]


def test_of_equal_logits_those_of_the_first_classes_are_kept() -> None:
    teacher = torch.tensor([[1.0, 5.0, 5.0, 0.0, 5.0, 5.0, -1.0]])
    found = kept(Case(teacher, teacher, torch.tensor([6])), 2, 1.0).logits
    assert (found[0] == 5).tolist() == [False, True, True, False, False, False, False]
    assert found[0, 6] == -1
    assert found[0, 4] < 5


@pytest.mark.parametrize("top_k", [4, 5])
def test_in_float16_the_largest_the_label_and_the_sums_are_exact_and_the_others_nearly(top_k: int) -> None:
    case = realistic(100)
    own = exact(case, top_k)
    for temperature in TEMPERATURES:
        found, whole = (kept(case, top_k, temperature, precision).logits for precision in ("float16", "float32"))
        assert torch.equal(found.amax(dim=1), case.teacher.amax(dim=1))
        at = case.labels[:, None]
        assert torch.equal(found.gather(1, at), case.teacher.gather(1, at))
        assert torch.equal(found[~own], whole[~own])
        assert not torch.equal(found, whole)
        close(found[own], whole[own], 5e-3)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_features_lie_beside_the_largest_logits(precision: str) -> None:
    case, features = realistic(10, count=6), torch.randn(6, 3)
    layout = Layout(10, 3, precision, 2, (1.0,))
    found = layout.decode(layout.encode(replace(case.outputs, features=features), case.labels))
    assert found.features is not None
    assert torch.equal(found.features, features)
    assert torch.equal(found.logits, kept(case, 2, 1.0, precision).logits)


def test_a_row_of_the_largest_takes_a_small_part_of_the_room() -> None:
    def bytes_of(*layout: Any) -> int:
        return 4 * Layout(*layout).words

    assert bytes_of(1000) == 4008
    assert bytes_of(1000, 0, "float32", 50, (1.0, 4.0)) == 4 * (3 + 2 + 50 + 26) == 324
    assert bytes_of(1000, 0, "float16", 50, (1.0, 4.0)) == 4 * (3 + 2 + 25 + 26) == 224
    assert bytes_of(1000, 7, "float32", 1, (1.0,)) == 4 * (3 + 1 + 1 + 1 + 7)
    assert bytes_of(2**16 + 1, 0, "float32", 50, (1.0,)) == 4 * (3 + 1 + 50 + 51)


@pytest.mark.parametrize(("top_k", "temperatures"), [(0, (1.0,)), (9, (1.0,)), (10, (1.0,)), (3, ()), (None, (1.0,))])
def test_a_layout_that_leaves_nothing_out_or_keeps_no_sum_is_none(
    top_k: int | None, temperatures: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="top_k"):
        Layout(10, 0, "float32", top_k, temperatures)


def test_another_temperature_is_refused() -> None:
    layout = Layout(10, 0, "float32", 3, (1.0, 4.0))
    rows = layout.encode(realistic(10).outputs, realistic(10).labels)
    with pytest.raises(ValueError, match=r"\(1.0, 4.0\), not for a temperature of 2.0"):
        layout.decode(rows, 2.0)


# --- banks ---------------------------------------------------------------------------------------------

Open = Callable[..., TeacherSupply]


@pytest.fixture
def supplied() -> Iterator[Open]:
    """Makes supplies of digits' teacher; closed at the end."""
    made: list[TeacherSupply] = []

    def make(data: TaskData, **options: Any) -> TeacherSupply:
        made.append(supply_for(data, options.pop("making", Making(data)), TEACHER, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(("features", "settings"), [(False, BankSettings()), (True, FEATURES)])
def test_outputs_are_the_same_bits_cold_warm_off_or_full(
    precision: str, features: bool, settings: BankSettings, supplied: Open
) -> None:
    data = pictures_of("dataset.label_noise=0.3")
    rows, views = asked(data)
    options: dict[str, Any] = {"features": features, "precision": precision, "label_noise": 0.3}
    found, logits = [], []
    for one in (OFF, FULL, settings, settings):
        made = supplied(data, top_k=3, temperature=4.0, settings=one, **options)
        found.append(made.outputs(rows, views))
        logits.append(made.validation_logits())
        made.close()
    assert made.computed == 0
    assert all(same(found[0], other) for other in found[1:])
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_outputs_do_not_depend_on_what_else_was_missing(supplied: Open) -> None:
    data = pictures_of()
    rows, views = asked(data)
    options: dict[str, Any] = {"top_k": 3, "temperature": 4.0, "settings": OFF}
    whole = supplied(data, **options).outputs(rows, views)
    alone = [supplied(data, **options).outputs(rows[place : place + 1], views[place : place + 1]) for place in (0, 77)]
    assert all(same(one, whole.part(place, place + 1)) for one, place in zip(alone, (0, 77), strict=True))


def test_training_reads_its_temperature_and_validation_that_of_one(supplied: Open) -> None:
    data = pictures_of("dataset.label_noise=0.4")
    rows, views = asked(data)
    options: dict[str, Any] = {"label_noise": 0.4}
    dense = supplied(data, **options)
    wanted, validation = dense.outputs(rows, views), dense.validation_logits()
    labels = data.train.labels[rows]
    assert not torch.equal(labels, pictures_of().train.labels[rows])
    small = supplied(data, top_k=3, temperature=4.0, **options)
    found, of_validation = small.outputs(rows, views), small.validation_logits()
    assert torch.equal(found.logits, kept(Case(wanted.logits, wanted.logits, labels), 3, 4.0).logits)
    own = data.all_labels[data.validation.ids]
    assert torch.equal(of_validation, kept(Case(validation, validation, own), 3, 1.0).logits)
    assert found.cross_entropy is not None
    assert wanted.cross_entropy is not None
    assert torch.equal(found.cross_entropy, wanted.cross_entropy)


@pytest.mark.parametrize("top_k", [9, 10, 1000])
def test_where_nothing_would_be_left_out_the_bank_is_that_of_all_logits(top_k: int, supplied: Open) -> None:
    data = pictures_of()
    rows, views = asked(data)
    wanted = supplied(data).outputs(rows, views)
    other = supplied(data, top_k=top_k, temperature=4.0)
    assert same(other.outputs(rows, views), wanted)
    assert other.computed == 0
    assert "top_k" not in list_banks()[0].identity


def test_trials_of_all_temperatures_that_a_file_names_share_a_bank(supplied: Open) -> None:
    data = pictures_of()
    rows, views = asked(data)
    file = BankSettings(temperatures=[2.0, 4.0])
    first = supplied(data, top_k=3, temperature=2.0, settings=file)
    of_two = first.outputs(rows, views)
    second = supplied(data, top_k=3, temperature=4.0, settings=file)
    of_four = second.outputs(rows, views)
    assert (second.computed, second.found) == (0, distinct(rows, views))
    assert not torch.equal(of_two.logits, of_four.logits)
    (entry,) = list_banks()
    assert (entry.identity["top_k"], entry.identity["temperatures"]) == (3, [1.0, 2.0, 4.0])


def test_a_temperature_that_no_file_has_named_has_a_bank_of_its_own(supplied: Open) -> None:
    data = pictures_of()
    rows, views = asked(data)
    file = BankSettings(temperatures=[4.0])
    supplied(data, top_k=3, temperature=4.0, settings=file).outputs(rows, views)
    other = supplied(data, top_k=3, temperature=3.0, settings=file)
    found = other.outputs(rows, views)
    assert other.computed == distinct(rows, views)
    assert len(list_banks()) == 2
    assert same(found, supplied(data, top_k=3, temperature=3.0, settings=OFF).outputs(rows, views))


def test_how_many_are_kept_makes_another_bank_and_all_of_them_no_new_name() -> None:
    data = pictures_of()

    def named(*options: Any) -> dict[str, Any]:
        return bank_identity(data, 0.0, TEACHER, "cpu", 1, 64, *options)

    others = [named("float32", 3, (1.0,)), named("float32", 4, (1.0,)), named("float32", 3, (1.0, 4.0))]
    assert all(one != other for one, other in itertools.combinations([named(), *others], 2))
    assert {"top_k", "temperatures"} & set(named()) == set()


def test_a_damaged_bank_of_the_largest_is_mended(supplied: Open) -> None:
    data = pictures_of()
    rows, views = asked(data)
    first = supplied(data, top_k=3, temperature=4.0)
    wanted = first.outputs(rows, views)
    first.close()
    damage("rows")
    mending = supplied(data, top_k=3, temperature=4.0)
    assert same(mending.outputs(rows, views), wanted)
    assert mending.computed > 0


# --- whole trials ----------------------------------------------------------------------------------------


def largest(job: Job, top_k: int, settings: BankSettings = BankSettings()) -> Job:
    """The job with the largest logits of its teacher alone."""
    config = {**job.config, "teacher": {**job.config["teacher"], "stored_top_k": top_k}}
    return replace(job, config=config, bank=settings)


METHODS = [("distillation.weighting.kind=exp", "distillation.mask=drop_term"), ("distillation.method=rkd",)]


@pytest.mark.parametrize("sets", METHODS)
def test_a_trial_is_the_same_cold_warm_or_off_and_nearly_that_of_all_logits(
    sets: tuple[str, ...], store: TeacherStore
) -> None:
    job, settings = make_job(*sets), FEATURES if "distillation.method=rkd" in sets else BankSettings()
    dense, _ = rows_of(replace(job, bank=OFF), store)
    off, _ = rows_of(largest(job, 4, OFF), store)
    cold, cold_facts = rows_of(largest(job, 4, settings), store)
    warm, warm_facts = rows_of(largest(job, 4, settings), store)
    assert off == cold == warm
    assert cold_facts["computed"] > warm_facts["computed"] == 0
    all_kept, _ = rows_of(largest(job, 10, settings), store)
    assert all_kept == dense
    assert off != dense
    for row, whole in zip(off, dense, strict=True):
        assert row["train/loss"] == pytest.approx(whole["train/loss"], rel=0.05)
        if "weight/mean" in whole:
            assert row["weight/mean"] == pytest.approx(whole["weight/mean"], rel=0.05)


def test_a_teacher_in_train_mode_says_all_its_logits(store: TeacherStore) -> None:
    """As the resolved configuration of such a trial has it: nothing in it says how its outputs are kept."""
    job = make_job("teacher.mode=train")
    assert "stored_top_k" not in job.config["teacher"]
    named, _ = rows_of(replace(job, bank=BankSettings(temperatures=[4.0])), store)
    assert named == rows_of(replace(job, bank=OFF), store)[0]
