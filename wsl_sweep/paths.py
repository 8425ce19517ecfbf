"""Where things lie on a machine."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from wsl_sweep.errors import WslSweepError

OVER_THE_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "glusterfs",
        "afs",
        "9p",
        "panfs",
        "sshfs",
    }
)
"""File systems on which memory maps and locks of several machines cannot be relied on."""


def cache_folder() -> Path:
    """The user's cache: teachers, logit banks and timings, shared by all sweeps of a machine.

    ``WSL_SWEEP_CACHE``, else ``XDG_CACHE_HOME/wsl-sweep``, else ``~/.cache/wsl-sweep``. Not made here.
    """
    named = os.environ.get("WSL_SWEEP_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "wsl-sweep"


def bank_folder() -> Path:
    """Where logit banks lie: on this machine's own disk. Not made here.

    ``WSL_SWEEP_BANK``, else ``bank`` in the user's cache; where the cache lies on another machine's disk (a home
    folder on NFS), a folder of the user's own in the folder for temporary files.
    """
    named = os.environ.get("WSL_SWEEP_BANK")
    if named:
        return Path(named).expanduser().absolute()
    folder = cache_folder() / "bank"
    return _own_temporary() if _file_system(folder) in OVER_THE_NETWORK else folder


def _file_system(path: Path) -> str:
    """The kind of file system that ``path`` lies, or would lie, on; nothing where that cannot be told."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    target = os.path.realpath(path)
    best, kind = "", ""
    for fields in mounts:
        point = fields[1].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind.removeprefix("fuse.")


def _own_temporary() -> Path:
    """``wsl-sweep-<user>`` among the temporary files, which nobody else can have made."""
    folder = Path(tempfile.gettempdir()) / f"wsl-sweep-{os.getuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise WslSweepError(f"{folder}: {error.strerror}; set WSL_SWEEP_BANK to a folder on this disk") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise WslSweepError(f"{folder} is not this user's own; set WSL_SWEEP_BANK to a folder on this machine's disk")
    return folder / "bank"
