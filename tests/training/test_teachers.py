"""Teachers: trained once, kept whole, and run so that a logit does not depend on its batch."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsl_sweep.data import load
from wsl_sweep.errors import DivergedError, TrialError, WslSweepError
from wsl_sweep.models import build
from wsl_sweep.storage import place
from wsl_sweep.training import FrozenTeacher, Job, TeacherStore, TrialTraining, train_teacher, trial
from wsl_sweep.training.attempts import Stopped
from wsl_sweep.training.loop import predict
from wsl_sweep.training.metrics import classification_metrics
from wsl_sweep.training.weights import load_into, load_tensors, save_tensors

from .conftest import make_job

OTHER_PROCESS = """
import sys, time
from pathlib import Path
from torch import nn
from wsl_sweep.training import TeacherStore

root, calls, signs, name, seconds = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5]

def train():
    with calls.open("a") as file:
        file.write(name + "\\n")
    (signs / f"{name}-training").touch()
    time.sleep(float(seconds))
    return nn.Linear(3, 2), {"trained_by": name}

(signs / f"{name}-ready").touch()
while not (signs / "go").exists():
    time.sleep(0.01)
print(TeacherStore(root).ensure("teacher", train)["trained_by"])
"""


class Tally:
    """A training that counts itself."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> tuple[nn.Module, dict[str, Any]]:
        self.calls += 1
        return nn.Linear(3, 2), {"number": self.calls}


def start(root: Path, folder: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    arguments = [str(root), str(folder / "calls"), str(folder), name, str(seconds)]
    return subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, *arguments], stdout=subprocess.PIPE, text=True)


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"waited in vain for {paths}"
        time.sleep(0.01)


# --- the store -------------------------------------------------------------------------------------


def test_a_teacher_is_trained_once(tmp_path: Path) -> None:
    train = Tally()
    store = TeacherStore(tmp_path)
    assert store.card("teacher") is None
    first = store.ensure("teacher", train)
    assert store.ensure("teacher", train) == first == store.card("teacher") == TeacherStore(tmp_path).card("teacher")
    assert train.calls == 1
    store.ensure("another", train)
    assert train.calls == 2


def test_the_card_says_what_the_store_holds(tmp_path: Path) -> None:
    store = TeacherStore(tmp_path)
    card = store.ensure("teacher", Tally())
    weights = store.weights("teacher")
    assert card["teacher_id"] == "teacher"
    assert card["parameters"] == 8
    assert card["number"] == 1
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert {name: tuple(tensor.shape) for name, tensor in load_tensors(weights).items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }
    assert sorted(path.name for path in weights.parent.iterdir()) == ["card.json", "weights.safetensors"]


