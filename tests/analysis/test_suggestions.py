"""What to sweep: the lines are a search-space file's, for every warning and teacher."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sweep.fakes import spec_of
from wsl_sweep.analysis.diagnostics.soft_labels import ErasedInformation, SoftLabels, Warned, soft_labels
from wsl_sweep.analysis.suggestions import Suggestion, space_text, suggestions

TRAINED = {"label_smoothing": 0.1, "schedule.epochs": 60, "schedule.milestones": [36, 48]}


def everything() -> SoftLabels:
    """Of a teacher that is warned of in every way: too sure, hard, always wrong, and with information erased."""
    labels = np.arange(400) % 10
    logits = 40.0 * np.eye(10)[(labels + 1) % 10]
    logits -= 30.0 * np.eye(10)[labels]
    return soft_labels(logits, labels, 2.0, erased=ErasedInformation(0.1, 0.5, (0.05, 0.15)))


def as_file(suggested: tuple[Suggestion, ...], run: str = "{recipe: digits}") -> str:
    return f"run: {run}\n{space_text(suggested)}search: {{trials: 8}}\n"


def test_every_path_that_a_warning_names_gets_a_line_that_can_be_pasted() -> None:
    warned = everything().warnings
    assert [one.kind for one in warned] == ["over-certain", "hard", "erased", "unlearnable"]
    told = suggestions(warned, temperature=2.0, model="convnet_32", settings=TRAINED)
    paths = list(dict.fromkeys(path for one in warned for path in one.sweep))
    assert [one.path for one in told] == paths
    spec = spec_of(as_file(told))
    assert list(spec.space) == paths
    assert (spec.space["distillation.temperature"].low, spec.space["distillation.temperature"].high) == (2, 8)
    assert spec.space["teacher.model"].values == ("convnet_16", "convnet_24", "convnet_32", "convnet_48", "convnet_64")
    assert spec.space["teacher.schedule.epochs"].values == (15, 30, 60)
    assert spec.space["teacher.label_smoothing"].values == (0, 0.05, 0.1)
    assert "milestones stay" in space_text(told)


def test_of_a_teacher_that_was_brought_in_nothing_of_its_training_is_swept() -> None:
    told = suggestions(everything().warnings, temperature=4.0, model="package.module:Net", settings={})
    assert [one.path for one in told] == [
        "distillation.temperature", "distillation.weighting.kind", "distillation.alpha", "distillation.ce_weight",
    ]  # fmt: skip
    spec_of(as_file(told))


@pytest.mark.parametrize("model", ["wrn_40_2", "resnet110", "vgg8", "mobilenetv1", "bert_base", "torchvision:resnet34"])
def test_other_models_are_those_of_the_family(model: str) -> None:
    warned = (Warned("unlearnable", "", ("teacher.model",)),)
    told = suggestions(warned, temperature=4.0, model=model, settings=TRAINED)
    if ":" in model or model.startswith("bert"):
        assert told == ()
        return
    values = spec_of(as_file(told)).space["teacher.model"].values
    assert model in values
    assert len({value[:3] for value in values}) == 1


def test_less_label_smoothing_is_suggested_where_it_has_erased_something_and_more_where_there_is_none() -> None:
    erased = (Warned("erased", "", ("teacher.label_smoothing", "distillation.temperature")),)
    text = space_text(suggestions(erased, temperature=4.0, model="vgg8", settings={"label_smoothing": 0.3}))
    assert "  teacher.label_smoothing: {choice: [0, 0.15, 0.3]}" in text
    assert "  distillation.temperature: {loguniform: [2, 8]}" in text
    hard = (Warned("hard", "", ("teacher.label_smoothing",)),)
    text = space_text(suggestions(hard, temperature=4.0, model="vgg8", settings={"label_smoothing": 0.0}))
    assert "{choice: [0, 0.05, 0.1]}" in text


def test_a_single_epoch_cannot_be_made_shorter_and_no_warning_is_no_space() -> None:
    shorter = (Warned("hard", "", ("teacher.schedule.epochs",)),)
    assert suggestions(shorter, temperature=4.0, model="vgg8", settings={"schedule.epochs": 1}) == ()
    assert space_text(()) == ""
