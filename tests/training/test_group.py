"""Several processes that train together: the loss and the gradients of one, and its place taken up after any end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from wsl_sweep.errors import ProcessLostError, StorageError, TrialError, WslSweepError
from wsl_sweep.training import TeacherStore
from wsl_sweep.training.group import ALONE, Group, Invitation, _Joined, _watched, leading
from wsl_sweep.training.helping import local_group
from wsl_sweep.user_code import search_in

from . import pair
from .conftest import make_job

REPO = Path(__file__).resolve().parents[2]
UNTIMED = ("timestamp", "train/seconds")
PLAIN = "tests.training.group_models:Plain"
DRAWING = "tests.training.group_models:Drawing"


class Peer:
    """The other process of a pair, as a leader sees it."""

    def __init__(self, invitation: Invitation) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.pair", json.dumps(asdict(invitation))],
            cwd=REPO,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])},
        )

    def lost(self) -> str | None:
        return None if self.process.poll() in (None, 0) else "the other process of the pair died"

    def end(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the module: the other process of the pair knows no other."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("WSL_SWEEP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def two(module_cache: Path) -> Iterator[Group]:
    """Two processes that have met, of which this one leads."""
    search_in([REPO])
    with leading(2, "cpu", Peer) as group:
        group.occupied(False)
        yield group


@pytest.fixture(autouse=True)
def own_cache(module_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(module_cache))
    return module_cache


def together(group: Group, name: str, *arguments: Any, **own: Any) -> Any:
    """What the leader comes to where both do the same."""
    group.say([name, arguments])
    return pair.TOGETHER[name](group, *arguments, **own)


def near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


# --- shares ----------------------------------------------------------------------------------------------------------


def of(rank: int, size: int) -> Group:
    group = Group()
    group.rank, group.size = rank, size
    return group


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("n", [8, 9, 11, 64])
def test_shares_are_the_batch_in_its_order_and_none_has_less_than_two(size: int, n: int) -> None:
    examples = torch.arange(n)
    shares = [examples[of(rank, size).share(n)] for rank in range(size)]
    assert torch.equal(torch.cat(shares), examples)
    assert [len(share) for share in shares] == of(0, size).sizes(n)
    assert min(map(len, shares)) >= 2
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("n", [2, 5, 7])
def test_a_batch_too_small_to_be_split_is_computed_whole_by_every_process(n: int) -> None:
    assert [of(rank, 4).share(n) for rank in range(4)] == [slice(0, n)] * 4
    assert not of(0, 4).splits(n)


def test_a_process_alone_does_everything_itself() -> None:
    tensor = torch.arange(6.0)
    assert ALONE.gather(tensor, [6]) is tensor
    assert ALONE.gather_with_gradient(tensor, 6) is tensor
    assert ALONE.share(6) == slice(0, 6)
    assert ALONE.noted("computed") == 0


# --- the same as one process -----------------------------------------------------------------------------------------

METHODS: dict[str, tuple[str, ...]] = {
    "none": (),
    "kd": ("distillation.weighting.kind=none",),
    "exp": ("distillation.weighting.kind=exp",),
    "permuted": ("distillation.weighting.kind=permuted",),
    "batch_mean": ("distillation.weighting.kind=constant", "distillation.weighting.value=batch_mean"),
    "keep": ("distillation.keep.regularization=0.5", "distillation.keep.other=0.7"),
    "dkd": ("distillation.method=dkd", "distillation.weighting.kind=none"),
    "dist": ("distillation.method=dist",),
    "rkd": ("distillation.method=rkd", "distillation.weighting.kind=exp", "distillation.kd_weight=1.0"),
}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_come_to_the_loss_and_the_gradients_of_one(two: Group, method: str) -> None:
    distillation = make_job(*METHODS[method], teacher=method != "none").config["distillation"]
    for n in (8, 7, 3):
        loss, gradients, weights, masks = together(two, "step", distillation, n)
        alone, own, of_one, mask = pair.step(ALONE, distillation, n)
        assert loss == pytest.approx(alone, rel=1e-5, abs=1e-5), n
        assert len(gradients) == len(own) == 6
        assert all(near(one, other) for one, other in zip(gradients, own, strict=True)), n
        assert max(float(one.abs().max()) for one in own) > 1e-3
        assert (weights is None) == (of_one is None)
        assert weights is None or (of_one is not None and near(weights, of_one))
        assert (masks is None) == (mask is None) == ("temperature" not in distillation)
        assert mask is None or torch.equal(masks, torch.cat([mask, mask]))  # of the whole batch on each


def test_what_one_process_alone_uses_is_trained_on_both_and_buffers_are_the_leaders(two: Group) -> None:
    found = together(two, "lopsided")
    assert found["unused"] is None
    assert torch.equal(*found["branch"])
    assert torch.equal(*found["means"])
    assert float(found["means"].mean()) > 0  # of positive pictures, as the leader has them


@pytest.mark.parametrize("by_batch", [False, True])
def test_batches_and_what_the_teacher_says_of_them_are_those_of_one_process(two: Group, by_batch: bool) -> None:
    found, alone = together(two, "epoch", by_batch), pair.epoch(ALONE, by_batch)
    assert [len(one.labels) for one in found] == [57] * 6 + [3]
    for one, other in zip(found, alone, strict=True):
        for name, value in vars(other).items():
            mine = getattr(one, name)
            if isinstance(value, Tensor) and name.startswith("teacher_") and by_batch:
                assert near(mine, value), name  # a teacher by batch computes in the sizes that come
            elif isinstance(value, Tensor):
                assert torch.equal(mine, value), name


def test_predictions_are_the_bits_of_one_process(two: Group) -> None:
    assert torch.equal(together(two, "predictions"), pair.predictions(ALONE))


@pytest.mark.parametrize(
    "sets", [(), ("distillation.method=rkd", "distillation.weighting.kind=none")], ids=["wsl", "rkd"]
)
def test_a_trial_on_two_processes_has_the_metrics_of_one(two: Group, sets: tuple[str, ...]) -> None:
    whole = (f"student.model={PLAIN}", f"teacher.model={PLAIN}", "schedule.batch_size=100", *sets)
    rows, student, _ = together(two, "trial", *whole)
    alone, own, _ = pair.trial(ALONE, *whole)
    assert len(rows) == len(alone) == 2
    for row, other in zip(rows, alone, strict=True):
        assert row.keys() == other.keys()
        for name in set(row) - set(UNTIMED):
            assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
    for name in own:  # rounding grows from step to step
        torch.testing.assert_close(student[name], own[name], rtol=1e-4, atol=1e-4)


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def met() -> tuple[_Joined, _Joined]:
    """A leader and a helper that have a store between them, and no more."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stores = [
        dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()),
        dist.TCPStore("127.0.0.1", port, is_master=False),
    ]
    invitation = Invitation("127.0.0.1", port, 2, "cpu")
    leader, helper = (_Joined(rank, invitation, store) for rank, store in enumerate(stores))
    return leader, helper


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (StorageError("the disk is gone"), StorageError, "process 2 of the trial: the disk is gone"),
        (WslSweepError("no such folder"), TrialError, "process 2 of the trial: no such folder"),
        (torch.cuda.OutOfMemoryError("too big"), torch.cuda.OutOfMemoryError, "OutOfMemoryError: too big"),
        (KeyError("x"), RuntimeError, "process 2 of the trial: KeyError: 'x'"),
    ],
    ids=["storage", "mistake", "memory", "other"],
)
def test_what_goes_wrong_on_a_helper_is_the_leaders_error_of_the_same_kind(
    met: tuple[_Joined, _Joined], error: Exception, kind: type[Exception], told: str
) -> None:
    leader, helper = met
    helper.fail(error)
    with pytest.raises(kind) as caught:
        leader.ready()
    assert told in str(caught.value)


