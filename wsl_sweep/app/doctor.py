"""Whether a sweep can run: what is right and what is wrong on every node of a cluster, or on this machine alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from wsl_sweep.app.options import RunOptions, settle_resources, storage_folder
from wsl_sweep.app.planning import LIBRARIES, versions
from wsl_sweep.app.preparing import configurations
from wsl_sweep.app.world import import_folders
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import is_library_model
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.loading import CommandLine, load_spec
from wsl_sweep.spec.spec import Spec
from wsl_sweep.storage import Place, place
from wsl_sweep.sweep.nodes import DRIVER_FILE, Answer, ask_node, within
from wsl_sweep.tracking.settings import Tracking, redact, resolve_tracking
from wsl_sweep.user_code import is_import_name

Status = Literal["ok", "warning", "problem"]

ANSWER_SECONDS = 60.0
"""What does not answer in this time is reported as such."""

CLOCK_SECONDS = 5.0
FREE_BYTES = 5_000_000_000
TRACKING_SECONDS = 20.0
MOST_LETTERS = 200

MACHINE = "this machine"
DRIVER = "driver"
CLUSTER = "cluster"

DECISIVE = frozenset({"python", "wsl-sweep", "torch", "torchvision", "ray", "numpy"})
"""Other versions of these give other numbers, or none; of the rest of LIBRARIES a warning is enough."""

NAMED_NODES = 3
"""Nodes of which the same is true are named up to this many."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        node: where; ``this machine``, ``driver`` and ``cluster`` are no node's name.
        what: was looked at.
        status: ``ok``, ``warning`` (a sweep can run) or ``problem`` (it cannot, or not on this node).
        found: what there is.
        todo: how to mend it; empty where nothing need be.
    """

    node: str
    what: str
    status: Status
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Report:
    """All checks, in the order in which they were made."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in a sweep's way."""
        return all(check.status != "problem" for check in self.checks)

    @property
    def problems(self) -> list[Check]:
        """What does."""
        return [check for check in self.checks if check.status == "problem"]

    def to_json(self) -> str:
        """``{"ok": …, "checks": [{"node": …, "what": …, "status": …, "found": …, "todo": …}]}``."""
        return json.dumps({"ok": self.ok, "checks": [asdict(check) for check in self.checks]}, indent=2)


