"""A student that is taken away says what it said in its sweep, in every form; and its card says what is so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.conftest import REPO
from tests.sweep.fakes import spec_of
from wsl_sweep.analysis.summary import build_summary
from wsl_sweep.app import Exported, export_student, exporting, load_exported
from wsl_sweep.app.results import best_student
from wsl_sweep.cli import app
from wsl_sweep.data import TaskData, load
from wsl_sweep.errors import DamagedStudentError, WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec.identity import teacher_identity
from wsl_sweep.spec.plan import Trial, grid_points, make_trial
from wsl_sweep.spec.run import flatten
from wsl_sweep.sweep.ledger import fold
from wsl_sweep.training import TeacherStore

from .exported_sweep import COMMIT, MadeSweep

SMALL = """
  recipe: digits
  schedule: {epochs: 2, milestones: []}
  student: {model: convnet_2}
"""
WITH_TEACHER = f"""{SMALL}  teacher: {{model: convnet_3, schedule: {{epochs: 2, milestones: []}}}}
"""
TRAINED = f"""
name: trained
description: "Whose password=secret is in postgres://me:secret@host/db?"
run: {WITH_TEACHER}
variants: {{wsl: {{distillation.alpha: 2.5}}, ce: {{distillation.method: none}}}}
seeds: 2
bank: {{precision: float16, top_k: 4}}
"""
FORMATS = ("safetensors", "onnx", "torch-export")


@pytest.fixture(autouse=True)
def on_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU, with torch's threads and Python's path put back."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> MadeSweep:
    """A finished ablation of two variants and two seeds, trained in this process; not to be changed."""
    made = MadeSweep(tmp_path_factory.mktemp("trained") / "runs", TRAINED)
    for trial in made.trials:
        made.train(trial)
    made.evaluate()
    return made


@pytest.fixture
def copied(trained: MadeSweep, tmp_path: Path) -> Path:
    """A storage of its own with the same sweep."""
    shutil.copytree(trained.storage, tmp_path / "runs")
    return tmp_path / "runs"


def export(made: MadeSweep, to: Path, **options: Any) -> Exported:
    said: list[str] = []
    return export_student(made.name, storage=str(made.storage), to=to, say=said.append, **options)


@pytest.fixture(scope="module", params=FORMATS)
def taken(request: pytest.FixtureRequest, trained: MadeSweep, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The first trial's student, in each format."""
    first = trained.trials[0]
    to = tmp_path_factory.mktemp("taken") / request.param
    return export(trained, to, trial=first.trial_id, format=request.param)


def own_student(made: MadeSweep, trial: Trial) -> tuple[nn.Module, TaskData]:
    """Put together from the sweep's folder by hand."""
    data = load(trial.config["dataset"])
    student = build(trial.config["student"]["model"], data.num_classes, data.in_channels)
    student.load_state_dict(load_file(made.trial_folder(trial) / "student.safetensors"))
    return student.eval(), data


