"""What runs next, and what every result means: a sweep from its first teacher to its final evaluation.

No Ray here. The conductor proposes tasks when asked and hears of their ends; the ledger is written before anybody
acts. Its script reads top to bottom; where it has to wait for running trials it yields None.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.plan import (
    CONFIRM_SEED,
    Trial,
    ablation_cells,
    make_plan,
    make_trial,
    merge,
    search_trials,
)
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.ledger import Event, Ledger, Listener, SweepState, TrialState, fold, unevaluated
from wsl_sweep.sweep.selection import pareto_front, rank_candidates
from wsl_sweep.sweep.study import ArmStudy

EVALUATIONS_A_TASK = 16


@dataclass(frozen=True)
class Task:
    """Something for a worker to do.

    Attributes:
        kind: ``teacher``, ``train`` or ``evaluate``.
        key: its name among the running tasks.
        trials: whose teacher, which one, or which ones to evaluate.
        attempt: of a training.
        whole_card: whether it gets a GPU to itself: a part of one was too small.
        elsewhere: trials of other sweeps that may be the same: see ``wsl_sweep.sweep.elsewhere``.
    """

    kind: Literal["teacher", "train", "evaluate"]
    key: str
    trials: tuple[Trial, ...]
    attempt: int = 1
    whole_card: bool = False
    elsewhere: tuple[Mapping[str, Any], ...] = ()

    @property
    def processes(self) -> int:
        """That do it together; students are evaluated by one alone."""
        return 1 if self.kind == "evaluate" else self.trials[0].processes

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a worker."""
        return {
            "kind": self.kind,
            "key": self.key,
            "attempt": self.attempt,
            "elsewhere": [dict(one) for one in self.elsewhere],
            "trials": [trial.to_json() for trial in self.trials],
        }


