"""What a machine says of itself when it is asked whether trials can run on it; ``wsl-sweep doctor`` asks.

``ask_node`` runs on every node of a cluster, so it takes and gives plain data, and neither raises nor hangs: each
question is answered by itself, within a time of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.paths import cache_folder, node_folder
from wsl_sweep.user_code import find, is_import_name, search_in, source_digest, told

Answer = dict[str, Any]
"""What was found; ``error``, in its place, says why it could not be."""

QUESTION_SECONDS = 20.0
"""For one answer: a file system that hangs must not hide the others."""

TORCH_SECONDS = 40.0
"""For importing torch, which takes long on a busy machine or from a network's disk, and works all the same."""

DRIVER_FILE = "driver"
"""Which every node must see in the storage's test folder."""

_TORCH_PROGRAM = """
import json
import torch, torchvision
count = torch.cuda.device_count()
names = [torch.cuda.get_device_name(index) for index in range(count)]
works = [float(torch.ones(1, device=f"cuda:{index}").item()) for index in range(count)]
print("\\n" + json.dumps({"names": names}))
"""


def ask_node(questions: Mapping[str, Any]) -> dict[str, Answer]:
    """Answers the questions whose names are given, with what is to be known for them.

    Args:
        questions: any of ``versions`` (names of libraries), ``cache`` (nothing), ``cards`` (nothing), ``data``
            (``dataset`` sections), ``storage`` (``folder``, ``file``, ``content``: see ``_storage``), ``modules``
            (``names`` and ``folders``); ``seconds`` for all of them together.

    Returns:
        By the question's name; ``node`` (host and process) and, looked at last of all, ``clock`` always.
    """
    answers: dict[str, Answer] = {"node": {"host": socket.gethostname(), "pid": os.getpid()}}
    until = time.monotonic() + float(questions.get("seconds", 60.0))
    for name, answer in _ANSWERS.items():
        if name in questions:
            limit = TORCH_SECONDS if name == "cards" else QUESTION_SECONDS
            answers[name] = within(min(limit, until - time.monotonic()), partial(answer, questions[name]))
    answers["clock"] = {"time": time.time()}
    return answers


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """An answer, or ``{"error": …}`` where asking fails or takes too long; what hangs is left behind in a thread."""
    answers: list[Answer] = []

    def work() -> None:
        try:
            answers.append(ask())
        except WslSweepError as error:
            answers.append({"error": str(error)})
        except (Exception, SystemExit) as error:
            answers.append({"error": told(error)})

    thread = threading.Thread(target=work, daemon=True, name="doctor")
    thread.start()
    thread.join(max(0.0, seconds))
    return answers[0] if answers else {"error": f"no answer within {max(0.0, seconds):.0f} s"}


