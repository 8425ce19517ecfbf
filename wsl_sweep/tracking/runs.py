"""A sweep's runs on the tracking server. Every method is a call or a few, may raise, and may then be called again."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.recipes import NAMED
from wsl_sweep.spec.run import flatten
from wsl_sweep.spec.wording import settings
from wsl_sweep.tracking.answers import Answer, meaning
from wsl_sweep.tracking.settings import Tracking
from wsl_sweep.tracking.story import PASSING_TAGS, TEACHER_TAGS, milliseconds

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 7_900
"""Characters: MLflow takes 8,000 of a tag."""

RUNS_A_PAGE = 1000
UNRUN = "unrun"
"""The parent's tag with the rows of the final table of which no trial has begun."""

KEPT_TAGS = PASSING_TAGS | {
    *TEACHER_TAGS.values(), "variants", "row", "device", "accelerator", "mlflow.parentRunId", UNRUN,
}  # fmt: skip

DECLARED = "declared"
"""The parent's tag with what the file says of the comparison, as JSON."""

Row = Mapping[str, float]


@dataclass
class Run:
    """A run as the server has it.

    Attributes:
        run_id: MLflow's.
        status: RUNNING, FINISHED, FAILED or KILLED.
        start: in milliseconds since 1970, as ``end``, which is None before there was one.
        tags: those by which a run is compared with the ledger.
        metrics: the latest value of each; empty where nobody will ask.
        fresh: made by this writer, and still without a point.
    """

    run_id: str
    status: str = "RUNNING"
    start: int = 0
    end: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    fresh: bool = False


