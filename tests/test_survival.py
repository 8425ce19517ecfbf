"""Sweeps that are killed, stopped, torn, changed and moved, through the command line: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.conftest import Workplace
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep.ledger import Ledger, SweepState, fold

pytest_plugins = ["tests.object_store"]
pytestmark = pytest.mark.slow

EPOCHS = 30
FILE = f"""
run: {{recipe: digits, schedule: {{epochs: {EPOCHS}}}, teacher: {{model: convnet_8, schedule: {{epochs: 4}}}}}}
variants: {{ce: , wsl: }}
seeds: 2
resources: {{concurrent: 1}}
tracking: {{best_student: false}}
"""
"""A checkpoint after every epoch: long enough for a hand to come in between."""

SIDE_BY_SIDE = FILE.replace("concurrent: 1", "concurrent: 2")
SECONDS = 300.0
"""For what takes a quarter of a minute on a machine that does nothing else."""

Histories = dict[str, dict[str, list[tuple[int, float, int]]]]


@dataclass
class Watched:
    """A sweep as it lies on its storage, while whoever runs it is at work."""

    folder: Place

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = (self.folder / "summary.json").read_json()
        return summary

    @property
    def state(self) -> SweepState:
        return fold(Ledger(self.folder / "ledger").events())

    def ids(self, *statuses: str) -> list[str]:
        return [trial_id for trial_id, state in self.state.trials.items() if state.status in statuses]

    def checkpoints(self, trial_id: str) -> list[str]:
        """``attempt-<n>/epoch-<e>…`` of those that have their manifest, the oldest first."""
        folder = self.folder / "trials" / trial_id
        found = [
            (int(match[2]), int(match[3] or 0), int(match[1]), f"{attempt}/{name}")
            for attempt in folder.names()
            if attempt.startswith("attempt-")
            for name in (folder / attempt).names()
            if (match := re.fullmatch(r"attempt-(\d+)/epoch-(\d+)(?:-step-(\d+))?", f"{attempt}/{name}"))
            and (folder / attempt / name / "manifest.json").exists()
        ]
        return [name for *_, name in sorted(found)]

    def begun(self, checkpoints: int = 1) -> list[str]:
        """Trials that are under way and have so many checkpoints at least."""
        return [one for one in self.ids("running", "lost") if len(self.checkpoints(one)) >= checkpoints]

    def log(self, trial_id: str) -> str:
        return (self.folder / "trials" / trial_id / "log.txt").read_text()

    def logs(self) -> str:
        return "".join(self.log(trial_id) for trial_id in self.state.trials)


def watched(workplace: Workplace, name: str = "whole") -> Watched:
    return Watched(place(workplace.folder / "runs" / name))


def until(process: subprocess.Popen[str], what: Callable[[], Any]) -> Any:
    """What lies on disk decides, not the clock; the process must not end before."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if found := what():
                return found
        if process.poll() is not None:
            assert process.stdout is not None
            pytest.fail(f"it ended before its moment, with {process.returncode}:\n{process.stdout.read()}")
        time.sleep(0.01)
    pytest.fail("its moment did not come")


