"""Equal trainings share an id, in whatever sweep they run; whatever changes a result changes it."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.spec.identity import canonical_json, short_hash, teacher_identity, trial_id
from wsl_sweep.spec.plan import Trial, ablation_cells, make_trial
from wsl_sweep.spec.run import leaves

from .helpers import spec_of

FIXED: dict[str, Any] = {
    "dataset": {
        "name": "digits",
        "root": "anywhere",
        "validation_fraction": 0.3,
        "train_fraction": 0.4,
        "label_noise": 0.0,
        "padding": 1,
        "padding_mode": "zeros",
        "flip": False,
        "views": "all",
    },
    "teacher": {
        "model": "convnet_32",
        "mode": "eval",
        "label_smoothing": 0.1,
        "smoothing": "all",
        "seed": 0,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4},
        "schedule": {"epochs": 60, "batch_size": 64, "milestones": [36, 48], "decay": 0.1, "warmup_epochs": 0},
    },
    "student": {"model": "convnet_4"},
    "distillation": {
        "method": "kd",
        "ce_weight": 1.0,
        "alpha": 2.25,
        "temperature": 4.0,
        "mask": "none",
        "weighting": {"kind": "exp"},
        "keep": {"regularization": 1.0, "other": 1.0},
    },
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    "schedule": {"epochs": 12, "batch_size": 64, "milestones": [], "warmup_epochs": 2},
    "precision": "float32",
    "seed": 7,
}
"""One complete configuration, written by hand."""

CHANGES: dict[str, Any] = {
    "dataset.name": "other",
    "dataset.validation_fraction": 0.2,
    "dataset.train_fraction": 0.5,
    "dataset.label_noise": 0.1,
    "dataset.padding": 2,
    "dataset.padding_mode": "reflect",
    "dataset.flip": True,
    "dataset.views": 2,
    "teacher.model": "convnet_16",
    "teacher.mode": "train",
    "teacher.label_smoothing": 0.2,
    "teacher.smoothing": "others",
    "teacher.seed": 1,
    "teacher.optimizer.name": "adamw",
    "teacher.optimizer.lr": 0.1,
    "teacher.optimizer.momentum": 0.8,
    "teacher.optimizer.nesterov": True,
    "teacher.optimizer.weight_decay": 1e-4,
    "teacher.schedule.epochs": 61,
    "teacher.schedule.batch_size": 32,
    "teacher.schedule.milestones": [36],
    "teacher.schedule.decay": 0.2,
    "teacher.schedule.warmup_epochs": 1,
    "student.model": "convnet_8",
    "distillation.method": "dkd",
    "distillation.ce_weight": 0.5,
    "distillation.alpha": 2.5,
    "distillation.temperature": 2,
    "distillation.mask": "detach",
    "distillation.weighting.kind": "permuted",
    "distillation.keep.regularization": 0.5,
    "distillation.keep.other": 0.5,
    "optimizer.name": "sgd",
    "optimizer.lr": 2e-3,
    "optimizer.weight_decay": 0.02,
    "schedule.epochs": 13,
    "schedule.batch_size": 32,
    "schedule.milestones": [6],
    "schedule.warmup_epochs": 0,
    "precision": "bfloat16",
    "seed": 8,
}


def with_leaf(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a nested configuration with one leaf set."""
    changed = copy.deepcopy(config)
    inner = changed
    *sections, leaf = path.split(".")
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[leaf] = value
    return changed


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# --- the id itself ---------------------------------------------------------------------------------------------------


def test_the_id_of_a_fixed_training_never_changes() -> None:
    assert trial_id(FIXED, "train", 1) == "423242506231"


def test_the_id_begins_the_sha256_of_the_canonical_json_of_what_makes_the_result() -> None:
    dataset = (
        '{"flip":false,"label_noise":0,"name":"digits","padding":1,"padding_mode":"zeros",'
        '"train_fraction":0.4,"validation_fraction":0.3,"views":"all"}'
    )
    teacher = (
        '{"label_smoothing":0.1,"model":"convnet_32",'
        '"optimizer":{"lr":0.05,"momentum":0.9,"name":"sgd","nesterov":false,"weight_decay":0.0005},'
        '"schedule":{"batch_size":64,"decay":0.1,"epochs":60,"milestones":[36,48],"warmup_epochs":0},'
        '"seed":0,"smoothing":"all"}'
    )
    identity = f'{{"dataset":{dataset},"part":"train","teacher":{teacher},"threads":1}}'
    config = (
        f'{{"dataset":{dataset},'
        '"distillation":{"alpha":2.25,"ce_weight":1,"keep":{"other":1,"regularization":1},"mask":"none",'
        '"method":"kd","temperature":4,"weighting":{"kind":"exp"}},'
        '"optimizer":{"lr":0.001,"name":"adamw","weight_decay":0.01},"precision":"float32",'
        '"schedule":{"batch_size":64,"epochs":12,"milestones":[],"warmup_epochs":2},"seed":7,'
        f'"student":{{"model":"convnet_4"}},"teacher":{{"identity":{identity},"mode":"eval"}}}}'
    )
    assert trial_id(FIXED, "train", 1) == sha256_of(f'{{"config":{config},"part":"train","threads":1}}')[:12]
    named = teacher_identity(FIXED, "train", 1)
    assert named is not None
    assert named[0] == sha256_of(identity)[:12]


