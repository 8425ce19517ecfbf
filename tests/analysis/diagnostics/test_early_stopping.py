"""Early stopping replayed: by hand, against Ray's own scheduler, and where it is known to lie."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from wsl_sweep.analysis.diagnostics.early_stopping import (
    asha_kept,
    asha_rungs,
    early_correlations,
    replay_asha,
)
from wsl_sweep.spec.sections import SchedulerSection


def honest(trials: int, epochs: int, noise: float, seed: int) -> np.ndarray:
    """Curves that rise together towards their ends."""
    generator = np.random.default_rng(seed)
    ends = generator.uniform(0.5, 0.9, trials)
    curves: np.ndarray = ends[:, None] * (1 - np.exp(-np.arange(1, epochs + 1) / 3))
    return curves + noise * generator.normal(size=(trials, epochs))


def test_correlations_are_scipys() -> None:
    curves = honest(20, 6, 0.1, 0)
    found = early_correlations(curves)
    assert [one.epoch for one in found] == [1, 2, 3, 4, 5]
    for one in found:
        assert one.rho == pytest.approx(stats.spearmanr(curves[:, one.epoch - 1], curves[:, -1]).statistic)
        assert one.interval is not None
        assert one.interval[0] <= (one.rho or 0.0) <= one.interval[1]
        assert one.n == 20
    assert early_correlations(curves[:3])[0].interval is None
    assert early_correlations(np.ones((5, 3)))[0].rho is None
    assert early_correlations(curves[:, :1]) == ()


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 27, 100])
@pytest.mark.parametrize(("grace", "factor"), [(1, 3), (2, 2), (5, 4)])
def test_the_rungs_are_those_of_our_scheduler(epochs: int, grace: int, factor: int) -> None:
    from wsl_sweep.sweep.schedulers import rung_epochs

    section = SchedulerSection(name="asha", grace_epochs=grace, reduction_factor=factor)
    assert asha_rungs(epochs, grace, factor) == rung_epochs(section, epochs)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_each_decision_is_the_one_that_ray_makes(factor: int) -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    class Trial:
        def __init__(self, trial_id: str) -> None:
            self.trial_id = trial_id

    curves = honest(40, 20, 0.2, factor)
    replayed = replay_asha(curves, grace=2, reduction_factor=factor, orders=1)
    bracket = _Bracket(2, 21, factor, 0)
    left = list(range(40))
    for rung in replayed.rungs:
        goes_on = [
            trial
            for trial in left
            if bracket.on_result(Trial(str(trial)), rung.epoch, curves[trial, rung.epoch - 1])
            == TrialScheduler.CONTINUE
        ]
        assert (rung.entered, rung.kept) == (len(left), len(goes_on))
        assert rung.best_kept == pytest.approx(curves[goes_on, -1].max())
        left = goes_on


def test_one_rung_by_hand() -> None:
    # the median of those before: 3, 2, 2.5, 2.45
    assert asha_kept([3.0, 1.0, 2.5, 2.4, 9.0], 2) == [True, False, True, False, True]
    assert asha_kept([1.0, 1.0, 1.0], 3) == [True, True, True]


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7])
def test_the_quantile_is_numpys_to_the_last_bit(factor: int) -> None:
    generator = np.random.default_rng(factor)
    for digits in (1, 2, 17):  # with many ties, few and none
        values = generator.uniform(size=80).round(digits)
        expected = [
            not index or value >= np.nanpercentile(values[:index], (1 - 1 / factor) * 100)
            for index, value in enumerate(values)
        ]
        assert asha_kept(values.tolist(), factor) == expected


def test_thousands_of_trials_are_replayed_in_seconds() -> None:
    begun = time.perf_counter()
    replay_asha(honest(2000, 27, 0.1, 8), orders=50)
    assert time.perf_counter() - begun < 20


def test_the_regret_by_hand() -> None:
    curves = [[0.5, 0.6, 0.70], [0.4, 0.7, 0.90], [0.6, 0.5, 0.65], [0.7, 0.8, 0.80]]
    found = replay_asha(curves, grace=1, reduction_factor=2, orders=10)
    first, second = found.rungs
    # epoch 1: 0.4 < 0.5 goes; 0.6 and 0.7 stay. Epoch 2: 0.6, then 0.5 goes, then 0.8 stays.
    assert (first.epoch, first.entered, first.kept, first.best_kept) == (1, 4, 3, 0.8)
    assert first.regret == pytest.approx(0.1)
    assert (second.epoch, second.entered, second.kept, second.best_kept) == (2, 3, 2, 0.8)
    assert second.regret == pytest.approx(0.1)
    assert found.saved == pytest.approx((2 + 1) / 12)
    assert found.best == 0.9


def test_random_orders_are_averaged() -> None:
    curves = honest(3, 2, 0.3, 7)
    found = replay_asha(curves, grace=1, reduction_factor=2, orders=4000)
    exact = []
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        kept = [trial for trial, on in zip(order, asha_kept(curves[order, 0].tolist(), 2), strict=True) if on]
        exact.append((curves[:, -1].max() - curves[kept, -1].max(), len(kept)))
    regrets, kept_counts = np.array(exact).T
    assert found.rungs[0].mean_regret == pytest.approx(regrets.mean(), abs=4 * regrets.std() / np.sqrt(4000) + 1e-12)
    assert found.rungs[0].mean_kept == pytest.approx(kept_counts.mean(), abs=0.05)
    assert found.rungs[0].lost == pytest.approx((regrets > 0).mean(), abs=0.04)
    again = replay_asha(curves, grace=1, reduction_factor=2, orders=4000)
    assert again == found


def test_honest_curves_do_not_lie() -> None:
    found = replay_asha(honest(40, 27, 0.0, 1), margin=0.005, orders=50)
    assert found.lies is False
    assert found.rungs[-1].mean_regret == 0.0
    assert found.rungs[-1].lost == 0.0
    assert found.saved > 0.4
    assert found.sentence.startswith("Early stopping does not lie beyond the margin of 0.005: ")
    assert "foretells the end well (rank correlation 1.00 over 40 trials)" in found.sentence


def test_curves_that_cross_lie_by_a_known_amount() -> None:
    ends = np.linspace(0.5, 0.9, 30)
    curves = np.stack([1.4 - ends, ends, ends], axis=1)  # who begins best ends worst
    found = replay_asha(curves[::-1], reduction_factor=3, margin=0.01, orders=200, label="wsl")
    assert found.lies is True
    assert found.correlations[0].rho == pytest.approx(-1.0)
    assert found.rungs[0].mean_regret > 0.01
    assert found.sentence.startswith("Early stopping lies for wsl beyond the margin of 0.01: ")
    worst_first = replay_asha(curves, reduction_factor=3, orders=1)
    assert worst_first.rungs[0].kept == 1  # the first of all stays, everyone after it began lower
    assert worst_first.rungs[0].regret == pytest.approx(0.4)


def test_a_loss_is_better_where_there_is_less_of_it() -> None:
    curves = honest(12, 9, 0.05, 3)
    one = replay_asha(curves, orders=20)
    other = replay_asha(-curves, more_is_better=False, orders=20)
    assert other.best == -one.best
    assert [rung.regret for rung in other.rungs] == pytest.approx([rung.regret for rung in one.rungs])
    assert [rung.best_kept for rung in other.rungs] == pytest.approx([-rung.best_kept for rung in one.rungs])
    assert other.saved == one.saved


def test_what_cannot_be_told_is_said() -> None:
    curves = honest(3, 9, 0.0, 4)
    few = replay_asha(curves, orders=2)
    assert few.lies is None
    assert "3 full curves, fewer than 4" in few.sentence
    short = replay_asha(honest(8, 4, 0.0, 5), grace=4, orders=2)
    assert (short.lies, short.rungs, short.saved) == (None, (), 0.0)
    assert "no epoch at which it would decide" in short.sentence
    with pytest.raises(ValueError, match="ran through"):
        replay_asha([[0.1, np.nan]])
    with pytest.raises(ValueError, match="trials >= 1"):
        replay_asha([0.1, 0.2])
    with pytest.raises(ValueError, match="factor of 2"):
        replay_asha(curves, reduction_factor=1)
    with pytest.raises(ValueError, match="random order"):
        replay_asha(curves, orders=0)
