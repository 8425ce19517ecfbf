"""The objective with every method but plain KD: warm-up, features, users' own code, and who is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from wsl_sweep.distill import (
    Objective,
    Step,
    decoupled_loss,
    dist_loss,
    regularization_sample_mask,
    relational_loss,
    soft_label_weights,
)
from wsl_sweep.distill.methods import USER_METHOD_ARGUMENTS, Batch, make_method
from wsl_sweep.errors import WslSweepError
from wsl_sweep.user_code import search_in

from .reference import Array, cross_entropy, distillation, draw, exp_weights, tensors

TAU = 4.0
KEEP_ALL = {"regularization": 1.0, "other": 1.0}
COMMON = {"ce_weight": 0.3, "alpha": 1.7}


def dkd(**changes: Any) -> dict[str, Any]:
    own = {"method": "dkd", "temperature": TAU, "target_weight": 1.0, "non_target_weight": 6.0, "warmup_epochs": 20}
    return COMMON | own | {"weighting": {"kind": "none"}, "keep": KEEP_ALL} | changes


def dist(**changes: Any) -> dict[str, Any]:
    return COMMON | {"method": "dist", "temperature": TAU, "inter_weight": 1.0, "intra_weight": 0.5} | changes


def rkd(kind: str = "none", kd_weight: float = 0.0, **changes: Any) -> dict[str, Any]:
    own = {"method": "rkd", "distance_weight": 25.0, "angle_weight": 50.0, "kd_weight": kd_weight}
    weighting = {"kind": kind} | ({"value": 0.3} if kind == "constant" else {})
    return COMMON | own | ({"temperature": TAU} if kd_weight else {}) | {"weighting": weighting} | changes


def users(method: str, kind: str = "none", **changes: Any) -> dict[str, Any]:
    """The section of a user's own method."""
    own = {"method": method, "temperature": TAU, "weighting": {"kind": kind}, "keep": KEEP_ALL}
    return COMMON | own | changes


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(batch: int = 12, classes: int = 6, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of student and teacher, and labels, in float64."""
    s, t, y = tensors(*draw(batch, classes, seed))
    return s, t, y


def arrays_of(s: Tensor, t: Tensor, y: Tensor) -> tuple[Array, Array, Any]:
    return s.detach().numpy(), t.detach().numpy(), y.numpy()


def features(batch: int = 12, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Of a student and of a wider teacher."""
    generator = np.random.default_rng(seed)
    own, other = tensors(generator.normal(0, 1, (batch, 4)), generator.normal(0, 1, (batch, 7)))
    return own, other


def mean_ce(s: Tensor, y: Tensor) -> float:
    return float(cross_entropy(s.detach().numpy(), y.numpy()).mean())


# --- dkd -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "epoch", "factor"), [
    (20, 1, 0.05), (20, 2, 0.1), (20, 19, 0.95), (20, 20, 1.0), (20, 21, 1.0), (20, 240, 1.0),
    (1, 1, 1.0), (1, 2, 1.0), (3, 1, 1 / 3), (0, 1, 1.0), (0, 100, 1.0),
])  # fmt: skip
def test_dkd_warms_up_linearly_from_the_first_epoch(warmup: int, epoch: int, factor: float) -> None:
    s, t, y = problem()
    terms = Objective(dkd(warmup_epochs=warmup))(s, t, y, epoch=epoch, epochs=240)
    wanted = 0.3 * mean_ce(s, y) + 1.7 * factor * decoupled_loss(s, t, y, TAU, 1.0, 6.0).mean().item()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-12)


def test_the_warm_up_of_dkd_leaves_the_cross_entropy_as_it_is() -> None:
    s, t, y = problem()
    assert Objective(dkd(alpha=0.0))(s, t, y, epoch=1).loss.item() == pytest.approx(0.3 * mean_ce(s, y), rel=1e-12)


def test_the_weights_of_dkds_two_parts_arrive() -> None:
    s, t, y = problem()
    terms = Objective(dkd(ce_weight=0.0, alpha=1.0, target_weight=0.4, non_target_weight=2.5))(s, t, y, epoch=20)
    assert terms.loss.item() == pytest.approx(decoupled_loss(s, t, y, TAU, 0.4, 2.5).mean().item(), rel=1e-12)