def descendants(pid: int) -> list[int]:
    """All processes below one, from the kernel's tables."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            below.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        waiting += (children := below.get(waiting.pop(), []))
        found += children
    return found


def kill(process: subprocess.Popen[str], *, alone: bool = False) -> None:
    """``kill -9`` of a driver, and of all that it started unless it is to die alone."""
    others = [] if alone else descendants(process.pid)
    process.kill()
    for pid in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@contextlib.contextmanager
def driving(workplace: Workplace, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``wsl-sweep ARGUMENTS`` in the background, not outliving this with anything that it started."""
    process = workplace.start(*arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def end_of(process: subprocess.Popen[str], expect: int = 0) -> str:
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == expect, output
    assert "Traceback" not in output
    return output


def results(summary: dict[str, Any], only: Any = None) -> dict[str, Any]:
    """What must be the same bit for bit, by trial id, whatever happened on the way."""
    return {
        trial["trial_id"]: {
            **{key: trial[key] for key in ("stage", "variants", "seed", "config", "status", "epochs", "fingerprint")},
            "metrics": {name: value for name, value in trial["metrics"].items() if name != "train/seconds"},
        }
        for trial in summary["trials"]
        if only is None or trial["trial_id"] in only
    }


def histories(uri: str, name: str, summary: dict[str, Any]) -> Histories:
    """What MLflow has, once it has been checked: a parent, a run a trial, none running, each epoch once."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    word = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "killed": "KILLED"}
    (parent,) = [run for run in runs if "trial_id" not in run.data.tags]
    assert parent.info.status == word[summary["status"]]
    children = {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}
    assert sorted(children) == sorted(trial["trial_id"] for trial in summary["trials"])
    assert len(runs) == len(children) + 1
    found: Histories = {}
    for trial in summary["trials"]:
        run = children[trial["trial_id"]]
        assert run.info.run_id == trial["mlflow_run_id"]
        assert run.info.status == word[trial["status"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics == trial["metrics"]
        found[trial["trial_id"]] = points = {}
        for metric in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, metric)
            points[metric] = [(point.step, point.value, point.timestamp) for point in history]
            epochs = [trial["epochs"]] if metric.startswith("test/") else list(range(1, trial["epochs"] + 1))
            assert sorted(point.step for point in history) == epochs, metric
    return found


def timeless(found: Histories) -> dict[str, Any]:
    """Epochs' metrics without what the clock has to do with."""
    return {
        trial_id: {
            metric: sorted((step, value) for step, value, _ in points)
            for metric, points in metrics.items()
            if metric != "train/seconds"
        }
        for trial_id, metrics in found.items()
    }


def check_same(undisturbed: Workplace, disturbed: Workplace, name: str = "whole") -> None:
    """A sweep that had a hard time has what an undisturbed one has, on disk and in MLflow."""
    before, after = undisturbed.summary("whole"), disturbed.summary(name)
    assert results(after) == results(before)
    assert after["confirmed"] == before["confirmed"]
    assert after["status"] == before["status"] == "finished"
    assert after["best"] == before["best"]
    there = timeless(histories(disturbed.uri, name, after))
    assert there == timeless(histories(undisturbed.uri, "whole", before))


@pytest.fixture(scope="module")
def undisturbed(new_workplace: Callable[[str], Workplace]) -> Workplace:
    """The sweep ``whole``, to which nothing happened. Not to be changed: see ``copied``."""
    workplace = new_workplace("undisturbed")
    workplace.run("run", workplace.write("file.yaml", FILE), "--name", "whole", timeout=SECONDS)
    return workplace


@pytest.fixture
def copied(undisturbed: Workplace, new_workplace: Callable[[str], Workplace]) -> Workplace:
    """A copy of it in a place of its own."""
    workplace = new_workplace("copied")
    for path in undisturbed.folder.iterdir():
        copy: Any = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, workplace.folder / path.name)
    plan = workplace.folder / "runs" / "whole" / "plan.json"
    plan.write_text(plan.read_text().replace(str(undisturbed.folder), str(workplace.folder)))
    return workplace