class SweepRuns:
    """The parent run and the child runs of one sweep, at most one of a trial.

    Args:
        tracking: server and experiment.
        sweep: name, ``uuid``, ``description``, ``git_commit``, ``device`` and, as JSON, ``declared`` of the sweep.

    Attributes:
        parent: None before it is found or made.
        children: by trial id.
        answered: when the server last answered, by ``time.monotonic``.
    """

    def __init__(self, tracking: Tracking, sweep: Mapping[str, str]) -> None:
        self.tracking, self.sweep = tracking, dict(sweep)
        self.parent: Run | None = None
        self.children: dict[str, Run] = {}
        self.answered = -math.inf
        self._creating: set[str] = set()
        self._client: Any = None
        self._experiment_id: str | None = None

    # --- finding -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Finds or makes the experiment, and finds the runs that exist."""
        import mlflow
        from mlflow.exceptions import MlflowException

        knock(self.tracking.uri)
        client = _Heard(mlflow.MlflowClient(tracking_uri=self.tracking.uri), self)
        experiment = client.get_experiment_by_name(self.tracking.experiment)
        if experiment is None:
            try:
                client.create_experiment(self.tracking.experiment)
            except MlflowException:  # made by somebody else since
                if client.get_experiment_by_name(self.tracking.experiment) is None:
                    raise
            experiment = client.get_experiment_by_name(self.tracking.experiment)
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        self._client, self._experiment_id = client, experiment.experiment_id
        self._find()

    @property
    def connected(self) -> bool:
        """Whether ``connect`` has come to its end."""
        return self._client is not None

    def probe(self) -> None:
        """Raises where the server does not answer."""
        if self._client is not None:
            self._client.get_experiment(self._experiment_id)

    def _find(self) -> None:
        """The runs of this sweep; of several for one trial, or of several parents, one stays."""
        groups: dict[str | None, list[Run]] = {}
        for trial_id, run in self._search():
            groups.setdefault(trial_id, []).append(run)
        parents = groups.pop(None, [])
        if parents:
            self.parent = self._one_of(parents)
        self.children = {str(trial_id): self._one_of(group) for trial_id, group in groups.items()}
        if len(parents) > 1:
            self._adopt()

    def _search(self, condition: str = "") -> Iterator[tuple[str | None, Run]]:
        """The sweep's runs that meet a condition, the oldest first, each with its trial's id; None for the parent."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string=f"tags.sweep_uuid = '{self.sweep['uuid']}'{condition}",
                max_results=RUNS_A_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                child = "mlflow.parentRunId" in run.data.tags
                yield run.data.tags.get("trial_id", "") if child else None, _run_of(run)
            token = page.token
            if not token:
                return

    def _one_of(self, runs: Sequence[Run]) -> Run:
        """The one to keep, for whoever asks the same: an ended one, one with metrics, the oldest. Deletes the others.

        A driver that was killed, or a call that the server answered too late, may have left several.
        """
        kept, *others = sorted(runs, key=lambda run: (run.status == "RUNNING", not run.metrics, run.start, run.run_id))
        for run in others:
            self._delete(run)
        return kept

    def _delete(self, run: Run) -> None:
        try:
            self._client.delete_run(run.run_id)
        except Exception as error:
            if meaning(error) is not Answer.NEVER:  # else another driver was quicker
                raise

    def _adopt(self) -> None:
        """Has all children name the parent that stayed."""
        assert self.parent is not None
        for run in self.children.values():
            if run.tags.get("mlflow.parentRunId") != self.parent.run_id:
                self._client.set_tag(run.run_id, "mlflow.parentRunId", self.parent.run_id)

    def forget_metrics(self) -> None:
        """Those that ``connect`` has found: thousands of runs' take their room."""
        for run in self.children.values():
            run.metrics = {}

    # --- making --------------------------------------------------------------------------------------------------

    def ensure_parent(self, when: float) -> Run:
        """The parent run, made where there is none."""
        if self.parent is None:
            if "" in self._creating:
                self._find()
            if self.parent is None:
                self._creating.add("")
                tags = {
                    **self._common_tags(),
                    **self._declared_tags(),
                    "mlflow.note.content": self.sweep["description"],
                }
                run = self._client.create_run(
                    self._experiment_id, start_time=milliseconds(when), run_name=self.sweep["name"], tags=tags
                )
                self._find()  # few runs, or none: another driver may have made it at this moment
                self.parent = self.parent or Run(run.info.run_id, start=milliseconds(when))
            self._creating.discard("")
        return self.parent

    def ensure(self, trial: Trial, when: float) -> Run:
        """The run of a trial, made where there is none. Its params are another call."""
        trial_id = trial.trial_id
        if trial_id not in self.children and trial_id in self._creating:
            self._look_up(trial_id)  # a call that seemed to fail may have made it
        if trial_id not in self.children:
            parent = self.ensure_parent(when)
            self._creating.add(trial_id)
            tags = {
                **self._common_tags(),
                "mlflow.parentRunId": parent.run_id,
                "stage": trial.stage,
                "arm": trial.arm or "",
                **_naming_tags(trial),
                "seed": str(trial.seed),
                "trial_id": trial_id,
            }
            run = self._client.create_run(
                self._experiment_id, start_time=milliseconds(when), run_name=run_name(trial), tags=tags
            )
            self._look_up(trial_id)  # another driver, or a call that was thought lost, may have made one too
            kept = {name: value for name, value in tags.items() if name in KEPT_TAGS}
            known = self.children.setdefault(trial_id, Run(run.info.run_id, start=milliseconds(when), tags=kept))
            known.fresh = known.run_id == run.info.run_id
        self._creating.discard(trial_id)
        return self.children[trial_id]

    def _look_up(self, trial_id: str) -> None:
        found = [run for _, run in self._search(f" and tags.trial_id = '{trial_id}'")]
        if found:
            self.children[trial_id] = self._one_of(found)

    def replaced(self, trial_id: str) -> bool:
        """Looks up whether another run stands in the place of the one we knew: two drivers may each keep one of two."""
        known = self.children.get(trial_id)
        if known is None:
            return False
        self._look_up(trial_id)
        return self.children[trial_id].run_id != known.run_id

    def replace(self, trial: Trial, when: float) -> Run:
        """A run that begins anew in the place of a trial's run: a point that is written cannot be taken back."""
        run = self.children.get(trial.trial_id)
        if run is not None:
            self._delete(run)
            del self.children[trial.trial_id]
        return self.ensure(trial, when)

    def _common_tags(self) -> dict[str, str]:
        return {
            "sweep": self.sweep["name"],
            "sweep_uuid": self.sweep["uuid"],
            "git_commit": self.sweep["git_commit"],
            "device": self.sweep["device"],
            "mlflow.source.name": "wsl-sweep",
            "mlflow.source.type": "JOB",
        }

    def _declared_tags(self) -> dict[str, str]:
        return {DECLARED: self.sweep[DECLARED]} if DECLARED in self.sweep else {}

    # --- writing -------------------------------------------------------------------------------------------------

    def log_params(self, run: Run, trial: Trial) -> None:
        """The trial's whole configuration by dotted path. Again is no harm."""
        from mlflow.entities import Param

        entities = [Param(key, value) for key, value in trial_params(trial).items()]
        for start in range(0, len(entities), PARAMS_A_BATCH):
            self._client.log_batch(run.run_id, params=entities[start : start + PARAMS_A_BATCH], synchronous=True)

    def log_rows(self, run: Run, rows: Iterable[Row]) -> None:
        """Metrics by epoch. Again leaves one point of each: the timestamps are the rows' own."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, *reversed(_point(row)))
            for row in rows
            for name, value in row.items()
            if name not in ("epoch", "timestamp") and math.isfinite(value)
        ]
        run.fresh = False
        for start in range(0, len(metrics), METRICS_A_BATCH):
            self._client.log_batch(run.run_id, metrics=metrics[start : start + METRICS_A_BATCH], synchronous=True)

    def strays(self, run: Run, rows: Sequence[Row]) -> list[int]:
        """The epochs of points in a run that are not of these rows: of an attempt that no longer counts."""
        name = next((name for row in rows[:1] for name in row if name not in ("epoch", "timestamp")), None)
        if name is None:
            return []
        ours = {_point(row) for row in rows}
        history = self._client.get_metric_history(run.run_id, name)
        return sorted(point.step for point in history if (point.step, point.timestamp) not in ours)

    def set_variants(self, run: Run, trial: Trial) -> None:
        """The names that the trial stands for, where they have become more."""
        naming = _naming_tags(trial)
        if any(run.tags.get(name) != naming[name] for name in ("variants", "row")):
            self.add_tags(run, naming)
            self._client.update_run(run.run_id, name=run_name(trial))

    def set_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Sets an end's tags, and deletes those of an end before that this one has not."""
        for name in sorted((PASSING_TAGS & run.tags.keys()) - tags.keys()):
            self._client.delete_tag(run.run_id, name)
            del run.tags[name]
        self.add_tags(run, tags)

    def set_unrun(self, parent: Run, text: str) -> None:
        """Says which rows have no run; a later driver may have run them."""
        if text:
            self.add_tags(parent, {UNRUN: text[:TAG_LENGTH]})
        elif UNRUN in parent.tags:
            self._client.delete_tag(parent.run_id, UNRUN)
            del parent.tags[UNRUN]

    def add_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Sets tags beside those that are there."""
        from mlflow.entities import RunTag

        if tags:
            entities = [RunTag(name, value) for name, value in tags.items()]
            self._client.log_batch(run.run_id, tags=entities, synchronous=True)
            run.tags |= {name: value for name, value in tags.items() if name in KEPT_TAGS}

    def set_running(self, run: Run) -> None:
        """It runs, or runs again."""
        if run.status != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
            run.status = "RUNNING"

    def terminate(self, run: Run, status: str, end: int) -> None:
        """Its end; ``end`` in milliseconds."""
        self._client.set_terminated(run.run_id, status, end_time=end)
        run.status, run.end = status, end

    def describe(self, run: Run, text: str, metrics: Mapping[str, float], when: float) -> None:
        """Description (Markdown), what was declared, and metrics of the parent."""
        self.add_tags(run, {**self._declared_tags(), "mlflow.note.content": text})
        self.log_rows(run, [{**metrics, "epoch": 0.0, "timestamp": when}])

    def log_artifact(self, run: Run, path: str, content: bytes) -> None:
        """Keeps a file with a run; one of that path is replaced."""
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as local:
            file = Path(local) / name
            file.write_bytes(content)
            self._client.log_artifact(run.run_id, str(file), folder or None)

    def still_running(self) -> list[tuple[str, Run]]:
        """Child runs that the server has as RUNNING, each with its trial's id.

        One that is not the run of its trial, made by a call that was thought lost, is deleted.
        """
        found = []
        for trial_id, run in list(self._search(" and attributes.status = 'RUNNING'")):
            if trial_id is None:
                continue
            ours = self.children.get(trial_id)
            if ours is not None and ours.run_id != run.run_id:
                self._delete(run)
            else:
                found.append((trial_id, ours or run))
        return found


class _Heard:
    """MLflow's client; notes when the server last answered."""

    def __init__(self, client: Any, runs: SweepRuns) -> None:
        self._client, self._runs = client, runs

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            self._runs.answered = time.monotonic()
            return result

        return call


