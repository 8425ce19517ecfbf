"""The objective: what a ``distillation`` section makes of the parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wsl_sweep.distill import Objective, label_cross_entropy, regularization_sample_mask

from .reference import (
    at,
    cross_entropy,
    distillation,
    draw,
    drop_term,
    exp_weights,
    one_hot,
    renormalised,
    softmax,
    tensors,
)

TAU = 4.0


def section(**changes: Any) -> dict[str, Any]:
    """A resolved ``distillation`` section, of weighted soft labels unless changed."""
    return {
        "method": "kd",
        "ce_weight": 1.0,
        "alpha": 2.25,
        "temperature": TAU,
        "mask": "none",
        "weighting": {"kind": "exp"},
        "keep": {"regularization": 1.0, "other": 1.0},
    } | changes


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def regularization_samples(student: Tensor, teacher: Tensor, labels: Tensor) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return regularization_sample_mask(student, teacher, labels, TAU).numpy()


def test_weighted_soft_labels_are_cross_entropy_plus_alpha_w_distillation() -> None:
    student, teacher, labels = draw(32, 10, seed=1)
    s, t, y = tensors(student, teacher, labels)
    wanted = 0.3 * cross_entropy(student, labels) + 1.7 * exp_weights(student, teacher, labels) * distillation(
        student, teacher, TAU
    )
    terms = Objective(section(ce_weight=0.3, alpha=1.7))(s, t, y)
    assert terms.loss.shape == ()
    assert terms.loss.item() == pytest.approx(wanted.mean(), rel=1e-10)


def test_plain_distillation_weighs_all_examples_alike() -> None:
    student, teacher, labels = draw(32, 10, seed=2)
    s, t, y = tensors(student, teacher, labels)
    terms = Objective(section(ce_weight=0.1, alpha=0.9, weighting={"kind": "none"}))(s, t, y)
    wanted = 0.1 * cross_entropy(student, labels) + 0.9 * distillation(student, teacher, TAU)
    assert terms.loss.item() == pytest.approx(wanted.mean(), rel=1e-10)
    assert terms.weights is not None
    assert (terms.weights == 1).all()


@pytest.mark.parametrize("mask", ["drop_term", "detach", "renormalised"])
def test_the_mask_takes_the_place_of_the_distillation_loss(mask: str) -> None:
    student, teacher, labels = draw(32, 10, seed=3)
    s, t, y = tensors(student, teacher, labels)
    masked = {
        "drop_term": drop_term(student, teacher, labels, TAU),
        "detach": distillation(student, teacher, TAU),
        "renormalised": renormalised(student, teacher, labels, TAU),
    }[mask]
    wanted = cross_entropy(student, labels) + 2.25 * exp_weights(student, teacher, labels) * masked
    s.requires_grad_()
    loss = Objective(section(mask=mask))(s, t, y).loss
    assert loss.item() == pytest.approx(wanted.mean(), rel=1e-10)
    (gradient,) = torch.autograd.grad(loss, s)
    if mask != "drop_term":  # on the label's logit nothing but the cross-entropy pulls
        hard = (softmax(student) - one_hot(labels, 10)) / 32
        np.testing.assert_allclose(at(gradient.numpy(), labels), at(hard, labels), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("weighting", "weight"),
    [
        ({"kind": "sigmoid", "of": "log_ratio"}, lambda r, d: r / (1 + r)),
        ({"kind": "sigmoid", "of": "difference"}, lambda r, d: 1 / (1 + np.exp(-d))),
        ({"kind": "sigmoid", "of": "ratio"}, lambda r, d: 1 / (1 + np.exp(-r))),
        ({"kind": "constant", "value": 0.25}, lambda r, d: np.full(len(r), 0.25)),
        ({"kind": "constant", "value": "batch_mean"}, lambda r, d: np.full(len(r), (1 - np.exp(-r)).mean())),
    ],
)
def test_every_weighting_reaches_the_loss(weighting: dict[str, Any], weight: Any) -> None:
    student, teacher, labels = draw(32, 10, seed=4)
    s, t, y = tensors(student, teacher, labels)
    own, other = cross_entropy(student, labels), cross_entropy(teacher, labels)
    w = weight(own / (other + 1e-7), own - other)
    terms = Objective(section(weighting=weighting))(s, t, y)
    assert terms.weights is not None
    np.testing.assert_allclose(terms.weights.numpy(), w, rtol=1e-9)
    wanted = (own + 2.25 * w * distillation(student, teacher, TAU)).mean()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-9)


def test_the_gradient_takes_the_weights_as_constants() -> None:
    student, teacher, labels = draw(16, 10, seed=5)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    t.requires_grad_()
    Objective(section(ce_weight=0.5))(s, t, y).loss.backward()
    w = exp_weights(student, teacher, labels)[:, None]
    soft = TAU * (softmax(student, TAU) - softmax(teacher, TAU))
    wanted = (0.5 * (softmax(student) - one_hot(labels, 10)) + 2.25 * w * soft) / 16
    assert s.grad is not None
    np.testing.assert_allclose(s.grad.numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert t.grad is None


def test_without_distillation_it_is_the_mean_cross_entropy_and_needs_no_teacher() -> None:
    student, _, labels = draw(32, 10, seed=6)
    s, y = tensors(student, labels)
    terms = Objective({"method": "none"})(s, None, y)
    assert terms.loss.item() == pytest.approx(cross_entropy(student, labels).mean(), rel=1e-12)
    assert terms.weights is None
    assert terms.regularization_samples is None


def test_it_tells_what_the_batch_was_made_of() -> None:
    student, teacher, labels = draw(32, 10, seed=7)
    s, t, y = tensors(student, teacher, labels)
    s.requires_grad_()
    terms = Objective(section())(s, t, y)
    assert terms.weights is not None
    assert terms.regularization_samples is not None
    assert not terms.cross_entropy.requires_grad
    assert not terms.weights.requires_grad
    np.testing.assert_allclose(terms.cross_entropy.numpy(), cross_entropy(student, labels), rtol=1e-10)
    assert terms.regularization_samples.tolist() == regularization_samples(s, t, y).tolist()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_logits_make_a_float32_loss(half: torch.dtype) -> None:
    student, teacher, labels = draw(8, 10, seed=8)
    s, t, y = tensors(student, teacher, labels, dtype=half)
    loss = Objective(section())(s, t.float(), y).loss
    assert loss.dtype == torch.float32
    assert torch.equal(loss, Objective(section())(s.float(), t.float(), y).loss)


# --- keeping ---------------------------------------------------------------------------------------


def kept(keep: dict[str, float], student: Tensor, teacher: Tensor, labels: Tensor, seed: int) -> Tensor:
    """(B,) bool, told from the gradient: without cross-entropy a dropped example has none."""
    leaf = student.clone().requires_grad_()
    terms = Objective(section(ce_weight=0.0, keep=keep))(leaf, teacher, labels, keeping=seeded(seed))
    (gradient,) = torch.autograd.grad(terms.loss, leaf)
    return gradient.abs().sum(dim=1) > 0


@pytest.mark.parametrize("regularization", [0.0, 1.0])
@pytest.mark.parametrize("other", [0.0, 1.0])
def test_keep_probabilities_of_zero_and_one_are_exact(regularization: float, other: float) -> None:
    student, teacher, labels = draw(512, 10, seed=9)
    s, t, y = tensors(student, teacher, labels)
    samples = torch.from_numpy(regularization_samples(s, t, y))
    assert 50 < samples.sum() < 462
    wanted = torch.where(samples, regularization == 1.0, other == 1.0)
    for seed in range(5):
        found = kept({"regularization": regularization, "other": other}, s, t, y, seed)
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("drawn", "probability"), [(0.0, 0.0), (1 - 2**-24, 1.0)])
def test_zero_and_one_are_exact_for_the_utmost_draws_too(
    drawn: float, probability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``torch.rand`` may give 0, and never 1. The other group's probability makes it draw at all."""
    student, teacher, labels = draw(64, 10, seed=16)
    s, t, y = tensors(student, teacher, labels)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, drawn, dtype=torch.float32))
    samples = torch.from_numpy(regularization_samples(s, t, y))
    found = kept({"regularization": probability, "other": 0.5}, s, t, y, seed=0)
    assert (found[samples] == (probability == 1.0)).all()
    assert (found[~samples] == (drawn < 0.5)).all()


