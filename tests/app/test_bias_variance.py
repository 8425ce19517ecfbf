"""Bias and variance from the command line: of a sweep that is there, and of a file: run, gone on with, or done."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import special

from tests.app.exported_sweep import MadeSweep
from tests.conftest import Command
from wsl_sweep.app import bias_variance as module
from wsl_sweep.app.bias_variance import diagnose_bias_variance, run_protocol
from wsl_sweep.app.options import Finished, RunOptions
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.loading import CommandLine
from wsl_sweep.storage import place
from wsl_sweep.sweep.ledger import Ledger
from wsl_sweep.training import Job, TeacherStore, TrialTraining
from wsl_sweep.training.files import TEACHER_LOGITS

PROTOCOL = """
name: whole
description: Does it trade one for the other?
run:
  recipe: digits
  student: {model: convnet_2}
  teacher: {model: convnet_3, schedule: {epochs: 1, milestones: []}}
  schedule: {epochs: 1, milestones: []}
variants:
  ce: {distillation: {method: none}}
  kd: {distillation: {weighting: {kind: none}}}
  ce_parts: {distillation: {method: none}, dataset: {splits: 2}}
  kd_parts: {distillation: {weighting: {kind: none}}, dataset: {splits: 2}}
  kd_each: {distillation: {weighting: {kind: none}}, dataset: {splits: 2}, teacher: {split: same}}
seeds: 2
"""


ASKED = ("diagnose", "bias-variance")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeSweep, str]:
    """A sweep of ten students that were really trained, and evaluated on the test part."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSL_SWEEP_CACHE", cache)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        sweep = MadeSweep(tmp_path_factory.mktemp("runs"), PROTOCOL)
        for trial in sweep.trials:
            sweep.train(trial)
        sweep.evaluate()
    return sweep, cache


@pytest.fixture
def sweep(trained: tuple[MadeSweep, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MadeSweep:
    monkeypatch.setenv("WSL_SWEEP_CACHE", trained[1])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    return trained[0]


def direct(sweep: MadeSweep, variant: str, part: str) -> tuple[float, float, float]:
    """Bias, mean divergence and mean cross-entropy of a variant's students, each by its own definition."""
    kept = [
        load_file(sweep.trial_folder(one) / f"{part}_logits.safetensors")
        for one in sweep.trials
        if variant in one.variants
    ]
    logs = special.log_softmax(np.stack([one["logits"] for one in kept]).astype(np.float64), axis=2)
    labels = kept[0]["labels"]
    rows = np.arange(len(labels))
    average = special.log_softmax(logs.mean(axis=0), axis=1)
    divergence = (np.exp(average) * (average - logs)).sum(axis=2).mean()
    return -average[rows, labels].mean(), divergence, -logs[:, rows, labels].mean()


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_figures_are_those_of_the_kept_logits(sweep: MadeSweep, wsl: Command, part: str) -> None:
    told: dict[str, Any] = wsl(*ASKED, sweep.name, "--storage", str(sweep.storage), "--part", part, "--json").json
    assert told["part"] == part
    assert [(one["over"], [each["name"] for each in one["students"]]) for one in told["regimes"]] == [
        ("seeds", ["ce", "kd"]),
        ("data", ["ce_parts", "kd_parts"]),
        ("data and teachers", ["ce_parts", "kd_each"]),
    ]
    for regime in told["regimes"]:
        for one in regime["students"]:
            terms, expected = one["terms"]["whole"], direct(sweep, one["name"], part)
            values = [terms[name]["value"] for name in ("bias", "variance", "cross_entropy")]
            assert values == pytest.approx(expected, abs=1e-10)
            assert values[0] + values[1] == pytest.approx(values[2], abs=1e-10)
            assert one["gap"] < 1e-10
            assert 0 < one["share"] < 1
        for pair in regime["against"]:
            ours, theirs = (direct(sweep, pair[name], part) for name in ("name", "baseline"))
            assert pair["tradeoff"]["whole"]["middle"]["value"] == pytest.approx(ours[0] - theirs[0])
            assert pair["tradeoff"]["whole"]["change"]["value"] == pytest.approx(ours[1] - theirs[1])
    page = Path(told["page"])
    assert page == sweep.folder / "bias_variance.html"
    text = page.read_text()
    assert text.count("<section id=") == 3
    assert not re.findall(r"https?://(?!www\.w3\.org)", text)
    assert json.loads((sweep.folder / "bias_variance.json").read_text())["regimes"] == told["regimes"]


def test_what_teachers_say_is_the_same_kept_or_computed(sweep: MadeSweep) -> None:
    computed = diagnose_bias_variance(sweep.name, storage=str(sweep.storage))
    said: list[str] = []
    for trial in sweep.trials:
        if trial.teacher_id is not None:
            with TrialTraining(Job(dict(trial.config)), TeacherStore()) as training:
                training.save_teacher_logits(sweep.folder / TEACHER_LOGITS)
    kept = diagnose_bias_variance(sweep.name, storage=str(sweep.storage), say=said.append)
    assert said == []
    assert len(list((sweep.folder / TEACHER_LOGITS).iterdir())) == 3
    for one, other in zip(computed.found.regimes, kept.found.regimes, strict=True):
        assert [each.share for each in one.students] == pytest.approx([each.share for each in other.students])
        for each, same in zip(one.against, other.against, strict=True):
            for part in ("whole", "regularization", "others"):
                assert getattr(each.tradeoff, part) == getattr(same.tradeoff, part)


def test_people_read_a_table_for_each_regime(sweep: MadeSweep, wsl: Command, tmp_path: Path) -> None:
    out = wsl(*ASKED, sweep.name, "--storage", str(sweep.storage), "--to", str(tmp_path / "page.html")).out
    for text in ("seeds only", "disjoint training data, one teacher", "a teacher each", "middle term of eq. 3"):
        assert text in out
    assert (tmp_path / "page.html").is_file()
    assert f"Page: {tmp_path / 'page.html'}" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no sweep in"),
        (["nosuch.yaml"], "there is no file nosuch.yaml here"),
        (["nosuch", "--seeds", "3"], "there is no file nosuch here"),
        (["whole", "--part", "train"], "--part must be validation or test"),
        (["whole", "--to", "."], "is a folder"),
    ],
)
def test_what_cannot_be_is_said(sweep: MadeSweep, wsl: Command, arguments: list[str], said: str) -> None:
    assert said in wsl(*ASKED, *arguments, "--storage", str(sweep.storage), expect=2).err


