"""What a student gets of its teacher: the same bits whatever the bank holds, and each view computed once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsl_sweep.data import TaskData, load
from wsl_sweep.distill import label_cross_entropy
from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec.catalogue import MODELS
from wsl_sweep.training import FrozenTeacher, Job, TeacherStore, TrialTraining, records, supply, train_teacher
from wsl_sweep.training.bank import GIGABYTE, BankSettings, TeacherOutputs, list_banks
from wsl_sweep.training.records import RecordFile
from wsl_sweep.training.supply import TeacherSupply, supply_for
from wsl_sweep.training.weights import save_tensors
from wsl_sweep.user_code import search_in

from .conftest import asleep_with_the_lock, make_job

TEACHER = {"model": "convnet_8", "weights": "0" * 64, "own_code": None}
UNTIMED = ("timestamp", "train/seconds")

OFF = BankSettings(use=False)
FULL = BankSettings(limit_gb=(4 * 1797 * 9 + 1) / GIGABYTE)
"""Room for the index of the digits in nine views, and for no row."""

FEATURES = BankSettings(features=True)


def pictures_of(*sets: str) -> TaskData:
    return load(make_job(*sets).config["dataset"])


class Making:
    """Loads a teacher of random weights, and remembers what it has loaded."""

    def __init__(self, data: TaskData, seed: int = 4) -> None:
        self.data, self.seed = data, seed
        self.made: list[FrozenTeacher] = []

    def __call__(self) -> FrozenTeacher:
        torch.manual_seed(self.seed)
        model = build("convnet_8", self.data.num_classes, self.data.in_channels)
        with torch.no_grad():
            model(self.data.train.views.plain(torch.arange(100)))
        self.made.append(FrozenTeacher(model, self.data.validation))
        return self.made[-1]

    @property
    def forwards(self) -> int:
        return sum(one.forwards for one in self.made)


Supply = Callable[..., TeacherSupply]


@pytest.fixture
def opened() -> Iterator[Supply]:
    """Makes supplies; closed at the end."""
    made: list[TeacherSupply] = []

    def make(data: TaskData, making: Callable[[], FrozenTeacher], **options: Any) -> TeacherSupply:
        made.append(supply_for(data, making, options.pop("teacher", TEACHER), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def asked(data: TaskData, count: int = 150, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Some examples in some views, a few of them twice."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(data.train), (count,), generator=generator)
    views = torch.randint(data.train.views.count, (count,), generator=generator)
    return torch.cat([rows, rows[:5]]), torch.cat([views, views[:5]])


def distinct(rows: Tensor, views: Tensor) -> int:
    return len(set(zip(rows.tolist(), views.tolist(), strict=True)))


def same(one: TeacherOutputs, other: TeacherOutputs) -> bool:
    """Bit for bit."""
    for name in ("logits", "cross_entropy", "features"):
        mine, its = getattr(one, name), getattr(other, name)
        if (mine is None) != (its is None) or (mine is not None and not torch.equal(mine, its)):
            return False
    return True


def folder_of_the_bank() -> Path:
    (entry,) = list_banks()
    return Path(os.environ["WSL_SWEEP_CACHE"]) / "bank" / entry.key


def damage(how: str) -> None:
    folder = folder_of_the_bank()
    if how == "rows":
        content = bytearray((folder / "rows").read_bytes())
        content[100::997] = bytes(byte ^ 0x10 for byte in content[100::997])
        (folder / "rows").write_bytes(content)
    elif how == "half of the rows":
        os.truncate(folder / "rows", (folder / "rows").stat().st_size // 2)
    elif how == "all rows":
        os.truncate(folder / "rows", 0)
    else:
        (folder / "index").write_bytes(bytes((folder / "index").stat().st_size))


# --- the same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(("features", "settings"), [(False, BankSettings()), (True, FEATURES), (True, BankSettings())])
def test_outputs_are_the_same_bits_cold_warm_off_or_full(
    precision: str, features: bool, settings: BankSettings, opened: Supply
) -> None:
    data = pictures_of()
    rows, views = asked(data)
    found, logits = [], []
    for one in (OFF, FULL, settings, settings):
        made = opened(data, Making(data), features=features, precision=precision, settings=one)
        found.append(made.outputs(rows, views))
        logits.append(made.validation_logits())
        made.close()
    assert all(same(found[0], other) for other in found[1:])
    assert all(torch.equal(logits[0], other) for other in logits[1:])


@pytest.mark.parametrize("how", ["rows", "half of the rows", "all rows", "index"])
def test_a_damaged_bank_gives_the_same_bits_and_is_mended(how: str, opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    first = opened(data, Making(data))
    wanted = first.outputs(rows, views)
    first.close()
    damage(how)
    deadline = time.monotonic() + 4

    def check() -> None:
        assert time.monotonic() < deadline, "it hangs"

    mending = opened(data, Making(data), check=check)
    assert same(mending.outputs(rows, views), wanted)
    assert 0 < mending.computed <= distinct(rows, views)
    mending.close()
    after = opened(data, Making(data))
    assert same(after.outputs(rows, views), wanted)
    assert after.computed == 0


def test_outputs_are_the_teachers_and_of_the_pictures_asked_for(opened: Supply) -> None:
    data = pictures_of("dataset.label_noise=0.4")
    rows, views = asked(data)
    teacher = Making(data)()
    logits, features = teacher.outputs(data.train.views.take(rows, views), True)
    found = opened(data, Making(data), features=True, settings=FEATURES).outputs(rows, views)
    assert torch.equal(found.logits, logits)
    assert features is not None
    assert found.features is not None
    assert torch.equal(found.features, features)
    assert found.cross_entropy is not None
    torch.testing.assert_close(found.cross_entropy, label_cross_entropy(logits, data.train.labels[rows]))


def test_the_cross_entropy_that_is_kept_is_that_of_the_noisy_labels(opened: Supply) -> None:
    clean, noisy = pictures_of(), pictures_of("dataset.label_noise=0.4")
    rows, views = asked(clean)
    one = opened(clean, Making(clean)).outputs(rows, views)
    other = opened(noisy, Making(noisy), label_noise=0.4).outputs(rows, views)
    assert one.cross_entropy is not None
    assert other.cross_entropy is not None
    changed = clean.train.labels[rows] != noisy.train.labels[rows]
    assert 0 < changed.sum() < len(rows)
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.cross_entropy != other.cross_entropy, changed)


def test_validation_logits_are_those_of_the_plain_pictures(opened: Supply) -> None:
    data = pictures_of()
    found = opened(data, Making(data)).validation_logits()
    assert torch.equal(found, Making(data)().validation_logits())


# --- each once -------------------------------------------------------------------------------------


def test_each_view_is_computed_once(opened: Supply) -> None:
    data = pictures_of()
    making = Making(data)
    one, other = opened(data, making), opened(data, making)
    rows, views = asked(data)
    one.outputs(rows, views)
    assert making.forwards == one.computed == distinct(rows, views)
    one.outputs(rows, views)
    one.validation_logits()
    one.validation_logits()
    assert making.forwards == one.computed == distinct(rows, views) + len(data.validation)
    other.outputs(rows.flip(0), views.flip(0))
    other.validation_logits()
    assert other.computed == 0
    assert other.found == one.computed
    more = torch.cat([rows, torch.tensor([0, 1])]), torch.cat([views, torch.tensor([8, 8])])
    before = making.forwards
    other.outputs(*more)
    assert making.forwards - before == distinct(*more) - distinct(rows, views)


def test_validation_pictures_that_are_trained_on_are_the_same_views(opened: Supply) -> None:
    data = load(make_job().config["dataset"], "train+validation")
    place = {number: row for row, number in enumerate(data.train.ids.tolist())}
    assert set(data.validation.ids.tolist()) & set(place)
    one = opened(data, Making(data))
    logits = one.validation_logits()
    before = one.computed
    seen = [(index, place[number]) for index, number in enumerate(data.validation.ids.tolist()) if number in place]
    rows = torch.tensor([row for _, row in seen])
    found = one.outputs(rows, torch.full_like(rows, data.train.views.identity))
    assert one.computed == before
    assert torch.equal(found.logits, logits[[index for index, _ in seen]])


def test_a_warm_bank_needs_no_teacher(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    cold, making = opened(data, Making(data)), Making(data)
    wanted = cold.outputs(rows, views), cold.validation_logits()
    warm = opened(data, making)
    assert same(warm.outputs(rows, views), wanted[0])
    assert torch.equal(warm.validation_logits(), wanted[1])
    assert not making.made


def test_a_bank_knows_what_it_was_good_for(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    for _ in range(2):
        one = opened(data, Making(data))
        one.outputs(rows, views)
        one.close()
    (entry,) = list_banks()
    assert (entry.usage.found, entry.usage.computed) == (distinct(rows, views),) * 2
    assert entry.hit_rate == 0.5


def test_another_teachers_weights_have_a_bank_of_their_own(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    one = opened(data, Making(data)).outputs(rows, views)
    other = opened(data, Making(data, seed=5), teacher={**TEACHER, "weights": "1" * 64})
    assert not torch.equal(other.outputs(rows, views).logits, one.logits)
    assert other.computed == distinct(rows, views)


def test_with_features_asked_for_a_bank_without_them_serves_validation_alone(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    plain = opened(data, Making(data))
    plain.outputs(rows, views)
    plain.validation_logits()
    wide = opened(data, Making(data), features=True)
    assert wide.outputs(rows, views).features is not None
    wide.validation_logits()
    assert (wide.computed, wide.found) == (distinct(rows, views), len(data.validation))


def test_a_bank_with_features_serves_who_reads_none(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    wide = opened(data, Making(data), features=True, settings=FEATURES).outputs(rows, views)
    plain = opened(data, Making(data))
    found = plain.outputs(rows, views)
    assert torch.equal(found.logits, wide.logits)
    assert wide.features is not None
    assert found.features is None
    assert plain.computed == 0


def test_by_batch_each_batch_is_its_own_and_nothing_of_training_is_kept(opened: Supply) -> None:
    data = pictures_of()
    making = Making(data)

    def drifting() -> FrozenTeacher:
        teacher = making()
        teacher.mode = "train"
        return teacher

    rows, views = asked(data)
    plain = opened(data, Making(data))
    plain.outputs(rows, views)
    one = opened(data, drifting, by_batch=True)
    assert one.window == 1
    logits = one.validation_logits()
    assert not torch.equal(one.outputs(rows, views).logits[:40], one.outputs(rows[:40], views[:40]).logits)
    assert one.found == 0
    assert torch.equal(logits, plain.validation_logits())
    one.close()
    assert list_banks()[0].usage.rows == distinct(rows, views) + len(data.validation)


class Narrow(nn.Module):
    """A teacher without features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images)
        return found


