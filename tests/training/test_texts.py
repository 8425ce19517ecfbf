"""Trials on texts: the same loop, bank and metrics as on pictures, whatever the lengths of the sentences are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.data.glue import some_rows, write_glue, write_part
from wsl_sweep.app.single import train_once
from wsl_sweep.data import dataset, load
from wsl_sweep.data.dataset import load_test
from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec import SpecErrors
from wsl_sweep.spec.identity import trial_id
from wsl_sweep.training import BankSettings, Job, TeacherStore, TrialTraining, evaluate_on_test
from wsl_sweep.training.loop import predict
from wsl_sweep.training.weights import build_with_seed

from .conftest import make_job
from .own_texts import Bag, Counting

UNTIMED = ("timestamp", "train/seconds")
NAME = "tests.training.own_texts"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset.forget()
    rows = write_glue(tmp_path / "glue", train=150, matched=30, mismatched=21)
    long = [
        (f"{one} {'and so on ' * (index % 9)}", other, label)
        for index, (one, other, label) in enumerate(some_rows(150))
    ]
    write_part(rows / "train.tsv", long)
    return rows


def sets_of(root: Path, model: str = "Bag") -> tuple[str, ...]:
    """What makes the digits recipe one of texts."""
    return (
        "dataset.name=mnli",
        f"dataset.root={root}",
        "dataset.vocabulary=learned",
        f"teacher.model={NAME}:{model}",
        f"student.model={NAME}:Bag",
        "teacher.schedule.epochs=2",
        "schedule.epochs=2",
        "schedule.batch_size=16",
        "teacher.schedule.milestones=[]",
        "schedule.milestones=[]",
        "dataset.train_fraction=1.0",
        "precision=float32",
    )


def job_of(root: Path, *more: str, bank: bool = True, model: str = "Bag") -> Job:
    """A job on the texts of a folder."""
    job = make_job(*sets_of(root, model), *more)
    return Job(job.config, bank=BankSettings(use=bank))


def run(job: Job, store: TeacherStore) -> tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Any]]:
    """Rows without their times, the student's weights, and what the teacher had to do."""
    with TrialTraining(job, store) as training:
        rows = [{name: value for name, value in row.items() if name not in UNTIMED} for row in training]
        facts = training.teacher_facts()
    assert facts is not None
    return rows, {name: tensor.clone() for name, tensor in training.student.state_dict().items()}, facts


def test_a_trial_is_the_same_bits_with_a_cold_bank_a_warm_one_and_none(root: Path, store: TeacherStore) -> None:
    cold, warm, off = (run(job_of(root, bank=bank), store) for bank in (True, True, False))
    for other in (warm, off):
        assert cold[0] == other[0]
        assert all(torch.equal(cold[1][name], other[1][name]) for name in cold[1])
    examples = len(load(job_of(root).config["dataset"]).train) + len(load(job_of(root).config["dataset"]).validation)
    assert examples == 150
    assert cold[2]["computed"] == examples  # one view: each of them once, for all epochs
    assert (warm[2]["computed"], warm[2]["found"]) == (0, cold[2]["computed"] + cold[2]["found"])
    assert off[2]["computed"] > examples


def test_a_teacher_never_looks_at_an_example_twice(root: Path, store: TeacherStore) -> None:
    run(job_of(root, model="Counting"), store)
    Counting.seen = 0
    run(job_of(root, "schedule.epochs=3", "distillation.alpha=1.5", model="Counting"), store)
    assert Counting.seen == 0


def test_what_is_learned_is_measured_on_both_test_sets(root: Path, store: TeacherStore, tmp_path: Path) -> None:
    sets = [one for one in sets_of(root) if not one.startswith(("teacher.", "schedule.epochs"))]
    learning = ("schedule.epochs=10", "optimizer.name=adamw", "optimizer.lr=0.02")
    job = make_job(*sets, *learning, teacher=False)
    with TrialTraining(job, store) as training:
        rows = list(training)
        training.save(tmp_path / "trial")
    assert rows[-1]["train/accuracy"] > 0.6 > rows[0]["train/accuracy"]
    assert {name for name in rows[-1] if "matched" in name} == set()
    metrics = evaluate_on_test(job, tmp_path / "trial")
    test = load_test(job.config["dataset"])
    right = predict(training.student, test).argmax(dim=1) == test.labels
    assert metrics["test/accuracy_matched"] == right[:30].double().mean().item()
    assert metrics["test/accuracy_mismatched"] == right[30:].double().mean().item()
    assert metrics["test/accuracy"] == right.double().mean().item()


