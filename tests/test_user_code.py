"""Users' own code: how it is named, found, asked for its parameters, and told about when it fails."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep import user_code
from wsl_sweep.errors import WslSweepError
from wsl_sweep.user_code import arguments_for, find, is_import_name, pick, search_in, source_digest, told

_numbers = itertools.count()

Write = Callable[..., str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module's text where it is found, and gives its name, which no other test has.

    ``inside`` makes it a module of a package: the package's name is given, and its ``__init__.py`` may have a text.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(text: str, inside: str | None = None, init: str = "") -> str:
        name = f"users_code_{next(_numbers)}"
        folder = tmp_path
        if inside is not None:
            folder = tmp_path / inside
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").write_text(init)
        (folder / f"{name}.py").write_text(text)
        search_in([tmp_path])
        return name if inside is None else f"{inside}.{name}"

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("users_"):
            del sys.modules[name]


def error_of(name: str) -> str:
    """What is told of a name that is not found."""
    with pytest.raises(WslSweepError) as caught:
        find(name)
    message = str(caught.value)
    assert message.startswith(f'"{name}"')
    assert "\n" not in message
    return message


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a:b", "package.module:Name", "a.b.c:d", "_a._b:_c", "a1.b2:c3", "größe.maß:τ"])
def test_an_import_name_is_a_module_and_a_name_in_it(name: str) -> None:
    assert is_import_name(name)


@pytest.mark.parametrize("name", [
    "", "kd", "package.module", ":b", "a:", ":", "a:b:c", "a:b.c", ".a:b", "a.:b", "a..b:c", "1a:b", "a:1b", "a.1:b",
    "a b:c", " a:b", "a:b ", "a:b\n", "a-b:c", "a/b:c", "a.py:b()", "C:\\a",
])  # fmt: skip
def test_nothing_else_is_an_import_name(name: str) -> None:
    assert not is_import_name(name)


@pytest.mark.parametrize("name", ["kd", "a.b", "a:b.c", ":b", "a-b:c", ""])
def test_what_has_not_the_form_is_refused_with_the_form(name: str) -> None:
    assert error_of(name).endswith("must have the form package.module:name")


# --- finding ---------------------------------------------------------------------------------------


def test_what_is_installed_is_found() -> None:
    assert find("pathlib:Path") is Path
    assert find("os.path:join") is os.path.join


def test_what_lies_in_the_folders_is_found(module: Write) -> None:
    name = module("def loss(): return 7\nclass Model: pass\nnumber = 3\n_hidden = None\n")
    assert find(f"{name}:loss")() == 7
    assert isinstance(find(f"{name}:Model"), type)
    assert find(f"{name}:number") == 3
    assert find(f"{name}:_hidden") is None


def test_what_lies_in_a_package_is_found(module: Write) -> None:
    name = module("from users_package_a import shared\nvalue = shared + 1\n", "users_package_a", "shared = 41\n")
    assert find(f"{name}:value") == 42
    assert find("users_package_a:shared") == 41


def test_a_folder_comes_after_what_python_finds_itself_and_is_added_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    (tmp_path / "a").mkdir()
    search_in([tmp_path / "a", str(tmp_path)])
    search_in([str(tmp_path), tmp_path / "a"])
    assert sys.path == [*before, str(tmp_path / "a"), str(tmp_path)]


def test_a_users_module_does_not_hide_one_of_pythons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError\n")
    search_in([tmp_path])
    assert callable(find("colorsys:rgb_to_hsv"))


def test_a_module_written_after_the_last_look_is_found(module: Write, tmp_path: Path) -> None:
    """As when a file is added while the program runs: Python remembers a folder's contents until its time changes."""
    assert find(f"{module('value = 1')}:value") == 1
    before = tmp_path.stat().st_mtime_ns
    error_of("users_late:value")
    (tmp_path / "users_late.py").write_text("value = 2\n")
    os.utime(tmp_path, ns=(before, before))
    search_in([tmp_path])
    assert find("users_late:value") == 2


def test_a_module_that_failed_is_imported_anew(module: Write, tmp_path: Path) -> None:
    name = module("value = \n")
    error_of(f"{name}:value")
    (tmp_path / f"{name}.py").write_text("value = 'mended'\n")
    search_in([tmp_path])
    assert find(f"{name}:value") == "mended"


