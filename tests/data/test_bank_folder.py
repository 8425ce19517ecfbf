"""Where logit banks lie: on this machine's own disk, and in nobody else's hands."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from wsl_sweep import paths
from wsl_sweep.errors import WslSweepError
from wsl_sweep.paths import IN_MEMORY, OVER_THE_NETWORK, bank_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without settings, with a folder for temporary files of its own."""
    monkeypatch.delenv("WSL_SWEEP_BANK", raising=False)
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


Mount = Callable[..., None]


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /var/tmp."""
    folder = tmp_path / "var-tmp"
    folder.mkdir()
    monkeypatch.setattr(paths, "ANOTHER_TEMPORARY", folder)
    return folder


@pytest.fixture
def mount(temporary: Path, another: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Says what file systems there are: of the folder for temporary files, of /var/tmp, and of everything else."""

    def set_to(elsewhere: str, temporary_files: str = "ext4", var_tmp: str = "ext4") -> None:
        known = {temporary: temporary_files, another: var_tmp}
        monkeypatch.setattr(paths, "_file_system", lambda path: known.get(path, elsewhere))

    return set_to


@pytest.fixture
def on_nfs(mount: Mount) -> None:
    """The cache lies on another machine's disk, /var/tmp in memory."""
    mount("nfs4", var_tmp="tmpfs")


def own(temporary: Path) -> Path:
    return temporary / f"wsl-sweep-{os.getuid()}"


def test_a_folder_that_is_named_is_taken(
    tmp_path: Path, on_nfs: None, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSL_SWEEP_BANK", str(tmp_path / "named"))
    assert bank_folder() == tmp_path / "named"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WSL_SWEEP_BANK", "~/mine")
    assert bank_folder() == tmp_path / "mine"
    assert not own(temporary).exists()


def test_else_it_lies_in_the_cache_and_is_not_made(tmp_path: Path, temporary: Path) -> None:
    assert bank_folder() == tmp_path / "cache" / "bank"
    assert not bank_folder().exists()
    assert not own(temporary).exists()


@pytest.mark.parametrize("kind", sorted(OVER_THE_NETWORK))
def test_a_cache_over_the_network_is_not_used(kind: str, temporary: Path, mount: Mount) -> None:
    mount(kind)
    assert bank_folder() == bank_folder() == own(temporary) / "bank"
    assert stat.S_IMODE(own(temporary).stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", ""])
def test_a_disk_of_this_machine_is_used(kind: str, tmp_path: Path, mount: Mount) -> None:
    mount(kind)
    assert bank_folder() == tmp_path / "cache" / "bank"


@pytest.mark.parametrize("kind", sorted(IN_MEMORY | {"nfs4", "virtiofs"}))
def test_temporary_files_in_memory_or_over_the_network_are_passed_over(
    kind: str, temporary: Path, another: Path, mount: Mount
) -> None:
    mount("nfs4", temporary_files=kind)
    assert bank_folder() == own(another) / "bank"
    assert not own(temporary).exists()


def test_without_any_disk_a_user_is_asked_to_name_one(mount: Mount) -> None:
    mount("nfs4", "tmpfs", "nfs4")
    with pytest.raises(WslSweepError, match="set WSL_SWEEP_BANK"):
        bank_folder()


def test_a_folder_that_others_may_write_is_refused(on_nfs: None, temporary: Path) -> None:
    own(temporary).mkdir()
    for mode in (0o777, 0o720, 0o702):
        own(temporary).chmod(mode)
        with pytest.raises(WslSweepError, match="WSL_SWEEP_BANK"):
            bank_folder()
    own(temporary).chmod(0o755)
    assert bank_folder() == own(temporary) / "bank"


def test_a_folder_of_somebody_else_is_refused(on_nfs: None, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank_folder()
    (temporary / f"wsl-sweep-{os.getuid()}").rename(temporary / f"wsl-sweep-{os.getuid() + 1}")
    monkeypatch.setattr(paths, "os", SimpleNamespace(**{**vars(os), "getuid": lambda: stranger}))
    stranger = os.getuid() + 1
    with pytest.raises(WslSweepError, match="not this user's own"):
        bank_folder()


def test_a_place_that_will_not_do_is_passed_over_for_the_next(mount: Mount, temporary: Path, another: Path) -> None:
    mount("nfs4")
    own(temporary).write_text("in the way")
    assert bank_folder() == own(another) / "bank"


@pytest.mark.parametrize("what", ["a link", "a file"])
def test_what_is_no_folder_is_refused(what: str, on_nfs: None, temporary: Path, tmp_path: Path) -> None:
    if what == "a file":
        own(temporary).write_text("in the way")
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        own(temporary).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WslSweepError, match="WSL_SWEEP_BANK"):
        bank_folder()


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "overlay / overlay rw 0 0",
        "server:/home /home nfs4 rw 0 0",
        "/dev/sdb /home/me/fast ext4 rw 0 0",
        "cluster /data\\040one fuse.glusterfs rw 0 0",
        "first /twice ext4 rw 0 0",
        "second /twice lustre rw 0 0",
    ]
    monkeypatch.setattr(Path, "read_text", lambda self: "\n".join(lines))
    found = {
        name: paths._file_system(Path(name))
        for name in ("/home/me/.cache", "/home", "/homeless", "/home/me/fast/x", "/data one/x", "/data", "/twice/x")
    }
    assert found == {
        "/home/me/.cache": "nfs4",
        "/home": "nfs4",
        "/homeless": "overlay",
        "/home/me/fast/x": "ext4",
        "/data one/x": "glusterfs",
        "/data": "overlay",
        "/twice/x": "lustre",
    }


def test_where_mounts_cannot_be_read_nothing_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert paths._file_system(tmp_path) == ""
    assert bank_folder() == tmp_path / "cache" / "bank"
