"""From a real sweep to what a paper and a colleague get: comparison, report, MLflow, notebooks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import nbclient
import nbformat
import pytest

from tests.conftest import REPO, Workplace
from wsl_sweep.analysis import compare, read_sweeps
from wsl_sweep.analysis.curves import FEWEST
from wsl_sweep.app import compare_sweeps, soft_labels

if TYPE_CHECKING:
    from tests.browser import OpenPage

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.slow

SEARCH = """
name: alpha
description: How sensitive are weighted soft labels to their weight?
run:
  recipe: digits
  schedule: {epochs: 6}
  teacher: {model: convnet_8, schedule: {epochs: 6}}
  distillation: {temperature: 4.0, weighting: {kind: exp}}
space:
  distillation.alpha: {uniform: [1.0, 4.0]}
  distillation.temperature: {uniform: [1.0, 8.0]}
search: {sampler: random, trials: 9}
scheduler: {name: asha, grace_epochs: 2}
confirm: {top: 1, seeds: 3, baselines: [kd, ce]}
compare: {baseline: kd, metric: test/accuracy, margin: 0.005}
"""


@pytest.fixture(scope="module")
def swept(new_workplace: Callable[[str], Workplace]) -> Workplace:
    """One sweep that ran to its end."""
    workplace = new_workplace("evidence")
    workplace.write("alpha.yaml", SEARCH)
    (workplace.folder / "output.txt").write_text(workplace.run("run", "alpha.yaml"))
    return workplace


@pytest.fixture
def here(swept: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The sweep's folder as the working folder."""
    monkeypatch.chdir(swept.folder)
    return swept


def parent_of(workplace: Workplace) -> tuple[mlflow.MlflowClient, Any]:
    client = mlflow.MlflowClient(tracking_uri=workplace.uri)
    experiment = client.get_experiment_by_name("alpha")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.sweep = 'alpha'")
    return client, next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)


def test_the_end_of_the_sweep_tells_the_verdict(swept: Workplace) -> None:
    comparisons = swept.summary("alpha")["comparison"]["comparisons"]
    assert [one["row"] for one in comparisons] == ["tuned", "ce"]
    output = " ".join((swept.folder / "output.txt").read_text().split())
    for one in comparisons:
        assert one["sentence"] in output
    assert "Report: runs/alpha/report.html" in output


def test_compare_says_the_same_from_the_storage_and_from_mlflow(here: Workplace) -> None:
    for arguments in ([], ["--by", "variant"], ["--metric", "validation/loss", "--baseline", "ce"]):
        from_storage = here.run("compare", "alpha", "--format", "json", *arguments)
        from_mlflow = here.run("compare", "alpha", "--format", "json", "--from-mlflow", here.uri, *arguments)
        assert json.loads(from_storage) == json.loads(from_mlflow)
    summary = here.summary("alpha")["comparison"]
    assert json.loads(here.run("compare", "alpha", "--format", "json")) == summary
    assert all(row["ci95_seeds_and_examples"] is not None for row in summary["rows"])


def test_the_values_are_those_of_the_trials(here: Workplace) -> None:
    trials = {trial["trial_id"]: trial for trial in here.summary("alpha")["trials"]}
    compared = compare_sweeps(["alpha"])
    for row in compared.rows:
        for seed, value in row.by_seed.items():
            (trial_id,) = row.trial_ids[seed]
            assert trials[trial_id]["metrics"]["test/accuracy"] == value
            assert trials[trial_id]["stage"] == "confirm"
    assert compared.rows[0].tuning_trials == 9
    assert compared.comparisons[0].smaller_budget


def test_the_parent_run_has_verdict_means_report_and_pictures(swept: Workplace, tmp_path: Path) -> None:
    client, parent = parent_of(swept)
    summary = swept.summary("alpha")
    text = parent.data.tags["mlflow.note.content"]
    assert text.startswith("How sensitive are weighted soft labels")
    for one in summary["comparison"]["comparisons"]:
        assert one["sentence"] in text
    for row in summary["comparison"]["rows"]:
        assert parent.data.metrics[f"mean/{row['label']}/test/accuracy"] == row["mean"]
    page = Path(client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))).read_text()
    assert page == (swept.folder / "runs" / "alpha" / "report.html").read_text()
    pictures = [one.path for one in client.list_artifacts(parent.info.run_id, "plots")]
    assert len(pictures) > 5
    assert all(path.endswith(".svg") for path in pictures)


def test_children_can_be_grouped_and_found_by_their_tags(swept: Workplace) -> None:
    client, parent = parent_of(swept)
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}' AND metrics.`test/accuracy` > 0"
    shown = client.search_runs([parent.info.experiment_id], filter_string=query)
    groups: dict[str, int] = {}
    for run in shown:
        groups[run.data.tags["row"]] = groups.get(run.data.tags["row"], 0) + 1
        assert {"sweep", "stage", "variants", "seed", "trial_id", "overrides", "confirmed"} <= set(run.data.tags)
    best = swept.summary("alpha")["comparison"]["rows"][0]["settings"]
    tuned = next(name for name in groups if name.startswith("tuned"))
    assert groups == {tuned: 3, "kd": 3, "ce": 3}
    assert f"alpha={best['distillation.alpha']:.4g}" in tuned


