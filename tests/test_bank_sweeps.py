"""Whole sweeps and their logit bank: promise 3, each view once; promise 1, the same bits with it and without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Workplace
from wsl_sweep.data import load
from wsl_sweep.data.streams import stream
from wsl_sweep.training.teachers import teacher_batch

pytestmark = pytest.mark.slow

ALPHAS = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
EPOCHS = 16
RUN = (
    f"run: {{recipe: digits, dataset: {{padding: 3, flip: true}}, schedule: {{epochs: {EPOCHS}}}, "
    "teacher: {model: convnet_8, schedule: {epochs: 4}}"
)
"""98 views, so that the bank grows with every epoch."""

UNLOGGED = "tracking: {best_student: false}\n"


def file_of(alphas: list[float], more: str = "", at_once: int = 1) -> str:
    """An ablation over alpha, all trials with seed 0."""
    space = f"space: {{distillation.alpha: {{grid: {alphas}}}}}\n"
    return f"{RUN}}}\n{space}variants: [wsl]\nseeds: 1\nresources: {{concurrent: {at_once}}}\n{UNLOGGED}{more}"


def in_sets(text: str) -> list[str]:
    """A file's ``run`` as options of ``train``."""
    return ["--set", "dataset.padding=3", "--set", "dataset.flip=true", "--set", f"schedule.epochs={EPOCHS}",
            "--set", "teacher.model=convnet_8", "--set", "teacher.schedule.epochs=4",
            "--set", "distillation.weighting.kind=exp", "--set", text, "--json"]  # fmt: skip


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a trial before its evaluation, without its seconds."""
    return {name: value for name, value in metrics.items() if name != "train/seconds" and not name.startswith("test/")}


def results(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep found, by trial: its state, every metric but seconds, and the confirmed table."""
    trials = {
        trial["trial_id"]: (
            trial["status"], trial["epochs"], trial["overrides"],
            {name: value for name, value in trial["metrics"].items() if name != "train/seconds"},
        )
        for trial in summary["trials"]
    }  # fmt: skip
    return {"status": summary["status"], "trials": trials, "best": summary["best"], "confirmed": summary["confirmed"]}


def views_met(config: Mapping[str, Any]) -> set[tuple[int, int]]:
    """The (example, view) pairs of a trial with seed 0 and of its validation part, from the streams alone."""
    data = load(config["dataset"])
    seed, epochs, size = config["seed"], config["schedule"]["epochs"], config["schedule"]["batch_size"]
    met = {(example, data.train.views.identity) for example in data.validation.ids.tolist()}
    count = len(data.train)
    for epoch in range(epochs):
        views = data.train.draw_views(stream(seed, "views", epoch))
        order = torch.randperm(count, generator=stream(seed, "order", epoch))
        seen = order[: count - 1] if count % size == 1 and size > 1 else order
        met |= set(zip(data.train.ids[seen].tolist(), views[seen].tolist(), strict=True))
    return met


def rows_in(bank: Path) -> int:
    """How many views a folder of one bank holds."""
    (index,) = bank.glob("*/index")
    return int((np.fromfile(index, dtype=np.int32)[32:] > 0).sum())


@dataclass
class Cold:
    """The sweep of all alphas that began without a bank.

    Attributes:
        workplace: where it ran; its bank lies in ``bank``.
        summary: of it.
        met: the views that its trials meet.
    """

    workplace: Workplace
    summary: dict[str, Any]
    met: set[tuple[int, int]]


@pytest.fixture(scope="module")
def cold(new_workplace: Callable[[str], Workplace]) -> Cold:
    workplace = with_bank(new_workplace("cold"))
    workplace.run("run", workplace.write("file.yaml", file_of(ALPHAS, at_once=2)), "--name", "cold")
    summary = workplace.summary("cold")
    return Cold(workplace, summary, views_met(summary["trials"][0]["config"]))


def with_bank(workplace: Workplace, folder: Path | None = None) -> Workplace:
    """A workplace whose banks lie in a folder of their own; teachers stay in the session's cache."""
    workplace.environment["WSL_SWEEP_BANK"] = str(folder or workplace.folder / "bank")
    workplace.environment["OMP_NUM_THREADS"] = "1"
    return workplace


def test_trials_side_by_side_run_their_teacher_once_on_each_view(cold: Cold) -> None:
    """Promise 3."""
    trials = cold.summary["trials"]
    assert [trial["status"] for trial in trials] == ["finished"] * len(ALPHAS)
    assert {trial["seed"] for trial in trials} == {0}
    assert cold.summary["teacher"]["computed"] == len(cold.met)
    assert sum(trial["teacher"]["computed"] for trial in trials) == len(cold.met)
    assert rows_in(cold.workplace.folder / "bank") == len(cold.met)
    asked = {trial["teacher"]["computed"] + trial["teacher"]["found"] for trial in trials}
    assert len(asked) == 1