def knock(uri: str) -> None:
    """Raises at once where a database does not answer: MLflow would try for minutes with ever longer pauses."""
    if "://" not in uri or uri.split(":", 1)[0] in ("http", "https", "sqlite", "file"):
        return
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    except sqlalchemy.exc.ArgumentError:
        return  # not a database's: MLflow says what it thinks of it
    except ImportError as error:
        raise ImportError(f"the database's driver is not installed: pip install {error.name}") from error
    engine.connect().close()


def _run_of(run: Any) -> Run:
    tags = {name: value for name, value in run.data.tags.items() if name in KEPT_TAGS}
    return Run(run.info.run_id, run.info.status, run.info.start_time, run.info.end_time, tags, dict(run.data.metrics))


def _point(row: Row) -> tuple[int, int]:
    """Step and timestamp of a row's points."""
    return int(row["epoch"]), milliseconds(row["timestamp"])


def trial_params(trial: Trial) -> dict[str, str]:
    """A trial's whole configuration by dotted path, as MLflow keeps it: text, of bounded length."""
    params = {**flatten(trial.config), "part": trial.part, "threads": trial.threads}
    if trial.processes > 1:
        params["processes"] = trial.processes
    return {path: str(value)[:PARAM_LENGTH] for path, value in params.items()}


def _naming_tags(trial: Trial) -> dict[str, str]:
    """What a trial is called, and what sets it apart, as JSON; nothing where that is too long for a tag."""
    overrides = json.dumps(dict(trial.overrides), default=str)
    return {
        "variants": ",".join(trial.variants),
        "row": row_name(trial),
        "overrides": overrides if len(overrides) <= TAG_LENGTH else "{}",
    }


def row_name(trial: Trial) -> str:
    """What the seeds of one configuration have in common: variants and settings. Runs are grouped by it in MLflow."""
    names = "+".join(trial.variants)
    return " ".join(filter(None, (names, settings(trial.overrides, trial.variants[0]))))[:TAG_LENGTH]


def run_name(trial: Trial) -> str:
    """What a person reads in MLflow's list: variants, what sets the trial apart, seed."""
    known = NAMED.get(trial.variants[0], {})
    shown = [
        f"{path.rsplit('.', 1)[-1]}={_short(value)}"
        for path, value in trial.overrides.items()
        if known.get(path) != value
    ]
    return " ".join(["+".join(trial.variants), *shown[:4], f"seed={trial.seed}"])[:250]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