@dataclass(frozen=True)
class _Subject:
    """What is asked about.

    Attributes:
        spec: of the file, or None.
        storage, tracking: where a sweep would write, or None where that is not said.
        folders: where users' modules are looked for.
        seconds: in which a node must answer.
    """

    spec: Spec | None
    storage: Place | None
    tracking: Tracking | None
    folders: Sequence[str] = ()
    seconds: float = ANSWER_SECONDS

    def questions(self, storage: Mapping[str, str] | None, *, trials: bool, data: bool) -> dict[str, Any]:
        """For ``ask_node``: what any node needs, what is needed where ``trials`` run, and where ``data`` are read."""
        asked: dict[str, Any] = {"seconds": 0.8 * self.seconds, "versions": list(LIBRARIES)}
        if trials:
            asked |= {"cache": None, "cards": None}
        if data:
            modules = {"names": self._modules(), "folders": list(self.folders)}
            asked |= {"data": self._datasets(), "modules": modules}
        return asked if storage is None else asked | {"storage": dict(storage)}

    def _datasets(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for config in configurations(self.spec) if self.spec else ():
            dataset = {key: config["dataset"].get(key) for key in ("name", "root", "vocabulary")}
            found[repr(dataset)] = dataset
        return list(found.values())

    def _modules(self) -> list[str]:
        names: dict[str, None] = {}
        for config in configurations(self.spec) if self.spec else ():
            teacher = config.get("teacher", {}).get("model")
            models = config["student"]["model"], teacher
            for name in (config["dataset"]["name"], *models, config["distillation"]["method"]):
                if name is not None and is_import_name(str(name)) and not is_library_model(str(name)):
                    names[str(name)] = None
        return list(names)


def examine(
    file: Path | None = None,
    command_line: CommandLine = CommandLine(),
    options: RunOptions = RunOptions(),
    seconds: float = ANSWER_SECONDS,
) -> Report:
    """Asks every node of the cluster at ``options.address``, or this machine alone, on which Ray is not started then.

    Args:
        file: a search-space file, whose data, modules and resources are looked for, too.
        command_line: what is said about it.
        options: where a sweep would run.
        seconds: in which a node must answer.

    Raises:
        WslSweepError: the file is wrong, or the storage's address.
    """
    address = options.address or os.environ.get("RAY_ADDRESS")
    spec = load_spec(file, command_line) if file is not None else None
    subject = _Subject(
        spec,
        storage_folder(options.storage) if options.storage is not None or address is None else None,
        _tracking(spec, options, address),
        import_folders(file) if file is not None else (),
        seconds,
    )
    if address is None:
        return _examine_machine(subject)
    token = _token_check(options.insecure)
    if token.status == "problem":
        return Report([token, *_tracking_checks(subject)])
    from wsl_sweep.sweep.environment import prepare_environment

    prepare_environment(local=False)
    from wsl_sweep.sweep.cluster import start_ray

    try:
        start_ray(address, log_file=Path(os.devnull), insecure=options.insecure)
    except WslSweepError as error:
        todo = "see whether its head runs (ray status there), the address, the token and Ray's version"
        return Report([token, Check(CLUSTER, "answer", "problem", str(error), todo), *_tracking_checks(subject)])
    import ray

    try:
        return _examine_cluster(subject, address, token)
    finally:
        ray.shutdown()


def examine_running(
    spec: Spec,
    storage: Place,
    address: str,
    tracking: Tracking,
    *,
    folders: Sequence[str] = (),
    insecure: bool = False,
    seconds: float = ANSWER_SECONDS,
) -> Report:
    """As ``examine``, for a sweep that is about to begin on a cluster which this process has joined.

    Args:
        spec: of the sweep.
        storage: the folder of sweeps.
        address: of the cluster.
        tracking: where the runs go.
        folders: where users' modules are looked for.
        insecure: whether a cluster without a token is wanted.
        seconds: in which a node must answer.
    """
    subject = _Subject(spec, storage, tracking, folders, seconds)
    return _examine_cluster(subject, address, _token_check(insecure))


def _tracking(spec: Spec | None, options: RunOptions, address: str | None) -> Tracking | None:
    in_file = spec.tracking.uri if spec is not None else None
    if address and not (options.tracking_uri or in_file or os.environ.get("MLFLOW_TRACKING_URI")):
        return None
    return resolve_tracking(options.tracking_uri, in_file, "")


# --- this machine, the cluster ---------------------------------------------------------------------------------------


def _examine_machine(subject: _Subject) -> Report:
    with _test_folder(subject.storage) as test:
        answers = ask_node(subject.questions(test.asked(MACHINE), trials=True, data=True))
        shared = test.checks(MACHINE, MACHINE, answers)
    found = ", ".join(f"{name} {number}" for name, number in answers["versions"].get("versions", {}).items())
    checks = [Check(MACHINE, "versions", "ok", found)]
    checks += _cache_checks(MACHINE, answers) + _card_checks(MACHINE, answers, None)
    checks += _data_checks(MACHINE, answers, None) + _module_checks(MACHINE, answers, None)
    checks += [*shared, *_tracking_checks(subject)]
    if subject.spec is not None:
        checks.append(_room_here(subject.spec, len(answers["cards"].get("names", ()))))
    return Report(checks)


def _examine_cluster(subject: _Subject, address: str, token: Check) -> Report:
    import ray

    known = ray.nodes()
    nodes = _named([node for node in known if node["Alive"]])
    dead = len(known) - len(nodes)
    checks = [token, Check(CLUSTER, "nodes", "ok", f"{len(nodes)} alive" + (f", {dead} dead" if dead else ""))]
    if subject.spec is not None:
        checks += _room_checks(subject.spec, address)
    working = _working(nodes, subject.spec, address)
    cards_matter = subject.spec is None or settle_resources(subject.spec, address)[0] > 0
    with _test_folder(subject.storage) as test:
        own = ask_node(subject.questions(test.asked(DRIVER), trials=False, data=True))
        answers = _ask_all(nodes, subject, test, working)
        checks += _data_checks(DRIVER, own, None) + _module_checks(DRIVER, own, None)
        checks += test.checks(DRIVER, DRIVER, own) + _tracking_checks(subject)
        for name, node in nodes.items():
            checks += _node_checks(name, node, answers[name], own, trials=name in working, cards_matter=cards_matter)
            if "no_answer" not in answers[name]:
                checks += test.checks(name, node["NodeID"], answers[name])
    return Report(checks)


def _named(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Nodes by their host's name, or, where two have the same, with the address."""
    hosts = [str(node["NodeManagerHostname"]) for node in nodes]
    named = {}
    for node, host in sorted(zip(nodes, hosts, strict=True), key=lambda pair: (pair[1], pair[0]["NodeName"])):
        name = host if hosts.count(host) == 1 else f"{host} ({node['NodeName']})"
        named[name if name not in named else f"{name} {node['NodeID'][:6]}"] = node
    return named


def _working(nodes: Mapping[str, Mapping[str, Any]], spec: Spec | None, address: str) -> set[str]:
    """The nodes on which a process of a trial fits; where none does, those that have CPUs at all."""
    cpu, gpu, kind = 1e-6, 0.0, None
    if spec is not None:
        cpu, kind = spec.resources.cpu, spec.resources.accelerator
        gpu = settle_resources(spec, address)[0] / spec.processes

    def fits(has: Mapping[str, float], cpu: float, gpu: float, kind: str | None) -> bool:
        enough = has.get("CPU", 0.0) >= cpu and has.get("GPU", 0.0) >= gpu
        return enough and (kind is None or f"accelerator_type:{kind}" in has)

    fit = {name for name, node in nodes.items() if fits(node["Resources"], cpu, gpu, kind)}
    return fit or {name for name, node in nodes.items() if fits(node["Resources"], 1e-6, 0.0, None)}


def _ask_all(
    nodes: Mapping[str, Mapping[str, Any]], subject: _Subject, test: _TestFolder, working: set[str]
) -> dict[str, dict[str, Answer]]:
    """Every node's answers, asked side by side; ``no_answer`` says why there is none, ``late`` is its clock's lead."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(ask_node)
    waiting: dict[Any, str] = {}
    for name, node in nodes.items():
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        works = name in working
        questions = subject.questions(test.asked(node["NodeID"]), trials=works, data=works)
        waiting[ask.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned).remote(questions)] = name
    answers: dict[str, dict[str, Answer]] = {}
    until = time.monotonic() + subject.seconds
    while waiting and (left := until - time.monotonic()) > 0:
        for done in ray.wait(list(waiting), num_returns=1, timeout=left)[0]:
            answers[waiting.pop(done)] = _answer_of(done)
    for silent, name in waiting.items():
        with contextlib.suppress(Exception):
            ray.cancel(silent, force=True)
        answers[name] = {"no_answer": {"error": f"no answer within {subject.seconds:g} s"}}
    return answers


def _answer_of(done: Any) -> dict[str, Answer]:
    import ray

    try:
        answers: dict[str, Answer] = ray.get(done, timeout=ANSWER_SECONDS)
    except Exception as error:  # whatever a worker that cannot even be started says
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return {"no_answer": {"error": f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"}}
    answers["clock"]["lead"] = answers["clock"]["time"] - time.time()
    return answers


# --- what the answers mean -------------------------------------------------------------------------------------------


def _node_checks(
    name: str,
    node: Mapping[str, Any],
    answers: Mapping[str, Answer],
    own: Mapping[str, Answer],
    *,
    trials: bool,
    cards_matter: bool,
) -> list[Check]:
    """Of one node of a cluster, all but its storage."""
    if "no_answer" in answers:
        found = answers["no_answer"]["error"]
        todo = "look at the machine; ray stop and ray start on it, with wsl-sweep installed in the same Python"
        return [Check(name, "answer", "problem", found, todo)]
    checks = [_version_check(name, answers, own), _clock_check(name, answers)]
    if trials:
        checks += _cache_checks(name, answers) + _card_checks(name, answers, node["Resources"], cards_matter)
        checks += _data_checks(name, answers, own) + _module_checks(name, answers, own)
    return checks


def _version_check(name: str, answers: Mapping[str, Answer], own: Mapping[str, Answer]) -> Check:
    wanted, answer = versions(), answers["versions"]
    if "error" in answer:
        return Check(name, "versions", "problem", answer["error"], "install wsl-sweep anew on it")
    has = answer["versions"]
    other = {library: has.get(library, "absent") for library in wanted if has.get(library) != wanted[library]}
    if other:
        found = ", ".join(f"{library} {number} (driver: {wanted[library]})" for library, number in other.items())
        decisive = any(library in DECISIVE and not _same_release(wanted[library], other[library]) for library in other)
        todo = "install the driver's versions on it: " + " ".join(f"{one}=={wanted[one]}" for one in other)
        return Check(name, "versions", "problem" if decisive else "warning", found, todo)
    if answer["code"] != own["versions"].get("code"):
        found = f"wsl-sweep {wanted['wsl-sweep']}, but not the driver's code"
        return Check(name, "versions", "problem", found, "bring both to the same commit")
    return Check(name, "versions", "ok", "the driver's")


def _same_release(one: str, other: str) -> bool:
    """2.14.1+cpu and 2.14.1+cu128 are."""
    return one.partition("+")[0] == other.partition("+")[0]


def _clock_check(name: str, answers: Mapping[str, Answer]) -> Check:
    lead = float(answers["clock"]["lead"])
    found = f"{abs(lead):.1f} s {'ahead of' if lead > 0 else 'behind'} the driver's"
    if abs(lead) > CLOCK_SECONDS:
        return Check(name, "clock", "warning", found, "let NTP set it: times in the logs and in MLflow will be wrong")
    return Check(name, "clock", "ok", "the driver's")


def _cache_checks(name: str, answers: Mapping[str, Answer]) -> list[Check]:
    answer = answers["cache"]
    if "error" in answer:
        return [Check(name, "cache", "problem", answer["error"], "set WSL_SWEEP_CACHE to a folder that can be written")]
    found = f"{answer['free'] / 1e9:.1f} GB free in {answer['folder']}"
    if answer["free"] < FREE_BYTES:
        todo = "make room, or set WSL_SWEEP_CACHE; see wsl-sweep cache"
        return [Check(name, "cache", "warning", found, todo)]
    return [Check(name, "cache", "ok", found)]


def _card_checks(
    name: str, answers: Mapping[str, Answer], has: Mapping[str, float] | None, matter: bool = True
) -> list[Check]:
    """Of what torch finds, beside what Ray says of the node (``has``), if that was asked."""
    answer = answers["cards"]
    if "error" in answer:
        todo = "install torch and torchvision together, from one place; with cards, look at nvidia-smi"
        return [Check(name, "torch", "problem", f"torch does not work: {answer['error']}", todo)]
    names: list[str] = answer["names"]
    found = ", ".join(f"{names.count(one)} x {one}" for one in dict.fromkeys(names)) or "no cards"
    said = None if has is None else has.get("GPU", 0.0)
    if said is not None and said > len(names):
        told = f"Ray says {said:g} GPU{'s' if said != 1 else ''}, torch finds {found}"
        status: Status = "problem" if matter else "warning"
        return [Check(name, "cards", status, told, "look at nvidia-smi and at torch's build; ray start --num-gpus")]
    if said == 0 and names:
        told = f"{found}, but Ray was started without"
        return [Check(name, "cards", "warning", told, f"ray start --num-gpus={len(names)}")]
    kinds = [one.partition(":")[2] for one in has or () if one.startswith("accelerator_type:")]
    for kind in kinds:
        if not any(kind.lower() in one.lower() for one in names):
            told = f"Ray says {kind}, torch finds {found}"
            return [Check(name, "cards", "warning", told, "resources.accelerator goes by Ray's name")]
    return [Check(name, "cards", "ok", found)]


def _data_checks(name: str, answers: Mapping[str, Answer], own: Mapping[str, Answer] | None) -> list[Check]:
    answer = answers["data"]
    if "error" in answer:
        return [Check(name, "data", "problem", answer["error"], "look at the file system that the data lie on")]
    others = own["data"].get("sets", []) if own is not None else []
    return [
        _data_check(name, one, others[index] if index < len(others) else {}) for index, one in enumerate(answer["sets"])
    ]


def _data_check(name: str, answer: Answer, own: Answer) -> Check:
    what = f"data {answer['name']}" if "name" in answer else "data"
    if "error" in answer:
        todo = "bring the data to the node, or name a folder that every node sees: dataset.root, also with ${VARIABLE}"
        return Check(name, what, "problem", answer["error"], todo)
    found = f"{answer['found']} in {answer['root']}" if answer.get("root") else str(answer["found"])
    if answer.get("download"):
        return Check(name, what, "warning", f"{found}; it will be downloaded", "bring it there if the node is offline")
    if own.get("content") != answer.get("content") and "content" in own:
        of = data_set(answer["name"]).of
        return Check(name, what, "problem", f"{found}: not the driver's {of}", "copy the driver's folder there")
    return Check(name, what, "ok", found)


def _module_checks(name: str, answers: Mapping[str, Answer], own: Mapping[str, Answer] | None) -> list[Check]:
    answer = answers["modules"]
    todo = "install it on the node, or let the working folder, or that of the file, lie where every node sees it"
    if "error" in answer:
        return [Check(name, "modules", "problem", answer["error"], todo)]
    checks = []
    others = own["modules"].get("names", {}) if own is not None else {}
    for module, found in answer["names"].items():
        if "error" in found:
            checks.append(Check(name, module, "problem", found["error"], todo))
        elif "code" in others.get(module, {}) and others[module]["code"] != found["code"]:
            checks.append(Check(name, module, "problem", "not the driver's code", "bring the same code to the node"))
        else:
            checks.append(Check(name, module, "ok", "can be imported"))
    return checks


# --- storage ---------------------------------------------------------------------------------------------------------


class _TestFolder:
    """A folder of the storage's in which every node leaves a file; use ``_test_folder``."""

    def __init__(self, storage: Place | None) -> None:
        self._problem: str | None = None
        self._content = uuid.uuid4().hex
        self._storage = None if storage is None else _absolute(storage)
        self._folder = None if self._storage is None else self._storage / f".doctor-{self._content[:12]}"

    def begin(self) -> None:
        """Writes the driver's file."""
        if self._folder is not None:
            file = self._folder / DRIVER_FILE
            self._problem = within(TRACKING_SECONDS, lambda: _written(file, self._content)).get("error")

    def asked(self, name: str) -> dict[str, str] | None:
        """The question for a node; None where the driver itself cannot write."""
        if self._folder is None or self._problem is not None:
            return None
        return {"folder": str(self._folder), "file": f"node-{name}".replace(" ", "-"), "content": self._content}

    def checks(self, name: str, file: str, answers: Mapping[str, Answer]) -> list[Check]:
        """What a node's answer means, and whether its file is seen here."""
        if self._storage is None:
            todo = "give --storage: a folder that every node sees, or an object store's URL"
            return [Check(name, "storage", "warning", "not given, not looked at", todo)] if name == DRIVER else []
        todo = "let every node, and the driver, read and write it"
        if self._problem is not None:
            return [Check(name, "storage", "problem", self._problem, todo)] if name in (DRIVER, MACHINE) else []
        return [self._check(name, file, answers["storage"], todo)]

    def _check(self, name: str, file: str, answer: Answer, todo: str) -> Check:
        if "error" in answer:
            return Check(name, "storage", "problem", answer["error"], todo)
        if not answer["shared"] or not self._seen(file):
            found = f"{self._storage} is not the driver's folder there"
            return Check(name, "storage", "problem", found, "mount one folder on every node, or use an object store")
        if not (answer["read"] and answer["deleted"]):
            missing = "deleted" if answer["read"] else "read again"
            return Check(name, "storage", "problem", f"a file in {self._storage} cannot be {missing}", todo)
        return Check(name, "storage", "ok", f"written, read and deleted in {self._storage}")

    def _seen(self, file: str) -> bool:
        asked = self.asked(file)
        if asked is None or self._folder is None:
            return False
        try:
            return (self._folder / asked["file"]).read_text() == asked["file"]
        except (OSError, ValueError, WslSweepError):
            return False

    def end(self) -> None:
        """Deletes the folder."""
        if self._folder is not None:
            with contextlib.suppress(OSError, WslSweepError):
                self._folder.delete()


@contextlib.contextmanager
def _test_folder(storage: Place | None) -> Iterator[_TestFolder]:
    there = storage is None or storage.local is None or storage.local.exists()
    test = _TestFolder(storage)
    try:
        test.begin()
        yield test
    finally:
        test.end()
        if not there and storage is not None and storage.local is not None:
            with contextlib.suppress(OSError):
                storage.local.rmdir()


def _absolute(storage: Place) -> Place:
    """The same for every process, whatever folder it works in."""
    return storage if storage.local is None else place(storage.local.absolute())


def _written(file: Place, content: str) -> Answer:
    file.write(content.encode())
    return {}


# --- token, tracking, room -------------------------------------------------------------------------------------------


def _token_check(insecure: bool) -> Check:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    given, on_disk = bool(os.environ.get("RAY_AUTH_TOKEN")), path.is_file()
    if os.environ.get("RAY_AUTH_MODE") != "token" or not (given or on_disk):
        found = "none: whoever reaches the cluster's ports can run code on it"
        todo = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, the same token on every node, or say --insecure"
        return Check(DRIVER, "token", "warning" if insecure else "problem", found, todo)
    if given:
        return Check(DRIVER, "token", "ok", "in RAY_AUTH_TOKEN")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Check(DRIVER, "token", "warning", f"{path} can be read by others", f"chmod 600 {path}")
    return Check(DRIVER, "token", "ok", f"in {path}")


def _tracking_checks(subject: _Subject) -> list[Check]:
    if subject.tracking is None:
        todo = "give --tracking-uri, or set MLFLOW_TRACKING_URI"
        return [Check(DRIVER, "tracking", "warning", "not given, not looked at", todo)]
    uri, shown = subject.tracking.uri, redact(subject.tracking.uri)
    answer = within(TRACKING_SECONDS, lambda: _sqlite(uri) if uri.startswith("sqlite:") else _server(uri))
    if "error" in answer:
        what = f"{shown}: {_brief(redact(answer['error']))}"
        return [Check(DRIVER, "tracking", "problem", what, "start the server, or give another --tracking-uri")]
    return [Check(DRIVER, "tracking", "ok", f"{answer['found']}: {shown}")]


def _brief(error: str) -> str:
    """What the system says, out of what requests and MLflow wrap around it."""
    number = re.search(r"\[Errno -?\d+\] ([\w ,]+)", error)
    return number[1] if number else error[:MOST_LETTERS]


def _sqlite(uri: str) -> Answer:
    """Whether a database is one, and its folder can be written; none is made."""
    import sqlite3

    file = Path(uri.partition(":///")[2]).absolute()
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".doctor-"):
        pass
    if not file.exists():
        return {"found": "will be made"}
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=5.0)) as database:
        database.execute("select count(*) from sqlite_master").fetchone()
    return {"found": "can be written"}


IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
}
"""MLflow reads these at every request; its own patience is minutes."""


def _server(uri: str) -> Answer:
    import mlflow

    before = {name: os.environ.get(name) for name in IMPATIENT}
    os.environ.update(IMPATIENT)
    try:
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return {"found": "answers"}


def _room_checks(spec: Spec, address: str) -> list[Check]:
    """Whether a trial fits on a node, and whether cards are left unused."""
    import ray

    from wsl_sweep.sweep.cluster import room

    gpu, _ = settle_resources(spec, address)
    try:
        slots = room(spec.resources.cpu, gpu, spec.resources.accelerator, address, spec.processes)
    except WslSweepError as error:
        return [Check(CLUSTER, "room", "problem", str(error), "change resources in the file, or add nodes")]
    checks = [Check(CLUSTER, "room", "ok", f"{slots} trial{'s' if slots != 1 else ''} at once")]
    cards = ray.cluster_resources().get("GPU", 0.0)
    if gpu == 0 and cards:
        found = f"{cards:g} GPU{'s' if cards != 1 else ''} that no trial asks for"
        checks.append(Check(CLUSTER, "room", "warning", found, "set resources: {gpu: 1}, or a fraction, in the file"))
    return checks


def _room_here(spec: Spec, cards: int) -> Check:
    gpu, _ = settle_resources(spec, None)
    cpu, has = spec.resources.cpu * spec.processes, os.cpu_count() or 1
    if cpu > has or gpu > cards:
        found = f"a trial asks for {cpu:g} CPUs and {gpu:g} GPUs, and there are {has} CPUs and {cards} GPUs"
        return Check(MACHINE, "room", "problem", found, "change resources in the file")
    slots = int(min(has / cpu, cards / gpu if gpu else float("inf")) + 1e-9)
    return Check(MACHINE, "room", "ok", f"{slots} trial{'s' if slots != 1 else ''} at once")


# --- what is shown ---------------------------------------------------------------------------------------------------


def doctor_table(report: Report) -> Table:
    """A line for each thing that was found, nodes of which the same is true together; problems last, where eyes are."""
    table = Table("", "where", "what", "found", "what to do", box=None, header_style="dim")
    same: dict[tuple[Status, str, str, str], list[str]] = {}
    for check in report.checks:
        same.setdefault((check.status, check.what, check.found, check.todo), []).append(check.node)
    order = ("ok", "warning", "problem")
    colours = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    for (status, *texts), nodes in sorted(same.items(), key=lambda row: order.index(row[0][0])):
        more = len(nodes) - NAMED_NODES
        where = ", ".join(nodes[:NAMED_NODES]) + (f" and {more} more" if more > 0 else "")
        what, found, todo = map(escape, texts)
        table.add_row(f"[{colours[status]}]{status}[/]", escape(where), what, found, todo)
    return table
