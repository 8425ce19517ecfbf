"""The table of data sets says what their loaders and the file's schema say."""

from __future__ import annotations

import pytest

from wsl_sweep.data import shape
from wsl_sweep.data.sources import SOURCES
from wsl_sweep.spec.datasets import DATASETS, OWN, data_set
from wsl_sweep.spec.run import leaves


def test_each_has_a_loader_and_each_loader_a_data_set() -> None:
    assert list(SOURCES) == list(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_what_it_reads_can_be_written_in_a_file(name: str) -> None:
    assert {f"dataset.{leaf}" for leaf in DATASETS[name].reads} < set(leaves())


def test_the_shape_of_digits_is_what_its_loader_gives() -> None:
    assert data_set("digits").shape == (10, 1, 8)
    assert shape({"name": "digits"}) == (10, 1)


def test_of_those_whose_shape_is_the_folders_there_is_none() -> None:
    assert [name for name in DATASETS if data_set(name).shape is None] == ["image_folder", "imagenet", "mnli"]


def test_folders_of_pictures_are_the_users_own_pictures() -> None:
    assert [name for name in DATASETS if data_set(name).folder_of_pictures] == ["image_folder", "imagenet"]


def test_any_other_name_is_a_users_own_task() -> None:
    own = data_set("spirals:Spirals")
    assert own is OWN
    assert not own.folder_of_pictures
    assert (own.shape, own.classes, own.of) == (None, None, "examples")
