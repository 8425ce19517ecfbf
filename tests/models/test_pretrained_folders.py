"""Pretrained models of the hub, whose files a stand-in hands out: what is asked for, and where it comes to lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models.pretrained import model_folder

NAME = "some/model"

Hub = Callable[..., list[str]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Puts files on the hub, in place of those before; returns what is asked of it from then on."""
    from huggingface_hub.errors import EntryNotFoundError

    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    there: dict[str, str] = {}
    version: list[str] = []
    asked: list[str] = []

    def has(url: str, **_: object) -> None:
        if url not in there:
            raise EntryNotFoundError("404")

    def download(repository: str, name: str, **_: object) -> str:
        asked.append(name)
        folder = cache / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(version[0])
        path = folder / "snapshots" / version[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(there[name])
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda repository, name, **_: name)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", has)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)

    def put(commit: str, **files: str) -> list[str]:
        there.clear()
        there.update({name.replace("__", "."): content for name, content in files.items()})
        version[:], asked[:] = [commit], []
        return asked

    return put


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_first_weights_that_the_hub_has_are_downloaded_once(hub: Hub) -> None:
    asked = hub("a", config__json="{}", pytorch_model__bin="old")
    folder = model_folder(NAME, weights=True)
    assert names(folder) == ["config.json", "pytorch_model.bin"]
    assert asked == ["pytorch_model.bin", "config.json"]
    asked = hub("b", config__json="{}", model__safetensors="newer, and not asked for")
    assert model_folder(NAME, weights=True) == folder
    assert model_folder(NAME, weights=False) == folder
    assert asked == []


def test_of_an_index_all_that_it_names_comes(hub: Hub) -> None:
    index = json.dumps({"weight_map": {"x": "one.safetensors", "y": "two.safetensors"}})
    files = {"one__safetensors": "1", "two__safetensors": "2", "model__safetensors__index__json": index}
    hub("a", config__json="{}", **files)
    found = ["config.json", "model.safetensors.index.json", "one.safetensors", "two.safetensors"]
    assert names(model_folder(NAME, weights=True)) == found


def test_a_shape_alone_brings_no_weights_and_what_comes_later_is_of_one_version(hub: Hub) -> None:
    hub("a", config__json="{}", model__safetensors="a")
    assert names(model_folder(NAME, weights=False)) == ["config.json"]
    hub("b", config__json="{}", model__safetensors="b")
    folder = model_folder(NAME, weights=True)
    assert (folder.name, names(folder)) == ("b", ["config.json", "model.safetensors"])


def test_what_the_hub_does_not_have_is_told(hub: Hub) -> None:
    hub("a", config__json="{}")
    with pytest.raises(WslSweepError, match=r"has no weights of some/model that are read here: model\.safetensors"):
        model_folder(NAME, weights=True)
    hub("a")
    with pytest.raises(WslSweepError, match=r'"some/model" is no folder here, and the hub has no file config\.json'):
        model_folder(NAME, weights=False)