def test_killed_twice_and_torn_it_ends_as_if_nothing_had_been(undisturbed: Workplace, workplace: Workplace) -> None:
    """Promise 2. First the driver dies alone, and its workers find out by themselves; then everything dies at once."""
    sweep = watched(workplace)
    with driving(workplace, "run", workplace.write("file.yaml", SIDE_BY_SIDE), "--name", "whole") as process:
        until(process, sweep.begun)
        kill(process, alone=True)
    _garbage(sweep)
    with driving(workplace, "resume", "whole") as process:
        until(process, lambda: sweep.ids("finished") and sweep.begun(2))
        kill(process)
    finished = {trial_id: sweep.log(trial_id) for trial_id in sweep.ids("finished")}
    torn = sweep.begun(2)[0]
    newest = sweep.checkpoints(torn)[-1]
    _tear(sweep, torn, newest)
    _garbage(sweep)
    assert workplace.run("status").count("running") >= 1
    output = workplace.run("resume", "whole", timeout=SECONDS)

    assert "is gone: its lease is taken over" in output
    assert f"checkpoint passed over: {newest}: tensors.safetensors" in sweep.log(torn)
    last = sweep.log(torn).rpartition("goes on after epoch ")[2]
    assert last.startswith(f"{int(newest.partition('epoch-')[2].partition('-')[0]) - 1},"), sweep.log(torn)
    assert {trial_id: sweep.log(trial_id) for trial_id in finished} == finished
    check_same(undisturbed, workplace)
    assert not workplace.summary("whole")["notes"]
    ends = Counter(
        event["trial_id"] for event in Ledger(sweep.folder / "ledger").events() if event["event"] == "finished"
    )
    assert set(ends.values()) == {1}
    assert "nothing to resume" in workplace.run("resume", "whole", expect=2)


def _garbage(sweep: Watched) -> None:
    """What a write that was cut off would leave, on a storage that does not write whole files, as the next segment."""
    folder = sweep.folder / "ledger"
    (folder / f"{int(folder.names()[-1][:8]) + 1:08d}.json").write(b'[{"event": "finished", "trial_id": "')


def _tear(sweep: Watched, trial_id: str, checkpoint: str) -> None:
    folder = sweep.folder / "trials" / trial_id
    for part in checkpoint.split("/"):
        folder = folder / part
    tensors = folder / "tensors.safetensors"
    tensors.write(tensors.read_bytes()[:-7])


def test_stopped_in_four_ways_it_goes_on_where_it_stood(undisturbed: Workplace, workplace: Workplace) -> None:
    """Ctrl-C, SIGTERM, ``stop`` from another terminal, ``stop --trial`` for one that would take for ever."""
    long = "long: {distillation.method: none, schedule: {epochs: 20000, batch_size: 2, milestones: []}}"
    text = SIDE_BY_SIDE.replace("{ce: , wsl: }", f"{{{long}, ce: , wsl: }}").replace("seeds: 2", "seeds: 1")
    sweep, file = watched(workplace), workplace.write("file.yaml", text)
    with driving(workplace, "run", file, "--name", "whole") as process:
        until(process, lambda: sweep.ids("finished") and _long(sweep) in sweep.begun())
        process.send_signal(signal.SIGINT)
        output = end_of(process, expect=128 + signal.SIGINT)
    assert "wsl-sweep resume whole" in output
    assert "wsl-sweep resume whole" in workplace.run("run", file, "--name", "whole", expect=2)
    long_one, done = _long(sweep), sweep.ids("finished")
    kept = _newest(sweep)
    assert long_one in kept
    stopped = workplace.summary("whole")
    assert stopped["status"] == "stopped"
    histories_after_stop(workplace, stopped)

    with driving(workplace, "resume", "whole") as process:
        until(process, lambda: _attempt(sweep, long_one, 2))
        process.send_signal(signal.SIGTERM)
        end_of(process, expect=128 + signal.SIGTERM)
    histories_after_stop(workplace, workplace.summary("whole"))

    with driving(workplace, "resume", "whole") as process:
        until(process, lambda: _attempt(sweep, long_one, 3))
        for command in (["resume", "whole"], ["sync", "whole"], ["clean", "whole"]):
            refused = workplace.run(*command, expect=2)
            assert f"is being run by process {process.pid} on " in refused
        (listed,) = json.loads(workplace.run("status", "--json"))
        assert listed["driver"]["pid"] == process.pid
        assert "whole is stopped" in workplace.run("stop", "whole")
        end_of(process, expect=1)
    assert any("-step-" in checkpoint for checkpoint in (kept[long_one], _newest(sweep)[long_one]))
    assert "goes on after epoch" in sweep.log(long_one) or "-step-" in kept[long_one]
    assert "is not running" in workplace.run("stop", "whole", expect=2)

    with driving(workplace, "resume", "whole") as process:
        until(process, lambda: _attempt(sweep, long_one, 4))
        assert f"trial {long_one} of whole: killed" in workplace.run("stop", "whole", "--trial", long_one[:8])
        end_of(process)
    status = json.loads(workplace.run("status", "whole", "--json"))
    assert {one["variants"][0]: one["status"] for one in status["of_each"]} == {
        "long": "killed", "ce": "finished", "wsl": "finished",
    }  # fmt: skip
    summary, before = workplace.summary("whole"), undisturbed.summary("whole")
    others = {trial["trial_id"] for trial in summary["trials"]} - {long_one}
    assert results(summary, others) == results(before, others)
    assert {one: sweep.state.trials[one].attempt for one in done} == dict.fromkeys(done, 1)
    there = timeless(histories_after_stop(workplace, summary))
    beside = timeless(histories(undisturbed.uri, "whole", before))
    assert {trial_id: there[trial_id] for trial_id in others} == {trial_id: beside[trial_id] for trial_id in others}
    assert "nothing to resume" in workplace.run("resume", "whole", expect=2)


