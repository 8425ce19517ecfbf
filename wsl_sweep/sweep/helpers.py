"""The other processes of a trial as Ray actors, each in a bundle of the trial's own placement group."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wsl_sweep.user_code import search_in

if TYPE_CHECKING:
    from wsl_sweep.training import Job, TeacherStore
    from wsl_sweep.training.group import Group, Invitation
    from wsl_sweep.training.helping import What

_WARM: dict[str, list[Any]] = {}
"""Placement group → its helpers, of a trial that this worker has finished: the next need not start them again."""


def find_users_code(task: Mapping[str, Any]) -> None:
    """Lets a task's modules be found where the sweep says, and nowhere else.

    Ray lets workers look in the driver's folder first; of a resumed sweep that may be any folder.
    """
    if task.get("driver_folder") not in task.get("import_folders", ()):
        sys.path[:] = [entry for entry in sys.path if entry not in ("", task.get("driver_folder"))]
    search_in(task.get("import_folders", ()))


class Helper:
    """A process that helps with one training after the other."""

    def help(
        self, task: Mapping[str, Any], request: Mapping[str, Any], invitation: Mapping[str, Any], rank: int
    ) -> None:
        """Takes part in a training from its beginning to its end."""
        from wsl_sweep.training.group import Invitation
        from wsl_sweep.training.helping import help_with

        find_users_code(task)
        try:
            help_with(request, Invitation(**invitation), rank)
        finally:
            gc.collect()


@contextlib.contextmanager
def group_of(task: Mapping[str, Any], job: Job, store: TeacherStore, what: What) -> Iterator[Group]:
    """The processes that do a task, this worker leading; alone where the job has one."""
    from wsl_sweep.training.group import ALONE, leading

    if job.processes == 1:
        yield ALONE
        return
    from ray.util import get_current_placement_group

    from wsl_sweep.training.device import pick_device
    from wsl_sweep.training.helping import local_group, request_of

    placed = get_current_placement_group()
    if placed is None:  # not one of Ray's workers
        with local_group(job, store, what) as group:
            yield group
        return
    request = request_of(job, store, what)
    own = {name: task.get(name) for name in ("import_folders", "driver_folder")}

    def start(invitation: Invitation) -> _Actors:
        return _Actors(placed, invitation, own, request, cpu=task["cpu"], gpu=task["gpu"])

    with leading(job.processes, pick_device(), start, _host_of(placed)) as group:
        yield group


def _host_of(placed: Any) -> str:
    """Where helpers find this worker: on the loopback if no node but its own has any."""
    from ray.util import get_node_ip_address, placement_group_table

    from wsl_sweep.training.group import LOOPBACK

    nodes = set(placement_group_table(placed)["bundles_to_node_id"].values())
    return LOOPBACK if len(nodes) == 1 else str(get_node_ip_address())


class _Actors:
    """Helpers in all bundles but the first; they end with this worker, which owns them."""

    def __init__(
        self,
        placed: Any,
        invitation: Invitation,
        task: Mapping[str, Any],
        request: Mapping[str, Any],
        *,
        cpu: float,
        gpu: float,
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._key = placed.id.hex()
        self._actors = _WARM.pop(self._key, [])
        for others in _WARM.values():  # of a placement group that is gone
            _kill(others)
        _WARM.clear()
        if not self._actors:
            made = ray.remote(Helper)
            for bundle in range(1, invitation.size):
                there = PlacementGroupSchedulingStrategy(placed, bundle)
                options = made.options(num_cpus=cpu, num_gpus=gpu, max_restarts=0, scheduling_strategy=there)
                self._actors.append(options.remote())
        self._done = [
            actor.help.remote(task, request, asdict(invitation), rank)
            for rank, actor in enumerate(self._actors, start=1)
        ]

    def lost(self) -> str | None:
        """See ``wsl_sweep.training.group.Helpers``."""
        import ray

        for rank, done in enumerate(self._done, start=1):
            if ray.wait([done], timeout=0)[0]:
                try:
                    ray.get(done)
                except Exception as error:  # whatever ended it
                    return f"process {rank + 1} of the trial died ({type(error).__name__})"
        return None

    def end(self, seconds: float) -> None:
        """See ``wsl_sweep.training.group.Helpers``."""
        import ray

        _, running = ray.wait(self._done, num_returns=len(self._done), timeout=seconds)
        if running or self.lost() is not None:
            _kill(self._actors)
        else:
            _WARM[self._key] = self._actors


def _kill(actors: list[Any]) -> None:
    import ray

    for actor in actors:
        ray.kill(actor)