def test_dkd_is_weighted_and_kept_example_by_example() -> None:
    s, t, y = problem(64)
    student, teacher, labels = arrays_of(s, t, y)
    samples = regularization_sample_mask(s, t, y, TAU)
    assert 0 < samples.sum() < 64
    section = dkd(weighting={"kind": "exp"}, keep={"regularization": 0.0, "other": 1.0}, warmup_epochs=10)
    terms = Objective(section)(s, t, y, epoch=5, keeping=seeded(0))
    w = exp_weights(student, teacher, labels)
    kept = w * decoupled_loss(s, t, y, TAU, 1.0, 6.0).numpy() * ~samples.numpy()
    wanted = (0.3 * cross_entropy(student, labels) + 1.7 * 0.5 * kept).mean()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-10)
    assert terms.weights is not None
    np.testing.assert_allclose(terms.weights.numpy(), w, rtol=1e-9)


# --- dist ------------------------------------------------------------------------------------------


def test_dist_is_one_loss_for_the_batch_beside_the_cross_entropy() -> None:
    s, t, y = problem()
    terms = Objective(dist())(s, t, y)
    wanted = 0.3 * mean_ce(s, y) + 1.7 * dist_loss(s, t, TAU, 1.0, 0.5).item()
    assert terms.loss.shape == ()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-12)


def test_dist_tells_no_weights_but_all_else() -> None:
    s, t, y = problem()
    s.requires_grad_()
    terms = Objective(dist())(s, t, y)
    assert terms.weights is None
    assert terms.regularization_samples is not None
    assert torch.equal(terms.regularization_samples, regularization_sample_mask(s, t, y, TAU))
    assert not terms.cross_entropy.requires_grad
    np.testing.assert_allclose(terms.cross_entropy.numpy(), cross_entropy(*arrays_of(s, t, y)[::2]), rtol=1e-10)


@pytest.mark.parametrize("change", [
    {"weighting": {"kind": "exp"}},
    {"weighting": {"kind": "constant", "value": 1.0}},
    {"keep": {"regularization": 0.5, "other": 1.0}},
    {"keep": {"regularization": 1.0, "other": 0.0}},
])  # fmt: skip
def test_dist_takes_no_weights_of_examples_and_keeps_all(change: dict[str, Any]) -> None:
    s, t, y = problem()
    with pytest.raises(WslSweepError, match="dist gives one loss for a batch"):
        Objective(dist(**change))(s, t, y)
    assert Objective(dist(weighting={"kind": "none"}, keep=KEEP_ALL))(s, t, y).loss.isfinite()


# --- rkd -------------------------------------------------------------------------------------------


def test_rkd_is_cross_entropy_and_the_relations_of_the_features() -> None:
    s, t, y = problem()
    own, other = features()
    objective = Objective(rkd(distance_weight=2.0, angle_weight=3.0))
    assert objective.needs_features
    terms = objective(s, t, y, student_features=own, teacher_features=other)
    wanted = 0.3 * mean_ce(s, y) + 1.7 * relational_loss(own, other, None, 2.0, 3.0).item()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-12)
    assert terms.regularization_samples is None  # there is no temperature to tell them by


@pytest.mark.parametrize("kind", ["none", "exp", "constant", "permuted"])
@pytest.mark.parametrize("kd_weight", [0.0, 2.25])
def test_rkd_takes_the_weights_into_its_relations_and_into_the_distillation_beside_it(
    kind: str, kd_weight: float
) -> None:
    s, t, y = problem()
    student, teacher, labels = arrays_of(s, t, y)
    own, other = features()
    terms = Objective(rkd(kind, kd_weight))(s, t, y, student_features=own, teacher_features=other, permuting=seeded(5))
    exp = exp_weights(student, teacher, labels)
    w = {
        "none": np.ones(12),
        "exp": exp,
        "constant": np.full(12, 0.3),
        "permuted": exp[torch.randperm(12, generator=seeded(5)).numpy()],
    }[kind]
    assert terms.weights is not None
    np.testing.assert_allclose(terms.weights.numpy(), w, rtol=1e-9)
    relational = relational_loss(own, other, torch.from_numpy(w), 25.0, 50.0).item()
    beside = kd_weight * (w * distillation(student, teacher, TAU)).mean()
    assert terms.loss.item() == pytest.approx(0.3 * mean_ce(s, y) + 1.7 * (relational + beside), rel=1e-9)
    assert (terms.regularization_samples is not None) == (kd_weight > 0)