def test_a_sweep_without_two_students_says_so(sweep: MadeSweep, tmp_path: Path) -> None:
    one = MadeSweep(tmp_path / "runs", PROTOCOL.replace("name: whole", "name: alone").replace("seeds: 2", "seeds: 1"))
    with pytest.raises(WslSweepError, match="take two finished students"):
        diagnose_bias_variance(one.name, storage=str(one.storage))
    gone = MadeSweep(tmp_path / "runs", PROTOCOL.replace("name: whole", "name: gone"))
    for trial in gone.trials:
        gone.begin(trial)
        gone.finish(trial, {"validation/accuracy": 0.5})
    with pytest.raises(WslSweepError, match="logits of fewer than two students are kept"):
        diagnose_bias_variance(gone.name, storage=str(gone.storage))


class Driven:
    """What is driven in place of a sweep."""

    def __init__(self, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage, self.calls = storage, list[str]()
        monkeypatch.setattr(module, "run_sweep", self.run)
        monkeypatch.setattr(module, "resume_sweep", self.resume)

    def run(self, file: Path, line: CommandLine, options: RunOptions) -> Finished:
        self.calls.append(f"run {file.name}")
        return Finished(place(self.storage / "whole-9"), {})

    def resume(self, name: str, options: RunOptions) -> Finished:
        self.calls.append(f"resume {name}")
        return Finished(place(self.storage / name), {})


def test_a_file_is_run_once_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "whole.yaml"
    file.write_text(PROTOCOL)
    driven, names = Driven(tmp_path / "runs", monkeypatch), list[str]()
    options = RunOptions(storage=str(tmp_path / "runs"))

    def ask(line: CommandLine = CommandLine()) -> Finished | None:
        return run_protocol(file, line, options, names.append)

    assert ask() is not None
    assert (driven.calls, names) == (["run whole.yaml"], ["whole-9"])
    MadeSweep(tmp_path / "runs", PROTOCOL)
    assert ask() is not None
    assert driven.calls[1:] == ["resume whole"]
    Ledger(tmp_path / "runs" / "whole" / "ledger").append("sweep", status="finished")
    assert ask() is None
    assert names == ["whole-9", "whole", "whole"]
    assert ask(CommandLine(seeds=3)) is not None, "of another command line"
    file.write_text(PROTOCOL.replace("seeds: 2", "seeds: 3"))
    assert ask() is not None, "of another file"
    assert driven.calls[2:] == ["run whole.yaml", "run whole.yaml"]