def _attempt(sweep: Watched, trial_id: str, attempt: int) -> bool:
    return sweep.state.trials[trial_id].attempt == attempt and f"attempt {attempt}" in sweep.log(trial_id)


def _newest(sweep: Watched) -> dict[str, str]:
    """Of the killed trials that got as far as a checkpoint, which one."""
    found = {trial_id: sweep.checkpoints(trial_id) for trial_id in sweep.ids("killed")}
    return {trial_id: checkpoints[-1] for trial_id, checkpoints in found.items() if checkpoints}


def _long(sweep: Watched) -> str:
    return next((one for one, state in sweep.state.trials.items() if state.trial.variants == ("long",)), "")


def histories_after_stop(workplace: Workplace, summary: dict[str, Any]) -> Histories:
    """As ``histories``, of a sweep with killed trials: the summary may know less of them than MLflow."""
    for trial in summary["trials"]:
        if trial["status"] == "killed":
            client = mlflow.MlflowClient(tracking_uri=workplace.uri)
            metrics = client.get_run(trial["mlflow_run_id"]).data.metrics
            steps = {
                point.step: point for point in client.get_metric_history(trial["mlflow_run_id"], "validation/accuracy")
            }
            assert sorted(steps) == list(range(1, len(steps) + 1))
            trial["metrics"], trial["epochs"] = metrics, len(steps)
    return histories(workplace.uri, "whole", summary)


def test_a_killed_worker_costs_an_attempt_and_nothing_else(undisturbed: Workplace, copied: Workplace) -> None:
    """Beside a sweep of which everything could have been taken over, but for ``--rerun``."""
    sweep = watched(copied, "again")
    with driving(copied, "run", copied.write("again.yaml", SIDE_BY_SIDE), "--name", "again", "--rerun") as process:
        (victim, *_) = until(process, lambda: sweep.begun(2))
        found = re.search(r"attempt 1: .*, process (\d+) on ", sweep.log(victim))
        assert found is not None
        assert int(found[1]) in descendants(process.pid)
        assert Path(f"/proc/{found[1]}/cmdline").read_bytes().startswith(b"ray::")
        os.kill(int(found[1]), signal.SIGKILL)
        end_of(process)
    assert {trial_id: state.attempt for trial_id, state in sweep.state.trials.items()} == {
        trial_id: 2 if trial_id == victim else 1 for trial_id in sweep.state.trials
    }
    assert re.search(r"goes on after epoch \d+, from attempt 1", sweep.log(victim))
    assert "taken over" not in sweep.logs()
    assert sweep.logs().count(f"epoch={EPOCHS} ") == 4
    check_same(undisturbed, copied, "again")


