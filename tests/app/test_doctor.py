"""``wsl-sweep doctor`` on this machine, and what it makes of a node's answers; real clusters: tests/cluster."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from wsl_sweep.app import RunOptions, doctor
from wsl_sweep.app.doctor import Check, Report, doctor_table, examine
from wsl_sweep.app.planning import LIBRARIES, versions
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec import SpecErrors
from wsl_sweep.storage import place
from wsl_sweep.sweep import nodes
from wsl_sweep.sweep.nodes import ask_node
from wsl_sweep.tracking import Tracking

ALPHA = Path(__file__).parents[2] / "search_spaces" / "alpha.yaml"

FOLDER = 'run: {{recipe: image_folder, dataset: {{root: "{root}"}}, student: {{model: "{model}"}}}}\nvariants: [ce]\n'


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nodes, "_cards", lambda _: {"names": []})
    monkeypatch.setitem(nodes._ANSWERS, "cards", lambda _: {"names": []})  # importing torch anew takes seconds


def only(report: Report, what: str) -> Check:
    (check,) = [one for one in report.checks if one.what == what]
    return check


def test_a_machine_that_is_right_has_no_problem_and_nothing_is_left(tmp_path: Path) -> None:
    report = examine(ALPHA)
    assert report.ok, report.problems
    assert {one.node for one in report.checks} == {"this machine", "driver"}
    assert {one.what for one in report.checks} == {
        "versions", "cache", "cards", "data digits", "storage", "tracking", "room",
    }  # fmt: skip
    assert "scikit-learn" in only(report, "data digits").found
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_wrong_is_told_as_ever(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("run: {recipe: nonsense}\nvariants: [ce]\n")
    with pytest.raises(SpecErrors, match="nonsense"):
        examine(tmp_path / "file.yaml")
    with pytest.raises(WslSweepError, match="no such file"):
        examine(tmp_path / "absent.yaml")


def test_without_a_file_the_machine_alone_is_looked_at() -> None:
    report = examine()
    assert report.ok
    assert "room" not in {one.what for one in report.checks}


@pytest.mark.parametrize(
    ("root", "told"),
    [("/absent/pictures", "there is no such folder"), ("${WSL_SWEEP_TEST_NOT_SET}/pictures", "WSL_SWEEP_TEST_NOT_SET")],
)
def test_absent_data_are_a_problem_with_a_mend(tmp_path: Path, root: str, told: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(FOLDER.format(root=root, model="wrn_16_1"))
    check = only(examine(file), "data image_folder")
    assert check.status == "problem"
    assert told in check.found
    assert "dataset.root" in check.todo


def test_pictures_that_are_there_are_counted(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "1.png").write_bytes(b"not looked into")
    file = tmp_path / "file.yaml"
    file.write_text(FOLDER.format(root=tmp_path / "data", model="wrn_16_1"))
    assert only(examine(file), "data image_folder").found.startswith("2 pictures of 2 classes")


def test_a_users_task_is_looked_for_like_any_other_module(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text('run: {recipe: digits, dataset: {name: "absent_tasks_module:Own"}}\nvariants: [ce]\n')
    report = examine(file)
    assert only(report, "data absent_tasks_module:Own").found == "is made by its code"
    check = only(report, "absent_tasks_module:Own")
    assert (check.status, "no module is called" in check.found) == ("problem", True)


def test_cifar_that_is_absent_will_be_downloaded(tmp_path: Path) -> None:
    answer = ask_node({"data": [{"name": "cifar100", "root": str(tmp_path / "new" / "data")}]})
    (check,) = doctor._data_checks("node", answer, None)
    assert (check.what, check.status) == ("data cifar100", "warning")
    (tmp_path / "new").write_text("in the way")
    answer = ask_node({"data": [{"name": "cifar100", "root": str(tmp_path / "new" / "data")}]})
    assert doctor._data_checks("node", answer, None)[0].status == "problem"


@pytest.mark.parametrize(
    ("code", "told"),
    [(None, "no module is called"), ("1 / 0", "ZeroDivisionError"), ("x = 1", 'nothing called "small"')],
)
def test_a_users_module_that_cannot_be_imported_is_a_problem(tmp_path: Path, code: str | None, told: str) -> None:
    name = f"module_of_{abs(hash(tmp_path))}"
    (tmp_path / "inner").mkdir()
    if code is not None:
        (tmp_path / "inner" / f"{name}.py").write_text(code)
    file = tmp_path / "inner" / "file.yaml"
    file.write_text(FOLDER.format(root=tmp_path, model=f"{name}:small"))
    check = only(examine(file), f"{name}:small")
    assert check.status == "problem"
    assert told in check.found


def test_a_storage_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = only(examine(options=RunOptions(storage=str(tmp_path / "file" / "runs"))), "storage")
    assert check.status == "problem"
    assert str(tmp_path / "file") in check.found


def test_a_storage_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "runs" / "alpha").mkdir(parents=True)
    assert only(examine(), "storage").status == "ok"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["alpha"]


def test_a_node_with_another_folder_of_the_same_name_is_found_out_on_either_side(tmp_path: Path) -> None:
    with doctor._test_folder(place(tmp_path / "runs")) as test:
        asked = test.asked("node")
        assert asked is not None
        away = ask_node({"storage": {**asked, "folder": str(tmp_path / "other" / ".doctor-1")}})
        (check,) = test.checks("node", "node", away)
        assert check.status == "problem"
        assert "not the driver's folder" in check.found
        here = ask_node({"storage": asked})
        assert test.checks("node", "node", here)[0].status == "ok"
        unseen = {"storage": {"read": True, "deleted": True, "shared": True}}
        assert test.checks("another", "another", unseen)[0].status == "problem"
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "runs").exists()


# --- tracking, token -------------------------------------------------------------------------------------------------


def tracking_check(uri: str) -> Check:
    return doctor._tracking_checks(doctor._Subject(None, None, Tracking(uri, "")))[0]


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        check = tracking_check(f"http://user:secret@127.0.0.1:{probe.getsockname()[1]}")
    assert check.status == "problem"
    assert "secret" not in check.found
    assert check.found.endswith("Connection refused")


def test_a_store_that_answers_is_right(empty_database: Path, tmp_path: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    assert doctor._server(f"sqlite:///{tmp_path / 'mlflow.db'}") == {"found": "answers"}
    assert tracking_check(f"sqlite:///{tmp_path / 'mlflow.db'}").found.startswith("can be written")


def test_a_database_that_is_none_or_whose_folder_is_absent_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are notes, and no database; " * 100)
    check = tracking_check("sqlite:///notes.db")
    assert check.status == "problem"
    assert "not a database" in check.found
    assert tracking_check(f"sqlite:///{tmp_path / 'absent' / 'mlflow.db'}").status == "problem"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "token"
    path.write_text("0" * 64)
    path.chmod(0o600)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


def test_a_token_must_be_there_used_and_the_users_own(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._token_check(False).status == "problem"
    assert doctor._token_check(True).status == "warning"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert doctor._token_check(False) == Check("driver", "token", "ok", f"in {token}")
    token.chmod(0o644)
    assert doctor._token_check(False) == Check(
        "driver", "token", "warning", f"{token} can be read by others", f"chmod 600 {token}"
    )
    token.unlink()
    assert doctor._token_check(False).status == "problem"


def test_a_cluster_without_a_token_is_not_joined(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = examine(options=RunOptions(address="127.0.0.1:1", storage="runs", tracking_uri="sqlite:///mlflow.db"))
    assert [one.what for one in report.problems] == ["token"]


# --- a node's answers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    return ask_node({"versions": list(LIBRARIES)})


def with_versions(own: dict[str, Any], **changed: str) -> dict[str, Any]:
    return {"versions": {**own["versions"], "versions": own["versions"]["versions"] | changed}}


def test_the_drivers_versions_are_right(own: dict[str, Any]) -> None:
    assert own["versions"]["versions"] == versions()
    assert doctor._version_check("node", own, own) == Check("node", "versions", "ok", "the driver's")


@pytest.mark.parametrize(
    ("library", "status"),
    [("torch", "problem"), ("python", "problem"), ("ray", "problem"), ("wsl-sweep", "problem"), ("mlflow", "warning")],
)
def test_other_versions_are_told_with_both_numbers(own: dict[str, Any], library: str, status: str) -> None:
    check = doctor._version_check("node", with_versions(own, **{library: "1.2.3"}), own)
    assert check.status == status
    assert check.found == f"{library} 1.2.3 (driver: {versions()[library]})"
    assert f"{library}=={versions()[library]}" in check.todo


def test_another_build_of_the_same_torch_is_a_warning(own: dict[str, Any]) -> None:
    release = versions()["torch"].partition("+")[0]
    assert doctor._version_check("node", with_versions(own, torch=f"{release}+cu999"), own).status == "warning"


def test_another_commit_of_the_same_version_is_a_problem(own: dict[str, Any]) -> None:
    other = {"versions": {**own["versions"], "code": "0" * 16}}
    check = doctor._version_check("node", other, own)
    assert check.status == "problem"
    assert "commit" in check.todo


@pytest.mark.parametrize(("lead", "status"), [(0.3, "ok"), (-4.9, "ok"), (5.1, "warning"), (-3600.0, "warning")])
def test_clocks_that_differ_are_told(lead: float, status: str) -> None:
    check = doctor._clock_check("node", {"clock": {"time": 0.0, "lead": lead}})
    assert check.status == status
    if status == "warning":
        assert ("ahead" if lead > 0 else "behind") in check.found


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"folder": "/c", "free": 10**12}, "ok"),
        ({"folder": "/c", "free": 4 * 10**9}, "warning"),
        ({"error": "PermissionError: [Errno 13] Permission denied: '/c'"}, "problem"),
    ],
)
def test_a_cache_needs_room_and_must_be_written(answer: dict[str, Any], status: str) -> None:
    assert doctor._cache_checks("node", {"cache": answer})[0].status == status


@pytest.mark.parametrize(
    ("names", "has", "status"),
    [
        ([], {"CPU": 4.0}, "ok"),
        (["NVIDIA A100-SXM4-40GB"], {"GPU": 1.0, "accelerator_type:A100": 1.0}, "ok"),
        (["NVIDIA A100-SXM4-40GB"], {"GPU": 2.0, "accelerator_type:A100": 1.0}, "problem"),
        (["NVIDIA A100-SXM4-40GB"] * 2, {"CPU": 4.0}, "warning"),
        (["Tesla T4"], {"GPU": 1.0, "accelerator_type:A100": 1.0}, "warning"),
    ],
)
def test_cards_are_what_ray_says_they_are(names: list[str], has: dict[str, float], status: str) -> None:
    (check,) = doctor._card_checks("node", {"cards": {"names": names}}, has)
    assert check.status == status


def test_a_torch_that_does_not_work_is_a_problem() -> None:
    error = "RuntimeError: operator torchvision::nms does not exist"
    (check,) = doctor._card_checks("node", {"cards": {"error": error}}, {"CPU": 1.0})
    assert check.status == "problem"
    assert "torchvision::nms" in check.found


def test_one_question_that_fails_or_hangs_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hang = threading.Event()

    def fail(_: Any) -> dict[str, Any]:
        raise RuntimeError("broken")

    answers: dict[str, Callable[[Any], dict[str, Any]]] = {
        "one": lambda _: {"waited": hang.wait(60)}, "two": fail, "three": lambda asked: {"asked": asked},
    }  # fmt: skip
    monkeypatch.setattr(nodes, "_ANSWERS", answers)
    monkeypatch.setattr(nodes, "QUESTION_SECONDS", 0.3)
    try:
        found = ask_node({"three": 3, "two": 2, "one": 1})
    finally:
        hang.set()
    assert found["one"] == {"error": "no answer within 0 s"}
    assert found["two"]["error"].startswith("RuntimeError: broken")
    assert found["three"] == {"asked": 3}
    assert set(found) == {"node", "one", "two", "three", "clock"}


def test_answers_are_plain_data() -> None:
    answers = ask_node({"versions": list(LIBRARIES), "cache": None, "data": [{"name": "digits", "root": None}],
                        "modules": {"names": ["json:loads", "absent_module:x"], "folders": []}})  # fmt: skip
    assert json.loads(json.dumps(answers)) == answers
    assert answers["cache"]["free"] > 0
    assert "error" in answers["modules"]["names"]["absent_module:x"]


def test_nodes_with_the_same_host_are_told_apart() -> None:
    def node(host: str, address: str, number: str) -> dict[str, Any]:
        return {"NodeManagerHostname": host, "NodeName": address, "NodeID": number * 8}

    named = doctor._named([node("a", "10.0.0.1", "1"), node("b", "10.0.0.2", "2"), node("b", "10.0.0.3", "3"),
                           node("b", "10.0.0.3", "4")])  # fmt: skip
    assert list(named) == ["a", "b (10.0.0.2)", "b (10.0.0.3)", "b (10.0.0.3) 444444"]


# --- the report ------------------------------------------------------------------------------------------------------


def test_a_report_is_right_without_problems_and_can_be_read_as_json() -> None:
    right = Report([Check("a", "clock", "ok", "the driver's"), Check("a", "cache", "warning", "full", "make room")])
    wrong = Report([*right.checks, Check("b", "storage", "problem", "absent", "mount it")])
    assert (right.ok, wrong.ok) == (True, False)
    assert [one.node for one in wrong.problems] == ["b"]
    read = json.loads(wrong.to_json())
    assert read["ok"] is False
    assert [Check(**one) for one in read["checks"]] == wrong.checks


def test_nodes_of_which_the_same_is_true_have_one_line_and_problems_come_last() -> None:
    checks = [Check("sick", "storage", "problem", "[red]absent", "mount it")]
    checks += [Check(f"n{number}", "clock", "ok", "the driver's") for number in range(20)]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(doctor_table(Report(checks)))
    lines = [line for line in console.export_text().splitlines() if line.strip()]
    assert len(lines) == 3
    assert "n0, n1, n2 and 17 more" in lines[1]
    assert "[red]absent" in lines[2]
