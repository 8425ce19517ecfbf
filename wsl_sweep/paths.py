"""Where things lie on a machine."""

from __future__ import annotations

import contextlib
import os
import re
import socket
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
        "virtiofs",
        "vboxsf",
        "s3fs",
        "rclone",
        "gcsfuse",
        "juicefs",
    }
)
"""File systems on which memory maps and locks of several machines cannot be relied on."""

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems whose files take memory, not a disk."""

ANOTHER_TEMPORARY = Path("/var/tmp")
"""Where temporary files are on a disk although the usual place for them is in memory."""


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


def node_folder(root: str) -> Path:
    """A folder as a file names it, on this machine: environment variables and ``~`` are filled in here.

    Raises WslSweepError: a variable is not set.
    """
    filled = os.path.expandvars(root)
    missing = re.search(r"\$(\w+|\{[^}]*\})", filled)
    if missing is not None:
        raise WslSweepError(f"{root}: {missing.group()} is not set in the environment of {socket.gethostname()}")
    return Path(filled).expanduser()


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
    places = [Path(tempfile.gettempdir()), ANOTHER_TEMPORARY]
    fit = [place for place in places if _file_system(place) not in OVER_THE_NETWORK | IN_MEMORY and place.is_dir()]
    told = "no folder for temporary files is on a disk of this machine's"
    for place in fit:
        folder = place / f"wsl-sweep-{os.getuid()}"
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            found = folder.lstat()
        except OSError as error:
            told = f"{folder}: {error.strerror}"
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return folder / "bank"
        told = f"{folder} is not this user's own"
    raise WslSweepError(f"{told}; set WSL_SWEEP_BANK to a folder on this machine's disk")
