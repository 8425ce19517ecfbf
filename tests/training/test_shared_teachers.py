"""A cluster's teachers: trained once, and every node uses the very same weights."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsl_sweep.errors import StorageError
from wsl_sweep.storage import DiskPlace, Place, place
from wsl_sweep.training import TeacherStore


class Train:
    """A training whose weights are another's each time, as on a GPU."""

    calls = 0

    def __call__(self) -> tuple[nn.Module, dict[str, Any]]:
        self.calls += 1
        model = nn.Linear(3, 2)
        nn.init.constant_(model.weight, float(torch.randint(10**6, ()).item()))
        return model, {"note": "one of many"}


def never() -> tuple[nn.Module, dict[str, Any]]:
    raise AssertionError("it is there")


@pytest.fixture(params=["disk", "object store"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(tmp_path / "shared" if request.param == "disk" else f"memory://{uuid.uuid4().hex}") / "teachers"


def node(tmp_path: Path, name: str, shared: Place | None) -> TeacherStore:
    return TeacherStore(tmp_path / name, shared)


def test_a_teacher_is_trained_on_one_node_and_brought_to_the_others(shared: Place, tmp_path: Path) -> None:
    one, other = (node(tmp_path, name, shared) for name in ("one", "other"))
    assert not one.has("t")
    card = one.ensure("t", Train())
    assert one.has("t")
    assert other.has("t")
    assert other.card("t") is None
    assert other.ensure("t", never) == card == other.card("t")
    assert other.weights("t").read_bytes() == one.weights("t").read_bytes()
    assert other.ensure("t", never) == card
    assert len(shared.names()) == 1


def test_what_a_node_has_already_is_shared_and_not_trained_again(shared: Place, tmp_path: Path) -> None:
    card = node(tmp_path, "one", None).ensure("t", Train())
    assert node(tmp_path, "one", shared).ensure("t", never) == card
    assert node(tmp_path, "other", shared).ensure("t", never) == card


def test_other_weights_of_a_node_give_way_to_the_shared_ones(shared: Place, tmp_path: Path) -> None:
    node(tmp_path, "other", None).ensure("t", Train())
    card = node(tmp_path, "one", shared).ensure("t", Train())
    other = node(tmp_path, "other", shared)
    assert other.card("t") != card
    assert other.ensure("t", never) == card == other.card("t")


def test_of_two_that_train_at_once_the_first_to_share_is_everybodys(shared: Place, tmp_path: Path) -> None:
    one, other = (node(tmp_path, name, shared) for name in ("one", "other"))
    cards: list[dict[str, Any]] = []

    def slow() -> tuple[nn.Module, dict[str, Any]]:
        cards.append(other.ensure("t", Train()))
        return Train()()

    assert one.ensure("t", slow) == cards[0] == one.card("t")


@pytest.mark.parametrize("damage", ["weights", "no weights", "card", "another's card"])
def test_a_damaged_one_is_trained_again(damage: str, shared: Place, tmp_path: Path) -> None:
    card = node(tmp_path, "one", shared).ensure("t", Train())
    weights = shared / "t" / f"{card['sha256']}.safetensors"
    if damage == "weights":
        weights.write(b"torn")
    elif damage == "no weights":
        weights.delete()
    else:
        (shared / "t" / "card.json").write(b"[" if damage == "card" else json.dumps({"sha256": "0"}).encode())
    train = Train()
    found = node(tmp_path, "other", shared).ensure("t", train)
    assert train.calls == 1
    assert node(tmp_path, "third", shared).ensure("t", never) == found


def test_a_storage_that_does_not_answer_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(self: Place) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(DiskPlace, "read_bytes", dead)
    store = node(tmp_path, "one", place(tmp_path / "shared"))
    for ask in (lambda: store.has("t"), lambda: store.ensure("t", never)):
        with pytest.raises(StorageError, match="Input/output error"):
            ask()