def test_mlflow_has_what_the_summary_says_of_the_teacher(cold: Cold) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=cold.workplace.uri)
    for trial in cold.summary["trials"]:
        tags = client.get_run(trial["mlflow_run_id"]).data.tags
        assert tags["teacher_forwards"] == str(trial["teacher"]["computed"])
        assert tags["teacher_outputs_found"] == str(trial["teacher"]["found"])


def test_the_second_sweep_never_runs_the_teacher_and_has_the_bits_of_the_first(cold: Cold) -> None:
    """Promise 1."""
    cold.workplace.run("run", cold.workplace.write("warm.yaml", file_of(ALPHAS)), "--name", "warm", "--rerun")
    warm = cold.workplace.summary("warm")
    assert warm["teacher"]["computed"] == 0
    assert warm["teacher"]["found"] == sum(cold.summary["teacher"].values())
    assert results(warm) == results(cold.summary)


def test_two_trials_alone_at_the_same_moment_share_each_view_and_have_the_same_bits(
    cold: Cold, new_workplace: Callable[[str], Workplace]
) -> None:
    """And one that has no bank has them, too."""
    workplace = with_bank(new_workplace("alone"))
    alone = {f"distillation.alpha={alpha}": alpha for alpha in ALPHAS[-2:]}
    processes = [workplace.start("train", *in_sets(text)) for text in alone]
    answers = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    told = [json.loads(answer) for answer in answers]
    assert sum(one["teacher"]["computed"] for one in told) == len(cold.met)
    assert rows_in(workplace.folder / "bank") == len(cold.met)

    without = json.loads(workplace.run("train", *in_sets(next(iter(alone))), "--no-bank"))
    assert without["teacher"]["found"] == 0
    assert without["teacher"]["computed"] >= len(cold.met)
    for one, alpha in zip((*told, without), (*alone.values(), ALPHAS[-2]), strict=True):
        (trial,) = [one for one in cold.summary["trials"] if one["overrides"]["distillation.alpha"] == alpha]
        assert one["trial_id"] == trial["trial_id"]
        assert numbers(one["metrics"]) == numbers(trial["metrics"])


# --- killed ----------------------------------------------------------------------------------------------------------


