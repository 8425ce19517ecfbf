"""Every random choice has a stream of its own."""

from __future__ import annotations

import itertools

import pytest
import torch

from wsl_sweep.data.streams import stream, stream_seed

PURPOSES = ("initialisation", "order", "views", "keeping", "permuting", "layers")


def numbers(*arguments: int | str) -> list[float]:
    return torch.rand(8, generator=stream(*arguments), dtype=torch.float64).tolist()  # type: ignore[arg-type]


def test_a_stream_repeats_and_owes_nothing_to_the_global_state() -> None:
    first = numbers(3, "order", 2, 1)
    torch.manual_seed(99)
    assert numbers(3, "order", 2, 1) == first


def test_drawing_from_a_stream_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    numbers(0, "views", 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("other", [(4, "order", 2, 1), (3, "views", 2, 1), (3, "order", 1, 1), (3, "order", 2, 2)])
def test_each_of_seed_purpose_epoch_and_step_makes_another_stream(other: tuple[int, str, int, int]) -> None:
    assert stream_seed(*other) != stream_seed(3, "order", 2, 1)
    assert not set(numbers(*other)) & set(numbers(3, "order", 2, 1))


def test_no_two_of_many_streams_share_a_seed() -> None:
    all_of_them = list(itertools.product(range(12), PURPOSES, range(12), range(12)))
    seeds = {stream_seed(*one) for one in all_of_them}
    assert len(seeds) == len(all_of_them)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_epoch_and_step_are_the_first_unless_named() -> None:
    assert stream_seed(5, "views") == stream_seed(5, "views", 0, 0)


def test_streams_are_the_same_on_every_machine_and_in_every_version() -> None:
    """A changed number here changes every published result."""
    assert stream_seed(0, "order") == 1_778_561_849_141_805_087
    assert torch.randint(1000, (4,), generator=stream(0, "order")).tolist() == [264, 987, 933, 18]
