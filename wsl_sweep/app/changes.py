"""A sweep's file then and now: what only adds to the sweep, and what would change the meaning of its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsl_sweep.app.folders import command_line_of
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.distributions import Reading, reading
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.plan import search_trials
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import World

ABSENT = "(not there)"

FREE = ("budget.", "tracking.", "resources.", "bank.use", "bank.limit_gb", "bank.features", "keep", "description")
"""What changes no trial, and nothing that is said of one."""

BOUND = ("resources.cpu", "resources.processes")
"""Of what is free otherwise: a trial's threads and processes are part of what it is."""

MORE = ("search.trials", "confirm.top", "confirm.seeds")
NEW_ONES = ("arms.", "variants.", "baselines.")


@dataclass(frozen=True)
class Added:
    """What a sweep gets beside what it began with.

    Attributes:
        spec: of both together.
        what: the additions, for people.
        command_line: with which the sweep goes on from now on.
    """

    spec: Spec
    what: list[str]
    command_line: CommandLine


def changes(
    spec: Spec, plan: dict[str, Any], world: World, more: Mapping[str, int], *, as_begun: bool = False
) -> Added | None:
    """What the file of a sweep, as it is now, and ``more`` trials or seeds add to it; None for nothing.

    Args:
        spec: with which the sweep began, or was last extended.
        plan: of the sweep.
        world: for reading the file.
        more: ``trials`` and ``seeds`` as in ``extend``.
        as_begun: leaves aside that the file has changed.

    Raises:
        WslSweepError: what changed would change the meaning of old trials, or takes away; all the differences. Or
            ``more`` is not more.
    """
    before = command_line_of(plan)
    line = replace(before, trials=more.get("trials", before.trials), seeds=more.get("seeds", before.seeds))
    text = spec.text if as_begun else _text_now(plan, spec.text)
    if text == spec.text and line == before:
        return None
    with reading(Reading(plan.get("folder"))):
        now = parse_spec(text, str(plan["source"]), line, default_name=spec.name, world=world)
    _check_more(spec, now, more)
    added, changed = compare(spec, now)
    if changed:
        raise WslSweepError(
            f"{plan['source']} changed since the sweep {spec.name} began, and its old trials would not mean the same:\n"
            + "".join(f"    {difference}\n" for difference in changed)
            + "put that back; or leave the sweep as it began (--as-begun); or start another one under another --name"
        )
    if not added and text == spec.text:
        return None
    return Added(now, added or ["nothing that trials read"], line)


def compare(before: Spec, now: Spec) -> tuple[list[str], list[str]]:
    """The differences that only add, and those that change what was there."""
    old, new = _facts(before), _facts(now)
    added: list[str] = []
    changed: list[str] = []
    for path in dict.fromkeys((*old, *new)):
        was, is_now = old.get(path, ABSENT), new.get(path, ABSENT)
        if was == is_now:
            continue
        told = f"{path}: {_short(was)} → {_short(is_now)}"
        (added if _only_adds(path, was, is_now) else changed).append(told)
    return added, changed


def _facts(spec: Spec) -> dict[str, Any]:
    """Everything that a file says, by dotted path; what is not said by its default."""
    facts: dict[str, Any] = {f"run.{path}": value for path, value in spec.flat_config({}).items()}
    facts |= {f"space.{path}": _distribution(distribution) for path, distribution in spec.space.items()}
    for name in ("arms", "variants", "baselines"):
        facts |= {f"{name}.{key}": dict(value) for key, value in getattr(spec, name).items()}
    for name in ("search", "confirm", "compare", "scheduler", "resources", "budget", "tracking", "bank"):
        section = getattr(spec, name)
        values = section.model_dump() if section is not None else {}
        facts |= {f"{name}.{key}": value for key, value in values.items() if key not in ("arms", "baselines")}
    facts["resources.processes"] = spec.processes
    if spec.search is not None:
        facts["search.trials"] = {arm: search_trials(spec, overrides) for arm, overrides in spec.arms.items()}
    facts["seeds"] = list(spec.seeds)
    facts["keep"], facts["description"] = spec.keep, spec.description
    return facts


def _distribution(distribution: Any) -> dict[str, Any]:
    if distribution.kind == "grid":
        return {"grid": list(distribution.values), "when": dict(distribution.when)}
    return {"distribution": repr(distribution)}


def _only_adds(path: str, was: Any, is_now: Any) -> bool:
    if path.startswith(FREE) and not path.startswith(BOUND):
        return True
    if path == "search.trials":
        return isinstance(was, dict) and isinstance(is_now, dict) and all(is_now.get(arm, 0) >= was[arm] for arm in was)
    if path in MORE:
        return isinstance(was, int) and isinstance(is_now, int) and is_now >= was
    if path.startswith(NEW_ONES):
        return bool(was == ABSENT)
    if path == "seeds":
        return set(was) <= set(is_now)
    if path.startswith("space.") and isinstance(was, dict) and isinstance(is_now, dict) and "grid" in was:
        return was["when"] == is_now.get("when") and all(value in is_now.get("grid", ()) for value in was["grid"])
    return False


def _check_more(before: Spec, now: Spec, more: Mapping[str, int]) -> None:
    have: dict[str, Callable[[Spec], int]] = {
        "trials": lambda spec: max((search_trials(spec, arm) for arm in spec.arms.values()), default=0),
        "seeds": lambda spec: spec.confirm.seeds if spec.confirm is not None else len(spec.seeds),
    }
    for name, wanted in more.items():
        has = have[name](before)
        if wanted <= has and have[name](now) <= has:
            raise WslSweepError(
                f"--{name} {wanted}: the sweep {before.name} has {has} already; --{name} says how many there shall be "
                "in all"
            )


def _text_now(plan: Mapping[str, Any], begun: str) -> str:
    """The sweep's file as it lies there now; as it was where it is not there any more."""
    try:
        return Path(str(plan.get("folder") or "."), str(plan["source"])).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, KeyError):
        return begun


def _short(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"distribution"}:
        return str(value["distribution"])
    return str(value)
