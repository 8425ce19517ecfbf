"""Sweeps read back from a tracking server, with nothing else at hand."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsl_sweep.analysis.records import Outcomes, Record, SweepRecords
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.sections import CompareSection
from wsl_sweep.sweep.table import Standing
from wsl_sweep.tracking.answers import prepare_calls, told
from wsl_sweep.tracking.runs import DECLARED, RUNS_A_PAGE, UNRUN, knock
from wsl_sweep.tracking.settings import redact
from wsl_sweep.tracking.story import CONFIRMED, SWEEP_STATUS

OUTCOMES = "test_outcomes.json"
"""The parent's artifact with what each trial of the final table got right, example by example."""

NO_TRIAL = "tags.trial_id IS NULL"
"""Of the runs with a sweep's tag the parents."""

_STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}


def outcomes_file(sweep: SweepRecords) -> bytes | None:
    """The content of the artifact OUTCOMES, a bit an example; None where no test logits were kept."""
    import numpy as np

    trials = {}
    for record in sweep.records:
        found = sweep.outcomes(record.trial_id) if record.standings else None
        if found is not None:
            packed = base64.b64encode(np.packbits(found.right).tobytes()).decode()
            trials[record.trial_id] = {"right": packed, "of": len(found.right), "examples": found.examples}
    return json.dumps(trials).encode() if trials else None


def read_sweeps(uri: str, names: Sequence[str]) -> list[SweepRecords]:
    """Sweeps by name or UUID; of several with one name that which began last.

    Args:
        uri: the tracking server's, or its store's.
        names: at least one.

    Raises:
        WslSweepError: the server does not answer, or has no such sweep.
    """
    with _asking(uri) as (client, experiments):
        return _named_apart([_read(client, experiments, name) for name in names])


def tracked_sweeps(uri: str) -> list[str]:
    """The names of the sweeps that a tracking server has, that which began last first.

    Raises WslSweepError: the server does not answer.
    """
    with _asking(uri) as (client, experiments):
        return list(dict.fromkeys(run.data.tags["sweep"] for run in _parents(client, experiments)))


@contextlib.contextmanager
def _asking(uri: str) -> Iterator[tuple[Any, list[str]]]:
    """A client and the experiments that there are; what goes wrong is told in a line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook tqdm misses a widget that nobody needs
        import mlflow

    if not uri.strip():
        raise WslSweepError("--from-mlflow: give the address of a tracking server, such as sqlite:///mlflow.db")
    prepare_calls()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise WslSweepError(f"there is no {uri.removeprefix('sqlite:///')}")  # MLflow would make one
    try:
        knock(uri)
        client = mlflow.MlflowClient(tracking_uri=uri)
        yield client, [one.experiment_id for one in _pages(client.search_experiments)]
    except WslSweepError:
        raise
    except Exception as error:
        raise WslSweepError(f"MLflow at {redact(uri)}: {told(error)}") from error


def _named_apart(sweeps: Sequence[SweepRecords]) -> list[SweepRecords]:
    """Each sweep once; of one name that several have, with the beginning of its UUID behind it."""
    found = {sweep.uuid: sweep for sweep in sweeps}
    names = [sweep.name for sweep in found.values()]
    return [_renamed(one) if names.count(one.name) > 1 else one for one in found.values()]


def _renamed(sweep: SweepRecords) -> SweepRecords:
    name = f"{sweep.name}@{sweep.uuid[:8]}"
    return replace(sweep, name=name, records=tuple(replace(record, sweep=name) for record in sweep.records))


def _pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _read(client: Any, experiments: Sequence[str], name: str) -> SweepRecords:
    parent = _parent(client, experiments, name)
    tags = parent.data.tags
    declared = json.loads(tags.get(DECLARED, "{}"))
    space = {path: _distribution(facts) for path, facts in declared.pop("space", {}).items()}
    names = tuple(declared.pop("names", ()))
    children = _pages(
        client.search_runs,
        experiment_ids=[parent.info.experiment_id],
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
        order_by=["attributes.start_time ASC"],
        max_results=RUNS_A_PAGE,
    )
    status = next((ours for ours, theirs in SWEEP_STATUS.items() if theirs == parent.info.status), "running")
    return SweepRecords(
        name=tags["sweep"],
        uuid=tags["sweep_uuid"],
        status=status,
        compare=CompareSection(**{key: declared[key] for key in CompareSection.model_fields if key in declared}),
        space=space,
        names=names,
        records=tuple(_record(run) for run in children),
        outcomes=_outcomes(client, parent.info.run_id),
        unrun=tags.get(UNRUN, ""),
    )


def _distribution(facts: Mapping[str, Any]) -> Distribution:
    when = {path: tuple(values) for path, values in facts["when"].items()}
    return Distribution(**{**facts, "values": tuple(facts["values"]), "when": when})


def _parent(client: Any, experiments: Sequence[str], name: str) -> Any:
    if "'" in name:
        raise WslSweepError(f"{name!r} is no name of a sweep")
    for tag in ("sweep", "sweep_uuid"):
        runs = _pages(
            client.search_runs,
            experiment_ids=list(experiments),
            filter_string=f"tags.{tag} = '{name}' AND {NO_TRIAL}",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        for run in runs:
            return run
    known = sorted({run.data.tags["sweep"] for run in _parents(client, experiments)})
    raise WslSweepError(f"MLflow has no sweep {name}; it has: {', '.join(known) or 'none'}")


def _parents(client: Any, experiments: Sequence[str]) -> Iterator[Any]:
    """The runs of sweeps, that which began last first."""
    return _pages(
        client.search_runs,
        experiment_ids=list(experiments),
        filter_string=f"tags.sweep != '' AND {NO_TRIAL}",
        order_by=["attributes.start_time DESC"],
        max_results=RUNS_A_PAGE,
    )


def _record(run: Any) -> Record:
    tags: Mapping[str, str] = run.data.tags
    status = "pruned" if tags.get("pruned") == "true" else _STATUS.get(run.info.status, "running")
    return Record(
        sweep=tags["sweep"],
        trial_id=tags["trial_id"],
        stage=tags["stage"],
        arm=tags.get("arm") or None,
        variants=tuple(tags["variants"].split(",")),
        seed=int(tags["seed"]),
        status=status,
        params=dict(run.data.params),
        overrides=json.loads(tags.get("overrides", "{}")),
        metrics=_last_metrics(run),
        standings=tuple(Standing.from_json(place) for place in json.loads(tags.get(CONFIRMED, "[]"))),
    )


def _last_metrics(run: Any) -> dict[str, float]:
    """Those of the last epoch; what was not a number there is not taken from an epoch before."""
    points = run.data.to_proto().metrics
    last = max((point.step for point in points), default=0)
    return {point.key: point.value for point in points if point.step == last}


def _outcomes(client: Any, run_id: str) -> Callable[[str], Outcomes | None]:
    @functools.cache
    def file() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Exception):  # whatever its store raises
            found: dict[str, Any] = json.loads(Path(client.download_artifacts(run_id, OUTCOMES, folder)).read_bytes())
            return found
        return {}

    def outcomes(trial_id: str) -> Outcomes | None:
        import numpy as np

        kept = file().get(trial_id)
        if kept is None:
            return None
        bits = np.unpackbits(np.frombuffer(base64.b64decode(kept["right"]), np.uint8), count=kept["of"])
        return Outcomes(bits.astype(bool), kept["examples"])

    return outcomes