@pytest.mark.parametrize(("regularization", "other"), [(0.3, 1.0), (1.0, 0.2), (0.75, 0.5), (0.0, 0.6)])
def test_examples_are_kept_at_their_probabilities(regularization: float, other: float) -> None:
    student, teacher, labels = draw(512, 10, seed=10)
    s, t, y = tensors(student, teacher, labels)
    samples = torch.from_numpy(regularization_samples(s, t, y))
    draws = torch.stack(
        [kept({"regularization": regularization, "other": other}, s, t, y, seed) for seed in range(30)]
    ).double()
    for group, probability in ((samples, regularization), (~samples, other)):
        chosen = draws[:, group]
        spread = 4 * (probability * (1 - probability) / chosen.numel()) ** 0.5
        assert abs(chosen.mean().item() - probability) <= spread
    uncertain = samples if 0 < regularization < 1 else ~samples
    assert len(draws[:, uncertain].unique(dim=0)) == 30  # drawn afresh each time
    assert draws[:, uncertain].mean(dim=0).std() < 0.12  # and for each example alike


def test_the_cross_entropy_of_dropped_examples_stays() -> None:
    student, teacher, labels = draw(64, 10, seed=11)
    s, t, y = tensors(student, teacher, labels)
    terms = Objective(section(ce_weight=0.7, keep={"regularization": 0.0, "other": 0.0}))(s, t, y, keeping=seeded(0))
    assert terms.loss.item() == pytest.approx(0.7 * cross_entropy(student, labels).mean(), rel=1e-12)