# --- not finding -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "missing"), [
    ("users_nowhere:loss", "users_nowhere"),
    ("users_nowhere.inner.most:loss", "users_nowhere"),
    ("json.nothing:loss", "json.nothing"),
    ("colorsys.nothing:loss", "colorsys.nothing"),
])  # fmt: skip
def test_a_missing_module_is_named_with_where_it_may_lie(name: str, missing: str) -> None:
    message = error_of(name)
    assert f'no module is called "{missing}"' in message
    assert "installed, or lie in the working folder or beside the search-space file" in message


def test_a_module_missing_from_a_users_module_is_told_apart_from_the_users_own(module: Write) -> None:
    name = module("x = 1\nimport users_nowhere.deep\n")
    message = error_of(f"{name}:loss")
    assert f"importing {name} fails: ModuleNotFoundError: No module named 'users_nowhere'" in message
    assert f"({name}.py, line 2)" in message


def test_a_missing_part_of_a_users_own_package_is_told_as_what_the_module_imports(module: Write) -> None:
    name = module("import users_package_b.losses\n", "users_package_b")
    message = error_of(f"{name}:loss")
    assert f"importing {name} fails" in message
    assert "users_package_b.losses" in message


@pytest.mark.parametrize(("asked", "meant"), [("los", "loss"), ("lose", "loss"), ("Modle", "Model"), ("LOSS", None)])
def test_a_missing_name_comes_with_the_nearest_or_with_all_there_are(
    module: Write, asked: str, meant: str | None
) -> None:
    name = module("def loss(): ...\nclass Model: ...\n_loses = 1\n")
    message = error_of(f"{name}:{asked}")
    assert f'{name} has nothing called "{asked}"' in message
    assert message.endswith(f'did you mean "{meant}"?' if meant else "it has: loss, Model")


def test_of_an_empty_module_it_is_said_that_it_has_nothing(module: Write) -> None:
    assert error_of(f"{module('')}:loss").endswith("it has: nothing")


@pytest.mark.parametrize(("text", "wanted", "line"), [
    ("x = 1\nraise RuntimeError('first\\nsecond')\n", "RuntimeError: first", 2),
    ("\n\n{}['key']\n", "KeyError: 'key'", 3),
    ("def f():\n    raise ValueError\nf()\n", "ValueError: no message", 2),
    ("import sys\nsys.exit('stop')\n", "SystemExit: stop", 2),
    ("from json import nothing\n", "ImportError: cannot import name 'nothing' from 'json'", 1),
    ("1 / 0\n", "ZeroDivisionError: division by zero", 1),
    ("undefined\n", "NameError: name 'undefined' is not defined", 1),
])  # fmt: skip
def test_a_module_that_fails_is_told_in_one_line_with_the_place(
    module: Write, text: str, wanted: str, line: int
) -> None:
    name = module(text)
    message = error_of(f"{name}:loss")
    assert f"importing {name} fails: {wanted}" in message
    assert message.endswith(f"({name}.py, line {line})")
    assert "second" not in message


@pytest.mark.parametrize(("text", "line"), [("def f(:\n", 1), ("x = 1\nif x:\ny = 2\n", 3), ("x = 1\n  y = 2\n", 2)])
def test_a_module_that_is_not_python_is_told_with_the_place(module: Write, text: str, line: int) -> None:
    name = module(text)
    message = error_of(f"{name}:loss")
    assert f"importing {name} fails: " in message
    assert message.count(f"({name}.py, line {line})") == 1


def test_a_package_that_fails_is_told_with_its_place(module: Write) -> None:
    name = module("", "users_package_c", "raise OSError('no data')\n")
    assert error_of(f"{name}:loss").endswith("OSError: no data (__init__.py, line 1)")


