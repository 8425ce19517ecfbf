"""Both sides of the comparison train the same thing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.naive import loss_of, parts
from benchmarks.sweep import agreement, differences, grid, report, search_space
from tests.sweep.fakes import spec_of
from wsl_sweep.data import load
from wsl_sweep.distill import Objective
from wsl_sweep.spec import parse_spec
from wsl_sweep.spec.loading import CommandLine
from wsl_sweep.spec.plan import ablation_cells


def config_of(variant: str = "wsl") -> dict[str, Any]:
    spec = spec_of(f"run: {{recipe: digits}}\nvariants: [{variant}]")
    return spec.config(spec.variants[variant])


@pytest.mark.parametrize("trials", [1, 2, 7, 16])
def test_the_file_asks_for_the_trials_of_the_grid(trials: int) -> None:
    spec = parse_spec(search_space(trials, 3, "digits", None), "benchmark", CommandLine())
    found = {
        (trial.config["distillation"]["alpha"], trial.seed) for cell in ablation_cells(spec) for trial in cell.trials
    }
    alphas, seeds = grid(trials)
    assert found == {(alpha, seed) for alpha in alphas for seed in seeds}
    assert len(found) == trials
    assert {trial.epochs for cell in ablation_cells(spec) for trial in cell.trials} == {3}


def test_other_models_can_be_named() -> None:
    text = search_space(2, None, "digits", ("convnet_8", "convnet_3"))
    spec = parse_spec(text, "benchmark", CommandLine())
    config = spec.config(spec.variants["wsl"])
    assert (config["teacher"]["model"], config["student"]["model"]) == ("convnet_8", "convnet_3")


@pytest.mark.parametrize("variant", ["wsl", "kd"])
def test_the_scripts_loss_is_the_packages(variant: str) -> None:
    distillation = config_of(variant)["distillation"]
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(32, 10, generator=generator) for _ in range(2))
    labels = torch.arange(32) % 10
    expected = Objective({**distillation, "alpha": 1.7})(student, teacher, labels).loss
    torch.testing.assert_close(loss_of(student, teacher, labels, 1.7, distillation), expected)


def test_without_a_teacher_it_is_cross_entropy() -> None:
    logits, labels = torch.randn(8, 10), torch.arange(8)
    expected = Objective(config_of("ce")["distillation"])(logits, None, labels).loss
    torch.testing.assert_close(loss_of(logits, None, labels, 0.0, {}), expected)


def test_the_script_sees_the_packages_pictures_and_split() -> None:
    dataset = config_of()["dataset"]
    data = load(dataset)
    train, validation = parts(dataset)
    assert (len(train), len(validation)) == (len(data.train), len(data.validation))
    assert train.labels == data.train.labels.tolist()
    assert validation.labels == data.validation.labels.tolist()
    rows = torch.arange(len(data.validation))
    own = torch.stack([validation[index][0] for index in range(len(validation))])
    torch.testing.assert_close(own, data.validation.views.plain(rows), atol=1e-5, rtol=0)


def test_the_scripts_augmentation_is_one_of_the_packages_views_and_any_of_them() -> None:
    data = load(config_of()["dataset"])
    train, _ = parts(config_of()["dataset"])
    torch.manual_seed(0)
    views = data.train.views
    for example in range(3):
        known = views.take(torch.full((views.count,), example), torch.arange(views.count))
        drawn = [int((known - train[example][0]).abs().amax(dim=(1, 2, 3)).argmin()) for _ in range(200)]
        gaps = [(known - train[example][0]).abs().amax(dim=(1, 2, 3)).min().item() for _ in range(20)]
        assert max(gaps) < 1e-5
        assert len(set(drawn)) == views.count == 9


def test_what_a_seed_has_in_common_is_one_difference() -> None:
    ours = {(1.0, 0): 0.9, (2.0, 0): 0.8, (1.0, 1): 0.7, (2.0, 1): 0.6}
    naive = {(1.0, 0): 0.8, (2.0, 0): 0.8, (1.0, 1): 0.7, (2.0, 1): 0.5}
    assert differences(ours, naive) == pytest.approx([0.05, 0.05])
    agreed = agreement(ours, naive)
    assert agreed["difference"] == pytest.approx(0.05)
    assert agreed["ci95"] == pytest.approx([0.05, 0.05])
    assert agreed["seeds"] == 2
    with pytest.raises(ValueError, match="other cells"):
        differences(ours, {(1.0, 0): 0.8})


def test_a_single_seed_has_no_interval() -> None:
    agreed = agreement({(1.0, 0): 0.9}, {(1.0, 0): 0.8})
    assert agreed["ci95"] is None
    assert "nan" in report({"ours": [2.0], "naive": [4.0]}, agreed)[1]