def test_dropped_examples_still_count_in_the_batchs_mean() -> None:
    """The mean is over the batch, not over what was kept; each kept term keeps its size."""
    student, teacher, labels = draw(64, 10, seed=12)
    s, t, y = tensors(student, teacher, labels)
    samples = regularization_samples(s, t, y)
    terms = Objective(section(keep={"regularization": 1.0, "other": 0.0}))(s, t, y, keeping=seeded(0))
    soft = exp_weights(student, teacher, labels) * distillation(student, teacher, TAU) * samples
    wanted = (cross_entropy(student, labels) + 2.25 * soft).mean()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-10)


def test_the_same_generator_keeps_the_same_examples() -> None:
    student, teacher, labels = draw(256, 10, seed=13)
    s, t, y = tensors(student, teacher, labels)
    keep = {"regularization": 0.5, "other": 0.5}
    first = kept(keep, s, t, y, seed=1)
    torch.manual_seed(12345)
    assert torch.equal(kept(keep, s, t, y, seed=1), first)
    assert not torch.equal(kept(keep, s, t, y, seed=2), first)


def test_keeping_does_not_change_what_is_told_of_the_batch() -> None:
    """Weights and regularization samples are of all examples, kept or not."""
    student, teacher, labels = draw(64, 10, seed=14)
    s, t, y = tensors(student, teacher, labels)
    whole = Objective(section())(s, t, y)
    part = Objective(section(keep={"regularization": 0.0, "other": 0.5}))(s, t, y, keeping=seeded(0))
    assert whole.weights is not None
    assert part.weights is not None
    assert whole.regularization_samples is not None
    assert part.regularization_samples is not None
    assert torch.equal(whole.weights, part.weights)
    assert torch.equal(whole.regularization_samples, part.regularization_samples)