def test_an_interrupt_is_no_error_of_the_users_code(module: Write) -> None:
    name = module("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        find(f"{name}:loss")


# --- telling ---------------------------------------------------------------------------------------


def raised(action: Callable[[], Any]) -> BaseException:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_is_told_by_its_kind_its_first_line_and_its_place(module: Write) -> None:
    name = module("def outer(text):\n    inner(text)\n\ndef inner(text):\n    raise ValueError(text)\n")
    error = raised(lambda: find(f"{name}:outer")("  a\nb"))
    assert told(error) == f"ValueError: a ({name}.py, line 5)"


def test_an_error_without_a_message_or_without_a_place_is_told_all_the_same() -> None:
    assert told(ValueError()) == "ValueError: no message"
    assert told(ValueError(" \n ")) == "ValueError: no message"
    assert told(KeyError("k")) == "KeyError: 'k'"


def test_the_place_is_in_the_users_code_though_a_library_raised(module: Write) -> None:
    """A line of the user's module, not one of a library that the user has never seen."""
    name = module("import json\n\ndef read():\n    return json.loads('{')\n")
    error = raised(find(f"{name}:read"))
    assert told(error).endswith(f"({name}.py, line 4)")


# --- digests ---------------------------------------------------------------------------------------


def test_the_digest_changes_with_the_modules_file(module: Write, tmp_path: Path) -> None:
    name = module("value = 1\n")
    path = tmp_path / f"{name}.py"
    first = source_digest(f"{name}:value")
    assert first is not None
    assert source_digest(f"{name}:another") == first
    path.write_text("value = 2\n")
    assert source_digest(f"{name}:value") not in (first, None)
    path.write_text("value = 1\n")
    assert source_digest(f"{name}:value") == first


def test_after_an_import_the_digest_is_of_what_was_imported(module: Write, tmp_path: Path) -> None:
    name = module("value = 1\n")
    first = source_digest(f"{name}:value")
    assert find(f"{name}:value") == 1
    (tmp_path / f"{name}.py").write_text("value = 2\n")
    assert source_digest(f"{name}:value") == first


def test_the_digest_changes_with_a_module_beside_it_that_is_imported(module: Write, tmp_path: Path) -> None:
    far = module("value = 1\n")
    near = module(f"from {far} import value\n")
    name = module(f"import os, json\ndef late():\n    import {near}\n")
    stranger = module("value = 1\n")
    first = source_digest(f"{name}:late")
    (tmp_path / f"{stranger}.py").write_text("value = 2\n")
    assert source_digest(f"{name}:late") == first
    (tmp_path / f"{far}.py").write_text("value = 2\n")
    assert source_digest(f"{name}:late") != first


@pytest.mark.parametrize("installed", [False, True])
def test_the_digest_of_what_is_installed_leaves_the_packages_beside_it_alone(
    module: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """All of torch lies beside a module that was installed."""
    monkeypatch.setattr(user_code, "_LIBRARIES", (str(tmp_path),) if installed else ())
    inner = module("value = 1\n", f"users_package_{installed}", "")
    near = module("value = 1\n")
    name = module(f"import {inner}, {near}\n")
    first = source_digest(f"{name}:value")
    (tmp_path / f"users_package_{installed}" / f"{inner.rpartition('.')[2]}.py").write_text("value = 2\n")
    second = source_digest(f"{name}:value")
    assert (second == first) == installed
    (tmp_path / f"{near}.py").write_text("value = 2\n")
    assert source_digest(f"{name}:value") != second


def test_the_digest_of_a_package_is_of_all_its_modules(module: Write, tmp_path: Path) -> None:
    inner = module("value = 1\n", "users_package_e", "")
    first = source_digest("users_package_e:value")
    assert first == source_digest(f"{inner}:value")
    (tmp_path / "users_package_e" / f"{inner.rpartition('.')[2]}.py").write_text("value = 2\n")
    assert source_digest("users_package_e:value") not in (first, None)


def test_taking_a_digest_does_not_run_the_module(module: Write) -> None:
    name = module("raise RuntimeError('ran')\n")
    assert source_digest(f"{name}:value") is not None
    assert name not in sys.modules


@pytest.mark.parametrize("name", ["users_nowhere:x", "users_nowhere.a:x", "sys:x", ":x", ""])
def test_what_has_no_source_file_has_no_digest(name: str) -> None:
    assert source_digest(name) is None


@pytest.mark.parametrize("init", ["raise RuntimeError('no data')\n", "def f(:\n", "import users_nowhere\n", "1 / 0\n"])
def test_a_package_is_not_run_for_its_digest(module: Write, init: str) -> None:
    """What is wrong with it, ``find`` tells."""
    name = module("value = 1\n", f"users_package_f{next(_numbers)}", init)
    assert source_digest(f"{name}:value") is not None


# --- parameters ------------------------------------------------------------------------------------

OFFERED = ("student", "teacher", "labels")


def taken(function: Callable[..., Any]) -> dict[str, str]:
    return arguments_for(function, OFFERED)


class Called:
    def __call__(self, teacher: Any, q: Any) -> None: ...

    def method(self, a: Any, labels: Any) -> None: ...

    @staticmethod
    def static(labels: Any) -> None: ...


class Made:
    def __init__(self, student: Any, width: int = 8) -> None: ...


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


CASES: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "none": (lambda: 0, {}),
    "all by name": (
        lambda labels, student, teacher: 0,
        {"labels": "labels", "student": "student", "teacher": "teacher"},
    ),
    "some by name": (lambda teacher: 0, {"teacher": "teacher"}),
    "all by position": (lambda a, b, c: 0, {"a": "student", "b": "teacher", "c": "labels"}),
    "some by position": (lambda a: 0, {"a": "student"}),
    "a position of its own": (
        lambda student, teacher, q: 0,
        {"student": "student", "teacher": "teacher", "q": "labels"},
    ),
    "a name out of its place": (lambda labels, q: 0, {"labels": "labels", "q": "teacher"}),
    "a default stays": (lambda a, k=3: 0, {"a": "student"}),
    "a default under an offered name does not": (lambda labels=None: 0, {"labels": "labels"}),
    "by keyword only": (lambda *, labels, scale=1.0: 0, {"labels": "labels"}),
    "everything": (lambda **rest: 0, {name: name for name in OFFERED}),
    "one and the rest": (lambda a, **rest: 0, {"a": "student", "teacher": "teacher", "labels": "labels"}),
    "more than a name and the rest": (
        lambda labels, k=1, **rest: 0,
        {"labels": "labels", "student": "student", "teacher": "teacher"},
    ),
    "an object that is called": (Called(), {"teacher": "teacher", "q": "teacher"}),
    "a method": (Called().method, {"a": "student", "labels": "labels"}),
    "a static method": (Called.static, {"labels": "labels"}),
    "a class": (Made, {"student": "student"}),
    "a part of a function": (functools.partial(lambda a, b, k: 0, k=5), {"a": "student", "b": "teacher"}),
    "behind a decorator": (decorated(lambda teacher, q: 0), {"teacher": "teacher", "q": "teacher"}),
}
CLASHING = {"an object that is called", "behind a decorator"}


@pytest.mark.parametrize("case", [case for case in CASES if case not in CLASHING])
def test_a_function_takes_by_name_or_else_by_position(case: str) -> None:
    function, wanted = CASES[case]
    assert taken(function) == wanted
    values = {name: object() for name in OFFERED}
    arguments = pick(wanted, values)
    assert arguments == {parameter: values[name] for parameter, name in wanted.items()}
    function(**arguments)


@pytest.mark.parametrize("case", sorted(CLASHING))
def test_what_stands_twice_is_refused(case: str) -> None:
    """``teacher`` by its name, and once more as what stands second."""
    with pytest.raises(WslSweepError, match="not clear which of its parameters is teacher: use the names student, "):
        taken(CASES[case][0])


@pytest.mark.parametrize(("function", "match"), [
    (lambda a, b, c, d: 0, '"d" is none of those that are given: student, teacher, labels'),
    (lambda student, *, margins: 0, '"margins" is none of those'),
    (lambda a, /: 0, '"a" is positional only'),
    (lambda student, /, labels: 0, '"student" is positional only'),
    (lambda teacher, a: 0, "not clear which of its parameters is teacher"),
    (lambda a, student: 0, "not clear which of its parameters is student"),
    (3, "cannot be read"),
    (type, "cannot be read"),
])  # fmt: skip
def test_what_cannot_be_given_is_refused_by_name(function: Any, match: str) -> None:
    with pytest.raises(WslSweepError, match=match):
        taken(function)


def test_what_is_picked_is_what_was_chosen_under_the_functions_own_names() -> None:
    assert pick({"a": "student", "labels": "labels"}, {"student": 1, "teacher": 2, "labels": 3}) == {
        "a": 1,
        "labels": 3,
    }
    assert pick({}, {"student": 1}) == {}
    with pytest.raises(KeyError, match="teacher"):
        pick({"a": "teacher"}, {"student": 1})
