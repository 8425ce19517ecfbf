"""What is compared: the trials of a sweep as plain records, from its ledger or from a tracking server alike."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from wsl_sweep.analysis.leftovers import kept_logits
from wsl_sweep.errors import StorageError
from wsl_sweep.spec.distributions import Distribution
from wsl_sweep.spec.sections import CompareSection
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place
from wsl_sweep.sweep.ledger import SweepState, TrialState
from wsl_sweep.sweep.table import Standing, standings, unrun_text
from wsl_sweep.tracking.runs import TAG_LENGTH, trial_params
from wsl_sweep.training.files import examples_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED = "seed"
"""The parameter by which trials are paired; two trials that differ in it alone are of one configuration."""

_STATUS = {"lost": "running"}


@dataclass(frozen=True)
class Outcomes:
    """Which test examples a student got right.

    Attributes:
        right: (N,) bool, in the order of the test part.
        examples: says which examples they are: a hash of their ids and labels.
    """

    right: NDArray[np.bool_]
    examples: str


@dataclass(frozen=True)
class Record:
    """One trial.

    Attributes:
        sweep: name of its sweep.
        trial_id: its own.
        stage: ``search``, ``confirm`` or ``ablation``.
        arm: of the search that it belongs to, or None.
        variants: the names that it stands for.
        seed: of the student.
        status: finished, pruned, failed, killed, or running where it has no last word.
        params: its whole configuration, flat, each value as text (as MLflow has them).
        overrides: dotted path → value, what sets it apart.
        metrics: of its last epoch, and of the final evaluation where it had one.
        standings: its places in the final table.
    """

    sweep: str
    trial_id: str
    stage: str
    arm: str | None
    variants: tuple[str, ...]
    seed: int
    status: str
    params: Mapping[str, str]
    overrides: Mapping[str, Any]
    metrics: Mapping[str, float]
    standings: tuple[Standing, ...] = ()

    @functools.cached_property
    def configuration(self) -> str:
        """A hash of its parameters without the seed."""
        rest = sorted((path, value) for path, value in self.params.items() if path != SEED)
        return hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SweepRecords:
    """The trials of one sweep and what was declared of their comparison.

    Attributes:
        name: of the sweep.
        uuid: its own.
        status: running, finished, failed or stopped.
        compare: the file's section.
        space: swept path → where its values came from.
        records: its trials that have begun.
        outcomes: a trial's, by id, where its test logits were kept; else None.
        names: of its arms, baselines and variants, in the order of the file.
        unrun: which rows of its table have no trial that has begun, for people; "" where there is none.
    """

    name: str
    uuid: str
    status: str
    compare: CompareSection
    space: Mapping[str, Distribution]
    records: tuple[Record, ...]
    outcomes: Callable[[str], Outcomes | None] = field(default=lambda trial_id: None, compare=False)
    names: tuple[str, ...] = ()
    unrun: str = ""

    @functools.cached_property
    def arms(self) -> frozenset[str]:
        """Of its search."""
        return frozenset(one.arm for one in self.records if one.stage == "search" and one.arm is not None)

    def tuning_trials(self, arm: str) -> int:
        """How many search trials an arm was given."""
        return sum(one.stage == "search" and arm in one.variants for one in self.records)


def declared(spec: Spec) -> str:
    """What a file says of its comparison, and its space, as a tag of the parent run: who reads that needs no file.

    Without the space where it is too long for a tag.
    """
    said = {**spec.compare.model_dump(), "names": list(_names(spec))}
    space = {path: asdict(distribution) for path, distribution in spec.space.items()}
    whole = json.dumps({**said, "space": space}, separators=(",", ":"))
    return whole if len(whole) <= TAG_LENGTH else json.dumps(said, separators=(",", ":"))


def _names(spec: Spec) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*spec.arms, *spec.baselines, *spec.variants)))


def records_of(
    spec: Spec,
    state: SweepState,
    *,
    uuid: str,
    outcomes: Callable[[str], Outcomes | None] = lambda trial_id: None,
) -> SweepRecords:
    """A sweep's records from its ledger.

    Args:
        spec: the sweep's.
        state: its ledger, folded.
        uuid: the sweep's.
        outcomes: what gives a trial's outcomes; see ``kept_outcomes``.
    """
    places = standings(state.rows)
    records = tuple(
        _record(spec.name, one, places.get(one.trial.trial_id, ()))
        for one in state.trials.values()
        if one.attempt > 0 or one.status not in ("proposed", "killed")
    )
    return SweepRecords(
        name=spec.name,
        uuid=uuid,
        status=state.status,
        compare=spec.compare,
        space=dict(spec.space),
        names=_names(spec),
        records=records,
        outcomes=outcomes,
        unrun=unrun_text(state.rows, {one.trial_id for one in records}),
    )


def _record(sweep: str, state: TrialState, places: Sequence[Standing]) -> Record:
    trial = state.trial
    return Record(
        sweep=sweep,
        trial_id=trial.trial_id,
        stage=trial.stage,
        arm=trial.arm,
        variants=trial.variants,
        seed=trial.seed,
        status=_STATUS.get(state.status, state.status),
        params=trial_params(trial),
        overrides=dict(trial.overrides),
        metrics=dict(state.metrics),
        standings=tuple(places),
    )


def kept_outcomes(folder: Place) -> Callable[[str], Outcomes | None]:
    """What gives the outcomes of a sweep's trials from their test logits on disk, each read once."""

    @functools.cache
    def outcomes(trial_id: str) -> Outcomes | None:
        try:
            kept = kept_logits(folder, trial_id, "test")
        except StorageError:
            return None
        if kept is None:
            return None
        return Outcomes(kept.logits.argmax(axis=1) == kept.labels, examples_digest(kept.ids, kept.labels)[:16])

    return outcomes