class Conductor:
    """Runs a sweep's script against its ledger.

    Args:
        spec: what is asked for.
        ledger: empty, or of the sweep that is resumed.
        device_kind: ``cpu`` or ``cuda``.
        gpu: GPUs of a trial; by default what the file says.
        has_teacher: whether a teacher of this id is in the store.
        elsewhere: what other sweeps of this storage have of a trial id.
        listeners: hear every event once it is on disk.
        events: of the ledger, by whoever has read it already.

    Attributes:
        stopping: why nothing new begins, or None; a thread may set it by ``stop``.
        halted: why no trial can go on (a full disk, say), or None.
    """

    def __init__(
        self,
        spec: Spec,
        ledger: Ledger,
        *,
        device_kind: str = "cpu",
        gpu: float | None = None,
        has_teacher: Callable[[str], bool] = lambda _: False,
        elsewhere: Callable[[str], Sequence[Mapping[str, Any]]] = lambda _: (),
        listeners: Sequence[Listener] = (),
        events: list[Event] | None = None,
    ) -> None:
        self.spec, self.ledger, self.device_kind = spec, ledger, device_kind
        self.listeners = list(listeners)
        told = ledger.events() if events is None else events
        self._events: list[Event] | None = told
        self.state: SweepState = fold(told)
        self.tasks: dict[str, Task] = {}
        self.plan = make_plan(spec, device_kind)
        self.expected = sum(self.plan.stages.values())
        self.finished = False
        self.gpu = gpu if gpu is not None else spec.resources.gpu or 0.0
        self.stopping: str | None = None
        self.halted: str | None = None
        self.unwanted: set[str] = set()
        self._has_teacher, self._elsewhere = has_teacher, elsewhere
        self._again: deque[Task] = deque()
        self._losses: dict[str, int] = {}
        self._begun: dict[str, float] = {}
        self._failed_teachers: dict[str, str] = {}
        self._unreadable: dict[str, str] = {}
        self._studies: dict[str, ArmStudy] = {}
        self._started = time.time()
        self._seconds_before = self.state.seconds_before + self.state.last_session_seconds
        self._seconds_used = sum(s.seconds for s in self.state.trials.values())
        self._over_budget: str | None = None
        self._script = self._run()

    # --- what the runner calls -----------------------------------------------------------------------------------

    def next(self) -> Task | None:
        """The next task; None while there is nothing to propose. ``finished`` is True once nothing ever will be."""
        if self.stopping is not None:
            return None
        if self._again:
            task: Task | None = self._again.popleft()
        else:
            task = next(self._script, None) if not self.finished else None
        if task is not None:
            self.tasks[task.key] = task
        return task

    def forget_events(self) -> list[Event]:
        """All events so far, for the last time: from now on they are not kept in memory."""
        events, self._events = self._events, None
        return self.ledger.events() if events is None else events

    def stop(self, reason: str) -> None:
        """Nothing new begins. Only what others may do at the same time is done here: see ``interrupt``."""
        if self.stopping is None:
            self.stopping = reason

    @property
    def training(self) -> bool:
        """Whether a trial, or a teacher's training, has begun and not ended."""
        return bool(self._begun)

    def started(self, key: str) -> None:
        """A worker has begun with a task; one that finds the sweep being stopped gives it back at once."""
        task = self.tasks.get(key)
        if task is None or task.kind == "evaluate" or self.stopping is not None:
            return
        self._begun[key] = time.time()
        if task.kind == "train":
            self._write("started", trial_id=task.trials[0].trial_id, attempt=task.attempt)

    def ended(self, key: str, outcome: Mapping[str, Any]) -> None:
        """A task has come to its end; the first word counts.

        ``outcome`` has ``status`` (finished, pruned, failed or killed; ``out_of_memory`` of a GPU; ``gone`` where what
        the sweep rests on is) and, by kind of task, ``metrics``, ``epochs``, ``seconds``, ``fingerprint``,
        ``examples``, ``error``, ``evaluated``.
        """
        task = self.tasks.pop(key, None)
        begun = self._begun.pop(key, None) is not None
        if task is None or (task.kind == "train" and outcome["status"] == "killed" and not begun):
            return
        if outcome["status"] == "gone":
            self.halted = self.halted or str(outcome.get("error"))
            self.stop(self.halted)
            outcome = {**outcome, "status": "killed"}
        elif outcome["status"] == "out_of_memory" and not self._out_of_memory(task, outcome):
            return
        elif outcome["status"] == "out_of_memory":
            outcome = {**outcome, "status": "failed"}
        if task.kind == "teacher":
            self._seconds_used += float(outcome.get("seconds") or 0.0)
            if outcome["status"] == "failed":
                self._failed_teachers[key.removeprefix("teacher-")] = str(outcome.get("error"))
        elif task.kind == "evaluate":
            for trial_id, metrics in (outcome.get("evaluated") or {}).items():
                self._write("evaluated", trial_id=trial_id, metrics=metrics)
            self._unreadable |= outcome.get("unreadable") or {}
            if outcome["status"] == "failed":
                self._note(f"the final evaluation failed: {outcome.get('error')}")
        else:
            self._end_trial(task, outcome)

    def lost(self, key: str, reason: str) -> None:
        """The worker of a task died: the task goes on elsewhere, if this has not happened too often."""
        task = self.tasks.get(key)
        if task is None:
            return
        most = self.spec.resources.max_failures
        known = self.state.trials.get(key) if task.kind == "train" else None
        losses = known.losses if known is not None else self._losses.get(key, 0)
        if losses >= most:
            times = f", {losses + 1} times" if losses else ""
            self.ended(key, {"status": "failed", "error": f"{reason}{times}; resources.max_failures is {most}"})
            return
        self.tasks.pop(key)
        seconds = self._seconds_of(key)
        self._seconds_used += seconds
        self._losses[key] = losses + 1
        if task.kind == "train":
            self._write("lost", trial_id=key, attempt=task.attempt, error=reason, seconds=seconds)
        self._again.append(replace(task, attempt=task.attempt + 1))

    def _seconds_of(self, key: str) -> float:
        """How long a task has run that ends now without a word of its worker's."""
        begun = self._begun.pop(key, None)
        return max(0.0, time.time() - begun) if begun is not None else 0.0

    def take_in(self, left: Callable[[TrialState], tuple[int, Mapping[str, Any] | None]]) -> None:
        """What workers still did when the driver that should have heard of it was gone; before the first task.

        Args:
            left: the newest attempt of a trial on the storage, and what its worker left there as its outcome, or None.
        """
        for state in list(self.state.trials.values()):
            if state.settled:
                continue
            attempt, outcome = left(state)
            state.attempt = max(state.attempt, attempt)
            if outcome is not None and attempt == state.attempt:
                task = Task("train", state.trial.trial_id, (state.trial,), attempt=attempt)
                self._end_trial(task, sane(outcome))

    def take_up(self, trial: Trial) -> None:
        """A trial of which a damaged ledger knows nothing any more, but whose folder is there."""
        if trial.trial_id not in self.state.trials:
            self._write("proposed", trial=trial.to_json())

    def interrupt(self) -> None:
        """Every trial that has begun and has no last word is killed, and the sweep is stopped."""
        for key, task in list(self.tasks.items()):
            self.tasks.pop(key)
            if task.kind == "train" and self.state.trials[key].status == "running":
                outcome = {"status": "killed", "error": self.stopping or "the sweep was stopped"}
                self._end_trial(task, outcome | {"seconds": self._seconds_of(key)})
        for task in self._again:
            if task.kind == "train":
                trial_id = task.trials[0].trial_id
                attempt = self.state.trials[trial_id].attempt
                self._write(
                    "killed", trial_id=trial_id, attempt=attempt, error=self.stopping or "the sweep was stopped"
                )
        self._again.clear()
        self._write("sweep", status="stopped")

    def close(self, status: str) -> None:
        """The sweep's own last word: ``finished`` or ``failed``."""
        self._write("sweep", status=status)

    def settle_accelerator(self, kinds: Mapping[str, float]) -> None:
        """Has all trials of confirm or an ablation run on one kind of card, where a cluster has several.

        Args:
            kinds: how many GPUs there are of each.
        """
        if self.spec.resources.accelerator is not None or self.state.accelerator is not None or len(kinds) < 2:
            return
        most = max(sorted(kinds), key=lambda kind: kinds[kind])
        self._write("settled", accelerator=most)
        self._note(
            f"the cluster has {', '.join(sorted(kinds))}; paired seeds run on {most} alone (resources.accelerator says "
            "on what everything runs)"
        )

    def accelerator_of(self, task: Task) -> str | None:
        """The kind of card that a task needs, or None."""
        paired = task.kind == "train" and task.trials[0].stage != "search"
        return self.spec.resources.accelerator or (self.state.accelerator if paired else None)

    # --- the script ----------------------------------------------------------------------------------------------

    def _run(self) -> Iterator[Task | None]:
        self._write("sweep", status="running")
        yield from self._teachers()
        if self.spec.search is None:
            cells = ablation_cells(self.spec, self.device_kind)
            trials = merge([trial for cell in cells for trial in cell.trials])
            yield from self._train(trials)
            rows: list[dict[str, Any]] = [
                {
                    "variant": cell.variant,
                    "overrides": dict(cell.overrides),
                    "trial_ids": [trial.trial_id for trial in cell.trials],
                    "seeds": [trial.seed for trial in cell.trials],
                }
                for cell in cells
            ]
        else:
            yield from self._search()
            rows = []
            if self.spec.confirm is not None:
                rows = yield from self._confirm()
        if rows and self.state.rows != rows:
            self._write("decided", rows=rows)
        yield from self._evaluate(rows)
        self.finished = True

    def _teachers(self) -> Iterator[Task | None]:
        for teacher_id, (_, trial) in self.plan.teachers.items():
            if not self._has_teacher(teacher_id):
                yield Task("teacher", f"teacher-{teacher_id}", (trial,))
        yield from self._wait("teacher")

    def _search(self) -> Iterator[Task | None]:
        """The arms take turns; each is told of its own trials only."""
        self._studies = {
            arm: ArmStudy(
                self.spec,
                arm,
                self.device_kind,
                [s for s in self.state.trials.values() if s.trial.arm == arm and s.trial.stage == "search"],
            )
            for arm in self.spec.arms
        }
        unsettled = [
            s.trial
            for s in self.state.trials.values()
            if s.trial.stage == "search" and s.trial.arm in self.spec.arms and not s.settled
        ]
        for interrupted in unsettled:
            yield from self._task(interrupted)
        open_arms = dict(self._studies)
        while open_arms and not self._budget_spent():
            for arm, study in list(open_arms.items()):
                trial = study.propose()
                if trial is None:
                    if study.exhausted and study.proposed < study.wanted:
                        self._note(
                            f"the space of arm {arm} holds no more than {study.proposed} different trials; "
                            f"{study.wanted} were asked for"
                        )
                        self.expected -= study.wanted - study.proposed
                    del open_arms[arm]
                else:
                    yield from self._task(trial)
                if self._budget_spent():
                    break
        yield from self._wait("train")

    def _confirm(self) -> Generator[Task | None, None, list[dict[str, Any]]]:
        """The best of each arm on fresh seeds; the winners and the untuned baselines go to the final evaluation."""
        confirm, metric, mode = self.spec.confirm, self.spec.metrics[0], self.spec.modes[0]
        assert confirm is not None
        candidates = {arm: self._candidates(arm, confirm.top) for arm in self.spec.arms}
        for arm, tops in candidates.items():
            wanted = min(confirm.top, search_trials(self.spec, self.spec.arms[arm]))
            if len(tops) < wanted:
                self._note(f"arm {arm}: {len(tops)} search trials finished, so fewer than {wanted} are confirmed")
                self.expected -= (wanted - len(tops)) * confirm.seeds
        seeds = [CONFIRM_SEED + index for index in range(confirm.seeds)]
        trials: dict[tuple[str, int], list[Trial]] = {}
        for arm, tops in candidates.items():
            for index, top in enumerate(tops):
                trials[arm, index] = [
                    self._confirm_trial(arm, self.spec.arms[arm], top.trial.overrides, seed, arm=arm) for seed in seeds
                ]
        finals: dict[str, list[Trial]] = {
            name: [self._confirm_trial(name, overrides, {}, seed, part=confirm.train_on) for seed in seeds]
            for name, overrides in self._baselines().items()
        }
        yield from self._train(merge([t for group in (*trials.values(), *finals.values()) for t in group]))

        rows: list[dict[str, Any]] = []
        for arm, tops in candidates.items():
            groups = [trials[arm, index] for index in range(len(tops))]
            ranking = rank_candidates([self._states(group) for group in groups], metric, mode)
            if not ranking:
                self._note(f"arm {arm} has no winner: none of its trials finished")
                continue
            best, mean = ranking[0]
            winner = groups[best]
            if confirm.train_on != "train":
                winner = [
                    self._confirm_trial(
                        arm,
                        self.spec.arms[arm],
                        tops[best].trial.overrides,
                        seed,
                        arm=arm,
                        part=confirm.train_on,
                    )
                    for seed in seeds
                ]
                yield from self._train(winner)
            rows.append(_row(arm, tops[best].trial.overrides, winner, tuned=True, validation_mean=mean))
        rows += [_row(name, self._baselines()[name], group, tuned=False) for name, group in finals.items()]
        return rows

    def _evaluate(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Task | None]:
        """The one look at the test set, when everything has been chosen.

        A student that is gone (``extend`` may make a winner of one that was not kept) or damaged is trained again.
        """
        for last in (False, True):
            waiting = [self.state.trials[trial_id].trial for trial_id in unevaluated(self.state, rows)]
            self._unreadable.clear()
            for start in range(0, len(waiting), EVALUATIONS_A_TASK):
                chunk = tuple(waiting[start : start + EVALUATIONS_A_TASK])
                yield Task("evaluate", f"evaluate-{start}", chunk)
            yield from self._wait("evaluate")
            if last or not self._unreadable or self._budget_spent(begun=True):
                break
            for trial_id, reason in dict(self._unreadable).items():
                self._note(f"the student of {trial_id} is trained again: {reason}")
                known = self.state.trials[trial_id]
                yield Task("train", trial_id, (known.trial,), attempt=known.attempt + 1)
            yield from self._wait("train")
        for trial_id, reason in self._unreadable.items():
            self._note(f"the final evaluation of {trial_id} failed: {reason}")

    # --- its steps -----------------------------------------------------------------------------------------------

    def _train(self, trials: Sequence[Trial]) -> Iterator[Task | None]:
        for trial in trials:
            if not self._budget_spent(begun=trial.trial_id in self.state.trials):
                yield from self._task(trial)
        yield from self._wait("train")

    def _task(self, trial: Trial) -> Iterator[Task]:
        """The task of a trial, proposed in the ledger first; nothing if it is settled or its teacher failed."""
        known = self.state.trials.get(trial.trial_id)
        if known is not None and known.settled:
            names = dict.fromkeys((*known.trial.variants, *trial.variants))
            if tuple(names) != known.trial.variants:
                self._write("proposed", trial=replace(known.trial, variants=tuple(names)).to_json())
            return
        if known is None:
            self._write("proposed", trial=trial.to_json())
        task = Task(
            "train",
            trial.trial_id,
            (trial,),
            attempt=(known.attempt if known else 0) + 1,
            whole_card=known is not None and known.out_of_memory,
            elsewhere=tuple(self._elsewhere(trial.trial_id)) if known is None or known.attempt == 0 else (),
        )
        named = teacher_identity(trial.config, trial.part, trial.threads, trial.processes)
        if named is not None and named[0] in self._failed_teachers:
            self.tasks[task.key] = task
            self.started(task.key)
            reason = f"its teacher could not be trained: {self._failed_teachers[named[0]]}"
            self.ended(task.key, {"status": "failed", "error": reason})
            return
        yield task

    def _wait(self, kind: str) -> Iterator[None]:
        while any(task.kind == kind for task in (*self.tasks.values(), *self._again)):
            yield None

    def _candidates(self, arm: str, top: int) -> list[TrialState]:
        own = [s for s in self.state.trials.values() if s.trial.stage == "search" and s.trial.arm == arm]
        return pareto_front(own, self.spec.metrics, self.spec.modes)[:top]

    def _baselines(self) -> dict[str, Mapping[str, Any]]:
        """Name → overrides; a baseline that is called like an arm is told apart from its tuned self."""
        return {
            f"{name} (untuned)" if name in self.spec.arms else name: overrides
            for name, overrides in self.spec.baselines.items()
        }

    def _confirm_trial(
        self,
        variant: str,
        overrides: Mapping[str, Any],
        params: Mapping[str, Any],
        seed: int,
        *,
        arm: str | None = None,
        part: str = "train",
    ) -> Trial:
        return make_trial(
            self.spec,
            stage="confirm",
            variant=variant,
            overrides=overrides,
            params=params,
            seed=seed,
            arm=arm,
            part=part,
            device_kind=self.device_kind,
        )

    def _states(self, trials: Sequence[Trial]) -> list[TrialState]:
        return [self.state.trials.get(trial.trial_id) or TrialState(trial, status="killed") for trial in trials]

    def _end_trial(self, task: Task, outcome: Mapping[str, Any]) -> None:
        trial = task.trials[0]
        if outcome["status"] == "killed" and trial.trial_id in self.unwanted:
            outcome = {**outcome, "unwanted": True}
        fields = {key: value for key, value in outcome.items() if key not in ("status", "evaluated")}
        self._write(str(outcome["status"]), trial_id=trial.trial_id, attempt=task.attempt, **fields)
        self._seconds_used += float(outcome.get("seconds") or 0.0)
        for note in (outcome.get("teacher") or {}).get("notes", ()):
            self._note(note)
        if trial.stage == "search" and trial.arm in self._studies and self.state.trials[trial.trial_id].settled:
            self._studies[trial.arm].tell(self.state.trials[trial.trial_id])

    def _out_of_memory(self, task: Task, outcome: Mapping[str, Any]) -> bool:
        """Tries a task that a GPU was too small for again, with the whole card; True if that was done before."""
        if task.whole_card:
            return True
        if task.kind == "train":
            self._write(
                "lost",
                trial_id=task.key,
                attempt=task.attempt,
                error=f"{outcome.get('error')}; once more, with the whole card",
                out_of_memory=True,
                seconds=outcome.get("seconds"),
            )
            self._seconds_used += float(outcome.get("seconds") or 0.0)
        self._again.append(replace(task, attempt=task.attempt + 1, whole_card=True))
        return False

    def _budget_spent(self, *, begun: bool = False) -> bool:
        """Whether the file's budget is used up; says so once. A trial that was ``begun`` is counted already."""
        if self._over_budget is not None and not (begun and self._over_budget == "trials"):
            return True
        budget = self.spec.budget
        started = len(self.state.trials)
        now = time.time()
        running = sum(now - begun for begun in self._begun.values())
        spent = {
            "trials": (started, budget.trials),
            "hours": ((self._seconds_before + now - self._started) / 3600, budget.hours),
            "gpu_hours": ((self._seconds_used + running) * self.gpu / 3600, budget.gpu_hours),
        }
        for name, (used, limit) in spent.items():
            if limit is not None and used >= limit and not (begun and name == "trials"):
                self._over_budget = name
                self._note(f"the budget of {limit:g} {name} is used up; {self.expected - started} trials were not run")
                return True
        return False

    def _note(self, text: str) -> None:
        if text not in self.state.notes:
            self._write("note", text=text)

    def _write(self, event: str, **fields: Any) -> None:
        entry: Event = self.ledger.append(event, **fields)
        self.state.apply(entry)
        if self._events is not None:
            self._events.append(entry)
        for listener in self.listeners:
            listener(entry)


_WORDS: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "error": str,
    "epochs": int,
    "seconds": (int, float),
    "device": str,
    "metrics": dict,
    "fingerprint": dict,
    "teacher": dict,
    "examples": int,
    "taken_over": dict,
}


def sane(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What makes sense of an outcome that was read from a file."""
    found: dict[str, Any] = {}
    for key, kind in _WORDS.items():
        value = outcome.get(key)
        if isinstance(value, dict) and key == "metrics":
            value = {name: one for name, one in value.items() if isinstance(one, int | float) and math.isfinite(one)}
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            json.dumps(value, allow_nan=False)
            if isinstance(value, kind) and not isinstance(value, bool):
                found[key] = value
    if not {"computed", "found"} <= set(found.get("teacher", ())):
        found.pop("teacher", None)
    return found


def _row(
    variant: str,
    overrides: Mapping[str, Any],
    trials: Sequence[Trial],
    *,
    tuned: bool,
    validation_mean: float | None = None,
) -> dict[str, Any]:
    return {
        "variant": variant,
        "overrides": dict(overrides),
        "trial_ids": [trial.trial_id for trial in trials],
        "seeds": [trial.seed for trial in trials],
        "tuned": tuned,
        "validation_mean": validation_mean,
    }