def test_a_helper_that_dies_before_it_is_ready_is_no_endless_wait(met: tuple[_Joined, _Joined]) -> None:
    leader, _ = met
    leader.lost = lambda: "process 2 of the trial died (exit code -9)"
    with pytest.raises(ProcessLostError, match="exit code -9"):
        leader.ready()


def test_plain_data_and_numbers_cross_in_their_order(met: tuple[_Joined, _Joined]) -> None:
    leader, helper = met
    leader.say("first")
    leader.say({"second": [1, None]})
    helper.say("nobody hears a helper")
    assert helper.hear() == "first"
    assert helper.hear() == {"second": [1, None]}
    helper.note("computed", 3)
    helper.note("computed", 5)
    assert leader.noted("computed") == 5
    assert leader.noted("found") == 0


def test_a_leader_on_a_gpu_ends_where_a_helper_is_gone(
    met: tuple[_Joined, _Joined], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collective of NCCL would wait for ever; here a leader that waits stands for it."""
    leader, _ = met
    for name in ("WATCH_SECONDS", "GRACE_SECONDS"):
        monkeypatch.setattr(f"wsl_sweep.training.group.{name}", 0.01)
    leader.lost = lambda: "process 2 of the trial died"
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    with _watched(leader, "cuda", end):
        assert ended.wait(10)
    assert codes == [1]
    assert "process 2 of the trial died" in capsys.readouterr().out


def test_fewer_gpus_than_processes_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, store: TeacherStore
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    job = replace(make_job(), processes=2)
    with (
        pytest.raises(WslSweepError, match="2 processes needs as many GPUs, and 1 is here"),
        local_group(job, store, "trial"),
    ):
        pass


def test_the_place_where_processes_meet_is_open_to_this_machine_alone() -> None:
    """What listens here is bound to the loopback, not to every address."""
    seen: list[str] = []

    class Nobody:
        def __init__(self, invitation: Invitation) -> None:
            sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            listening = [place for _, place, _, state, *_ in sockets if state == "0A"]
            seen.extend(place for place in listening if place.endswith(f":{invitation.port:04X}"))

        def lost(self) -> str:
            return "there is nobody"

        def end(self, seconds: float) -> None:
            assert seconds == 0.0

    with pytest.raises(ProcessLostError, match="there is nobody"), leading(2, "cpu", Nobody):
        pass
    assert len(seen) == 1
    assert seen[0].startswith("0100007F:")