def test_the_gradient_of_rkd_goes_to_the_students_outputs_only() -> None:
    s, t, y = problem()
    own, other = features()
    leaves = (s, t, own, other)
    for leaf in leaves:
        leaf.requires_grad_()
    Objective(rkd("exp", 1.0))(s, t, y, student_features=own, teacher_features=other).loss.backward()
    assert [leaf.grad is not None for leaf in leaves] == [True, False, True, False]


@pytest.mark.parametrize("given", [(False, False), (True, False), (False, True)])
def test_rkd_needs_the_features_of_both(given: tuple[bool, bool]) -> None:
    s, t, y = problem()
    own, other = features()
    with pytest.raises(ValueError, match="'rkd' needs the features"):
        Objective(rkd())(
            s, t, y, student_features=own if given[0] else None, teacher_features=other if given[1] else None
        )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_features_in_half_precision_make_a_float32_loss(half: torch.dtype) -> None:
    s, t, y = problem()
    own, other = (values.to(half) for values in features())
    objective = Objective(rkd())
    found = objective(s.float(), t.float(), y, student_features=own, teacher_features=other).loss
    wanted = objective(s.float(), t.float(), y, student_features=own.float(), teacher_features=other.float()).loss
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(("section", "needs"), [(dkd(), False), (dist(), False), (rkd(), True)])
def test_only_what_reads_features_asks_for_them(section: dict[str, Any], needs: bool) -> None:
    assert Objective(section).needs_features is needs
    assert Objective({"method": "none"}).needs_features is False


@pytest.mark.parametrize(
    "section", [dkd(), dist(), rkd("permuted", 1.0), dkd(keep={"regularization": 0.5, "other": 0.5})]
)
def test_a_step_is_a_call(section: dict[str, Any]) -> None:
    s, t, y = problem()
    own, other = features()
    step = Step(s, y, t, own, other, epoch=3, epochs=9, keeping=seeded(1), permuting=seeded(2))
    called = Objective(section)(
        s, t, y, student_features=own, teacher_features=other, epoch=3, epochs=9, keeping=seeded(1), permuting=seeded(2)
    )
    assert torch.equal(Objective(section).step(step).loss, called.loss)


# --- a user's own ----------------------------------------------------------------------------------

_numbers = itertools.count()

Write = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the text of a user's module where it is found, and gives its name, which no other test has."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def write(text: str) -> str:
        name = f"users_method_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text("import torch\n" + text)
        search_in([tmp_path])
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


SQUARES = """
def squares(student_logits, teacher_logits):
    return (student_logits - teacher_logits).square().mean(dim=1)

def one(student_logits, teacher_logits):
    return squares(student_logits, teacher_logits).mean()
"""


def squares(s: Tensor, t: Tensor) -> Array:
    return np.asarray((s - t).square().mean(dim=1).numpy())


def test_a_users_loss_an_example_stands_where_distillation_does(module: Write) -> None:
    s, t, y = problem()
    terms = Objective(users(f"{module(SQUARES)}:squares"))(s, t, y)
    assert terms.loss.item() == pytest.approx(0.3 * mean_ce(s, y) + 1.7 * squares(s, t).mean(), rel=1e-12)
    assert terms.regularization_samples is not None


@pytest.mark.parametrize("kind", ["exp", "constant", "permuted"])
def test_a_users_loss_an_example_is_weighted(module: Write, kind: str) -> None:
    s, t, y = problem()
    weighting = {"kind": kind} | ({"value": 0.3} if kind == "constant" else {})
    terms = Objective(users(f"{module(SQUARES)}:squares", weighting=weighting))(s, t, y, permuting=seeded(3))
    w = soft_label_weights(s, t, y, kind, value=weighting.get("value"), generator=seeded(3)).numpy()
    assert terms.loss.item() == pytest.approx(0.3 * mean_ce(s, y) + 1.7 * (w * squares(s, t)).mean(), rel=1e-12)