def versions_of(libraries: Sequence[str]) -> dict[str, str]:
    """Python's version and those of libraries; ``absent`` for what is not installed."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _versions(libraries: list[str]) -> Answer:
    return {"versions": versions_of(libraries), "code": _code_digest()}


def _code_digest() -> str:
    """SHA-256 (16 hex digits) of this package's own source: its version does not change with every commit."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _cache(_: Any) -> Answer:
    """Whether the cache can be written, and the bytes that are free there."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"0" * 4096)
        file.flush()
    return {"folder": str(folder), "free": shutil.disk_usage(folder).free}


def _cards(_: Any) -> Answer:
    """Names of the cards that torch computes on, in a process that sees them all: Ray hides them from a task without.

    It is also where torch and torchvision are seen to be importable together.
    """
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", _TORCH_PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TORCH_SECONDS - 1,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1].strip() if lines else f"exit code {done.returncode}"}
    names: list[str] = json.loads(done.stdout.strip().splitlines()[-1])["names"]
    return {"names": names}


def _data(datasets: list[Mapping[str, Any]]) -> Answer:
    """Of each data set where it is here and what is in it, or what is wrong."""
    return {
        "sets": [
            {"name": dataset["name"], **within(QUESTION_SECONDS, partial(_data_set, dataset))} for dataset in datasets
        ]
    }


def _data_set(dataset: Mapping[str, Any]) -> Answer:
    name = str(dataset["name"])
    root = None if dataset.get("root") is None else str(node_folder(str(dataset["root"])))
    if name in ("cifar10", "cifar100"):
        return _cifar(name, root)
    if name == "image_folder" and root is not None:
        return _pictures(root)
    if name == "imagenet" and root is not None:
        return _imagenet(root)
    if name == "mnli":
        return _sentences(root, str(dataset["vocabulary"]))
    if root is None:
        return {"found": "is made by its code" if is_import_name(name) else "comes with scikit-learn"}
    return _readable(root)


def _pictures(root: str) -> Answer:
    from wsl_sweep.image_listing import list_pictures

    listing = list_pictures(root)
    digest = hashlib.sha256()
    for picture in listing.pictures:
        digest.update(os.fsencode(picture.path) + f"\0{picture.size}\0{picture.label}\0".encode())
    with (listing.root / listing.pictures[0].path).open("rb") as file:
        file.read(1)
    found = f"{len(listing.pictures)} pictures of {len(listing.classes)} classes"
    return {"root": root, "found": found, "content": digest.hexdigest()[:16]}


def _imagenet(root: str) -> Answer:
    from wsl_sweep.imagenet_listing import list_imagenet

    listing = list_imagenet(root)
    for row in (0, listing.train):
        with (listing.root / listing.path(row)).open("rb") as file:
            file.read(1)
    test = len(listing) - listing.train
    found = f"{listing.train:,} training and {test:,} test pictures of {len(listing.classes):,} classes"
    return {"root": root, "found": found, "content": listing.content()[:16]}


def _sentences(root: str | None, vocabulary: str) -> Answer:
    from wsl_sweep.data.mnli import mnli_there
    from wsl_sweep.pair_files import content_of, pair_files, vocabulary_files

    words = vocabulary_files(vocabulary) or ()
    there = mnli_there({"root": root, "vocabulary": vocabulary})
    if root is None:
        return {"found": "in the hub's cache"} if there else {"found": "absent", "download": True}
    found = pair_files(root)
    content = content_of((*found.files, *words))[:16]
    answer: Answer = {"root": root, "found": f"{len(found.files)} files of sentences", "content": content}
    if not there:
        answer |= {"found": f"{answer['found']}, without the vocabulary {vocabulary}", "download": True}
    return answer


def _cifar(name: str, root: str | None) -> Answer:
    from wsl_sweep.data.cifar import cifar_root, cifar_there

    folder = cifar_root(root)
    if cifar_there(name, root):
        return {"root": str(folder), "found": "there"} | _readable(str(folder))
    parent = next(one for one in (folder, *folder.parents) if one.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        return {"root": str(folder), "error": f"not in {folder}, and {parent} cannot be written to download it"}
    return {"root": str(folder), "found": "absent", "download": True}


def _readable(root: str) -> Answer:
    return {"root": root, "found": f"{len(os.listdir(root))} entries"}


def _storage(asked: Mapping[str, str]) -> Answer:
    """Writes, reads and deletes a file in the storage's test folder, and leaves one for the driver to see.

    ``asked`` has the ``folder``, ``file`` (the name of what is left) and ``content`` (of the driver's file). Where the
    driver's file is not seen, this is another folder than the driver's, and nothing stays in it.
    """
    from wsl_sweep.storage import place

    folder = place(asked["folder"])
    there = folder.parent.exists()
    own, left = folder / f"{asked['file']}-own", folder / asked["file"]
    for file in (own, left):
        file.write(asked["file"].encode())
    read = own.read_bytes() == asked["file"].encode()
    own.delete()
    deleted = not own.exists()
    try:
        shared = (folder / DRIVER_FILE).read_text() == asked["content"]
    except OSError:
        shared = False
    if not shared:
        folder.delete()
        if not there and folder.parent.local is not None:
            folder.parent.local.rmdir()
    return {"read": read, "deleted": deleted, "shared": shared}


def _modules(asked: Mapping[str, Any]) -> Answer:
    """Of each of users' names (``package.module:name``) the hash of its source, or what is wrong with it."""
    search_in(asked["folders"])
    return {"names": {name: within(QUESTION_SECONDS, partial(_module, name)) for name in asked["names"]}}


def _module(name: str) -> Answer:
    find(name)
    return {"code": source_digest(name)}


_ANSWERS: dict[str, Callable[[Any], Answer]] = {
    "versions": _versions,
    "cache": _cache,
    "cards": _cards,
    "data": _data,
    "storage": _storage,
    "modules": _modules,
}
"""In the order in which they are asked."""
