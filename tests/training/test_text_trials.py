"""Whole trainings of text models on pairs of several lengths: bank, resume, beginnings, precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.text import TinyText
from wsl_sweep.data import dataset as datasets
from wsl_sweep.data import load
from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.storage import place
from wsl_sweep.training import BankSettings, FrozenTeacher, Job, TeacherStore, TrialTraining, evaluate_on_test
from wsl_sweep.training.attempts import Attempts, Stopped
from wsl_sweep.training.loop import predict
from wsl_sweep.training.trial import train_teacher

pytest.importorskip("transformers")

UNTIMED = ("timestamp", "train/seconds")
TEXT = "variants: {x: {}}\nrun: {recipe: mnli/tiny}"
SMALL = (
    "dataset.name=tests.text:TinyText",
    "teacher.model=bert_2x32",
    "teacher.schedule.epochs=2",
    "student.model=bert_1x32",
    "schedule.epochs=2",
)


def make_job(*sets: str, seed: int = 0, bank: bool = True) -> Job:
    """A job of the tiny recipe on pairs of made words, cut down; ``sets`` as on the command line."""
    taken = {text.split("=")[0] for text in sets}
    small = tuple(text for text in SMALL if text.split("=")[0] not in taken)
    spec = parse_spec(TEXT, "x", CommandLine(sets=(*small, *sets)))
    return Job(spec.config({}, seed=seed), "train", 1, BankSettings(use=bank))


Result = tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Any] | None]


def run(job: Job, store: TeacherStore, **options: Any) -> Result:
    with TrialTraining(job, store, **options) as training:
        list(training)
        weights = {name: tensor.clone() for name, tensor in training.student.state_dict().items()}
        rows = [{name: value for name, value in row.items() if name not in UNTIMED} for row in training.rows]
        return rows, weights, training.teacher_facts()


def same(one: Result, other: Result) -> bool:
    return one[0] == other[0] and all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    datasets.forget()


def test_a_bank_that_is_cold_or_warm_or_absent_gives_the_same_bits(store: TeacherStore) -> None:
    cold, warm = run(make_job(), store), run(make_job(), store)
    without = run(make_job(bank=False), store)
    assert same(cold, warm)
    assert same(cold, without)
    for facts in (cold[2], warm[2], without[2]):
        assert facts is not None
    train, validation = (len(part) for part in (load_text().train, load_text().validation))
    assert cold[2] is not None
    assert cold[2]["computed"] == train + validation  # once over the data, whatever the epochs
    assert warm[2] is not None
    assert (warm[2]["computed"], warm[2]["found"]) == (0, 2 * train + validation)
    other = run(make_job(seed=1), store)  # in other batches
    assert other[2] is not None
    assert other[2]["computed"] == 0


def load_text() -> Any:
    return load(make_job().config["dataset"])


def test_what_a_teacher_says_does_not_depend_on_what_stands_beside_an_example(store: TeacherStore) -> None:
    data = load_text()
    torch.manual_seed(0)
    model = build("bert_2x32", data.num_classes, data.in_channels)
    teacher = FrozenTeacher(model, data.validation)
    shapes = data.train.views.shapes(torch.arange(len(data.train)))
    assert len(set(shapes.tolist())) > 1
    rows = (shapes == shapes.mode().values).nonzero().squeeze(1)
    inputs = data.train.views.plain(rows)
    together, _ = teacher.outputs(inputs)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.outputs(inputs[order])[0], together[order])
    assert torch.equal(teacher.outputs(inputs[:1])[0], together[:1])
    with torch.no_grad():  # and in buckets or not by rounding only
        model.eval()
        assert (predict(model, data.train)[rows] - together).abs().max() < 1e-5
        apart = torch.cat([model(data.train.views.plain(row.unsqueeze(0))) for row in rows[:8]])
        assert (apart - together[:8]).abs().max() < 1e-5


@pytest.mark.parametrize("stop", [1, 7])
def test_a_training_that_ends_within_an_epoch_goes_on_to_the_same_bits(
    stop: int, store: TeacherStore, tmp_path: Path
) -> None:
    job = make_job("optimizer.decay_on=weights", "schedule.batch_size=16")
    undisturbed = run(job, store)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > stop:
            raise Stopped("enough")

    train_teacher(job, store)
    attempts = Attempts(place(tmp_path))
    with TrialTraining(job, store, attempts=attempts, trial_id="one", check=check) as training, pytest.raises(Stopped):
        list(training)
    with TrialTraining(job, store, attempts=attempts, trial_id="one", attempt=2) as training:
        assert training.resumed is not None
        assert training.resumed[2] > 0  # within an epoch, with two groups of parameters
        list(training)
        rows = [{name: value for name, value in row.items() if name not in UNTIMED} for row in training.rows]
        weights = dict(training.student.state_dict())
    assert same(undisturbed, (rows, weights, None))


def test_a_student_of_its_teachers_first_layers_begins_with_them(store: TeacherStore) -> None:
    job = make_job("student.init=teacher")
    card = train_teacher(job, store)
    assert card is not None
    weights = load_file(store.weights(card["teacher_id"]))
    with TrialTraining(job, store) as training:
        for name, tensor in training.student.state_dict().items():
            if name.startswith("bert."):
                assert torch.equal(tensor, weights[name]), name
            else:
                assert not torch.equal(tensor, weights[name]) or name.endswith("bias"), name
        assert training.teacher is not None
    assert not same(run(job, store), run(make_job(), store))


def test_without_distillation_it_begins_so_too_and_the_teacher_never_speaks(
    store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("distillation.method=none", "student.init=teacher")
    card = train_teacher(job, store)
    assert card is not None

    def spoken(*_: object) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(FrozenTeacher, "outputs", spoken)
    with TrialTraining(job, store) as training:
        assert training.teacher is None
        assert training.teacher_digest == card["sha256"] == training.fingerprint["teacher"]
        rows = list(training)
    assert not any("teacher" in name for name in rows[-1])
    assert training.teacher_facts() is None


def test_a_teacher_that_is_shallower_fails_with_a_reason(store: TeacherStore) -> None:
    job = make_job("student.init=teacher")
    job.config["student"]["model"] = "bert_3x32"  # which a file could not say
    with pytest.raises(WslSweepError, match="has 2 layers, and bert_3x32 begins from its first 3"):
        TrialTraining(job, store)


def test_a_teacher_and_a_student_begin_from_a_folder(store: TeacherStore, tmp_path: Path) -> None:
    from tests.training.test_beginning import folder_of

    torch.manual_seed(7)
    pretrained = build("bert_2x32", 3, TinyText.in_channels).state_dict()
    folder = folder_of(pretrained, tmp_path / "p")
    one = make_job(f"student.init={folder}", "teacher.schedule.epochs=1")
    with TrialTraining(one, store) as training:
        assert torch.equal(
            training.student.get_parameter("bert.encoder.layer.0.output.dense.weight"),
            pretrained["bert.encoder.layer.0.output.dense.weight"],
        )
    begun = make_job(f"teacher.init={folder}", "teacher.schedule.epochs=1")
    named, other = begun.teacher(), one.teacher()
    assert named is not None
    assert other is not None
    assert named[0] != other[0]
    card, fresh = train_teacher(begun, store), train_teacher(one, store)
    assert card is not None
    assert fresh is not None
    assert card["sha256"] != fresh["sha256"]


def test_relational_distillation_reads_the_pooled_output(store: TeacherStore) -> None:
    cold = run(make_job("distillation.method=rkd"), store)
    assert same(cold, run(make_job("distillation.method=rkd"), store))
    assert "validation/accuracy" in cold[0][-1]


def test_a_student_trains_in_bfloat16_and_is_evaluated(store: TeacherStore, tmp_path: Path) -> None:
    job = make_job("precision=bfloat16")
    with TrialTraining(job, store) as training:
        rows = list(training)
        training.save(tmp_path / "s")
    assert all(torch.isfinite(torch.tensor(row["train/loss"])) for row in rows)
    assert set(evaluate_on_test(job, tmp_path / "s")) == {"test/accuracy", "test/loss", "test/ece"}


def test_a_student_learns_from_a_teacher_that_has_learned(store: TeacherStore) -> None:
    longer = ("teacher.model=bert_2x64", "teacher.schedule.epochs=25", "student.model=bert_2x64", "schedule.epochs=25")
    rows, _, _ = run(make_job(*longer), store)
    assert rows[-1]["validation/accuracy"] > 0.9
    assert rows[-1]["teacher/agreement"] > 0.9