def own_logits(made: MadeSweep, trial: Trial, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Validation pictures, and what the student says of them."""
    student, data = own_student(made, trial)
    pictures = data.validation.views.plain(torch.arange(count or len(data.validation)))
    with torch.no_grad():
        return pictures, student(pictures)


def assert_near(theirs: Tensor, own: Tensor) -> None:
    assert float((theirs - own).abs().max()) <= 1e-4 * float(own.abs().max())
    assert torch.equal(theirs.argmax(dim=1), own.argmax(dim=1))


def summary_of(made: MadeSweep) -> dict[str, Any]:
    return build_summary(made.spec, fold(made.ledger.events()), uuid="u")


# --- the three formats -----------------------------------------------------------------------------------------------


def test_safetensors_are_the_students_own_bits(trained: MadeSweep, tmp_path: Path) -> None:
    trial = trained.trials[0]
    exported = export(trained, tmp_path / "out", trial=trial.trial_id)
    assert exported.files == ("README.md", "config.json", "model.safetensors")
    config = json.loads((exported.folder / "config.json").read_text())
    model = build(config["model"], config["num_classes"], config["in_channels"])
    model.load_state_dict(load_file(exported.folder / "model.safetensors"))
    pictures, own = own_logits(trained, trial)
    with torch.no_grad():
        assert torch.equal(model.eval()(pictures), own)
    theirs = load_file(exported.folder / "model.safetensors")
    kept = load_file(trained.trial_folder(trial) / "student.safetensors")
    assert {name: tensor.dtype for name, tensor in theirs.items()} == {n: t.dtype for n, t in kept.items()}
    assert all(torch.equal(theirs[name], tensor) for name, tensor in kept.items())
    with safe_open(exported.folder / "model.safetensors", framework="pt") as file:
        told = {"format": "pt", "model": "convnet_2", "num_classes": "10", "in_channels": "1"}
        assert file.metadata() == told


def test_a_student_is_loaded_in_one_call_that_leaves_random_states_alone(trained: MadeSweep, tmp_path: Path) -> None:
    exported = export(trained, tmp_path / "out", trial=trained.trials[0].trial_id)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model = load_exported(exported.folder)
    assert torch.equal(torch.rand(3), expected)
    assert not model.training
    pictures, own = own_logits(trained, trained.trials[0])
    with torch.no_grad():
        assert torch.equal(model(pictures), own)


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"model": "convnet_2"}', b'{"model": 3, "num_classes": "x"}'])
def test_what_describes_no_student_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(WslSweepError, match=r"config\.json does not describe an exported student"):
        load_exported(tmp_path)


def test_onnx_says_the_same_by_another_runtime_for_any_number_of_pictures(trained: MadeSweep, tmp_path: Path) -> None:
    trial = trained.trials[0]
    exported = export(trained, tmp_path / "out", trial=trial.trial_id, format="onnx")
    assert exported.files == ("README.md", "config.json", "model.onnx")
    model = onnx.load(exported.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"images": ["batch", 1, 8, 8], "logits": ["batch", 10]}
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx")
    pictures, own = own_logits(trained, trial)
    for count in (1, 3, len(pictures)):
        (theirs,) = session.run(["logits"], {"images": pictures[:count].contiguous().numpy()})
        assert_near(torch.from_numpy(theirs), own[:count])


@pytest.mark.slow
def test_torch_export_needs_nothing_but_torch(trained: MadeSweep, tmp_path: Path) -> None:
    trial = trained.trials[0]
    exported = export(trained, tmp_path / "out", trial=trial.trial_id, format="torch-export")
    assert exported.files == ("README.md", "config.json", "model.pt2")
    pictures, own = own_logits(trained, trial)
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    program = """
import sys, numpy, torch
model = torch.export.load("out/model.pt2").module()
pictures = torch.from_numpy(numpy.load("pictures.npy"))
with torch.no_grad():
    for count in (1, 3, len(pictures)):
        numpy.save(f"logits-{count}.npy", model(pictures[:count]).numpy())
assert not [name for name in sys.modules if name.startswith("wsl_sweep")]
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    for count in (1, 3, len(pictures)):
        assert_near(torch.from_numpy(np.load(tmp_path / f"logits-{count}.npy")), own[:count])


def test_nothing_of_this_machine_is_in_the_files(taken: Exported, trained: MadeSweep) -> None:
    """Neither where code or data lie, nor the pictures of which an example would be made."""
    contents = [(taken.folder / name).read_bytes() for name in taken.files]
    for name in taken.files:
        if zipfile.is_zipfile(taken.folder / name):
            with zipfile.ZipFile(taken.folder / name) as archive:
                contents += [archive.read(entry) for entry in archive.namelist()]
    pictures, _ = own_logits(trained, trained.trials[0])
    for content in contents:
        assert str(REPO).encode() not in content
        assert str(trained.storage.parent).encode() not in content
        assert os.path.dirname(torch.__file__).encode() not in content
        assert pictures[0].contiguous().numpy().tobytes() not in content


OTHERS = ("resnet8", "wrn_16_1", "mobilenetv2", "shufflenetv2", "torchvision:resnet18")


@pytest.mark.parametrize("model", ["convnet_4", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_every_family_of_models_is_exported(model: str, tmp_path: Path) -> None:
    made = MadeSweep(
        tmp_path / "runs", f"name: f\nrun: {{recipe: digits, student: {{model: '{model}'}}}}\nvariants: [ce]\nseeds: 1"
    )
    (trial,) = made.trials
    student = made.untrained(trial)
    pictures = load(trial.config["dataset"]).validation.views.plain(torch.arange(5))
    with torch.no_grad():
        own = student(pictures)
    export(made, tmp_path / "onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    export(made, tmp_path / "pt2", format="torch-export")
    loaded = torch.export.load(tmp_path / "pt2" / "model.pt2").module()
    for count in (1, 5):
        (theirs,) = session.run(None, {"images": pictures[:count].contiguous().numpy()})
        assert_near(torch.from_numpy(theirs), own[:count])
        with torch.no_grad():
            assert_near(loaded(pictures[:count]), own[:count])


# --- the card --------------------------------------------------------------------------------------------------------


def card_of(exported: Exported) -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    _, matter, text = (exported.folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), text


def cells(text: str) -> dict[str, str]:
    """The rows of all tables: left → right."""
    return {left.strip("` "): right for left, right in re.findall(r"^\| (.*?) \| (.*?) \|$", text, re.MULTILINE)}


def test_the_front_matter_has_the_figures_of_the_summary(taken: Exported, trained: MadeSweep) -> None:
    matter, _ = card_of(taken)
    format = taken.folder.name
    assert matter["library_name"] == {"safetensors": "wsl-sweep", "onnx": "onnx", "torch-export": "pytorch"}[format]
    assert set(matter["tags"]) == {"image-classification", format, "wsl-sweep", "knowledge-distillation"}
    entry = next(one for one in summary_of(trained)["trials"] if one["trial_id"] == taken.trial_id)
    (model,) = matter["model-index"]
    told = {metric["name"]: metric["value"] for result in model["results"] for metric in result["metrics"]}
    wanted = {name: value for name, value in entry["metrics"].items() if name.startswith(("test/", "validation/"))}
    assert set(told) == {f"{part}/{name}" for part in ("test", "validation") for name in ("accuracy", "loss", "ece")}
    assert told == wanted
    assert [result["dataset"]["split"] for result in model["results"]] == ["test", "validation"]


def test_the_card_says_all_settings_and_metrics_and_where_it_comes_from(taken: Exported, trained: MadeSweep) -> None:
    _, text = card_of(taken)
    table, trial = cells(text), trained.trials[0]
    entry = next(one for one in summary_of(trained)["trials"] if one["trial_id"] == trial.trial_id)
    for path, value in flatten(trial.config).items():
        assert table[path] == f"`{json.dumps(value)}`"
    for name, value in entry["metrics"].items():
        assert table[name] == f"{value:.4f}"
    for name, value in entry["fingerprint"].items():
        assert (f"fingerprint: {name}" in table) == (value is not None)
        assert value is None or table[f"fingerprint: {name}"] == f"`{value}`"
    assert table["the sweep's UUID"] == "`11111111-2222-3333-4444-555555555555`"
    assert table["git commit of its working folder"] == f"`{COMMIT}`"
    assert table["input"] == "`images`: (N, 1, 8, 8) float32, any N"
    assert table["mean, by channel"] == "0.305"
    assert table["standard deviation, by channel"] == "0.376"
    assert table["classes"].startswith("0: 0, 1: 1, ")
    data = load(trial.config["dataset"])
    assert f"its training part: {len(data.train)} pictures. Each was seen in 9 forms at most" in text
    assert f"seed {trial.seed}" in text


def test_the_row_of_the_table_is_said_to_be_the_recipes(taken: Exported, trained: MadeSweep) -> None:
    _, text = card_of(taken)
    row = next(row for row in summary_of(trained)["confirmed"] if taken.trial_id in row["trial_ids"])
    low, high = row["ci95"]
    settings = 'distillation.method = "kd", distillation.weighting.kind = "exp", distillation.alpha = 2.5'
    assert f"The settings `wsl` ({settings}) reach test/accuracy {row['mean']:.4f} in the mean over n = 2 seeds" in text
    assert f" (95 % t interval {low:.4f} to {high:.4f}). That is said of the recipe" in text
    assert "what another seed would give was not measured" not in text


def test_the_card_tells_of_the_teacher(taken: Exported, trained: MadeSweep) -> None:
    _, text = card_of(taken)
    (card,) = [one for one in TeacherStore().cards() if one["model"] == "convnet_3"]
    accuracy = card["metrics"]["validation/accuracy"]
    assert (
        f"- Teacher: `convnet_3`, id `{card['teacher_id']}`, trained here; validation/accuracy {accuracy:.4f}; it has "
        "not seen the validation pictures."
    ) in text


def test_a_teacher_of_which_nothing_is_known_here_is_not_guessed_at(
    trained: MadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    _, text = card_of(export(trained, tmp_path / "out", trial=trained.trials[0].trial_id))
    assert "trained by wsl-sweep; its accuracy is not known here; it has not seen the validation pictures." in text


def test_a_teacher_with_other_weights_than_the_students_is_not_taken_for_it(
    trained: MadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    trial = trained.trials[0]
    named = teacher_identity(trial.config, trial.part, trial.threads)
    assert named is not None
    facts = {"metrics": {"validation/accuracy": 0.987}, "seen_validation": False, "model": "convnet_3"}
    TeacherStore().ensure(named[0], lambda: (build("convnet_3", 10, 1), facts))
    _, text = card_of(export(trained, tmp_path / "out", trial=trial.trial_id))
    assert f"id `{named[0]}`" in text
    assert "its accuracy is not known here" in text


@pytest.mark.parametrize(
    ("seen", "changes", "told"),
    [
        (False, {}, "it has not seen the validation pictures."),
        (True, {}, "it was trained on the validation pictures, too."),
        (False, {"validation_fraction": 0.1}, "whether it has seen the validation pictures is not known."),
        (None, {}, "brought in from a file; its accuracy is not known here; whether it has seen the"),
    ],
)
def test_of_a_teacher_that_was_brought_in_no_more_is_said_than_its_card_knows(
    seen: bool | None, changes: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card is of this split of the data, or of another; or there is none."""
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    store, model = TeacherStore(), build("convnet_3", 10, 1)
    facts = {
        "identity": {"dataset": {"name": "digits", "validation_fraction": 0.3, **changes}},
        "metrics": {"validation/accuracy": 0.7531},
        "seen_validation": seen,
        "origin": "imported from there.pth",
    }
    card = store.ensure("0123456789ab", lambda: (model, facts))
    checkpoint = store.weights("0123456789ab")
    if seen is None:
        checkpoint = checkpoint.rename(tmp_path / "there.safetensors")
        shutil.rmtree(tmp_path / "cache" / "teachers")
    made = MadeSweep(
        tmp_path / "runs",
        f"name: u\nrun: {SMALL}  teacher: {{model: convnet_3, checkpoint: {checkpoint}}}\nvariants: [kd]\nseeds: 1",
    )
    (trial,) = made.trials
    made.untrained(trial, teacher=card["sha256"])
    _, text = card_of(export(made, tmp_path / "out"))
    (line,) = [line for line in text.splitlines() if line.startswith("- Teacher: ")]
    assert told in line
    assert ("imported from there.pth; validation/accuracy 0.7531" in line) == (seen is not None)
    assert ("Its teacher " in text) == (told != "it has not seen the validation pictures.")
    assert str(tmp_path) not in text


def test_the_comparison_is_in_the_card(taken: Exported) -> None:
    _, text = card_of(taken)
    (line,) = [line for line in text.splitlines() if "was loaded back" in line]
    if taken.folder.name == "safetensors":
        assert line.endswith("tried on 8 validation pictures: its logits are the student's, bit for bit.")
    elif "bit for bit" not in line:
        found = re.search(r"is (\S+) \(of logits up to (\S+)\)", line)
        assert found is not None
        assert 0 < float(found[1]) <= 1e-4 * float(found[2])


def test_the_code_in_the_card_works_as_it_stands_and_normalises_as_the_student_wants(
    taken: Exported, trained: MadeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card_of(taken)[1], re.DOTALL)
    monkeypatch.chdir(taken.folder)
    seen: dict[str, Any] = {}
    exec(code, seen)
    assert tuple(seen["logits"].shape) == (1, 10)
    from sklearn.datasets import load_digits

    _, own = own_logits(trained, trained.trials[0])
    data = load(trained.trials[0].config["dataset"])
    raw = load_digits().images[data.validation.ids].astype(np.float32)[:, None]
    mine = raw if taken.folder.name == "onnx" else torch.from_numpy(raw)
    exec(re.sub(r"(?m)^pixels = .*$", "pixels = mine", code), seen := {"mine": mine})
    assert_near(torch.as_tensor(seen["logits"]), own)


def test_no_password_is_in_the_card(taken: Exported) -> None:
    _, text = card_of(taken)
    assert "The sweep asked: Whose password=***" in text
    assert "secret" not in text


def test_a_student_without_teacher_and_test_says_so(tmp_path: Path) -> None:
    made = MadeSweep(tmp_path / "runs", f"name: u\nrun: {SMALL}variants: [ce]\nseeds: 2")
    made.untrained(made.trials[0])
    matter, text = card_of(export(made, tmp_path / "out"))
    assert "knowledge-distillation" not in matter["tags"]
    assert "# convnet_2 on digits, trained without a teacher" in text
    assert "- Teacher: none; cross-entropy alone." in text
    assert "It was not evaluated on the test set" in text
    assert "what another seed would give was not measured" in text
    assert "`u` (not finished)" in text
    assert "could not be seen: that was not kept" in text
    assert "It is the best of its sweep's students by validation/accuracy" in text


def pictures_in(root: Path, size: int = 16) -> None:
    generator = np.random.default_rng(0)
    for label, name in enumerate(("cat|s", "dogs")):
        (root / name).mkdir(parents=True)
        for index in range(30):
            pixels = generator.integers(0, 156, (size, size, 3), dtype=np.uint8) + 100 * label * (index % 3 > 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index:02}.png")


FOLDER = """
name: own
run:
  recipe: image_folder
  dataset: {{root: {root}, size: 16, padding: 2, label_noise: 0.1}}
  student: {{model: convnet_2}}
  schedule: {{epochs: 1, milestones: []}}
variants: [ce]
seeds: 1
"""


def test_ones_own_pictures_are_described_without_their_place(tmp_path: Path) -> None:
    pictures_in(tmp_path / "secret place" / "pets")
    made = MadeSweep(tmp_path / "runs", FOLDER.format(root=tmp_path / "secret place" / "pets"))
    (trial,) = made.trials
    made.train(trial)
    exported = export(made, tmp_path / "out", format="onnx")
    _, text = card_of(exported)
    assert "secret place" not in text
    assert "dataset.root" not in cells(text)
    assert "| classes | 0: cat\\|s, 1: dogs |" in text
    assert "colour (RGB), 16x16 pixels: turned as the camera was held" in text
    assert "crops of it padded by 2 pixels" in text
    assert "10 % of their labels are wrong on purpose" in text
    config = json.loads((exported.folder / "config.json").read_text())
    assert config["classes"] == ["cat|s", "dogs"]
    facts = load(trial.config["dataset"]).validation.views.facts()
    assert torch.equal(torch.tensor(config["input"]["mean"]), torch.tensor(facts["mean"]))
    assert torch.equal(torch.tensor(config["input"]["std"]), torch.tensor(facts["std"]))


def test_pictures_that_changed_or_went_are_an_error(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    pictures_in(root)
    made = MadeSweep(tmp_path / "runs", FOLDER.format(root=root))
    made.train(made.trials[0])
    shutil.copy(root / "dogs" / "00.png", root / "dogs" / "99.png")
    with pytest.raises(WslSweepError, match=r"the data of .*pets changed since trial .* was trained on them"):
        export(made, tmp_path / "out")
    shutil.rmtree(root)
    with pytest.raises(WslSweepError, match=r"the data of .*pets are not on this machine"):
        export(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- which student ---------------------------------------------------------------------------------------------------


def test_without_a_trial_it_is_the_best_student(trained: MadeSweep, tmp_path: Path) -> None:
    best = best_student(summary_of(trained))
    assert best is not None
    exported = export(trained, tmp_path / "out")
    assert exported.trial_id == best["trial_id"]
    assert "It is the best of its sweep's students by validation/accuracy" in card_of(exported)[1]


def test_a_sweep_that_is_not_finished_has_a_best_student_too(copied: Path, tmp_path: Path) -> None:
    """Its driver died after two of four trials; there is no summary."""
    segments = sorted((copied / "trained" / "ledger").iterdir())
    for segment in segments[6:]:
        segment.unlink()
    exported = export_student("trained", storage=str(copied), to=tmp_path / "out", say=lambda _: None)
    assert "`trained` (not finished)" in card_of(exported)[1]
    for segment in segments[2:6]:
        segment.unlink()
    with pytest.raises(WslSweepError, match="no trial of trained has finished yet"):
        export_student("trained", storage=str(copied), to=tmp_path / "none", say=lambda _: None)


def test_a_trial_is_named_by_how_its_id_begins(trained: MadeSweep, tmp_path: Path) -> None:
    ids = [trial.trial_id for trial in trained.trials]
    length = next(n for n in range(1, 13) if len({one[:n] for one in ids}) == len(ids))
    assert export(trained, tmp_path / "out", trial=ids[1][:length]).trial_id == ids[1]


@pytest.mark.parametrize("trial", ["", "xyz"])
def test_a_trial_that_is_not_there_is_an_error(trial: str, trained: MadeSweep, tmp_path: Path) -> None:
    with pytest.raises(
        WslSweepError, match=f"no trial of trained has an id that begins with '{trial}'; .*status trained"
    ):
        export(trained, tmp_path / "out", trial=trial)


def test_where_an_id_begins_like_several_they_are_named(copied: Path, trained: MadeSweep, tmp_path: Path) -> None:
    first = trained.trials[0]
    twin = {**first.to_json(), "trial_id": first.trial_id[:6] + "zzzzzz"}
    (copied / "trained" / "ledger" / "00009999.json").write_text(
        json.dumps([{"event": "proposed", "time": 1.0, "trial": twin}])
    )
    with pytest.raises(WslSweepError, match=f"begin with '{first.trial_id[:6]}': {first.trial_id}, {twin['trial_id']}"):
        export_student("trained", storage=str(copied), trial=first.trial_id[:6], to=tmp_path / "out")


def test_only_a_finished_trial_has_a_student(tmp_path: Path) -> None:
    made = MadeSweep(tmp_path / "runs", f"name: u\nrun: {WITH_TEACHER}variants: [kd, ce]\nseeds: 1")
    one, two = made.trials
    made.begin(one)
    made.begin(two)
    made.ledger.append("failed", trial_id=two.trial_id, attempt=1, epochs=1, error="ValueError: why")
    with pytest.raises(WslSweepError, match=f"trial {one.trial_id} of u is running: only a finished trial"):
        export(made, tmp_path / "out", trial=one.trial_id)
    with pytest.raises(WslSweepError, match=rf"trial {two.trial_id} of u is failed \(ValueError: why\)"):
        export(made, tmp_path / "out", trial=two.trial_id)


@pytest.mark.parametrize("which", [1, 2])
def test_a_student_that_was_not_kept_says_why_and_how_to_have_it_again(
    which: int, copied: Path, trained: MadeSweep
) -> None:
    trial = trained.trials[which]  # of wsl, and of ce
    (copied / "trained" / "trials" / trial.trial_id / "student.safetensors").unlink()
    with pytest.raises(WslSweepError, match="was not kept: keep: best leaves those of the final table") as caught:
        export_student("trained", storage=str(copied), trial=trial.trial_id)
    written = re.search(r"printf %s '(.*)' > (again-\w+)\.yaml && wsl-sweep run (\S+) --rerun", str(caught.value))
    assert written is not None
    spec = spec_of(written[1])
    assert spec.confirm is None
    assert not spec.variants  # nothing of it is evaluated on the test set
    (arm,) = spec.arms
    (point,) = grid_points(spec, spec.arms[arm])
    seed = int(spec.flat_config(spec.arms[arm])["seed"])
    again = make_trial(spec, stage="search", variant=arm, overrides=spec.arms[arm], params=point, seed=seed, arm=arm)
    assert again.trial_id == trial.trial_id
    assert again.config == trial.config


def test_a_trial_that_was_taken_over_without_its_student_says_so(tmp_path: Path) -> None:
    made = MadeSweep(tmp_path / "runs", f"name: u\nrun: {SMALL}variants: [ce]\nseeds: 1")
    (trial,) = made.trials
    made.begin(trial)
    made.finish(trial, {"validation/accuracy": 0.5}, taken_over={"sweep": "older", "attempt": 1})
    with pytest.raises(WslSweepError, match="the trial was taken over from the sweep older"):
        export(made, tmp_path / "out")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def of_another_model(path: Path) -> None:
    from wsl_sweep.training.weights import save_tensors

    save_tensors(path, build("convnet_3", 10, 1).state_dict())


def with_other_weights(path: Path) -> None:
    """The header as it was, and nothing to be seen of the change but by what the student says."""
    content = bytearray(path.read_bytes())
    content[-400:] = bytes(400)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, of_another_model, with_other_weights])
def test_a_damaged_student_is_an_error(
    damage: Callable[[Path], None], copied: Path, trained: MadeSweep, tmp_path: Path
) -> None:
    trial = trained.trials[0]
    damage(copied / "trained" / "trials" / trial.trial_id / "student.safetensors")
    with pytest.raises(DamagedStudentError, match=r"student\.safetensors"):
        export_student("trained", storage=str(copied), trial=trial.trial_id, to=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


# --- where to --------------------------------------------------------------------------------------------------------


def test_by_default_it_comes_to_the_working_folder(
    trained: MadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported = export_student("trained", storage=str(trained.storage), say=lambda _: None)
    assert exported.folder == tmp_path / f"trained-{exported.trial_id}-safetensors"
    assert sorted(path.name for path in exported.folder.iterdir()) == list(exported.files)


def test_what_is_there_stays_and_an_empty_folder_is_filled(trained: MadeSweep, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for taken in ("full", "file"):
        with pytest.raises(WslSweepError, match="is left as it is; choose another --to"):
            export(trained, tmp_path / taken)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    export(trained, tmp_path / "empty")
    export(trained, tmp_path / "new" / "deeper")
    assert (tmp_path / "empty" / "README.md").exists()
    assert (tmp_path / "new" / "deeper" / "README.md").exists()
    with pytest.raises(WslSweepError, match="must be a folder on this machine, not s3://bucket/x"):
        export_student("trained", storage=str(trained.storage), to="s3://bucket/x")


@pytest.mark.parametrize("format", FORMATS)
def test_what_says_something_else_than_the_student_is_not_kept(
    format: str, trained: MadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = exporting.read_student

    def a_little_off(format: str, folder: Path) -> Callable[[Tensor], Tensor]:
        read = true(format, folder)
        return lambda images: read(images) * 1.001

    monkeypatch.setattr(exporting, "read_student", a_little_off)
    with pytest.raises(WslSweepError, match="does not say what the student says"):
        export(trained, tmp_path / "out", format=format)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(trained: MadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_student", full)
    with pytest.raises(WslSweepError, match=r"cannot write .*out: No space left on device"):
        export(trained, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- formats that cannot be had --------------------------------------------------------------------------------------


def test_a_format_that_there_is_not_is_an_error(trained: MadeSweep, tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match=r"must be one of .*, not 'onxx'; did you mean \"onnx\""):
        export(trained, tmp_path / "out", format="onxx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_its_packages_onnx_names_the_extra(
    package: str, trained: MadeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WslSweepError, match=rf"needs {package}: pip install 'wsl-sweep\[onnx\]'"):
        export(trained, tmp_path / "out", format="onnx")


USERS = """
import torch
from torch import nn


class Fine(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.map = nn.Linear(in_channels * 64, num_classes)

    def forward(self, x):
        return self.map(x.flatten(1))


class Undecided(Fine):
    def forward(self, x):
        return self.map(x.flatten(1)) if float(x.sum()) > 0 else -self.map(x.flatten(1))
"""


@pytest.fixture
def users_code(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "exported_models.py").write_text(USERS)
    yield folder
    sys.modules.pop("exported_models", None)


def users_sweep(tmp_path: Path, code: Path, name: str) -> MadeSweep:
    text = f"name: u\nrun: {{recipe: digits, student: {{model: 'exported_models:{name}'}}}}\nvariants: [ce]\nseeds: 1"
    made = MadeSweep(tmp_path / "runs", text, (code,))
    sys.path.append(str(code))
    made.untrained(made.trials[0])
    sys.path.remove(str(code))
    sys.modules.pop("exported_models", None)
    return made


@pytest.mark.parametrize("format", FORMATS)
def test_a_users_own_model_is_found_where_the_sweep_found_it(format: str, tmp_path: Path, users_code: Path) -> None:
    made = users_sweep(tmp_path, users_code, "Fine")
    exported = export(made, tmp_path / "out", format=format)
    assert json.loads((exported.folder / "config.json").read_text())["import"] == "exported_models"
    needed = "Python must find the module `exported_models`" in card_of(exported)[1]
    assert needed == (format == "safetensors")


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_a_model_that_cannot_be_traced_is_told_and_can_be_had_as_safetensors(
    format: str, tmp_path: Path, users_code: Path
) -> None:
    made = users_sweep(tmp_path, users_code, "Undecided")
    with pytest.raises(WslSweepError, match=f'"exported_models:Undecided" cannot be exported as {format}: ') as caught:
        export(made, tmp_path / "out", format=format)
    assert str(caught.value).endswith("--format safetensors takes any student")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    export(made, tmp_path / "out", format="safetensors")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_folder_and_its_files(trained: MadeSweep, tmp_path: Path) -> None:
    arguments = ["export", "trained", "--best", "--storage", str(trained.storage), "--to", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said, folder, *files = done.output.splitlines()
    assert said.startswith("exporting the student of trial ")
    assert folder == f"{tmp_path / 'out'}:"
    assert [line.split()[0] for line in files] == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize("which", [(), ("--best", "--trial", "abc")])
def test_the_command_wants_one_student(which: tuple[str, ...], trained: MadeSweep, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsl_sweep", "export", "trained", *which, "--storage", str(trained.storage)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "wsl-sweep: say which student: either --best, or --trial ID (wsl-sweep status trained lists them)\n"
    )
    assert list(tmp_path.iterdir()) == []
