"""Finding and calling what a user has written: ``package.module:name`` in a search-space file."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from wsl_sweep.errors import WslSweepError

_LIBRARIES = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
"""Folders in which what is installed lies side by side."""

_NOT_THE_USERS = (f"{Path(__file__).parent}{os.sep}", *(f"{folder}{os.sep}" for folder in _LIBRARIES))
"""Beginnings of the paths of code that a user has not written."""

_IMPORT_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_import_name(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:name``."""
    return _IMPORT_NAME.fullmatch(name) is not None


def search_in(folders: Sequence[str | Path]) -> None:
    """Lets modules be found in ``folders``, after all that is on Python's own path."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()


def find(name: str) -> Any:
    """The object called ``package.module:name``.

    Raises WslSweepError: the form, the module or the name is wrong, or importing the module fails.
    """
    if not is_import_name(name):
        raise WslSweepError(f'"{name}" must have the form package.module:name')
    module_name, _, attribute = name.partition(":")
    _found.setdefault(module_name, source_digest(name))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise WslSweepError(
                f'"{name}": no module is called "{error.name}"; it must be installed, or lie in the working folder or '
                "beside the search-space file"
            ) from error
        raise WslSweepError(f'"{name}": importing {module_name} fails: {told(error)}') from error
    except (Exception, SystemExit) as error:
        raise WslSweepError(f'"{name}": importing {module_name} fails: {told(error)}') from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        own = [known for known in vars(module) if not known.startswith("_")]
        close = get_close_matches(attribute, own, n=1, cutoff=0.5)
        hint = f'did you mean "{close[0]}"?' if close else f"it has: {', '.join(own[:12]) or 'nothing'}"
        raise WslSweepError(f'"{name}": {module_name} has nothing called "{attribute}"; {hint}') from error


def told(error: BaseException) -> str:
    """An error in one line, with the place in the user's code where it was raised."""
    lines = str(error).strip().splitlines()
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(("<frozen ", *_NOT_THE_USERS)):
            where = f" ({Path(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}{where}"


_found: dict[str, str | None] = {}
"""Digests of what this process has imported: the code that runs is the one that was read then."""


def source_digest(name: str) -> str | None:
    """SHA-256 (16 hex digits) of the source behind ``package.module:name``, or None where there is none.

    Of a package all of its modules; of a single module its file, and those of the modules beside it that it imports,
    and so on, but not the packages that are installed beside it. Nothing is imported or run for it.
    """
    module = name.partition(":")[0]
    if module in _found:
        return _found[module]
    try:
        spec = PathFinder.find_spec(module.partition(".")[0])
        if spec is None:
            return None
        if spec.submodule_search_locations:
            files = [path for place in spec.submodule_search_locations for path in sorted(Path(place).rglob("*.py"))]
        elif spec.origin is not None:
            files = _with_neighbours(Path(spec.origin))
        else:
            return None
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]
    except (ImportError, OSError, ValueError):
        return None


def _with_neighbours(file: Path) -> list[Path]:
    """A module's file and those of the modules beside it that it imports, directly or not, in order of their names."""
    installed = str(file.parent) in _LIBRARIES  # where torch lies beside it, of which no hash is wanted here
    seen: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen[path] = None
        for name in _imported(path):
            beside = [path.parent / f"{name}.py"]
            beside += [] if installed else sorted((path.parent / name).rglob("*.py"))
            waiting += [one for one in beside if one.is_file()]
    return sorted(seen)


def _imported(path: Path) -> set[str]:
    """The first parts of the names that a file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def arguments_for(function: Callable[..., Any], offered: Sequence[str]) -> dict[str, str]:
    """Which of the offered arguments a user's function takes: its parameter's name → the offered one.

    A parameter with an offered name gets that argument. Another one without a default gets the offered argument at its
    own position. One with a default keeps it. ``**kwargs`` gets all that is left.

    Raises WslSweepError: a parameter gets nothing, or cannot be passed by name (``*args`` among them).
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise WslSweepError(f"its parameters cannot be read ({error})") from error
    taken: dict[str, str] = {}
    everything = False
    for position, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            if any(other.kind is other.VAR_KEYWORD for other in parameters):
                continue  # what passes everything on
            raise WslSweepError(f"it takes *{parameter.name}; arguments are given by name")
        if parameter.kind is parameter.VAR_KEYWORD:
            everything = True
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise WslSweepError(f'its parameter "{parameter.name}" is positional only; arguments are given by name')
        elif parameter.name in offered:
            taken[parameter.name] = parameter.name
        elif parameter.default is parameter.empty:
            if parameter.kind is parameter.KEYWORD_ONLY or position >= len(offered):
                raise WslSweepError(
                    f'its parameter "{parameter.name}" is none of those that are given: {", ".join(offered)}'
                )
            taken[parameter.name] = offered[position]
    twice = {name for name in taken.values() if list(taken.values()).count(name) > 1}
    if twice:
        raise WslSweepError(
            f"it is not clear which of its parameters is {sorted(twice)[0]}: use the names {', '.join(offered)}"
        )
    if everything:
        taken |= {name: name for name in offered if name not in taken.values()}
    return taken


def pick(taken: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that ``arguments_for`` chose."""
    return {parameter: values[name] for parameter, name in taken.items()}