def test_a_teacher_without_features_has_a_bank_without_them_where_nobody_of_its_own_reads_any(opened: Supply) -> None:
    """``bank.features`` is a sweep's: another arm's teacher may have some."""
    data = pictures_of()
    rows, views = asked(data)
    found = []
    for _ in range(2):
        one = opened(data, lambda: FrozenTeacher(Narrow(), data.validation), settings=FEATURES)
        found.append(one.outputs(rows, views))
        assert one.notes == []
    assert same(*found)
    assert found[0].features is None
    (entry,) = list_banks()
    assert not entry.key.endswith("-features")
    assert (one.computed, one.found) == (0, distinct(rows, views))
    with pytest.raises(WslSweepError, match="features"):
        opened(data, lambda: FrozenTeacher(Narrow(), data.validation), features=True, settings=FEATURES)


def test_without_a_bank_the_teacher_is_loaded_when_it_is_needed(opened: Supply) -> None:
    data = pictures_of()
    making = Making(data)
    one = opened(data, making, settings=replace(OFF, features=True))
    assert not making.made
    rows, views = asked(data)
    assert one.outputs(rows, views).features is None
    one.validation_logits()
    assert len(making.made) == 1
    assert list_banks() == []


def test_a_bank_with_features_needs_no_teacher_where_it_is_warm_and_nobody_reads_them(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    opened(data, Making(data), settings=FEATURES).outputs(rows, views)
    assert list_banks()[0].key.endswith("-features")
    making = Making(data)
    opened(data, making, settings=FEATURES).outputs(rows, views)
    assert not making.made


def random_states() -> list[bytes]:
    """Of torch, numpy and Python."""
    numpys: Any = np.random.get_state()
    pythons = json.dumps(random.getstate()).encode()
    return [torch.get_rng_state().numpy().tobytes(), numpys[1].tobytes() + bytes([numpys[2] % 256]), pythons]


def draw() -> None:
    torch.rand(3)
    np.random.rand(3)
    random.random()


@pytest.mark.parametrize("settings", [OFF, BankSettings(), FEATURES], ids=["off", "on", "features"])
@pytest.mark.parametrize("options", [{}, {"features": True}, {"by_batch": True}], ids=["logits", "features", "batch"])
def test_a_teacher_that_draws_leaves_the_random_states_as_they_were(
    options: dict[str, bool], settings: BankSettings, opened: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures_of()
    making, real = Making(data), FrozenTeacher.outputs

    def drawing(self: FrozenTeacher, *of: Any) -> Any:
        draw()
        return real(self, *of)

    def loading() -> FrozenTeacher:
        draw()
        return making()

    monkeypatch.setattr(FrozenTeacher, "outputs", drawing)
    draw()
    before = random_states()
    one = opened(data, loading, settings=settings, **options)
    assert random_states() == before
    one.validation_logits()
    if "by_batch" not in options:
        one.outputs(*asked(data))
    assert making.made
    assert random_states() == before


# --- trouble ---------------------------------------------------------------------------------------


class Enough(Exception):
    pass


def test_what_check_raises_in_the_middle_gives_the_claims_back(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    calls = iter(range(99))

    def check() -> None:
        if next(calls) == 1:
            raise Enough

    stopped = opened(data, Making(data), check=check)
    with pytest.raises(Enough):
        stopped.outputs(rows, views)
    other = opened(data, Making(data))
    begun = time.monotonic()
    other.outputs(rows, views)
    assert time.monotonic() - begun < 60  # without waiting for the first one, which lives
    assert other.computed == distinct(rows, views) - 64


@pytest.mark.parametrize("reason", ["unwritable", "too many cells"])
def test_without_a_bank_the_teacher_computes_and_a_note_says_so(
    reason: str, opened: Supply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pictures_of()
    if reason == "unwritable":
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("WSL_SWEEP_BANK", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(records, "MOST_CELLS", 100)
    rows, views = asked(data)
    one = opened(data, Making(data))
    one.outputs(rows, views)
    one.outputs(rows, views)
    assert (one.computed, one.found) == (2 * distinct(rows, views), 0)
    assert len(one.notes) == 1
    assert "the logit bank cannot be used" in one.notes[0]


def test_a_temporary_folder_that_is_somebody_elses_costs_the_bank_and_not_the_trial(
    opened: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> Path:
        raise WslSweepError("/tmp/wsl-sweep-0 is not this user's own")

    monkeypatch.setattr("wsl_sweep.training.bank.bank_folder", refused)
    one = opened(pictures_of(), Making(pictures_of()))
    assert "not this user's own" in one.notes[0]


def test_a_full_bank_is_said_once(opened: Supply) -> None:
    data = pictures_of()
    rows, views = asked(data)
    one = opened(data, Making(data), settings=FULL)
    one.outputs(rows, views)
    one.outputs(rows, views)
    assert one.computed == 2 * distinct(rows, views)
    assert len(one.notes) == 1
    assert "takes no more rows" in one.notes[0]
    assert "bank.limit_gb is 6.46" in one.notes[0]


def test_a_lock_that_is_not_given_back_costs_the_bank_and_not_the_outputs(
    opened: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LOCK_PATIENCE", 0.2)
    data = pictures_of()
    rows, views = asked(data)
    wanted = opened(data, Making(data), settings=OFF).outputs(rows, views)
    calls = iter(range(99))
    with contextlib.ExitStack() as stack:

        def check() -> None:
            if next(calls) == 1:  # between a claim and what is put for it
                stack.enter_context(asleep_with_the_lock(folder_of_the_bank()))

        one = opened(data, Making(data), check=check)
        assert same(one.outputs(rows, views), wanted)
        assert one.computed == distinct(rows, views)
        assert same(one.outputs(rows, views), wanted)
        one.close()
        assert len(one.notes) == 1
        assert "is given up" in one.notes[0]
    other = opened(data, Making(data))
    assert same(other.outputs(rows, views), wanted)
    assert other.computed == distinct(rows, views) - 64


def test_a_bank_whose_lock_is_held_when_it_is_opened_costs_the_bank_alone(
    opened: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LOCK_PATIENCE", 0.2)
    data = pictures_of()
    rows, views = asked(data)
    wanted = opened(data, Making(data)).outputs(rows, views)
    with asleep_with_the_lock(folder_of_the_bank()):
        one = opened(data, Making(data))
        assert "cannot be used" in one.notes[0]
        assert "holds the lock" in one.notes[0]
        assert same(one.outputs(rows, views), wanted)


def test_a_supply_that_fails_to_begin_lets_its_bank_go(opened: Supply) -> None:
    data = pictures_of()

    def check() -> None:
        raise Enough

    with pytest.raises(Enough):
        opened(data, Making(data), by_batch=True, check=check)
    assert not list_banks()[0].in_use


# --- whole trials ----------------------------------------------------------------------------------

TRIAL = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
torch.cuda.is_available = lambda: False
from tests.training.conftest import make_job
from wsl_sweep.training import TeacherStore, TrialTraining
from wsl_sweep.training.supply import TeacherSupply

signs, name, stop = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
job = make_job(*sys.argv[5:])
inner = TeacherSupply._rows
calls = 0

def rows(self, *of):
    global calls
    calls += 1
    if calls == stop:
        (signs / f"{name}-stopped").touch()
        time.sleep(600)
    return inner(self, *of)

TeacherSupply._rows = rows
(signs / f"{name}-ready").touch()
while not (signs / "go").exists():
    time.sleep(0.005)
with TrialTraining(job, TeacherStore()) as training:
    rows = [dict(row) for row in training]
    for row in rows:
        del row["timestamp"], row["train/seconds"]
    print(json.dumps([rows, training.teacher_facts()]))
"""


def start(folder: Path, name: str, *sets: str, stop: int = 0) -> subprocess.Popen[str]:
    repository = str(Path(__file__).parent.parent.parent)
    arguments = [repository, str(folder), name, str(stop), *sets]
    return subprocess.Popen([sys.executable, "-c", TRIAL, *arguments], stdout=subprocess.PIPE, text=True)


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 90
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"waited in vain for {paths}"
        time.sleep(0.005)


def rows_of(job: Job, store: TeacherStore) -> tuple[list[dict[str, float]], dict[str, Any]]:
    with TrialTraining(job, store) as training:
        rows = [{name: value for name, value in row.items() if name not in UNTIMED} for row in training]
        facts = training.teacher_facts()
    assert facts is not None
    return rows, facts


def with_bank(job: Job, settings: BankSettings) -> Job:
    return replace(job, bank=settings)


def views_of(job: Job) -> int:
    """Distinct views that a job's teacher is asked for."""
    from wsl_sweep.data.streams import stream

    data = load(job.config["dataset"])
    seen = {(int(number), data.train.views.identity) for number in data.validation.ids}
    for epoch in range(job.config["schedule"]["epochs"]):
        views = data.train.draw_views(stream(job.seed, "views", epoch))
        seen |= set(zip(data.train.ids.tolist(), views.tolist(), strict=True))
    return len(seen)


@pytest.mark.parametrize("sets", [(), ("distillation.method=rkd",), ("distillation.method=dist",)])
def test_a_trial_is_the_same_cold_warm_off_or_full(sets: tuple[str, ...], store: TeacherStore) -> None:
    job = make_job(*sets)
    wanted, facts = rows_of(with_bank(job, OFF), store)
    assert facts["found"] == 0
    settings = FEATURES if "distillation.method=rkd" in sets else BankSettings()
    cold, cold_facts = rows_of(with_bank(job, settings), store)
    warm, warm_facts = rows_of(with_bank(job, settings), store)
    full, _ = rows_of(with_bank(make_job(*sets), replace(FULL, features=settings.features)), store)
    assert wanted == cold == warm == full
    assert cold_facts["computed"] == views_of(job)
    assert warm_facts["computed"] == 0
    assert warm_facts["found"] > 0


DROPPING = """
from torch import nn


def net(num_classes, in_channels):
    body = [nn.Flatten(), nn.Linear(64 * in_channels, 32), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*body, nn.Linear(32, num_classes))
"""


def test_a_student_that_drops_out_is_the_same_whatever_the_bank_holds(store: TeacherStore, tmp_path: Path) -> None:
    (tmp_path / "users_dropping.py").write_text(DROPPING)
    search_in([tmp_path])
    job = make_job("student.model=users_dropping:net")
    wanted, _ = rows_of(with_bank(job, OFF), store)
    cold, cold_facts = rows_of(job, store)
    warm, warm_facts = rows_of(job, store)
    damage("half of the rows")
    partly, partly_facts = rows_of(job, store)
    assert wanted == cold == warm == partly
    assert cold_facts["computed"] > partly_facts["computed"] > warm_facts["computed"] == 0


@pytest.mark.parametrize("rows_before", [0, 1])
def test_a_trial_goes_on_where_somebody_sleeps_with_the_banks_lock(
    rows_before: int, store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LOCK_PATIENCE", 0.2)
    wanted, _ = rows_of(with_bank(make_job(), OFF), store)
    with TrialTraining(make_job(), store) as training, contextlib.ExitStack() as stack:
        coming = iter(training)
        rows = list(itertools.islice(coming, rows_before))
        stack.enter_context(asleep_with_the_lock(folder_of_the_bank()))
        rows += coming
        facts = training.teacher_facts()
    assert facts is not None
    assert [{name: value for name, value in row.items() if name not in UNTIMED} for row in rows] == wanted
    assert sum("is given up" in note for note in facts["notes"]) == 1
    assert rows_of(make_job(), store)[0] == wanted


def test_a_student_that_reads_features_may_do_without_a_bank_of_them(store: TeacherStore) -> None:
    job = make_job("distillation.method=rkd")
    found = [rows_of(with_bank(job, settings), store)[0] for settings in (OFF, BankSettings(), FEATURES, FEATURES)]
    assert all(rows == found[0] for rows in found[1:])


def test_a_warm_trial_never_loads_its_teacher(store: TeacherStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = rows_of(make_job(), store)

    def refuse(*_: Any, **__: Any) -> FrozenTeacher:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(FrozenTeacher, "load", refuse)
    assert rows_of(make_job(), store)[0] == wanted


@pytest.mark.slow
def test_two_trials_side_by_side_compute_each_view_once(store: TeacherStore, tmp_path: Path) -> None:
    train_teacher(make_job(), store)
    alone, _ = rows_of(with_bank(make_job(), OFF), store)
    processes = [start(tmp_path, name) for name in ("one", "two")]
    try:
        wait_for(*(tmp_path / f"{name}-ready" for name in ("one", "two")))
        (tmp_path / "go").touch()
        answers = [json.loads(process.communicate(timeout=90)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [rows for rows, _ in answers] == [alone, alone]
    assert sum(facts["computed"] for _, facts in answers) == views_of(make_job())


@pytest.mark.slow
def test_after_a_kill_only_what_is_missing_is_computed(store: TeacherStore, tmp_path: Path) -> None:
    train_teacher(make_job(), store)
    alone, _ = rows_of(with_bank(make_job(), OFF), store)
    process = start(tmp_path, "doomed", stop=4)
    try:
        (tmp_path / "go").touch()
        wait_for(tmp_path / "doomed-stopped")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    kept = list_banks()[0].usage.rows
    assert kept == 3 * 64
    rows, facts = rows_of(make_job(), store)
    assert rows == alone
    assert facts["computed"] == views_of(make_job()) - kept


def test_a_checkpoint_that_changes_under_a_trial_ends_it(store: TeacherStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    torch.manual_seed(8)
    save_tensors(path, build("convnet_3", 10, 1).state_dict())
    with TrialTraining(make_job(f"teacher.checkpoint={path}"), store) as training:
        save_tensors(path, build("convnet_3", 10, 1).state_dict())
        with pytest.raises(TrialError, match="changed while"):
            next(iter(training))
    assert list_banks()[0].usage.rows == 0


def test_a_trial_whose_student_cannot_be_built_lets_its_bank_go(
    store: TeacherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    train_teacher(job, store)

    def fail(*_: Any) -> nn.Module:
        raise WslSweepError("no such student")

    monkeypatch.setattr("wsl_sweep.training.trial._fresh", fail)
    with pytest.raises(WslSweepError, match="no such student"):
        TrialTraining(job, store)
    assert not list_banks()[0].in_use


def test_windows_of_any_length_give_the_same_trial(store: TeacherStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, _ = rows_of(make_job(), store)
    for window in (1, 100):
        monkeypatch.setattr(supply, "WINDOW", window)
        for settings in (OFF, BankSettings()):
            assert rows_of(with_bank(make_job(), settings), store)[0] == wanted


def test_validation_rows_are_in_the_bank_of_a_teacher_in_train_mode_too(store: TeacherStore) -> None:
    job = make_job("teacher.mode=train")
    off, _ = rows_of(with_bank(job, OFF), store)
    cold, _ = rows_of(job, store)
    warm, facts = rows_of(job, store)
    assert off == cold == warm
    (entry,) = list_banks()
    validation = len(load(job.config["dataset"]).validation)
    assert entry.usage.rows == facts["found"] == validation
    assert facts["computed"] == 2 * 402


# --- what the bank rests on ------------------------------------------------------------------------


def randomised(name: str) -> nn.Module:
    """A model whose running statistics are not those of a fresh one."""
    torch.manual_seed(7)
    model = build(name, 10, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model


def one_and_all(name: str, size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(64, 3, size, size, generator=generator)
    teacher = FrozenTeacher(randomised(name), pictures_of().validation)
    whole, none = teacher.outputs(pictures)
    assert none is None
    assert len(whole.unique(dim=0)) == 64
    order = torch.randperm(64, generator=generator)
    assert torch.equal(teacher.outputs(pictures[order])[0], whole[order])
    assert torch.equal(teacher.outputs(pictures[63:])[0], whole[63:])
    strangers = torch.randn(64, 3, size, size, generator=generator) * 9
    strangers[[5, 41]] = pictures[[41, 5]]
    assert torch.equal(teacher.outputs(strangers[:42])[0][[5, 41]], whole[[41, 5]])
    assert torch.equal(teacher.outputs(pictures, True)[0], whole)


PUBLISHED = [name for name in MODELS if not name.startswith("convnet")]
QUICK = (
    "resnet8", "resnet8x4", "wrn_16_1", "vgg8", "mobilenetv1_x025", "mobilenetv2", "shufflenetv1", "shufflenetv2",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in PUBLISHED]
)
def test_a_pictures_logits_do_not_depend_on_its_place_or_neighbours(name: str) -> None:
    """Bit for bit, for every model; nor on whether features are asked for."""
    assert len(PUBLISHED) == 26
    one_and_all(name, 32)


def test_a_bank_is_as_large_as_its_data_set_times_its_views(opened: Supply) -> None:
    data = pictures_of()
    opened(data, Making(data))
    (entry,) = list_banks()
    assert entry.usage.cells == len(data.all_labels) * 9 == 1797 * 9
    assert RecordFile.peek(folder_of_the_bank(), entry.usage.cells).rows == 0
    assert np.array_equal(data.all_labels[data.train.ids].numpy(), data.train.labels.numpy())