@pytest.mark.parametrize(("regularization", "other"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_a_users_loss_an_example_is_kept(module: Write, regularization: float, other: float) -> None:
    s, t, y = problem(64)
    section = users(f"{module(SQUARES)}:squares", "exp", keep={"regularization": regularization, "other": other})
    terms = Objective(section)(s, t, y, keeping=seeded(0))
    samples = regularization_sample_mask(s, t, y, TAU).numpy()
    kept = np.where(samples, regularization, other) * exp_weights(*arrays_of(s, t, y)) * squares(s, t)
    assert terms.loss.item() == pytest.approx(0.3 * mean_ce(s, y) + 1.7 * kept.mean(), rel=1e-10)


def test_a_users_loss_for_the_batch_is_taken_as_it_is(module: Write) -> None:
    s, t, y = problem()
    terms = Objective(users(f"{module(SQUARES)}:one"))(s, t, y)
    assert terms.loss.item() == pytest.approx(0.3 * mean_ce(s, y) + 1.7 * squares(s, t).mean(), rel=1e-12)


@pytest.mark.parametrize("change", [
    {"weighting": {"kind": "exp"}},
    {"weighting": {"kind": "permuted"}},
    {"weighting": {"kind": "constant", "value": 0.5}},
    {"keep": {"regularization": 0.5, "other": 1.0}},
    {"keep": {"regularization": 1.0, "other": 0.5}},
])  # fmt: skip
def test_a_users_loss_for_the_batch_cannot_be_weighted_or_kept_in_part(module: Write, change: dict[str, Any]) -> None:
    s, t, y = problem()
    name = f"{module(SQUARES)}:one"
    with pytest.raises(WslSweepError, match=f"{name} gives one loss for a batch"):
        Objective(users(name, **change))(s, t, y)


def test_a_batch_of_one_may_still_have_a_loss_an_example(module: Write) -> None:
    s, t, y = problem(1)
    terms = Objective(users(f"{module(SQUARES)}:squares", "exp"))(s, t, y)
    wanted = 0.3 * mean_ce(s, y) + 1.7 * (exp_weights(*arrays_of(s, t, y)) * squares(s, t)).mean()
    assert terms.loss.item() == pytest.approx(wanted, rel=1e-10)


SPY = """
seen = []

def by_name(epochs, labels, teacher_logits, student_logits, epoch, temperature):
    seen.append(locals())
    return student_logits.mean()

def by_position(z_s, z_t, y, tau, now, last, f_s, f_t):
    seen.append(locals())
    return z_s.mean()

def mixed(a, teacher_logits, c, *, epoch, scale=3.0):
    seen.append(locals())
    return a.mean()

def everything(**rest):
    seen.append(rest)
    return rest["student_logits"].mean()

def some_and_the_rest(z, **rest):
    seen.append({"z": z, **rest})
    return z.mean()

class Counting:
    def __init__(self, start=10):
        self.calls = start

    def __call__(self, student_logits, epoch):
        self.calls += 1
        seen.append({"calls": self.calls, "epoch": epoch})
        return student_logits.mean()

counting = Counting(100)
"""


def called(name: str, batch: dict[str, Any] | None = None) -> tuple[Objective, Callable[[], dict[str, Any]]]:
    """The objective of one of the functions in SPY, and what it was last called with."""
    import sys

    objective = Objective(users(name))
    return objective, lambda: sys.modules[name.partition(":")[0]].seen[-1]


def all_values() -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    own, other = features()
    return problem(), {"student_features": own, "teacher_features": other, "epoch": 7, "epochs": 30}


def test_a_users_parameters_get_what_their_names_say(module: Write) -> None:
    (s, t, y), rest = all_values()
    objective, seen = called(f"{module(SPY)}:by_name")
    objective(s, t, y, **rest)
    got = seen()
    assert sorted(got) == ["epoch", "epochs", "labels", "student_logits", "teacher_logits", "temperature"]
    assert got["student_logits"] is s
    assert torch.equal(got["teacher_logits"], t)
    assert got["labels"] is y
    assert (got["temperature"], got["epoch"], got["epochs"]) == (TAU, 7, 30)
    assert not objective.needs_features


def test_a_users_parameters_of_other_names_get_what_stands_at_their_position(module: Write) -> None:
    (s, t, y), rest = all_values()
    objective, seen = called(f"{module(SPY)}:by_position")
    assert objective.needs_features
    objective(s, t, y, **rest)
    got = seen()
    assert got["z_s"] is s
    assert torch.equal(got["z_t"], t)
    assert got["y"] is y
    assert (got["tau"], got["now"], got["last"]) == (TAU, 7, 30)
    assert torch.equal(got["f_s"], rest["student_features"])
    assert torch.equal(got["f_t"], rest["teacher_features"])


def test_names_and_positions_may_be_mixed_and_defaults_stay(module: Write) -> None:
    (s, t, y), rest = all_values()
    objective, seen = called(f"{module(SPY)}:mixed")
    objective(s, t, y, **rest)
    got = seen()
    assert got["a"] is s
    assert torch.equal(got["teacher_logits"], t)
    assert got["c"] is y
    assert (got["epoch"], got["scale"]) == (7, 3.0)
    assert not objective.needs_features


def test_a_user_may_take_everything(module: Write) -> None:
    (s, t, y), rest = all_values()
    name = module(SPY)
    objective, seen = called(f"{name}:everything")
    assert not objective.needs_features  # what is not named is given where it is there
    objective(s, t, y, **rest)
    assert sorted(seen()) == sorted(USER_METHOD_ARGUMENTS)
    objective, seen = called(f"{name}:some_and_the_rest")
    objective(s, t, y, **rest)
    assert sorted(seen()) == sorted({*USER_METHOD_ARGUMENTS, "z"} - {"student_logits"})


def test_a_users_class_is_made_once_without_arguments_and_called_each_step(module: Write) -> None:
    s, t, y = problem()
    name = module(SPY)
    objective, seen = called(f"{name}:Counting")
    for epoch in (1, 2, 3):
        objective(s, t, y, epoch=epoch)
        assert seen() == {"calls": 10 + epoch, "epoch": epoch}
    objective, seen = called(f"{name}:counting")  # an object is called as it is
    objective(s, t, y, epoch=5)
    assert seen() == {"calls": 101, "epoch": 5}


MODULE = """
class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.MSELoss(reduction="none")

    def forward(self, student_logits, teacher_logits):
        return self.inner(student_logits, teacher_logits).mean(dim=1)

loss = Loss()
"""


@pytest.mark.parametrize("what", ["Loss", "loss"])
def test_a_users_loss_may_be_a_torch_module(module: Write, what: str) -> None:
    """As losses in PyTorch are; its parameters are those of ``forward``."""
    s, t, y = problem()
    objective = Objective(users(f"{module(MODULE)}:{what}"))
    assert not objective.needs_features
    assert objective(s, t, y).loss.item() == pytest.approx(0.3 * mean_ce(s, y) + 1.7 * squares(s, t).mean(), rel=1e-12)


GRADIENTS = """
def product(student_logits, teacher_logits, student_features, teacher_features):
    return student_logits.sum() * teacher_logits.sum() * student_features.sum() * teacher_features.sum()
"""


def test_a_users_loss_sends_its_gradient_to_the_student_only(module: Write) -> None:
    s, t, y = problem()
    own, other = features()
    leaves = (s, t, own, other)
    for leaf in leaves:
        leaf.requires_grad_()
    objective = Objective(users(f"{module(GRADIENTS)}:product"))
    assert objective.needs_features
    objective(s, t, y, student_features=own, teacher_features=other).loss.backward()
    assert [leaf.grad is not None for leaf in leaves] == [True, False, True, False]


WRONG = """
def column(student_logits):
    return student_logits.mean(dim=1, keepdim=True)

def classes(student_logits):
    return student_logits.mean(dim=0)

def one_in_a_row(student_logits):
    return student_logits.mean().reshape(1)

def number(student_logits):
    return student_logits.mean().item()

def nothing(student_logits):
    student_logits.mean()

def pair(student_logits):
    return student_logits.mean(), {}

def unknown(student_logits, *, margins):
    return student_logits.mean()

def too_many(a, b, c, d, e, f, g, h, i):
    return a.mean()

def twice(teacher_logits, other):
    return other.mean()

def positional(student_logits, /):
    return student_logits.mean()

class Needy:
    def __init__(self, size):
        self.size = size

    def __call__(self, student_logits):
        return student_logits.mean()

class Failing:
    def __init__(self):
        raise FileNotFoundError("no prototypes.pt")

    def __call__(self, student_logits):
        return student_logits.mean()

class Silent:
    pass

constant = 3.0
"""


@pytest.mark.parametrize(("function", "shape"), [
    ("column", r"\(12, 1\)"), ("classes", r"\(6,\)"), ("one_in_a_row", r"\(1,\)"),
    ("number", "float"), ("nothing", "NoneType"), ("pair", "tuple"),
])  # fmt: skip
def test_a_users_loss_of_another_shape_is_refused_with_what_it_must_be(
    module: Write, function: str, shape: str
) -> None:
    s, t, y = problem()
    objective = Objective(users(f"{module(WRONG)}:{function}"))
    with pytest.raises(WslSweepError, match=rf"{function}\" must return a tensor of the shape \(12,\).* not {shape}"):
        objective(s, t, y)


@pytest.mark.parametrize(("what", "told"), [
    ("unknown", '"margins" is none of those that are given: student_logits, teacher_logits, labels'),
    ("too_many", '"i" is none of those that are given'),
    ("twice", "not clear which of its parameters is teacher_logits"),
    ("positional", '"student_logits" is positional only'),
    ("Needy", "cannot be made without arguments: .*'size'"),
    ("Failing", "no prototypes.pt"),
    ("Silent", "cannot be called"),
    ("constant", "cannot be called"),
])  # fmt: skip
def test_what_cannot_be_called_as_a_method_is_refused_before_any_batch(module: Write, what: str, told: str) -> None:
    name = f"{module(WRONG)}:{what}"
    with pytest.raises(WslSweepError, match=told) as caught:
        Objective(users(name))
    assert name in str(caught.value)


def test_a_module_that_is_not_there_is_named_with_where_it_may_lie() -> None:
    with pytest.raises(WslSweepError, match=r'"no_such_method_module".*beside the search-space file'):
        Objective(users("no_such_method_module:loss"))


def test_a_name_that_is_not_there_comes_with_the_nearest(module: Write) -> None:
    with pytest.raises(WslSweepError, match='nothing called "square"; did you mean "squares"'):
        Objective(users(f"{module(SQUARES)}:square"))


def test_a_module_that_fails_is_told_with_the_place(module: Write) -> None:
    name = module("prototypes = {}\nprototypes['mean']\n\ndef loss(student_logits): ...\n")
    with pytest.raises(WslSweepError, match=rf"importing {name} fails: KeyError: 'mean' \({name}.py, line 3\)"):
        Objective(users(f"{name}:loss"))


def test_a_module_that_is_not_python_is_told_with_the_place(module: Write) -> None:
    name = module("def loss(student_logits:\n    return 1\n")
    with pytest.raises(WslSweepError, match=rf"SyntaxError: .*\({name}.py, line 2\)"):
        Objective(users(f"{name}:loss"))


def test_an_error_within_a_users_loss_is_the_users_own(module: Write) -> None:
    s, t, y = problem()
    objective = Objective(users(f"{module('def loss(labels): raise ZeroDivisionError(str(len(labels)))')}:loss"))
    with pytest.raises(ZeroDivisionError, match="12"):
        objective(s, t, y)


def test_what_is_neither_known_nor_a_users_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'crd': none, kd, dkd, dist, rkd, or package\.module:name"):
        make_method({"method": "crd"})


def test_a_method_by_itself_gives_losses_of_a_batch(module: Write) -> None:
    s, t, y = problem()
    made = make_method({"method": f"{module(SQUARES)}:squares", "temperature": 2.0})
    np.testing.assert_allclose(made.loss(Batch(s, t, y)).numpy(), squares(s, t), rtol=1e-13)
    assert make_method(dist()).loss(Batch(s, t, y)).shape == ()
    assert make_method(dkd()).loss(Batch(s, t, y)).shape == (12,)


# --- keeping ---------------------------------------------------------------------------------------

KINDS: list[dict[str, Any]] = [
    {"kind": "none"},
    {"kind": "exp"},
    {"kind": "sigmoid", "of": "ratio"},
    {"kind": "constant", "value": 0.5},
    {"kind": "constant", "value": "batch_mean"},
    {"kind": "permuted"},
]


def kd(**changes: Any) -> dict[str, Any]:
    own = {"method": "kd", "ce_weight": 0.0, "alpha": 1.0, "temperature": TAU, "mask": "none"}
    return own | {"weighting": {"kind": "none"}, "keep": KEEP_ALL} | changes


def kept(section: dict[str, Any], s: Tensor, t: Tensor, y: Tensor, keeping: torch.Generator) -> Tensor:
    """(B,) bool, told from the gradient: without cross-entropy a dropped example has none."""
    leaf = s.clone().requires_grad_()
    terms = Objective(section)(leaf, t, y, keeping=keeping, permuting=seeded(99))
    (gradient,) = torch.autograd.grad(terms.loss, leaf)
    return gradient.abs().sum(dim=1) > 0


@pytest.mark.parametrize("kind", ["none", "exp"])
@pytest.mark.parametrize(("regularization", "other"), [(0.3, 1.0), (1.0, 0.2), (0.75, 0.4), (0.05, 0.95)])
def test_regularization_samples_and_the_others_are_each_kept_at_their_own_rate(
    kind: str, regularization: float, other: float
) -> None:
    """WSL Tab. 7, for KD and for WSL, over 200 batches. A right build fails once in a million."""
    keeping, section = seeded(4), kd(weighting={"kind": kind}, keep={"regularization": regularization, "other": other})
    counts = {True: [0, 0], False: [0, 0]}
    by_batch = []
    for seed in range(200):
        s, t, y = problem(64, 5, seed=1000 + seed)
        samples = regularization_sample_mask(s, t, y, TAU)
        found = kept(section, s, t, y, keeping)
        for group in (True, False):
            counts[group][0] += int(found[samples == group].sum())
            counts[group][1] += int((samples == group).sum())
        by_batch.append(int(found.sum()))
    for group, probability in ((True, regularization), (False, other)):
        hits, trials = counts[group]
        assert trials > 3000
        low, high = binom.interval(1 - 1e-7, trials, probability)
        assert low <= hits <= high, (group, hits / trials)
    assert len(set(by_batch)) > 10  # one draw an example, not one a batch or a fixed share of it


@pytest.mark.parametrize("kind", ["none", "exp"])
def test_each_example_is_drawn_for_itself_and_afresh_at_every_step(kind: str) -> None:
    """Over 400 steps on one batch: each example at its rate, and two examples no more alike than chance has it."""
    s, t, y = problem(24, 5, seed=5)
    keeping, section = seeded(6), kd(weighting={"kind": kind}, keep={"regularization": 0.5, "other": 0.5})
    draws = torch.stack([kept(section, s, t, y, keeping) for _ in range(400)]).numpy()
    low, high = binom.interval(1 - 1e-7, 400, 0.5)
    hits = draws.sum(axis=0)
    assert ((low <= hits) & (hits <= high)).all()
    assert hits.std() > 3  # of 10: a fixed half of each batch, taken in turn, would have 0
    alike = (draws[:, :-1] == draws[:, 1:]).sum(axis=0)
    assert ((low <= alike) & (alike <= high)).all()
    again = (draws[:-1] == draws[1:]).sum(axis=0)
    assert ((low - 1 <= again) & (again <= high)).all()


def test_who_is_kept_does_not_depend_on_how_the_kept_are_weighted() -> None:
    """The same seed drops the same examples under every weighting, so that arms differ in their weights alone."""
    s, t, y = problem(128, 5, seed=7)
    keep = {"regularization": 0.5, "other": 0.7}
    generators = [seeded(8) for _ in KINDS]
    for _ in range(3):
        found = [
            kept(kd(weighting=kind, keep=keep), s, t, y, generator)
            for kind, generator in zip(KINDS, generators, strict=True)
        ]
        assert 0 < found[0].sum() < 128
        for kind, other in zip(KINDS[1:], found[1:], strict=True):
            assert torch.equal(other, found[0]), kind


def test_permuting_does_not_depend_on_who_is_kept() -> None:
    s, t, y = problem(32, 5, seed=9)
    weights = [
        Objective(kd(weighting={"kind": "permuted"}, keep={"regularization": 1.0, "other": other}))(
            s, t, y, keeping=seeded(1), permuting=seeded(2)
        ).weights
        for other in (1.0, 0.5, 0.0)
    ]
    assert weights[0] is not None
    for other in weights[1:]:
        assert other is not None
        assert torch.equal(other, weights[0])


def test_other_methods_keep_the_same_examples() -> None:
    s, t, y = problem(128, 5, seed=10)
    keep = {"regularization": 0.4, "other": 0.6}
    of_kd = kept(kd(keep=keep), s, t, y, seeded(11))
    of_dkd = kept(dkd(ce_weight=0.0, keep=keep), s, t, y, seeded(11))
    assert 0 < of_kd.sum() < 128
    assert torch.equal(of_dkd, of_kd)


def test_a_dropped_examples_loss_may_be_infinite(module: Write) -> None:
    """Left out is left out: no infinity times nothing."""
    name = module("def loss(student_logits): return student_logits.sum(dim=1) / 0.0")
    s, t, y = problem()
    keep = {"regularization": 0.0, "other": 0.0}
    terms = Objective(users(f"{name}:loss", keep=keep))(s, t, y, keeping=seeded(0))
    assert terms.loss.item() == pytest.approx(0.3 * mean_ce(s, y), rel=1e-12)