def test_canonical_json_does_not_depend_on_the_order_of_keys_or_on_the_alphabet() -> None:
    assert canonical_json({"b": 1, "a": [1, "ä"]}) == '{"a":[1,"\\u00e4"],"b":1}'
    assert short_hash({"b": 1, "a": 2}) == short_hash({"a": 2, "b": 1}) == sha256_of('{"a":2,"b":1}')[:12]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_has_no_identity(number: float) -> None:
    with pytest.raises(ValueError):
        canonical_json({"alpha": number})


# --- equal settings, equal id ----------------------------------------------------------------------------------------


def test_equal_settings_have_equal_ids_whatever_their_order() -> None:
    shuffled = json.loads(json.dumps(FIXED), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert trial_id(shuffled, "train", 1) == trial_id(FIXED, "train", 1)


@pytest.mark.parametrize(
    ("path", "whole", "fraction"),
    [
        ("distillation.alpha", 2, 2.0),
        ("distillation.temperature", 4, 4.0),
        ("teacher.label_smoothing", 0, 0.0),
        ("teacher.optimizer.lr", 1, 1.0),
        ("dataset.train_fraction", 1, 1.0),
    ],
)
def test_2_and_2_0_are_the_same_setting(path: str, whole: int, fraction: float) -> None:
    one, other = with_leaf(FIXED, path, whole), with_leaf(FIXED, path, fraction)
    assert trial_id(one, "train", 1) == trial_id(other, "train", 1)
    assert teacher_identity(one, "train", 1) == teacher_identity(other, "train", 1)


def test_true_and_1_are_not_the_same_setting() -> None:
    one, other = with_leaf(FIXED, "dataset.flip", True), with_leaf(FIXED, "dataset.flip", 1)
    assert trial_id(one, "train", 1) != trial_id(other, "train", 1)


@pytest.mark.parametrize("root", [None, "elsewhere"])
def test_where_the_data_lie_does_not_matter(root: str | None) -> None:
    moved = with_leaf(FIXED, "dataset.root", root)
    assert trial_id(moved, "train", 1) == trial_id(FIXED, "train", 1)
    assert teacher_identity(moved, "train", 1) == teacher_identity(FIXED, "train", 1)


# --- another setting, another id -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "value"), CHANGES.items(), ids=CHANGES.keys())
def test_every_leaf_that_is_read_changes_the_id(path: str, value: Any) -> None:
    assert trial_id(with_leaf(FIXED, path, value), "train", 1) != trial_id(FIXED, "train", 1)


def test_no_leaf_of_the_fixed_training_was_forgotten() -> None:
    def paths(section: dict[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in section.items():
            found |= paths(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
        return found

    assert set(CHANGES) == paths(FIXED) - {"dataset.root"}
    assert paths(FIXED) <= set(leaves())


def test_all_changes_make_different_ids() -> None:
    ids = {trial_id(with_leaf(FIXED, path, value), "train", 1) for path, value in CHANGES.items()}
    assert len(ids) == len(CHANGES)


def test_the_part_trained_on_and_the_threads_change_the_id() -> None:
    ids = {trial_id(FIXED, part, threads) for part in ("train", "train+validation") for threads in (1, 2)}
    assert len(ids) == 4


# --- teachers --------------------------------------------------------------------------------------------------------

OF_THE_TEACHER = [path for path in CHANGES if path.startswith(("teacher.", "dataset.")) and path != "teacher.mode"]


@pytest.mark.parametrize("path", OF_THE_TEACHER)
def test_what_makes_a_teacher_makes_another_teacher(path: str) -> None:
    one, other = FIXED, with_leaf(FIXED, path, CHANGES[path])
    assert teacher_identity(one, "train", 1) != teacher_identity(other, "train", 1)


@pytest.mark.parametrize("path", [path for path in CHANGES if path not in OF_THE_TEACHER])
def test_what_makes_only_the_student_or_its_use_of_the_teacher_does_not(path: str) -> None:
    other = with_leaf(FIXED, path, CHANGES[path])
    assert teacher_identity(FIXED, "train", 1) == teacher_identity(other, "train", 1)


def test_a_teacher_is_of_the_part_it_was_trained_on_and_of_its_threads() -> None:
    ids = set()
    for part in ("train", "train+validation"):
        for threads in (1, 2):
            named = teacher_identity(FIXED, part, threads)
            assert named is not None
            ids.add(named[0])
    assert len(ids) == 4


def test_without_distillation_there_is_no_teacher() -> None:
    alone = {name: section for name, section in FIXED.items() if name != "teacher"}
    assert teacher_identity(alone, "train", 1) is None


def brought_in(path: Path) -> dict[str, Any]:
    teacher = {"model": "convnet_32", "mode": "eval", "checkpoint": str(path)}
    return {**FIXED, "teacher": teacher}


def test_a_teacher_that_is_brought_in_is_what_is_in_its_file(tmp_path: Path) -> None:
    here, there, other = tmp_path / "here", tmp_path / "there", tmp_path / "other"
    here.write_bytes(b"weights")
    there.write_bytes(b"weights")
    other.write_bytes(b"other weights")
    ids = [trial_id(brought_in(path), "train", 1) for path in (here, there, other)]
    assert ids[0] == ids[1] != ids[2]
    named = teacher_identity(brought_in(here), "train", 1)
    assert named is not None
    assert named[1] == {"model": "convnet_32", "checkpoint": "sha256:" + sha256_of("weights")}


def test_a_teacher_whose_file_is_not_there_is_known_by_its_name(tmp_path: Path) -> None:
    one, other = (trial_id(brought_in(tmp_path / name), "train", 1) for name in ("one", "other"))
    assert one == trial_id(brought_in(tmp_path / "one"), "train", 1) != other


# --- through a file --------------------------------------------------------------------------------------------------

PLAIN = "run: {recipe: digits, distillation.alpha: 2}\nvariants: {mine: }\nseeds: 1\n"


def ids_of(text: str, **command_line: Any) -> set[str]:
    cells = ablation_cells(spec_of(text, **command_line))
    return {trial.trial_id for cell in cells for trial in cell.trials}


@pytest.mark.parametrize(
    "text",
    [
        PLAIN + "name: another\n",
        PLAIN + "description: Is it another?\n",
        PLAIN + "tracking: {uri: sqlite:///other.db, experiment: other}\n",
        PLAIN + "keep: all\n",
        PLAIN + "compare: {margin: 0.1}\n",
        PLAIN + "budget: {hours: 3}\n",
        PLAIN + "resources: {gpu: 0, concurrent: 2}\n",
        PLAIN.replace("mine", "yours"),
        PLAIN.replace("2}", "2.0}"),
        PLAIN.replace(", distillation.alpha: 2", "").replace("{mine: }", "{mine: {distillation.alpha: 2}}"),
        PLAIN.replace("seeds", "space: {distillation.alpha: {grid: [2.0]}}\nseeds"),
        PLAIN.replace("2}", "2, distillation.weighting.kind: exp, seed: 0}"),
    ],
)
def test_names_tracking_and_the_way_a_setting_is_written_do_not_change_an_id(text: str) -> None:
    assert ids_of(text) == ids_of(PLAIN)


def test_neither_the_stage_nor_the_arm_nor_the_scheduler_changes_an_id() -> None:
    search = spec_of(
        """
        run: {recipe: digits}
        space: {distillation.alpha: {uniform: [1, 4]}}
        search: {trials: 3, sampler: random, metric: train/loss}
        scheduler: {name: asha, grace_epochs: 5}
        """
    )
    for stage, arm in (("search", "tuned"), ("confirm", "tuned"), ("confirm", None)):
        trial = make_trial(
            search, stage=stage, variant="x", overrides={}, params={"distillation.alpha": 2}, seed=0, arm=arm
        )
        assert {trial.trial_id} == ids_of(PLAIN)


@pytest.mark.parametrize(
    "unread",
    [
        "teacher: {model: convnet_16}",
        "teacher: {seed: 4, mode: train, schedule: {epochs: 3}}",
        "distillation: {temperature: 8, alpha: 3}",
        "distillation: {weighting: {kind: none}}",
    ],
)
def test_what_a_variant_does_not_read_does_not_change_its_id(unread: str) -> None:
    plain = spec_of("run: {recipe: digits}\nvariants: [ce, kd]\nseeds: 1\n")
    changed = spec_of(f"run: {{recipe: digits, {unread}}}\nvariants: [ce, wsl]\nseeds: 1\n")
    (ce,) = ablation_cells(plain)[0].trials
    (changed_ce,) = ablation_cells(changed)[0].trials
    assert ce.trial_id == changed_ce.trial_id


def test_the_seed_and_the_threads_of_a_file_change_its_ids() -> None:
    assert ids_of(PLAIN.replace("seeds: 1", "seeds: [1]")).isdisjoint(ids_of(PLAIN))
    assert ids_of(PLAIN + "resources: {cpu: 2}\n").isdisjoint(ids_of(PLAIN))
    assert ids_of(PLAIN + "resources: {cpu: 0.5}\n") == ids_of(PLAIN)


def test_a_trial_survives_its_way_through_json_unchanged() -> None:
    (cell,) = ablation_cells(spec_of(PLAIN))
    (trial,) = cell.trials
    again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert again == trial
    assert trial_id(again.config, again.part, again.threads) == again.trial_id
    assert again.epochs == again.config["schedule"]["epochs"]