def test_the_same_trials_are_taken_over_even_if_the_driver_dies_at_the_end(
    undisturbed: Workplace, copied: Workplace
) -> None:
    """Killed between the ledger's last word and the summary."""
    second = watched(copied, "second")
    with driving(copied, "run", "file.yaml", "--name", "second") as process:
        until(process, lambda: second.state.status == "finished")
        kill(process)
    (second.folder / "summary.json").delete()  # a fast driver may have got there before the signal
    copied.run("resume", "second", timeout=SECONDS)
    check_same(undisturbed, copied, "second")
    assert second.logs().count("taken over from the sweep whole") == 4
    assert "epoch=1 " not in second.logs()
    assert "nothing to resume" in copied.run("resume", "second", expect=2)


def test_a_changed_file_is_refused_and_seeds_are_added(undisturbed: Workplace, copied: Workplace) -> None:
    sweep = watched(copied)
    for name in _from_the_evaluation_on(sweep):
        (sweep.folder / "ledger" / name).delete()  # as if its driver had died before it
    (copied.folder / "mlflow.db").unlink()
    copied.write("file.yaml", FILE.replace("run: {", "run: {distillation: {temperature: 3.0}, "))
    refused = copied.run("resume", "whole", expect=2)
    assert re.search(r"run\.distillation\.temperature: \S+ → 3\.0", refused)
    assert "--as-begun" in refused
    copied.run("resume", "whole", "--as-begun", timeout=SECONDS)
    check_same(undisturbed, copied)

    copied.write("file.yaml", FILE)
    extended = copied.run("extend", "whole", "--seeds", "3", timeout=SECONDS)
    assert re.search(r"added: seeds: \[0, 1\] → \[0, 1, 2\]", extended)
    _check_extended(undisturbed, copied, 3)
    assert "has 3 already" in copied.run("extend", "whole", "--seeds", "2", expect=2)
    assert {state.attempt for state in sweep.state.trials.values()} == {1}


def _from_the_evaluation_on(sweep: Watched) -> list[str]:
    ledger = sweep.folder / "ledger"
    names = ledger.names()
    kinds = [(ledger / name).read_json()[0]["event"] for name in names]
    return names[kinds.index("evaluated") :]


def _check_extended(undisturbed: Workplace, extended: Workplace, seeds: int) -> None:
    before, after = undisturbed.summary("whole"), extended.summary("whole")
    ids = {trial["trial_id"] for trial in before["trials"]}
    assert results(after, ids) == results(before)
    assert len(after["trials"]) == 2 * seeds
    assert [(row["variant"], row["seeds"]) for row in after["confirmed"]] == [
        ("ce", list(range(seeds))),
        ("wsl", list(range(seeds))),
    ]
    for row, old in zip(after["confirmed"], before["confirmed"], strict=True):
        assert row["values"][:2] == old["values"]
    there = timeless(histories(extended.uri, "whole", after))
    assert {one: there[one] for one in ids} == timeless(histories(undisturbed.uri, "whole", before))


def test_mlflow_and_the_summary_are_made_again_from_the_ledger(undisturbed: Workplace, copied: Workplace) -> None:
    before = copied.summary("whole")
    (copied.folder / "mlflow.db").unlink()
    copied.run("sync", "whole", timeout=SECONDS)
    made = copied.summary("whole")
    assert _without_runs(made) == _without_runs(before)
    whole = histories(copied.uri, "whole", made)
    there = histories(undisturbed.uri, "whole", before)
    assert whole == there  # with the same timestamps

    (copied.folder / "runs" / "whole" / "summary.json").unlink()
    copied.run("sync", "whole", timeout=SECONDS)
    assert copied.summary("whole") == made
    assert histories(copied.uri, "whole", made) == whole


def _without_runs(summary: dict[str, Any]) -> dict[str, Any]:
    trials = [{key: value for key, value in one.items() if key != "mlflow_run_id"} for one in summary["trials"]]
    return {**summary, "trials": trials}


