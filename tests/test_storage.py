"""One behaviour of two kinds of places: a disk, and an object store (moto's S3 on this machine)."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wsl_sweep import storage
from wsl_sweep.errors import StorageError, WslSweepError
from wsl_sweep.storage import ObjectPlace, Place, place

pytest_plugins = ["tests.object_store"]

MAKERS = 8

BOTH = pytest.mark.parametrize("kind", ["disk", "s3"])


@pytest.fixture
def root(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty folder of a kind."""
    return place(tmp_path / "runs" if kind == "disk" else request.getfixturevalue("s3"))


@BOTH
def test_what_was_written_is_read_and_a_second_time_takes_its_place(root: Place) -> None:
    file = root / "alpha" / "plan.json"
    file.write(b"one")
    assert file.read_bytes() == b"one"
    file.write(b"", lasting=False)
    assert file.read_bytes() == b""
    file.write_json({"a": [1, None]})
    assert file.read_json() == {"a": [1, None]}
    (root / "text").write("α".encode())
    assert (root / "text").read_text() == "α"
    big = os.urandom(20_000_000)
    file.write(big)
    assert file.read_bytes() == big


@BOTH
def test_json_has_no_nan(root: Place) -> None:
    with pytest.raises(ValueError):
        (root / "file").write_json(float("nan"))
    assert not (root / "file").exists()


@BOTH
def test_what_is_absent_cannot_be_read_and_is_deleted_already(root: Place) -> None:
    assert not (root / "absent").exists()
    assert (root / "absent").names() == []
    with pytest.raises(OSError):
        (root / "absent").read_bytes()
    with pytest.raises(OSError):
        (root / "absent" / "deeper").read_json()
    (root / "absent").delete()


@BOTH
def test_names_are_sorted_without_what_begins_with_a_dot_and_of_one_level(root: Place) -> None:
    for name in ("b", "a", "c/deeper", ".hidden"):
        file = root
        for part in name.split("/"):
            file = file / part
        file.write(b"")
    assert root.names() == ["a", "b", "c"]
    assert (root / "c").names() == ["deeper"]
    assert (root / "c").exists()
    assert (root / "c" / "deeper").names() == []


@BOTH
def test_a_file_alone_or_a_folder_with_all_that_is_in_it_is_deleted(root: Place) -> None:
    for name in ("one", "two"):
        (root / "sweep" / "trials" / name).write(b"x")
    (root / "sweeper").write(b"")
    (root / "sweep" / "trials" / "one").delete()
    assert (root / "sweep" / "trials").names() == ["two"]
    (root / "sweep").delete()
    assert not (root / "sweep").exists()
    assert not (root / "sweep" / "trials" / "two").exists()
    assert root.names() == ["sweeper"]


@BOTH
def test_a_folder_whose_last_file_is_deleted_has_no_names(root: Place) -> None:
    (root / "folder" / "file").write(b"")
    (root / "folder" / "file").delete()
    assert (root / "folder").names() == []


@BOTH
def test_parent_name_and_text_give_an_equal_place(root: Place) -> None:
    file = root / "alpha" / "ledger"
    assert (file.name, file.parent.name, file.parent.parent) == ("ledger", "alpha", root)
    assert place(str(file)) == file
    assert hash(place(str(file))) == hash(file)
    assert place(file) is file
    assert file != root
    file.write(b"x")
    assert place(str(file)).read_bytes() == b"x"


@BOTH
def test_a_file_is_created_once(root: Place) -> None:
    file = root / "lease" / "1.json"
    assert file.create(b"mine")
    assert not file.create(b"another's")
    assert file.read_bytes() == b"mine"
    file.delete()
    assert file.create(b"again")
    assert (root / "lease").names() == ["1.json"]


@BOTH
def test_of_many_threads_that_create_a_file_one_does(root: Place, kind: str) -> None:
    for number in range(10 if kind == "disk" else 4):
        file = root / f"file-{number}"
        together = threading.Barrier(MAKERS)

        def make(
            maker: int, file: Place = file, together: threading.Barrier = together, where: str = str(file)
        ) -> bool:
            together.wait()
            return place(where).create(b"%d" % maker * 1000)

        with ThreadPoolExecutor(MAKERS) as makers:
            made = list(makers.map(make, range(MAKERS)))
        assert sum(made) == 1
        assert file.read_bytes() == b"%d" % made.index(True) * 1000
    assert len(root.names()) == number + 1  # nothing of the losers'


CREATE = """
import sys, time
from wsl_sweep.storage import place
where, maker, start = sys.argv[1:]
place(where).exists()
time.sleep(max(0.0, float(start) - time.time()))
print(place(where).create(maker.encode()))
"""