def test_the_store_lies_in_the_users_cache(own_cache: Path) -> None:
    TeacherStore().ensure("teacher", Tally())
    assert (own_cache / "teachers" / "teacher" / "card.json").is_file()


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), DivergedError("nan"), KeyboardInterrupt()])
def test_a_training_that_fails_leaves_no_teacher_and_no_lock(failure: BaseException, tmp_path: Path) -> None:
    def fail() -> tuple[nn.Module, dict[str, Any]]:
        raise failure

    store, train = TeacherStore(tmp_path), Tally()
    with pytest.raises(type(failure)):
        store.ensure("teacher", fail)
    assert store.card("teacher") is None
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert store.ensure("teacher", train)["number"] == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_no_teacher_and_says_so(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = TeacherStore(tmp_path)
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(TrialError, match="No space left on device"):
        store.ensure("teacher", Tally())
    monkeypatch.undo()
    assert store.card("teacher") is None
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_disk_that_fills_between_the_two_files_leaves_no_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card cannot be written any more, the weights could."""
    real, calls = os.fsync, iter(range(99))

    def third_fails(handle: int) -> None:
        if next(calls) == 2:  # after the weights and their folder
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", third_fails)
    with pytest.raises(TrialError, match="No space left"):
        TeacherStore(tmp_path).ensure("teacher", Tally())
    assert TeacherStore(tmp_path).card("teacher") is None
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_store_that_cannot_be_written_says_which_and_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    train = Tally()
    with pytest.raises(TrialError, match="WSL_SWEEP_CACHE"):
        TeacherStore(tmp_path / "file" / "teachers").ensure("teacher", train)
    assert train.calls == 0


def test_an_error_of_the_training_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    def fail() -> tuple[nn.Module, dict[str, Any]]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "pictures.npz")

    with pytest.raises(Exception, match="pictures") as caught:
        TeacherStore(tmp_path).ensure("teacher", fail)
    assert "WSL_SWEEP_CACHE" not in str(caught.value)


@pytest.mark.parametrize("damage", ["no card", "no weights", "half a card", "an empty card"])
def test_half_a_teacher_is_trained_again(damage: str, tmp_path: Path) -> None:
    store, train = TeacherStore(tmp_path), Tally()
    store.ensure("teacher", train)
    card, weights = tmp_path / "teacher" / "card.json", store.weights("teacher")
    if damage == "no card":
        card.unlink()
    elif damage == "no weights":
        weights.unlink()
    else:
        card.write_text(card.read_text()[:20] if damage == "half a card" else "")
    assert store.card("teacher") is None
    assert store.ensure("teacher", train)["number"] == 2
    assert store.card("teacher") == store.ensure("teacher", train)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == store.ensure("teacher", train)["sha256"]


# --- several processes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_that_ask_at_once_train_once(tmp_path: Path) -> None:
    root, names = tmp_path / "store", ("one", "two")
    processes = [start(root, tmp_path, name, seconds=0.5) for name in names]
    try:
        wait_for(*(tmp_path / f"{name}-ready" for name in names))
        (tmp_path / "go").touch()
        answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
    trained = (tmp_path / "calls").read_text().split()
    assert len(trained) == 1
    assert answers == trained * 2
    assert [process.returncode for process in processes] == [0, 0]


def test_a_process_killed_while_training_leaves_no_teacher_and_no_lock(tmp_path: Path) -> None:
    root, train = tmp_path / "store", Tally()
    process = start(root, tmp_path, "doomed", seconds=600)
    try:
        (tmp_path / "go").touch()
        wait_for(tmp_path / "doomed-training")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    store = TeacherStore(root)
    assert store.card("teacher") is None
    assert store.ensure("teacher", train)["number"] == 1


# --- training a teacher ----------------------------------------------------------------------------


def test_the_card_of_a_trained_teacher_says_how_it_came_about(store: TeacherStore) -> None:
    job = make_job()
    rows: list[dict[str, float]] = []
    card = train_teacher(job, store, on_epoch=rows.append)
    assert card is not None
    named = job.teacher()
    assert named is not None
    assert card["teacher_id"] == named[0]
    assert card["identity"] == named[1]
    assert card["identity"]["teacher"]["model"] == "convnet_3"
    assert [row["epoch"] for row in rows] == [1, 2]
    assert card["metrics"]["validation/accuracy"] == rows[-1]["validation/accuracy"]
    assert card["data"] == load(job.config["dataset"]).digest
    assert (card["seen_validation"], card["device"]) == (False, "cpu")
    assert card["versions"]["torch"] == torch.__version__
    assert abs(time.time() - card["trained_at"]) < 60
    assert not [name for name in card["metrics"] if name.startswith("test/")]


def test_the_cards_accuracy_is_that_of_the_stored_weights(store: TeacherStore) -> None:
    job = make_job()
    card = train_teacher(job, store)
    assert card is not None
    data = load(job.config["dataset"])
    model = build("convnet_3", data.num_classes, data.in_channels)
    load_into(model, store.weights(card["teacher_id"]), "convnet_3")
    found = classification_metrics(predict(model, data.validation), data.validation.labels, "validation")
    assert found == {name: card["metrics"][name] for name in found}


def test_a_teacher_that_has_seen_the_validation_part_says_so(store: TeacherStore) -> None:
    card = train_teacher(make_job(part="train+validation"), store)
    assert card is not None
    assert card["seen_validation"]
    assert card["teacher_id"] != make_job().teacher()[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("sets", "other"),
    [
        (("teacher.seed=1",), True),
        (("teacher.schedule.epochs=1",), True),
        (("teacher.label_smoothing=0.2",), True),
        (("dataset.train_fraction=0.3",), True),
        (("dataset.label_noise=0.1",), True),
        (("teacher.mode=train",), False),
        (("distillation.alpha=3.0",), False),
        (("student.model=convnet_4", "schedule.epochs=7", "optimizer.lr=0.2"), False),
        (("distillation.temperature=2",), False),
    ],
)
def test_students_share_a_teacher_unless_its_own_training_differs(sets: tuple[str, ...], other: bool) -> None:
    named, changed = make_job().teacher(), make_job(*sets, seed=5).teacher()
    assert named is not None
    assert changed is not None
    assert (named[0] != changed[0]) == other


def test_a_job_that_reads_no_teacher_trains_none(store: TeacherStore) -> None:
    assert train_teacher(make_job(teacher=False), store) is None
    assert not store.root.exists()


def test_a_label_smoothed_teacher_is_another_and_less_certain(store: TeacherStore) -> None:
    """Both conventions of the smoothing reach the training."""
    sets = ("teacher.schedule.epochs=3", "teacher.model=convnet_8")
    smoothings = (
        (),
        ("teacher.label_smoothing=0.5",),
        ("teacher.label_smoothing=0.5", "teacher.smoothing=others"),
    )
    confidences = []
    for smoothing in smoothings:
        training = TrialTraining(make_job(*sets, *smoothing), store)
        assert training.teacher is not None
        confidences.append(training.teacher.validation_logits().softmax(1).amax(1).mean().item())
    assert confidences[0] > 1.2 * max(confidences[1:])
    assert confidences[1] != confidences[2]


def test_a_teacher_sees_pictures_in_an_order_of_its_own_seed(
    store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another teacher's order nor that of the student with the same seed."""
    seen: list[torch.Tensor] = []

    def remember(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            seen.append(inputs[0])

    def watched(*arguments: Any) -> nn.Module:
        model = build(*arguments)
        model.register_forward_pre_hook(remember)
        return model

    monkeypatch.setattr(trial, "build", watched)
    first: list[torch.Tensor] = []
    for job in (make_job(), make_job("teacher.seed=1"), make_job(teacher=False)):
        seen.clear()
        if job.teacher() is None:
            list(TrialTraining(job, store))
        else:
            train_teacher(job, store)
        assert len(seen) == 14
        first.append(seen[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_what_ends_a_teachers_training_leaves_no_teacher(store: TeacherStore) -> None:
    class Enough(Exception):
        pass

    calls = iter(range(99))

    def check() -> None:
        if next(calls) == 9:
            raise Enough

    job = make_job()
    with pytest.raises(Enough):
        train_teacher(job, store, check=check)
    assert store.card(job.teacher()[0]) is None  # type: ignore[index]


@pytest.mark.parametrize("steps", [1, 7, 9, 20])
def test_a_teacher_that_was_stopped_goes_on_where_it_stood(store: TeacherStore, tmp_path: Path, steps: int) -> None:
    """To the same bits: within an epoch, between two, and with the next worker stopped once more."""
    job = make_job("teacher.schedule.epochs=3")
    (teacher_id, _) = job.teacher()  # type: ignore[misc]
    undisturbed = train_teacher(job, TeacherStore(tmp_path / "undisturbed"))
    assert undisturbed is not None
    heard: list[float] = []

    def stopped_after(steps: int) -> Callable[[], None]:
        calls = iter(range(999))

        def check() -> None:
            if next(calls) == steps:
                raise Stopped("pre-emption")

        return check

    for _ in range(2):
        with pytest.raises(Stopped):
            train_teacher(job, store, on_epoch=lambda row: heard.append(row["epoch"]), check=stopped_after(steps))
        assert store.card(teacher_id) is None
        if steps > 10:  # of 21
            break
    card = train_teacher(job, store, on_epoch=lambda row: heard.append(row["epoch"]))
    assert card is not None
    assert card["sha256"] == undisturbed["sha256"]
    assert {name: value for name, value in card["metrics"].items() if name != "train/seconds"} == {
        name: value for name, value in undisturbed["metrics"].items() if name != "train/seconds"
    }
    assert heard == [1, 2, 3]
    assert not (store.root / ".begun" / teacher_id).exists()


def test_a_teacher_whose_last_epoch_was_kept_and_nothing_more_is_only_put_away(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TeacherStore, "_add", dies)
        with pytest.raises(KeyboardInterrupt):
            train_teacher(job, store)
    heard: list[Any] = []
    card = train_teacher(job, store, on_epoch=heard.append)
    undisturbed = train_teacher(job, TeacherStore(tmp_path / "undisturbed"))
    assert card is not None
    assert undisturbed is not None
    assert heard == []
    assert card["sha256"] == undisturbed["sha256"]
    assert card["metrics"]["validation/accuracy"] == undisturbed["metrics"]["validation/accuracy"]


def test_a_cluster_keeps_checkpoints_of_a_teacher_where_every_node_finds_them(tmp_path: Path) -> None:
    job = make_job()
    one, two = (TeacherStore(tmp_path / name, place(tmp_path / "shared")) for name in ("one", "two"))
    calls = iter(range(99))

    def check() -> None:
        if next(calls) == 9:
            raise Stopped("its node is taken away")

    with pytest.raises(Stopped):
        train_teacher(job, one, check=check)
    heard: list[float] = []
    train_teacher(job, two, on_epoch=lambda row: heard.append(row["epoch"]))
    assert heard == [2]


def test_a_teacher_that_diverges_says_that_it_is_the_teacher(store: TeacherStore) -> None:
    job = make_job("teacher.optimizer.lr=1e30")
    with pytest.raises(DivergedError, match=r"epoch 1; lower teacher\.optimizer\.lr"):
        train_teacher(job, store)
    assert not (store.root / ".begun" / job.teacher()[0]).exists()  # type: ignore[index]


# --- damaged weights -------------------------------------------------------------------------------


def damaged(content: bytes, how: str) -> bytes:
    if how == "cut":
        return content[: len(content) // 2]
    if how == "empty":
        return b""
    return content[:-64] + bytes(byte ^ 0x55 for byte in content[-64:])


def weights_in_use(job: Job, store: TeacherStore) -> dict[str, torch.Tensor] | None:
    """What a student would be distilled from; None where the damage is reported."""
    try:
        with TrialTraining(job, store) as training:
            assert training.teacher is not None
            return training.teacher.teacher.model.state_dict()
    except WslSweepError:
        return None


@pytest.mark.parametrize("how", ["cut", "empty", "other bytes"])
def test_a_damaged_teacher_is_trained_again_or_reported_but_never_used(how: str, store: TeacherStore) -> None:
    job = make_job()
    card = train_teacher(job, store)
    assert card is not None
    path = store.weights(card["teacher_id"])
    whole = {name: tensor.clone() for name, tensor in load_tensors(path).items()}
    path.write_bytes(damaged(path.read_bytes(), how))
    found = weights_in_use(job, store)
    assert found is None or all(torch.equal(found[name], tensor) for name, tensor in whole.items())


# --- a checkpoint of the user's --------------------------------------------------------------------


def test_a_users_checkpoint_takes_the_place_of_training(store: TeacherStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    torch.manual_seed(8)
    mine = build("convnet_3", 10, 1)
    digest = save_tensors(path, mine.state_dict())
    training = TrialTraining(make_job(f"teacher.checkpoint={path}"), store)
    assert not store.root.exists()
    assert training.teacher_digest == digest
    assert training.teacher is not None
    for name, tensor in mine.state_dict().items():
        assert torch.equal(training.teacher.teacher.model.state_dict()[name], tensor)


def test_a_checkpoint_is_known_by_its_content(tmp_path: Path) -> None:
    one, copy, other = (tmp_path / f"{name}.safetensors" for name in ("one", "copy", "other"))
    torch.manual_seed(8)
    save_tensors(one, build("convnet_3", 10, 1).state_dict())
    copy.write_bytes(one.read_bytes())
    save_tensors(other, build("convnet_3", 10, 1).state_dict())
    ids = [make_job(f"teacher.checkpoint={path}").teacher()[0] for path in (one, copy, other)]  # type: ignore[index]
    assert ids[0] == ids[1] != ids[2]


def test_a_checkpoint_of_another_model_is_refused(store: TeacherStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_tensors(path, build("convnet_4", 10, 1).state_dict())
    with (
        TrialTraining(make_job(f"teacher.checkpoint={path}"), store) as training,
        pytest.raises(WslSweepError, match="does not hold the weights of convnet_3"),
    ):
        next(iter(training))


def test_a_checkpoint_that_went_away_is_named(store: TeacherStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_tensors(path, build("convnet_3", 10, 1).state_dict())
    job = make_job(f"teacher.checkpoint={path}")
    path.unlink()
    with pytest.raises(WslSweepError, match=r"mine\.safetensors: No such file"):
        TrialTraining(job, store)


# --- the frozen teacher ----------------------------------------------------------------------------


def teacher_and_pictures(model: str = "convnet_16", mode: str = "eval") -> tuple[FrozenTeacher, torch.Tensor]:
    """A teacher with running statistics of its own, and 64 pictures."""
    data = load(make_job().config["dataset"])
    torch.manual_seed(4)
    module = build(model, data.num_classes, data.in_channels)
    with torch.no_grad():
        module(data.train.views.plain(torch.arange(100)))
    return FrozenTeacher(module, data.validation, mode), data.train.views.plain(torch.arange(100, 164))


@pytest.mark.parametrize("model", ["convnet_3", "convnet_16", "convnet_32"])
@pytest.mark.parametrize("count", [1, 5, 33, 63])
def test_a_logit_does_not_depend_on_how_many_are_in_its_batch(model: str, count: int) -> None:
    """Bit for bit: the same examples alone and within a batch of 64."""
    teacher, pictures = teacher_and_pictures(model)
    whole = teacher.training_outputs(pictures)[0]
    assert torch.equal(teacher.training_outputs(pictures[:count])[0], whole[:count])


def test_a_logit_does_not_depend_on_its_neighbours_or_its_place() -> None:
    teacher, pictures = teacher_and_pictures()
    whole = teacher.training_outputs(pictures)[0]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.training_outputs(pictures[order])[0], whole[order])
    assert torch.equal(teacher.training_outputs(pictures[-5:])[0], whole[-5:])


def test_a_logit_does_not_depend_on_how_its_picture_lies_in_memory() -> None:
    """With one channel a tensor may carry the strides of either order, and convolutions choose by them."""
    teacher, pictures = teacher_and_pictures()
    channels_first = torch.empty(pictures.shape).copy_(pictures)
    channels_last = torch.empty_strided(pictures.shape, (64, 1, 8, 1)).copy_(pictures)
    assert channels_first.stride() != channels_last.stride()
    assert torch.equal(teacher.training_outputs(channels_first)[0], teacher.training_outputs(channels_last)[0])


def test_a_batch_of_more_than_one_size_is_cut() -> None:
    teacher, pictures = teacher_and_pictures()
    many = torch.cat([pictures, pictures[:20], pictures])
    whole = teacher.training_outputs(pictures)[0]
    assert torch.equal(teacher.training_outputs(many)[0], torch.cat([whole, whole[:20], whole]))


def test_validation_logits_are_those_that_a_training_batch_would_get() -> None:
    teacher, _ = teacher_and_pictures()
    data = load(make_job().config["dataset"])
    found = teacher.validation_logits()
    assert found.shape == (len(data.validation), 10)
    rows = torch.tensor([0, 77, len(data.validation) - 1])
    assert torch.equal(found[rows], teacher.training_outputs(data.validation.views.plain(rows))[0])


def test_padding_changes_values_by_no_more_than_rounding() -> None:
    teacher, pictures = teacher_and_pictures()
    with torch.no_grad():
        plain = teacher.model.eval()(pictures[:5])
    torch.testing.assert_close(teacher.training_outputs(pictures[:5])[0], plain)


def test_a_teacher_in_eval_mode_is_never_changed() -> None:
    teacher, pictures = teacher_and_pictures()
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    teacher.model.train()  # whatever anybody left it in
    logits = teacher.training_outputs(pictures)[0]
    teacher.validation_logits()
    assert not logits.requires_grad
    assert logits.dtype == torch.float32
    assert not [p for p in teacher.model.parameters() if p.requires_grad]
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())


def test_a_teacher_in_train_mode_uses_each_batchs_own_statistics_and_its_running_ones_drift() -> None:
    teacher, pictures = teacher_and_pictures(mode="train")
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    found = teacher.training_outputs(pictures[:10])[0]
    assert teacher.model.state_dict()["body.1.num_batches_tracked"] == before["body.1.num_batches_tracked"] + 1
    assert not torch.equal(teacher.model.state_dict()["body.1.running_mean"], before["body.1.running_mean"])
    assert torch.equal(teacher.model.state_dict()["body.0.weight"], before["body.0.weight"])
    teacher.model.load_state_dict(before)
    with torch.no_grad():
        wanted = teacher.model.train()(pictures[:10])
    assert torch.equal(found, wanted)
    assert not torch.equal(teacher.training_outputs(pictures)[0][:10], found)  # other batch mates, other logits


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_validation_logits_are_of_the_running_statistics_and_leave_them(mode: str) -> None:
    teacher, _ = teacher_and_pictures(mode=mode)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    found = teacher.validation_logits()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
    rows = torch.arange(50)
    data = load(make_job().config["dataset"])
    with torch.no_grad():
        wanted = teacher.model.eval()(data.validation.views.plain(rows))
    torch.testing.assert_close(found[:50], wanted)


def test_a_teacher_counts_the_examples_it_was_run_on() -> None:
    teacher, pictures = teacher_and_pictures()
    teacher.training_outputs(pictures)[0]
    teacher.training_outputs(pictures[:5])[0]
    assert teacher.forwards == 69