# --- controls --------------------------------------------------------------------------------------


def test_permuted_is_the_same_weights_with_no_link_to_the_example() -> None:
    student, teacher, labels = draw(64, 10, seed=15)
    s, t, y = tensors(student, teacher, labels)
    wsl, control = Objective(section()), Objective(section(weighting={"kind": "permuted"}))
    plain = wsl(s, t, y).weights
    once, again, other = (control(s, t, y, permuting=seeded(seed)).weights for seed in (1, 1, 2))
    assert plain is not None
    assert once is not None
    assert again is not None
    assert other is not None
    assert torch.equal(once.sort().values, plain.sort().values)
    assert not torch.equal(once, plain)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


# --- mistakes --------------------------------------------------------------------------------------


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'crd'"):
        Objective({"method": "crd"})


def test_distillation_needs_the_teachers_logits() -> None:
    with pytest.raises(ValueError, match="teacher's logits"):
        Objective(section())(torch.zeros(2, 3), None, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"mask": "all"}, "unknown mask"),
        ({"weighting": {"kind": "linear"}}, "unknown kind"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_first_batch(change: dict[str, Any], match: str) -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=match):
        Objective(section(**change))(z, z, y)


# --- what a loop draws and knows beforehand ----------------------------------------------------------


def test_numbers_drawn_beforehand_are_as_those_drawn_inside() -> None:
    student, teacher, labels = tensors(*draw(64, 10, seed=3))
    objective = Objective(section(weighting={"kind": "permuted"}, keep={"regularization": 0.3, "other": 0.6}))
    inside = objective(student, teacher, labels, keeping=seeded(1), permuting=seeded(2))
    keeping = torch.rand(64, generator=seeded(1), dtype=torch.float32)
    permuting = torch.randperm(64, generator=seeded(2))
    before = objective(student, teacher, labels, keeping=keeping, permuting=permuting)
    other = objective(student, teacher, labels, keeping=1 - keeping, permuting=permuting.flip(0))
    assert before.weights is not None
    assert inside.weights is not None
    assert torch.equal(before.loss, inside.loss)
    assert torch.equal(before.weights, inside.weights)
    assert not torch.equal(before.loss, other.loss)


@pytest.mark.parametrize("kind", ["exp", "sigmoid"])
def test_the_teachers_cross_entropy_is_taken_where_it_is_known(kind: str) -> None:
    student, teacher, labels = tensors(*draw(64, 10, seed=4))
    objective = Objective(section(weighting={"kind": kind}))
    plain = objective(student, teacher, labels)
    known = objective(student, teacher, labels, teacher_cross_entropy=label_cross_entropy(teacher, labels))
    smaller = objective(student, teacher, labels, teacher_cross_entropy=label_cross_entropy(teacher, labels) / 2)
    assert plain.weights is not None
    assert smaller.weights is not None
    assert torch.equal(plain.loss, known.loss)
    assert (smaller.weights >= plain.weights).all()
    assert smaller.weights.mean() > plain.weights.mean()


@pytest.mark.parametrize(
    ("changes", "settled"),
    [
        ({}, [True, True, True, True]),
        ({"method": "none"}, [True, True, True, True]),
        ({"keep": {"regularization": 0.5, "other": 1.0}}, [True, True, True, True]),
        (
            {"method": "dkd", "target_weight": 1.0, "non_target_weight": 8.0, "warmup_epochs": 3},
            [False, False, True, True],
        ),
    ],
)
def test_a_loss_says_from_which_epoch_on_it_stays_the_same(changes: dict[str, Any], settled: list[bool]) -> None:
    objective = Objective(section(**changes))
    assert [objective.settled(epoch) for epoch in range(1, 5)] == settled