@BOTH
def test_of_several_processes_that_create_a_file_one_does(root: Place) -> None:
    file, start = root / "file", time.time() + 3.0
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, str(file), str(maker), str(start)], stdout=subprocess.PIPE, text=True
        )
        for maker in range(4)
    ]
    said = [maker.communicate(timeout=60)[0].strip() for maker in makers]
    assert sorted(said) == ["False", "False", "False", "True"]
    assert file.read_text() == str(said.index("True"))


def age(claim: Place, seconds: float) -> None:
    """A claim, and the time after which it is ``seconds`` old by the store's clock, which counts whole seconds."""
    claim.write(b"")
    time.sleep(seconds)


@BOTH
def test_a_reader_never_sees_a_part_of_a_file(root: Place) -> None:
    file, contents = root / "file", (b"a" * 300_000, b"b" * 700_000)
    file.write(contents[0])
    end = threading.Event()

    def write() -> None:
        while not end.is_set():
            for content in contents:
                file.write(content, lasting=False)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            assert file.read_bytes() in contents
    finally:
        end.set()
        writer.join()


def test_a_claim_of_a_maker_that_died_does_not_hold_a_file_for_ever(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "CLAIM_SECONDS", 0.5)
    file = place(s3) / "file"
    age(file.parent / ".file.claim-z", 0)
    assert file.create(b"mine")


def test_a_claim_of_a_maker_that_died_first_in_order_does_not_hold_a_file_for_ever(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "CLAIM_SECONDS", 0.5)
    file = place(s3) / "file"
    age(file.parent / ".file.claim-0", 2.1)
    assert file.create(b"mine")


def test_a_file_in_place_of_a_folder_is_told_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside = place(tmp_path / "file") / "inside"
    for act in (lambda: inside.write(b""), lambda: inside.create(b"")):
        with pytest.raises(StorageError, match=str(inside)):
            act()
    assert inside.names() == []
    assert not inside.exists()


def test_a_folder_that_cannot_be_written_is_told_with_the_place() -> None:
    file = place("/proc/wsl-sweep-test")
    for act in (lambda: file.write(b""), lambda: file.create(b""), lambda: (place("/proc") / "version").delete()):
        with pytest.raises(StorageError, match="/proc"):
            act()


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_told_with_the_place(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client tries for some seconds: both acts at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", dead)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    storage._object_store.cache_clear()
    file = place(s3) / "file"
    with ThreadPoolExecutor(2) as threads:
        for failing in (threads.submit(file.create, b""), threads.submit(file.read_bytes)):
            with pytest.raises(StorageError, match=str(file)):
                failing.result()


@pytest.mark.parametrize("act", ["write", "create"])
def test_a_bucket_that_is_not_there_is_told_with_the_place(act: str, s3: str) -> None:
    file = place(f"s3://no-such-{uuid.uuid4().hex}/file")
    with pytest.raises(StorageError, match=str(file.parent)):
        getattr(file, act)(b"")
    assert not file.exists()


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/runs", "gs://token@bucket", "ftp://user:secret@host/runs"])
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(WslSweepError) as refused:
        place(url)
    assert "AWS_SECRET_ACCESS_KEY" in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_an_address_that_nothing_can_open_is_refused() -> None:
    with pytest.raises(WslSweepError, match="nonsense://bucket"):
        place("nonsense://bucket/runs")


def test_paths_and_file_urls_are_places_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place(f"file://{tmp_path}").local == tmp_path
    assert place("~/runs").local == tmp_path / "runs"
    assert place("runs").local == Path("runs")


def test_a_trailing_slash_makes_no_other_place(s3: str, tmp_path: Path) -> None:
    assert place(f"{s3}/") == place(s3)
    assert place(f"{tmp_path}/") == place(tmp_path)


def test_what_fsspec_knows_is_a_place() -> None:
    root = place(f"memory://{uuid.uuid4().hex}/runs")
    assert isinstance(root, ObjectPlace)
    assert (root / "alpha" / "file").create(b"one")
    assert not (root / "alpha" / "file").create(b"two")
    assert (root / "alpha" / "file").read_bytes() == b"one"
    assert root.names() == ["alpha"]
    root.delete()
    assert not (root / "alpha" / "file").exists()


def test_a_link_whose_answer_was_lost_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NFS client asks again where it got no answer, and is told that the file exists: its own."""
    link = os.link

    def asks_twice(source: str, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", asks_twice)
    assert place(tmp_path / "one").create(b"mine") is True
    monkeypatch.setattr(os, "link", link)
    assert place(tmp_path / "one").create(b"another's") is False
    assert (tmp_path / "one").read_bytes() == b"mine"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_links_one_of_two_makes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuses(source: str, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuses)
    assert [place(tmp_path / "one").create(content) for content in (b"mine", b"another's")] == [True, False]
    assert (tmp_path / "one").read_bytes() == b"mine"


def test_a_place_is_the_same_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(place("runs").absolute()) == str(tmp_path / "runs")
    assert str(place("memory://runs").absolute()) == "memory://runs"
