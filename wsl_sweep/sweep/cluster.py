"""Ray itself: starting it here or joining a cluster, and what a cluster has room for."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError

MEASURING_SECONDS = 600.0
"""How long ``precision: auto`` waits for a place on a cluster."""

CONNECT_SECONDS = 10.0

ACCELERATOR = "accelerator_type:"
"""How Ray names the kind of a node's cards among its resources."""

AUTOSCALER = b"__autoscaling_status"
"""What an autoscaler keeps in the memory of Ray's head."""


def start_ray(address: str | None, *, log_file: Path, insecure: bool = False) -> None:
    """Starts Ray on this machine, or joins the cluster at ``address``; see ``prepare_environment`` for its token.

    Raises:
        WslSweepError: a cluster without a token (and not ``insecure``), or one that cannot be reached.
    """
    import ray

    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
        "ignore_reinit_error": True,
    }
    if address is None:
        ray.init(address="local", include_dashboard=False, **common)
    else:
        has_token = (
            os.environ.get("RAY_AUTH_TOKEN")
            or os.environ.get("RAY_AUTH_TOKEN_PATH")
            or (Path.home() / ".ray" / "auth_token").is_file()
        )
        if not insecure and not (os.environ.get("RAY_AUTH_MODE") == "token" and has_token):
            raise WslSweepError(
                f"the cluster at {address} would be joined without a token, and Ray listens on every address: set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (the same token on every node), or say --insecure"
            )
        _check_answers(address)
        variables = {"TUNE_FUNCTION_THREAD_TIMEOUT_S": "600", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
        try:
            ray.init(address=address, runtime_env={"env_vars": variables}, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WslSweepError(f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from error
    _log_to(log_file)


def _check_answers(address: str) -> None:
    """Raises WslSweepError where nothing listens: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # for what listens and is no Ray
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise WslSweepError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


def _log_to(path: Path) -> None:
    """Ray's loggers write to a file of the sweep's, not to the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logger = logging.getLogger(name)
        for old in logger.handlers[:]:
            logger.removeHandler(old)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.getLogger("ray").addHandler(handler)
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).addHandler(handler)


def measure_on_cluster(
    asked: Mapping[str, Mapping[str, Any]], cpu: float, gpu: float, threads: int, folders: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Measures ``precision: auto`` where a trial would run; student's model → seconds of a step and what to choose.

    Raises WslSweepError where that cannot be done.
    """
    import ray

    from wsl_sweep.training.precision import measured_precision

    check_resources(cpu, gpu)
    measure = ray.remote(measured_precision).options(num_cpus=cpu, num_gpus=gpu, max_retries=0)
    found: dict[str, dict[str, Any]] = {}
    for model, config in asked.items():
        try:
            found[model] = ray.get(measure.remote(config, threads, gpu, list(folders)), timeout=MEASURING_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise WslSweepError(
                f"precision: auto could not be measured for {model}: the cluster had no room for it in "
                f"{MEASURING_SECONDS:g} s; set precision to float32 or bfloat16"
            ) from error
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise WslSweepError(
                f"precision: auto could not be measured for {model} on the cluster: {last}; "
                "set precision to float32 or bfloat16"
            ) from error
    return found


def room(cpu: float, gpu: float, accelerator: str | None, address: str | None, processes: int = 1) -> int:
    """How many trials fit at once now; 1 where none does on a cluster that can grow. See ``check_resources``.

    Raises WslSweepError where a trial fits nowhere, and no node will come.
    """
    try:
        return check_resources(cpu, gpu, accelerator, processes)
    except WslSweepError:
        if address is None or not _can_grow():
            raise
        return 1


def _can_grow() -> bool:
    """Whether an autoscaler starts nodes; Ray's head keeps a status of those that joined by hand, too."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2(fetch_from_server=True):
        return True
    try:
        kinds = json.loads(_internal_kv_get(AUTOSCALER) or b"{}")["autoscaler_report"]["active_nodes"]
    except (ValueError, KeyError, TypeError):
        return False
    return not set(kinds) <= {f"node_{node['NodeID']}" for node in ray.nodes()}


def card_kinds() -> dict[str, float]:
    """The kinds of cards in the cluster, as Ray names them, and how many there are of each."""
    import ray

    kinds: dict[str, float] = {}
    for node in ray.nodes():
        for name in node["Resources"] if node["Alive"] else ():
            if name.startswith(ACCELERATOR):
                kind = name.removeprefix(ACCELERATOR)
                kinds[kind] = kinds.get(kind, 0.0) + node["Resources"].get("GPU", 0.0)
    return kinds


def check_resources(cpu: float, gpu: float, accelerator: str | None = None, processes: int = 1) -> int:
    """How many trials fit at once. Raises WslSweepError where one does not fit anywhere.

    Args:
        cpu: of each process of a trial.
        gpu: of a trial, which its processes divide among them.
        accelerator: the kind of card that it needs, or None.
        processes: of a trial; they may lie on several nodes.
    """
    import ray

    if accelerator is not None and accelerator not in card_kinds():
        known = ", ".join(sorted(card_kinds())) or "none"
        raise WslSweepError(f"resources.accelerator is {accelerator}, and no node has one; there are: {known}")
    places, each = 0, gpu / processes
    largest = (0.0, 0.0)
    for node in ray.nodes():
        if not node["Alive"] or (accelerator is not None and f"{ACCELERATOR}{accelerator}" not in node["Resources"]):
            continue
        has = (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        largest = max(largest, has)
        by_gpu = has[1] / each if gpu else float("inf")
        places += int(min(has[0] / cpu, by_gpu) + 1e-9)
    if places < processes and processes > 1:
        raise WslSweepError(
            f"a trial asks for {processes} processes of {cpu:g} CPUs and {each:g} GPUs each, and there is room for "
            f"{places} (the largest node: {largest[0]:g} CPUs, {largest[1]:g} GPUs); change resources in the file"
        )
    if places == 0:
        raise WslSweepError(
            f"a trial asks for {cpu:g} CPUs and {gpu:g} GPUs, and no node has that (the largest: {largest[0]:g} CPUs, "
            f"{largest[1]:g} GPUs); change resources in the file"
        )
    return places // processes
