"""``summary.json``: what a sweep found, made from its ledger at any time again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wsl_sweep.analysis.comparison import Compared
from wsl_sweep.analysis.statistics import describe
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.ledger import SweepState, TrialState
from wsl_sweep.sweep.selection import pareto_front


def build_summary(
    spec: Spec,
    state: SweepState,
    *,
    uuid: str,
    run_ids: Mapping[str, str] | None = None,
    compared: Compared | None = None,
) -> dict[str, Any]:
    """The summary of a sweep: every trial that has begun, the best one (by validation), and the confirmed table.

    A trial has its ``teacher_id``, its ``fingerprint`` (hashes of ``code``, ``data`` and the ``teacher``'s weights,
    ``torch``'s version, the ``device``), the ``seconds`` of the attempt that ended it and how many training
    ``examples`` its student was shown; each is None where there is none, or the ledger does not know.

    ``confirmed`` has a row for each winner and baseline, or for each cell of an ablation: ``values`` of
    ``compare.metric`` by seed (``seeds`` beside them), their ``mean``, the 95 % t interval ``ci95`` (None for one
    value) and ``n``; seeds that did not finish are counted in ``missing``. ``comparison`` is what ``wsl-sweep compare``
    says of the same table, with its verdicts, as JSON; None where it was not made.
    """
    ids = run_ids or {}
    single = len(spec.metrics) == 1
    pool = [s for s in state.trials.values() if s.trial.stage in ("search", "ablation")]
    front = pareto_front(pool, spec.metrics, spec.modes)
    summary: dict[str, Any] = {
        "sweep": spec.name,
        "uuid": uuid,
        "description": spec.description,
        "status": state.status,
        "metric": spec.metrics[0] if single else list(spec.metrics),
        "mode": spec.modes[0] if single else list(spec.modes),
        "trials": [_trial(s, ids.get(s.trial.trial_id)) for s in state.trials.values() if s.status != "proposed"],
        "best": _best(front[0], spec.metrics) if front else None,
        "teacher": _teachers(list(state.trials.values())),
        "confirmed": [_confirmed(row, state, spec.compare.metric) for row in state.rows],
        "compare": spec.compare.model_dump(),
        "comparison": compared.to_json() if compared is not None else None,
        "notes": list(dict.fromkeys([*spec.notes, *state.notes])),
    }
    if not single:
        summary["pareto_front"] = [_best(one, spec.metrics) for one in front]
    return summary


def _trial(state: TrialState, run_id: str | None) -> dict[str, Any]:
    trial = state.trial
    return {
        "trial_id": trial.trial_id,
        "stage": trial.stage,
        "arm": trial.arm,
        "variants": list(trial.variants),
        "seed": trial.seed,
        "overrides": dict(trial.overrides),
        "config": dict(trial.config),
        "part": trial.part,
        "processes": trial.processes,
        "status": state.status,
        "epochs": state.epochs,
        "metrics": dict(state.metrics),
        "error": state.error,
        "seconds": state.facts.get("seconds"),
        "examples": state.facts.get("examples"),
        "fingerprint": state.facts.get("fingerprint"),
        "teacher_id": _teacher_id(trial),
        "teacher": _teacher(state),
        "mlflow_run_id": run_id,
    }


def _teacher_id(trial: Trial) -> str | None:
    """Of the teacher that a trial reads, or None.

    In a ledger from before trials said so it is worked out again, from the data set and the checkpoint as they are now.
    """
    if trial.teacher_id is not None:
        return trial.teacher_id
    named = teacher_identity(trial.config, trial.part, trial.threads, trial.processes)
    return named[0] if named is not None else None


def _teacher(state: TrialState) -> dict[str, int] | None:
    """How many examples the teacher computed for a trial, and how many outputs were found in the logit bank."""
    facts = state.facts.get("teacher")
    return None if facts is None else {"computed": facts["computed"], "found": facts["found"]}


def _teachers(trials: Sequence[TrialState]) -> dict[str, int]:
    each = [one for one in map(_teacher, trials) if one is not None]
    return {"computed": sum(one["computed"] for one in each), "found": sum(one["found"] for one in each)}


def _best(state: TrialState, metrics: Sequence[str]) -> dict[str, Any]:
    values = [state.metrics[metric] for metric in metrics]
    return {
        "trial_id": state.trial.trial_id,
        "overrides": dict(state.trial.overrides),
        "value": values[0] if len(values) == 1 else values,
    }


def _confirmed(row: Mapping[str, Any], state: SweepState, metric: str) -> dict[str, Any]:
    values: list[float] = []
    seeds: list[int] = []
    ids: list[str] = []
    for trial_id, seed in zip(row["trial_ids"], row["seeds"], strict=True):
        known = state.trials.get(trial_id)
        value = known.metrics.get(metric) if known is not None and known.status == "finished" else None
        if value is not None and math.isfinite(value):
            values.append(value)
            seeds.append(seed)
            ids.append(trial_id)
    described = describe(values) if values else None
    return {
        "variant": row["variant"],
        "overrides": dict(row["overrides"]),
        "metric": metric,
        "values": values,
        "mean": described.mean if described else None,
        "sd": described.sd if described else None,
        "ci95": list(described.interval) if described and described.interval else None,
        "n": len(values),
        "seeds": seeds,
        "trial_ids": ids,
        "missing": len(row["trial_ids"]) - len(values),
        "tuned": row.get("tuned"),
    }