@pytest.mark.parametrize(("width", "height", "dark"), [(360, 740, True), (820, 1180, False), (1440, 900, False)])
def test_the_report_in_a_browser(swept: Workplace, open_page: OpenPage, width: int, height: int, dark: bool) -> None:
    path = swept.folder / "runs" / "alpha" / "report.html"
    page = open_page(path, width, height, dark)
    assert page.console_errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.run("return document.documentElement.scrollWidth") <= width
    text = page.run("return document.body.innerText")
    summary = swept.summary("alpha")
    for row in summary["comparison"]["rows"]:
        assert f"{row['mean']:.4f}" in text
    for one in summary["comparison"]["comparisons"]:
        assert one["headline"] in text
    pruned = sum(trial["status"] == "pruned" for trial in summary["trials"])
    assert f"asha stopped {pruned} of 9 trials" in text
    for heading in ("Verdict", "Response curves", "Parallel coordinates", "Parameter importance", "Learning curves"):
        assert heading in text
    assert "Fewer than 20 finished trials" in text
    assert page.run("return document.querySelectorAll('figure svg').length") > 5
    empty = page.run("return [...document.querySelectorAll('table')].filter(t => !t.querySelector('tbody td')).length")
    assert empty == 0


def test_the_report_of_a_sweep_whose_folder_lost_it_is_the_same(here: Workplace) -> None:
    path = here.folder / "runs" / "alpha" / "report.html"
    before = path.read_text()
    path.unlink()
    assert here.run("report", "alpha").strip() == "runs/alpha/report.html"
    stamp = before.split(" UTC")[0][-16:]  # the moment at which it was made
    again = path.read_text()
    assert again.replace(again.split(" UTC")[0][-16:], stamp) == before


TOLD = {
    "compare_variants": "alpha: ",
    "regularization_samples": "regularization samples: ",
    "why": "the best distilled student is ",
}
"""What a notebook says, by its name."""


@pytest.mark.parametrize("name", TOLD)
def test_a_notebook_runs_on_it(swept: Workplace, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    notebook = nbformat.read(REPO / "notebooks" / f"{name}.ipynb", as_version=4)
    folder = swept.folder / "notebooks"  # where Jupyter would open it, below the sweeps
    folder.mkdir(exist_ok=True)
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures >= 3
    told = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in told
    assert TOLD[name] in told


def test_the_report_says_why(swept: Workplace) -> None:
    text = (swept.folder / "runs" / "alpha" / "report.html").read_text()
    for key in ("regularization-who", "teacher", "bias-variance-seeds", "resemblances"):
        assert f'<section id="{key}">' in text
    searched = [trial["status"] for trial in swept.summary("alpha")["trials"] if trial["stage"] == "search"]
    enough = searched.count("finished") >= FEWEST  # whom the scheduler spares depends on who came first
    assert ('<section id="early-stopping-replay">' in text) == enough
    kept = os.listdir(swept.folder / "runs" / "alpha" / "teacher_logits")
    assert len(kept) == 1


def test_the_teacher_and_the_students_are_diagnosed(here: Workplace) -> None:
    def told(*arguments: str) -> Any:
        output = here.run("diagnose", *arguments, "--json")
        return json.loads(output[output.index("{") :])  # behind what is said of how far it is

    teacher = told("teacher", "alpha")
    trials = here.summary("alpha")["trials"]
    assert {trial["teacher_id"] for trial in trials} - {None} == {teacher["teacher"]}
    assert [one["k"] for one in teacher["top"]] == [1, 2, 3, 4, 5]
    students = told("bias-variance", "alpha")
    (regime,) = students["regimes"]
    assert (regime["over"], regime["seeds"]) == ("seeds", [1000, 1001, 1002])
    for one in regime["students"]:
        terms = one["terms"]["whole"]
        assert terms["bias"]["value"] + terms["variance"]["value"] == pytest.approx(terms["cross_entropy"]["value"])


def test_soft_labels_of_the_best_student(here: Workplace) -> None:
    import torch

    soft = soft_labels("alpha")
    count = len(soft.labels)
    student, teacher = soft.student_logits.double(), soft.teacher_logits.double()
    own, theirs = (
        torch.nn.functional.cross_entropy(logits, soft.labels, reduction="none") for logits in (student, teacher)
    )
    expected = 1 - torch.exp(-own / (theirs + 1e-7))
    torch.testing.assert_close(soft.weights.double(), expected, atol=2e-3, rtol=0)
    assert soft.pictures is not None
    assert soft.pictures.shape[0] == soft.regularization.shape[0] == count
    assert (float(soft.pictures.min()), float(soft.pictures.max())) == (0.0, 1.0)
    assert soft.trial_id in {trial["trial_id"] for trial in here.summary("alpha")["trials"]}


def test_a_server_alone_is_enough(swept: Workplace, tmp_path: Path) -> None:
    """From a copy of the database, without the sweep's folder and without its artifacts."""
    shutil.copy(swept.folder / "mlflow.db", tmp_path / "copy.db")
    (sweep,) = read_sweeps(f"sqlite:///{tmp_path / 'copy.db'}", ["alpha"])
    compared = compare([sweep])
    expected = swept.summary("alpha")["comparison"]
    assert [row["values"] for row in compared.to_json()["rows"]] == [row["values"] for row in expected["rows"]]
    assert sweep.space.keys() == {"distillation.alpha", "distillation.temperature"}
    assert os.listdir(tmp_path) == ["copy.db"]
