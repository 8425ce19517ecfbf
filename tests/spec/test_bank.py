"""The section ``bank`` and ``precision: auto``: what may stand there, and what of it is part of a trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.plan import Trial, ablation_cells
from wsl_sweep.spec.sections import BankSection
from wsl_sweep.spec.spec import Spec

from .helpers import ABLATION, problems_of, spec_of

VARIANTS = """
run: {recipe: digits}
variants: {kd: , wsl: , ce: , rkd: {distillation.method: rkd}, train: {teacher.mode: train}}
seeds: 2
"""
OWN_TEACHER = {"kd", "wsl", "rkd"}
"""The variants whose teacher runs in eval mode, so that what is kept of it makes their results."""


def trials_of(bank: str = "", text: str = VARIANTS, device_kind: str = "cpu") -> dict[tuple[str, int], Trial]:
    """Variant and seed → trial, of a file with a section ``bank``."""
    cells = ablation_cells(spec_of(text + bank), device_kind)
    return {(trial.variants[0], trial.seed): trial for cell in cells for trial in cell.trials}


def ids_of(bank: str = "") -> dict[tuple[str, int], str]:
    return {name: trial.trial_id for name, trial in trials_of(bank).items()}


@pytest.mark.parametrize(
    ("line", "path", "what"),
    [
        ("bnak: {use: false}", "bnak", 'did you mean "bank"?'),
        ("bank: {us: true}", "bank.us", 'unknown key "us"; did you mean "use"?'),
        ("bank: {limit: 3}", "bank.limit", 'unknown key "limit"; did you mean "limit_gb"?'),
        ("bank: {precison: float16}", "bank.precison", 'did you mean "precision"?'),
        ("bank: {feature: true}", "bank.feature", 'did you mean "features"?'),
        ("bank: false", "bank", "must be a section of keys and values, not False"),
        ("bank: 5", "bank", "must be a section of keys and values, not 5"),
        ("bank: {use: maybe}", "bank.use", "must be true or false, not 'maybe'"),
        ("bank: {use: 1}", "bank.use", "must be true or false, not 1"),
        ("bank: {use: null}", "bank.use", "must be true or false, not nothing"),
        ("bank: {precision: flaot16}", "bank.precision", 'did you mean "float16"?'),
        ("bank: {precision: bfloat16}", "bank.precision", "must be one of float32, float16, not 'bfloat16'"),
        ("bank: {precision: auto}", "bank.precision", "must be one of float32, float16, not 'auto'"),
        ("bank: {features: 3}", "bank.features", "must be true or false, not 3"),
        ("bank: {limit_gb: 0}", "bank.limit_gb", "must be above 0"),
        ("bank: {limit_gb: -1}", "bank.limit_gb", "must be above 0"),
        ("bank: {limit_gb: much}", "bank.limit_gb", "must be a number, not 'much'"),
        ("bank: {limit_gb: true}", "bank.limit_gb", "must be a number, not True"),
        ("bank: {limit_gb: .inf}", "bank.limit_gb", "must be a finite number, not inf"),
        ("bank: {limit_gb: .nan}", "bank.limit_gb", "must be a finite number, not nan"),
    ],
)
def test_a_mistake_in_bank_is_reported_with_its_line_its_path_and_the_nearest_name(
    line: str, path: str, what: str
) -> None:
    (problem,) = problems_of(ABLATION + line + "\n")
    assert (problem.line, problem.path) == (3, path)
    assert what in problem.what


def test_all_mistakes_in_bank_are_reported_at_once_each_in_its_own_line() -> None:
    text = ABLATION + "bank:\n  use: perhaps\n  precision: float8\n  limit_gb: -5\n  fetures: true\n"
    found = {problem.path: problem.line for problem in problems_of(text)}
    assert found == {"bank.use": 4, "bank.precision": 5, "bank.limit_gb": 6, "bank.fetures": 7}


def test_the_bank_is_no_path_of_run() -> None:
    """Neither its section nor what it adds to a configuration can be swept or set."""
    for path in ("bank.use", "teacher.stored_precision"):
        assert [problem.path for problem in problems_of(ABLATION, sets=(f"{path}=float16",))] == [f"--set {path}"]
    problems = problems_of(ABLATION.replace("digits", "digits, teacher.stored_precision: float16"))
    assert [(problem.line, problem.path) for problem in problems] == [(1, "run.teacher.stored_precision")]


@pytest.mark.parametrize("text", ["", "bank:\n", "bank: {}\n", "bank: {features: null}\n"])
def test_the_bank_is_used_in_float32_where_nothing_is_said(text: str) -> None:
    assert spec_of(ABLATION + text).bank == BankSection(use=True, precision="float32", features=None, limit_gb=50.0)


@pytest.mark.parametrize(
    "section",
    ["{use: false}", "{use: true}", "{features: true}", "{features: false}", "{limit_gb: 0.001}",
     "{precision: float32}", "{use: false, features: true, limit_gb: 3}"],
)  # fmt: skip
def test_whether_where_and_how_much_is_kept_is_no_part_of_a_trial(section: str) -> None:
    assert ids_of(f"bank: {section}\n") == ids_of()


@pytest.mark.parametrize("section", ["{precision: float16}", "{precision: float16, use: false}"])
def test_float16_makes_other_trials_of_those_that_read_what_is_kept(section: str) -> None:
    """``use: false`` rounds too, so that a trial does not depend on what the bank holds."""
    before, after = ids_of(), ids_of(f"bank: {section}\n")
    changed = {name for name, _ in before if any(before[name, seed] != after[name, seed] for seed in (0, 1))}
    assert changed == OWN_TEACHER
    assert len(set(after.values())) == len(set(before.values()))
    for (name, _), trial in trials_of(f"bank: {section}\n").items():
        kept = trial.config.get("teacher", {}).get("stored_precision")
        assert kept == ("float16" if name in OWN_TEACHER else None)


def test_a_teacher_is_the_same_however_what_it_says_is_kept() -> None:
    halves = trials_of("bank: {precision: float16}\n")
    for name, trial in trials_of().items():
        half = halves[name]
        assert teacher_identity(half.config, half.part, 1) == teacher_identity(trial.config, trial.part, 1)


def test_a_float16_trial_travels_as_plain_data() -> None:
    for trial in trials_of("bank: {precision: float16}\n").values():
        assert Trial.from_json(trial.to_json()) == trial


# --- precision: auto -------------------------------------------------------------------------------------------------


def asks(text: str, device_kind: str, overrides: dict[str, Any] | None = None, **command_line: Any) -> bool:
    return spec_of(text, **command_line).asks_for_auto(overrides or {}, None, device_kind)


def precision_of(spec: Spec, overrides: dict[str, Any], device_kind: str = "cpu") -> str:
    return str(spec.config(overrides, device_kind=device_kind)["precision"])


WRITTEN = ABLATION.replace("{recipe: digits}", "{recipe: digits, precision: auto}")


def test_auto_is_measured_on_a_gpu_by_default_and_on_a_cpu_where_somebody_wrote_it() -> None:
    assert asks(ABLATION, "cuda")
    assert not asks(ABLATION, "cpu")
    assert asks(WRITTEN, "cuda")
    assert asks(WRITTEN, "cpu")
    assert asks(ABLATION, "cpu", sets=("precision=auto",))
    assert asks(ABLATION, "cpu", {"precision": "auto"})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("device_kind", ["cpu", "cuda"])
def test_a_precision_that_is_said_is_not_measured(precision: str, device_kind: str) -> None:
    assert not asks(WRITTEN, device_kind, {"precision": precision})
    assert not asks(WRITTEN, device_kind, sets=(f"precision={precision}",))
    spec = replace(spec_of(WRITTEN), precisions={"convnet_4": "bfloat16" if precision == "float32" else "float32"})
    assert precision_of(spec, {"precision": precision}, device_kind) == precision


def test_a_swept_precision_asks_where_its_value_is_auto() -> None:
    spec = spec_of("run: {recipe: digits}\nspace: {precision: {grid: [auto, float32]}}\nvariants: [kd]\n")
    assert spec.asks_for_auto({}, {"precision": "auto"}, "cpu")
    assert not spec.asks_for_auto({}, {"precision": "float32"}, "cpu")


def test_what_was_measured_is_the_precision_of_the_students_it_was_measured_for() -> None:
    spec = replace(spec_of(WRITTEN), precisions={"convnet_4": "bfloat16", "convnet_8": "float32"})
    assert precision_of(spec, {}) == "bfloat16"
    assert precision_of(spec, {"student.model": "convnet_8"}) == "float32"
    assert precision_of(spec, {"student.model": "convnet_16"}) == "float32"  # not measured: the CPU's own
    assert precision_of(spec, {"student.model": "convnet_16"}, "cuda") == "bfloat16"


def test_what_was_measured_does_not_touch_a_sweep_on_a_cpu_that_did_not_ask() -> None:
    spec = replace(spec_of(ABLATION), precisions={"convnet_4": "bfloat16"})
    assert precision_of(spec, {}) == "float32"
    assert precision_of(spec, {}, "cuda") == "bfloat16"


def test_an_id_holds_the_settled_precision_and_not_how_it_was_settled() -> None:
    def ids(text: str, **precisions: str) -> list[str]:
        cells = ablation_cells(replace(spec_of(text), precisions=precisions))
        return [trial.trial_id for cell in cells for trial in cell.trials]

    assert ids(WRITTEN, convnet_4="float32") == ids(ABLATION)
    assert not set(ids(WRITTEN, convnet_4="bfloat16")) & set(ids(ABLATION))
