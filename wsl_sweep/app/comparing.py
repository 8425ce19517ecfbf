"""Comparing sweeps, and setting one out as a table of the paper: from a storage, or from a tracking server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wsl_sweep.analysis.comparison import Compared, compare
from wsl_sweep.analysis.paper import PUBLISHED_METRIC, PaperTable, layout_of, set_out
from wsl_sweep.analysis.records import SweepRecords, kept_outcomes, records_of
from wsl_sweep.app.folders import find_sweep, open_sweep, state_as_it_stands
from wsl_sweep.errors import WslSweepError


def sweep_records(name: str, storage: str | None = None) -> SweepRecords:
    """The trials of a sweep of a storage, as they are compared.

    Raises WslSweepError: there is no such sweep.
    """
    folder = find_sweep(storage, name)
    spec, plan = open_sweep(folder)
    state = state_as_it_stands(folder)
    return records_of(replace(spec, name=name), state, uuid=plan["uuid"], outcomes=kept_outcomes(folder))


def compare_sweeps(
    names: Sequence[str],
    *,
    by: Sequence[str] = (),
    where: Sequence[str] = (),
    metric: str | None = None,
    baseline: str | None = None,
    margin: float | None = None,
    storage: str | None = None,
    from_mlflow: str | None = None,
) -> Compared:
    """Compares variants of one or several sweeps; see ``wsl_sweep.analysis.compare``.

    Args:
        names: of the sweeps.
        by, where, metric, baseline, margin: as there.
        storage: folder of the sweeps.
        from_mlflow: address of a tracking server, in place of a storage.

    Raises:
        WslSweepError: there is no such sweep, or what was asked for is not in it.
    """
    if not names:
        raise WslSweepError("say which sweep to compare; wsl-sweep status lists them")
    sweeps = _sweeps(names, storage, from_mlflow)
    return compare(sweeps, by=by, where=where, metric=metric, baseline=baseline, margin=margin)


def paper_table(
    number: int,
    name: str,
    *,
    metric: str = PUBLISHED_METRIC,
    storage: str | None = None,
    from_mlflow: str | None = None,
) -> PaperTable:
    """Sets a sweep out as one of the paper's tables; see ``wsl_sweep.analysis.paper.set_out``.

    Args:
        number: of the table.
        name: of the sweep.
        metric: of its cells.
        storage: folder of the sweeps.
        from_mlflow: address of a tracking server, in place of a storage.

    Raises:
        WslSweepError: there is no such table or sweep, or the sweep has nothing of the table.
    """
    layout_of(number)
    (sweep,) = _sweeps([name], storage, from_mlflow)
    return set_out(number, sweep, metric)


def _sweeps(names: Sequence[str], storage: str | None, from_mlflow: str | None) -> list[SweepRecords]:
    if from_mlflow is not None:
        from wsl_sweep.analysis.from_mlflow import read_sweeps

        return read_sweeps(from_mlflow, names)
    return [sweep_records(name, storage) for name in dict.fromkeys(names)]