def test_an_object_store_serves_as_well_as_a_disk(undisturbed: Workplace, workplace: Workplace, s3: str) -> None:
    sweep = Watched(place(s3) / "whole")
    text = FILE.replace("concurrent: 1", "concurrent: 1, checkpoint_epochs: 4")
    storage = ["--storage", s3]
    with driving(workplace, "run", workplace.write("file.yaml", text), "--name", "whole", *storage) as process:
        until(process, sweep.begun)
        kill(process)
    assert "nothing is running" not in workplace.run("status", *storage)
    workplace.run("resume", "whole", *storage, timeout=SECONDS)
    assert "goes on after epoch" in sweep.logs()
    before = undisturbed.summary("whole")
    assert results(sweep.summary) == results(before)
    assert sweep.summary["confirmed"] == before["confirmed"]
    there = histories(workplace.uri, "whole", sweep.summary)
    assert timeless(there) == timeless(histories(undisturbed.uri, "whole", before))

    assert re.search(r"whole +finished +4 finished", workplace.run("status", *storage))
    trial_id = sweep.summary["trials"][0]["trial_id"]
    assert f"epoch={EPOCHS} " in workplace.run("logs", trial_id[:8], *storage)
    other = f"sqlite:///{workplace.folder / 'other.db'}"
    workplace.run("sync", "whole", *storage, "--tracking-uri", other, timeout=SECONDS)
    assert histories(other, "whole", sweep.summary) == there
    assert not (workplace.folder / "runs").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four million bytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_said_and_room_is_enough_to_go_on(
    undisturbed: Workplace, workplace: Workplace, small_disk: Path
) -> None:
    sweep = Watched(place(small_disk) / "whole")
    storage = ["--storage", str(small_disk)]
    with driving(workplace, "run", workplace.write("file.yaml", FILE), "--name", "whole", *storage) as process:
        until(process, sweep.begun)
        _fill(small_disk / "filler")
        output = end_of(process, expect=1)
    assert "No space left on device" in output
    assert "wsl-sweep resume whole --storage" in output
    (small_disk / "filler").unlink()
    workplace.run("resume", "whole", *storage, timeout=SECONDS)
    before = undisturbed.summary("whole")
    assert results(sweep.summary) == results(before)
    assert sweep.summary["confirmed"] == before["confirmed"]
    there = timeless(histories(workplace.uri, "whole", sweep.summary))
    assert there == timeless(histories(undisturbed.uri, "whole", before))


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_without_a_ledger_and_with_torn_students_the_sweep_is_made_whole(
    undisturbed: Workplace, copied: Workplace
) -> None:
    """A resume that cannot start deletes nothing; what workers left is taken in; a torn student is trained again."""
    sweep = watched(copied)
    (sweep.folder / "ledger").delete()
    (copied.folder / "mlflow.db").unlink()
    torn, gone, *_ = sorted((sweep.folder / "trials").names())
    student = sweep.folder / "trials" / torn / "student.safetensors"
    student.write(student.read_bytes()[:-9])
    (sweep.folder / "trials" / gone / "student.safetensors").delete()
    nowhere = ["--address", "127.0.0.1:1", "--insecure", "--storage", str(copied.folder / "runs")]
    told = copied.run("resume", "whole", *nowhere, "--tracking-uri", copied.uri, expect=2)
    assert "no Ray cluster answers at 127.0.0.1:1" in told
    assert len((sweep.folder / "trials").names()) == 4
    copied.run("resume", "whole", timeout=SECONDS)
    check_same(undisturbed, copied)
    assert {trial_id: state.attempt for trial_id, state in sweep.state.trials.items()} == {
        trial_id: 2 if trial_id in (torn, gone) else 1 for trial_id in sweep.state.trials
    }
    assert any(f"the student of {torn} is trained again" in note for note in copied.summary("whole")["notes"])
