"""``wsl-sweep bank``: what it lists, and that it deletes what it is told to and nothing else."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.cli import main
from wsl_sweep.spec.identity import short_hash
from wsl_sweep.training.bank import GIGABYTE, BankSettings, Layout, LogitBank

FIELDS = {"key", "rows", "cells", "bytes", "found", "computed", "hit_rate", "last_used", "in_use", "identity"}
ABOUT = {"teacher": "0123456789ab", "model": "convnet_8", "dataset": "digits"}
TRAIN = ("train", "--recipe", "digits", "--set", "schedule.epochs=2", "--set", "schedule.milestones=[]",
         "--set", "teacher.model=convnet_4", "--set", "teacher.schedule.epochs=1",
         "--set", "teacher.schedule.milestones=[]", "--json")  # fmt: skip


@dataclass
class Answer:
    """What a command ended with, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of banks of the test's own; teachers stay in the session's cache."""
    folder = tmp_path / "cache" / "bank"
    monkeypatch.setenv("WSL_SWEEP_BANK", str(folder))
    return folder


@pytest.fixture
def command(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``wsl-sweep`` in this process."""

    def run(*arguments: str, code: int = 0) -> Answer:
        monkeypatch.setattr(sys, "argv", ["wsl-sweep", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        answer = Answer(int(left.value.code or 0), captured.out, captured.err)
        assert answer.code == code, answer
        return answer

    return run


def identity(name: str) -> dict[str, Any]:
    return {"teacher": {"model": name}, "data": "digits", "precision": "float32"}


def key_of(name: str) -> str:
    return short_hash(identity(name))


@pytest.fixture
def keys(root: Path) -> list[str]:
    """Three empty banks, opened a day, ten days and a hundred days ago."""
    made = []
    for name, days in (("one", 1), ("two", 10), ("three", 100)):
        bank = LogitBank(identity(name), 50, Layout(10), settings=BankSettings(), about=ABOUT)
        bank.close()
        then = time.time() - 86400 * days
        os.utime(bank.folder / "card.json", (then, then))
        made.append(bank.key)
    assert made == [key_of(name) for name in ("one", "two", "three")]
    return made


def left(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


# --- bank, bank list -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("bank",), ("bank", "list")])
def test_a_machine_without_banks_says_where_they_would_lie(
    command: Command, root: Path, arguments: tuple[str, ...]
) -> None:
    answer = command(*arguments)
    assert answer.out.replace("\n", "").startswith(f"no logit banks in {root} yet".replace("\n", ""))
    assert json.loads(command(*arguments, "--json").out) == []
    assert not root.exists()


def test_a_training_leaves_a_bank_and_the_second_one_finds_all_of_it(command: Command, root: Path) -> None:
    cold = json.loads(command(*TRAIN).out)
    (bank,) = json.loads(command("bank", "--json").out)
    asked = cold["teacher"]["computed"] + cold["teacher"]["found"]
    assert bank["rows"] == bank["computed"] == cold["teacher"]["computed"] > 0
    assert bank["hit_rate"] == pytest.approx(cold["teacher"]["found"] / asked)
    warm = json.loads(command(*TRAIN).out)
    assert warm["teacher"] == {"computed": 0, "found": asked, "notes": []}
    assert {**warm["metrics"], "train/seconds": 0} == {**cold["metrics"], "train/seconds": 0}
    (after,) = json.loads(command("bank", "--json").out)
    assert (after["rows"], after["computed"]) == (bank["rows"], bank["computed"])
    assert after["found"] == bank["found"] + asked
    assert after["hit_rate"] == after["found"] / (after["found"] + after["computed"])
    assert after["last_used"] >= bank["last_used"]
    off = json.loads(command(*TRAIN, "--no-bank").out)
    assert off["trial_id"] == cold["trial_id"]
    assert {**off["metrics"], "train/seconds": 0} == {**cold["metrics"], "train/seconds": 0}
    assert off["teacher"]["found"] == 0
    assert json.loads(command("bank", "--json").out) == [after]


def test_a_bank_is_told_with_what_it_belongs_to(command: Command, root: Path, keys: list[str]) -> None:
    listed = json.loads(command("bank", "list", "--json").out)
    assert [bank["key"] for bank in listed] == keys
    for bank in listed:
        assert set(bank) == FIELDS | set(ABOUT)
        assert {name: bank[name] for name in ABOUT} == ABOUT
        assert (bank["rows"], bank["cells"], bank["found"], bank["computed"]) == (0, 50, 0, 0)
        assert bank["hit_rate"] is None
        assert bank["in_use"] is False
        assert 0 < bank["bytes"] < GIGABYTE
    table = command("bank").out
    for key in keys:
        assert key in table


def test_a_bank_of_the_largest_logits_is_listed_as_such(command: Command, root: Path) -> None:
    layout = Layout(1000, 0, "float32", 50, (1.0, 4.0))
    LogitBank({**identity("small"), "top_k": 50, "temperatures": [1.0, 4.0]}, 2000, layout, about=ABOUT).close()
    assert "0 of 2,000, top 50" in command("bank").out
    (listed,) = json.loads(command("bank", "--json").out)
    assert (listed["identity"]["top_k"], listed["identity"]["temperatures"]) == (50, [1.0, 4.0])


def test_a_bank_that_somebody_has_open_is_in_use_and_is_left(command: Command, root: Path) -> None:
    bank = LogitBank(identity("open"), 50, Layout(10), about=ABOUT)
    try:
        (listed,) = json.loads(command("bank", "--json").out)
        assert listed["in_use"] is True
        answer = command("bank", "prune", "--all")
        assert answer.out.splitlines()[0].startswith("deleted 0 banks")
        assert f"in use, and left: {bank.key}" in answer.out
        assert left(root) == {bank.key}
    finally:
        bank.close()
    command("bank", "prune", "--all")
    assert left(root) == set()


def test_what_is_no_bank_is_neither_listed_nor_deleted(command: Command, root: Path, keys: list[str]) -> None:
    (root / "notes.txt").write_text("mine")
    (root / "broken").mkdir()
    (root / "broken" / "card.json").write_text("{")
    (root / "other").mkdir()
    assert len(json.loads(command("bank", "--json").out)) == 3
    assert command("bank", "prune", "--all").out.startswith("deleted 3 banks")
    assert left(root) == {"notes.txt", "broken", "other"}


PLANNED = """
run: {recipe: digits}
variants: {kd: , rkd: {distillation.method: rkd}, train: {teacher.mode: train}}
seeds: 1
"""


def test_a_plan_says_who_cannot_use_the_bank_and_starts_none(
    command: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text(PLANNED)

    def notes(*arguments: str) -> str:
        return " ".join(command(*arguments).out.split())

    told = notes("plan", "file.yaml")
    assert "note: teacher.mode train makes" in told
    assert "at every step of train" in told
    assert "note: the logit bank keeps the teacher's features too, which rkd read" in told
    assert notes("run", "file.yaml", "--dry-run") == told
    off = notes("run", "file.yaml", "--dry-run", "--no-bank")
    assert "note: the logit bank is off: the teacher runs at every step" in off
    assert "features" not in off
    assert not root.exists()


# --- bank prune ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True])
def test_prune_wants_to_be_told_which(command: Command, root: Path, keys: list[str], there: bool) -> None:
    if not there:
        command("bank", "prune", "--all")
    answer = command("bank", "prune", code=2)
    assert answer.out == ""
    assert answer.err == "wsl-sweep: say which: keys of wsl-sweep bank list, --unused-days N, or --all\n"
    assert left(root) == (set(keys) if there else set())


def test_an_unknown_key_is_one_line_and_deletes_nothing_not_even_the_known_ones(
    command: Command, root: Path, keys: list[str]
) -> None:
    answer = command("bank", "prune", keys[0], "nobody", code=2)
    assert answer.err == 'wsl-sweep: there is no bank "nobody"; see wsl-sweep bank list\n'
    assert left(root) == set(keys)


def test_a_bad_number_of_days_is_refused(command: Command, root: Path, keys: list[str]) -> None:
    assert "unused-days" in command("bank", "prune", "--unused-days", "-1", code=2).err
    assert left(root) == set(keys)


def test_all_are_deleted_and_their_size_is_told(command: Command, root: Path, keys: list[str]) -> None:
    freed = sum(bank["bytes"] for bank in json.loads(command("bank", "--json").out))
    assert command("bank", "prune", "--all").out == f"deleted 3 banks: {freed / 1000:.1f} kB\n"
    assert left(root) == set()
    assert command("bank", "prune", "--all").out.startswith("deleted 0 banks")


def test_a_bank_is_named_by_how_its_key_begins(command: Command, root: Path, keys: list[str]) -> None:
    length = next(n for n in range(1, 13) if len({key[:n] for key in keys}) == 3)
    assert command("bank", "prune", keys[1][:length]).out.startswith("deleted 1 bank: ")
    assert left(root) == {keys[0], keys[2]}
    command("bank", "prune", keys[0], keys[2][:length])
    assert left(root) == set()


@pytest.mark.parametrize(("days", "deleted"), [("0", 3), ("0.5", 3), ("5", 2), ("10.5", 1), ("101", 0)])
def test_unused_days_leave_what_was_opened_since(
    command: Command, root: Path, keys: list[str], days: str, deleted: int
) -> None:
    answer = command("bank", "prune", "--unused-days", days)
    assert answer.out.startswith(f"deleted {deleted} bank")
    assert left(root) == set(keys[: 3 - deleted])


def test_a_key_with_unused_days_is_deleted_only_where_both_hold(command: Command, root: Path, keys: list[str]) -> None:
    assert command("bank", "prune", keys[0], keys[1], "--unused-days", "5").out.startswith("deleted 1 bank: ")
    assert left(root) == {keys[0], keys[2]}


OUTSIDE = ["../teachers", "..", ".", "/", "*", "?", "[0-9a-f]*", "../bank/../teachers", "a/../../teachers", "%2e%2e",
           "\\", "$(touch x)", "~", "\x00", "\n", " ", "ä", "😀"]  # fmt: skip


@pytest.fixture
def teachers(root: Path) -> Iterator[Path]:
    """A folder beside the banks that looks like one itself, so that only its place protects it."""
    folder = root.parent / "teachers"
    bank = LogitBank(identity("beside"), 50, Layout(10), about=ABOUT)
    bank.close()
    bank.folder.rename(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("key", OUTSIDE)
@pytest.mark.parametrize("absolute", [False, True])
def test_no_key_leads_out_of_the_folder_of_banks(
    command: Command, root: Path, teachers: Path, keys: list[str], key: str, absolute: bool
) -> None:
    answer = command("bank", "prune", str(root / key) if absolute else key, code=2)
    assert answer.err.startswith("wsl-sweep: there is no bank ")
    assert left(root) == set(keys)


def test_an_empty_key_names_no_bank(command: Command, root: Path, keys: list[str]) -> None:
    """``prune "$KEY"`` with a variable that is not set is a mistake, not all of them."""
    answer = command("bank", "prune", "", code=2)
    assert answer.err.count("\n") == 1
    assert left(root) == set(keys)


def test_a_link_among_the_banks_does_not_lead_out_of_their_folder(
    command: Command, root: Path, teachers: Path, keys: list[str]
) -> None:
    (root / "link").symlink_to(teachers, target_is_directory=True)
    command("bank", "prune", *keys)
    assert left(root) == {"link"}
    answer = command("bank", "prune", "--all", code=1)
    assert answer.err.startswith(f"wsl-sweep: cannot delete {root / 'link'}")
