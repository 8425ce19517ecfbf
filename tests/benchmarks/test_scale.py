"""The scale benchmark's arithmetic, its made-up trials, its clocks and pulse, and going on with a cut ledger."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.resume import cut, resume
from benchmarks.scale import by_trials, line, quarters, size_of
from benchmarks.simulated import EPOCHS, METRICS, dies, file_of, reports
from benchmarks.stalls import Clock, Pulse, clocked, standing
from tests.sweep.fakes import play, spec_of
from wsl_sweep.spec.plan import Trial
from wsl_sweep.sweep.conductor import Conductor
from wsl_sweep.sweep.ledger import Ledger


def last_report(trial: Trial) -> dict[str, Any]:
    *_, last = reports({"trials": [trial.to_json()], "metrics": ["validation/accuracy"], "rungs": [2, 4]}, 0.0)
    return last


def outcome(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(last_report(trial)["outcome"])
    return found


def swept(folder: Path, trials: int, scheduler: str = "none") -> Conductor:
    spec = spec_of(file_of(trials, "random", scheduler))
    conductor = Conductor(spec, Ledger(folder / "ledger"), has_teacher=lambda _: True)
    play(conductor, outcome)
    return conductor


def test_a_made_up_trial_says_what_a_finished_one_says(tmp_path: Path) -> None:
    conductor = swept(tmp_path, 7)
    assert [state.status for state in conductor.state.trials.values()] == ["finished"] * 7
    (state, *_) = conductor.state.trials.values()
    assert set(METRICS) == set(state.metrics)
    assert state.epochs == EPOCHS


def test_rows_are_reported_at_rungs_and_each_once(tmp_path: Path) -> None:
    (state, *_) = swept(tmp_path, 1).state.trials.values()
    task = {"trials": [state.trial.to_json()], "metrics": ["validation/accuracy"], "rungs": [2, 4]}
    told = list(reports(task, 100.0))
    assert [report["epoch"] for report in told] == [2, 4, 5]
    assert [row["epoch"] for report in told for row in json.loads(report["rows"])] == [1, 2, 3, 4, 5]
    assert ["outcome" in report for report in told] == [False, False, True]
    assert told == list(reports(task, 100.0))


def test_few_workers_die_and_only_in_the_first_attempt() -> None:
    ids = [f"{number:012x}" for number in range(10_000)]
    assert 5 <= sum(dies(one, 1) for one in ids) <= 40
    assert not any(dies(one, 2) for one in ids)


def test_milliseconds_by_quarter() -> None:
    ends = [0.1 * index for index in range(41)]
    assert quarters(ends) == pytest.approx([100.0] * 4)
    assert quarters(ends[:39]) == []
    slower = [0.0]
    for index in range(80):
        slower.append(slower[-1] + (0.1 if index < 40 else 0.3))
    assert quarters(slower) == pytest.approx([100, 100, 300, 300])


def test_a_line_through_what_grows() -> None:
    assert line([(1, 3.0), (2, 5.0), (3, 7.0)]) == pytest.approx((1.0, 2.0))
    assert by_trials([1.5, 2.5, 3.5, 4.5], 400) == pytest.approx((1.0, 0.01))
    assert by_trials([], 400) is None
    with pytest.raises(ValueError, match="two points"):
        line([(1, 1.0)])


def test_a_clock_knows_its_quarters() -> None:
    clock = Clock()
    for index in range(80):
        clock.add(float(index), 0.001 * (1 + index // 20))
    told = clock.summary()
    assert (told["calls"], told["longest"]) == (80, 0.004)
    assert told["quarters"] == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert Clock().summary() == {"calls": 0, "seconds": 0, "longest": 0.0, "quarters": []}


class Worker:
    def work(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


def test_methods_are_clocked_meanwhile() -> None:
    plain, beats = Worker.work, []
    with clocked([(Worker, "work")], lambda: beats.append(1)) as clocks:
        assert Worker().work(0.02) == 0.02
    assert Worker.work is plain
    assert len(beats) == 2
    assert 0.02 <= clocks["Worker.work"].seconds[0] < 1


def test_a_silence_is_noted_with_where_it_was() -> None:
    with Pulse(threading.get_ident()) as pulse:
        pulse.beat(True)
        time.sleep(0.4)
        pulse.beat(False)
        time.sleep(0.5)  # there is no work: this one does not count
        pulse.beat(True)
    assert 0.4 <= pulse.stalls[0].seconds < 0.5
    assert "test_a_silence_is_noted" in pulse.stalls[0].where


def test_where_a_thread_stands() -> None:
    assert standing(sys._getframe()).startswith("test_where_a_thread_stands (benchmarks/test_scale.py:")
    assert standing(None) == ""


@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_a_cut_sweep_is_gone_on_with(tmp_path: Path, scheduler: str) -> None:
    whole = tmp_path / "whole" / "runs" / "scale"
    swept(whole, 12, scheduler)
    assert size_of(whole / "ledger")["segments"] >= 36
    part = tmp_path / "part" / "runs" / "scale"
    cut(whole, part, 10, 4)
    assert len(list((part / "ledger").iterdir())) < 33
    job = {"sweep": str(part), "trials": 10, "wanted": 16, "sampler": "random", "scheduler": scheduler}
    found = resume(job)
    assert found["known"] <= 10
    assert {"read", "conductor", "recover", "study", "summary"} < set(found["phases"])
    assert found["seconds"] == pytest.approx(sum(found["phases"].values()))