def test_predictions_stand_in_the_order_of_their_examples(root: Path) -> None:
    test = load_test(job_of(root).config["dataset"])
    model = Bag(3, 8000)
    alone = torch.cat([model(test.views.plain(torch.tensor([row]))) for row in range(len(test))])
    assert torch.allclose(predict(model, test), alone, atol=1e-6)


def test_training_shows_the_examples_in_the_order_of_the_seed(root: Path) -> None:
    from wsl_sweep.data.streams import stream
    from wsl_sweep.training.feed import epoch_inputs

    train = load(job_of(root).config["dataset"])
    order = torch.randperm(len(train.train), generator=stream(3, "order", 1))
    steps = list(epoch_inputs(train, None, seed=3, epoch=1, epochs=2, batch_size=16))
    assert torch.equal(torch.cat([step.labels for step in steps]), train.train.labels[order])
    assert torch.equal(steps[0].inputs, train.train.views.plain(order[:16]))
    assert len({step.inputs.shape[2] for step in steps}) > 1


def test_a_trial_is_its_sentences_and_vocabulary_not_their_place(root: Path, tmp_path: Path) -> None:
    def identity(*more: str) -> str:
        return trial_id(job_of(root, *more).config, "train", 1)

    first = identity()
    assert identity("dataset.max_length=64") != first
    root.rename(tmp_path / "moved")
    root = tmp_path / "moved"
    assert identity() == first
    write_part(root / "dev_matched.tsv", some_rows(30, seed=9))
    assert identity() != first


def test_one_training_without_a_sweep(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    found = train_once("digits", (*sets_of(root), "distillation.weighting.kind=none"), seed=1)
    assert found["metrics"]["validation/accuracy"] > 0
    assert found["teacher"]["computed"] == 150
    with (root / "train.tsv").open("a") as file:
        file.write("broken\n")
    with pytest.raises(WslSweepError, match=r"train.tsv line 152 \(1 field, 8 in the first line\); mend them"):
        train_once("digits", sets_of(root), seed=1)
    skipping = train_once("digits", (*sets_of(root), "dataset.damaged=skip"), seed=1)
    assert skipping["config"]["dataset"]["damaged"] == "skip"
    assert skipping["teacher"]["computed"] == 0  # the same sentences: they are in the bank


def test_a_model_that_does_not_fit_and_files_that_are_not_there_are_told_before(root: Path) -> None:
    sets = [one for one in sets_of(root) if not one.startswith("student.model")]
    with pytest.raises(SpecErrors, match=r'"torchvision:resnet18" fails on mnli.s inputs of 2x'):
        train_once("digits", (*sets, "student.model=torchvision:resnet18"), seed=1)
    (root / "train.tsv").unlink()
    with pytest.raises(SpecErrors, match=r"--set dataset.root: .*train.tsv is not there"):
        train_once("digits", sets_of(root), seed=1)


def test_buckets_change_no_logit_of_a_bert_but_by_rounding(root: Path) -> None:
    test = load_test(job_of(root).config["dataset"])
    model = build_with_seed(lambda: build("bert_2x32", 3, 8000), 0).eval()
    rows = torch.arange(len(test))
    tokens = test.views.plain(rows)
    with torch.no_grad():
        in_buckets = predict(model, test)
        whole = model(torch.nn.functional.pad(tokens, (0, 128 - tokens.shape[2])))
    shapes = test.views.shapes(rows)
    assert shapes is not None
    assert len(set(shapes.tolist())) > 1
    assert (in_buckets - whole).abs().max() < 1e-5