def family_of(pid: int) -> list[int]:
    """A process and all that it has started, whatever session they are in."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def kill_family(process: subprocess.Popen[str]) -> None:
    """``kill -9`` of everything that a command has started; returns when none of it runs any more."""
    family = family_of(process.pid)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=30)
    end = time.time() + 20
    while any(alive(pid) for pid in family):
        assert time.time() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.time() < end
        time.sleep(0.005)


def events_of(sweep: Path) -> Iterator[dict[str, Any]]:
    for segment in sorted((sweep / "ledger").glob("*.json")):
        yield from json.loads(segment.read_text())


def in_checkpoints(sweep: Path) -> int:
    """Views that the interrupted trials computed before the checkpoint that each goes on from."""
    computed = 0
    for trial in (sweep / "trials").iterdir():
        found = {}
        for state in trial.glob("attempt-1/epoch-*/state.json"):
            if (state.parent / "manifest.json").exists():
                found[int(state.parent.name.removeprefix("epoch-"))] = json.loads(state.read_text())
        if found:
            computed += found[max(found)]["teacher"]["computed"]
    return computed


def test_after_a_kill_only_the_missing_views_are_computed(cold: Cold, workplace: Workplace) -> None:
    """Promises 2 and 3: ``resume`` ends with the summary of the sweep that nobody disturbed."""
    with_bank(workplace)
    bank = workplace.folder / "bank"
    file = workplace.write("file.yaml", file_of(ALPHAS, at_once=2))
    process = workplace.start("run", file, "--name", "cold")

    def half_full() -> bool:
        return bool(list(bank.glob("*/index"))) and rows_in(bank) > 0.3 * len(cold.met)

    try:
        wait_until(half_full, process)
    finally:
        kill_family(process)
    there = rows_in(bank)
    assert there < len(cold.met)
    sweep = workplace.folder / "runs" / "cold"
    before = sum(event["teacher"]["computed"] for event in events_of(sweep) if event["event"] == "finished")
    before += in_checkpoints(sweep)
    workplace.run("resume", "cold")
    summary = workplace.summary("cold")
    assert results(summary) == results(cold.summary)
    missing = len(cold.met) - there
    assert missing <= summary["teacher"]["computed"] - before <= missing + 2 * teacher_batch("cpu")
    assert rows_in(bank) == len(cold.met)


# --- other precisions ------------------------------------------------------------------------------------------------


def test_float16_gives_other_trials_that_are_nearly_the_same(cold: Cold, workplace: Workplace) -> None:
    with_bank(workplace)
    file = workplace.write("file.yaml", file_of(ALPHAS[:2], "bank: {precision: float16}\n"))
    workplace.run("run", file, "--name", "half")
    half = workplace.summary("half")
    assert half["teacher"]["computed"] == len(cold.met)
    whole = {trial["overrides"]["distillation.alpha"]: trial for trial in cold.summary["trials"]}
    for trial in half["trials"]:
        assert trial["status"] == "finished"
        assert trial["config"]["teacher"]["stored_precision"] == "float16"
        other = whole[trial["overrides"]["distillation.alpha"]]
        assert trial["trial_id"] != other["trial_id"]
        assert trial["fingerprint"]["teacher"] == other["fingerprint"]["teacher"]
        assert numbers(trial["metrics"]) != numbers(other["metrics"])
        assert trial["metrics"]["validation/loss"] == pytest.approx(other["metrics"]["validation/loss"], rel=0.1)


AUTO = """
run: {recipe: digits, precision: auto, schedule: {epochs: 3}, teacher: {model: convnet_8, schedule: {epochs: 4}}}
variants: [kd, wsl]
seeds: 1
tracking: {best_student: false}
"""


def test_auto_is_measured_once_and_resume_keeps_what_was_found(workplace: Workplace) -> None:
    """The sweep, without a bank, is killed before its first trial, and its plan made to say the other precision."""
    file = workplace.write("file.yaml", AUTO)
    plan = workplace.folder / "runs" / "auto" / "plan.json"
    process = workplace.start("run", file, "--name", "auto", "--no-bank")
    try:
        wait_until(plan.exists, process)
        wait_until(lambda: plan.read_text().endswith("}\n"), process)
    finally:
        kill_family(process)
    content = json.loads(plan.read_text())
    found = content["precision"]["convnet_4"]
    assert min(found["float32"], found["bfloat16"]) > 0
    assert found["chosen"] == ("bfloat16" if found["bfloat16"] < 0.95 * found["float32"] else "float32")
    assert any(note.startswith(f"precision auto: {found['chosen']} for convnet_4") for note in content["notes"])
    assert not [event for event in events_of(plan.parent) if event["event"] == "started"]

    settled = "float32" if found["chosen"] == "bfloat16" else "bfloat16"
    found["chosen"] = settled
    plan.write_text(json.dumps(content))
    workplace.run("resume", "auto", "--no-bank")
    summary = workplace.summary("auto")
    trials = summary["trials"]
    assert [(trial["status"], trial["config"]["precision"]) for trial in trials] == [("finished", settled)] * 2
    assert json.loads(plan.read_text())["precision"] == content["precision"]
    assert summary["teacher"]["computed"] > summary["teacher"]["found"] == 0
    assert any("the logit bank is off" in note for note in summary["notes"])


# --- no room ---------------------------------------------------------------------------------------------------------


def test_a_bank_that_is_full_changes_no_number_and_is_said(cold: Cold, workplace: Workplace) -> None:
    """0.00075 GB: room for the index and some of the views."""
    with_bank(workplace)
    file = workplace.write("file.yaml", file_of(ALPHAS[:2], "bank: {limit_gb: 0.00075}\n"))
    output = workplace.run("run", file, "--name", "full")
    summary = workplace.summary("full")
    whole = results(cold.summary)["trials"]
    for trial in summary["trials"]:
        assert trial["status"] == "finished"
        assert numbers(trial["metrics"]) == numbers(whole[trial["trial_id"]][3])
    assert 0 < rows_in(workplace.folder / "bank") < len(cold.met)
    assert summary["teacher"]["computed"] > len(cold.met)
    (note,) = [note for note in summary["notes"] if "bank" in note]
    assert "takes no more rows" in note
    assert "bank.limit_gb is 0.00075" in note
    assert "wsl-sweep bank prune" in note
    assert "takes no more rows" in re.sub(r"\s+", " ", output)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four million bytes; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_changes_no_number_and_is_said(cold: Cold, workplace: Workplace, small_disk: Path) -> None:
    with_bank(workplace, small_disk / "bank")
    (trial,) = [one for one in cold.summary["trials"] if one["overrides"]["distillation.alpha"] == 2.5]
    alone = json.loads(workplace.run("train", *in_sets("distillation.alpha=2.5")))
    assert numbers(alone["metrics"]) == numbers(trial["metrics"])
    (note,) = alone["teacher"]["notes"]
    assert note.startswith("the logit bank cannot be used")
    assert "1 GB of the disk stay free" in note
    assert alone["teacher"]["found"] == 0
