"""MultiNLI where a sweep is planned and looked after: what it rests on, where it lies, what a node says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.glue import some_rows, write_glue, write_part, write_words
from wsl_sweep.app.doctor import _data_check
from wsl_sweep.app.preparing import prepare_data, surroundings
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.identity import data_identity
from wsl_sweep.spec.loading import parse_spec
from wsl_sweep.spec.spec import Spec
from wsl_sweep.sweep.nodes import ask_node

FILE = """
run:
  recipe: digits
  dataset: {{name: mnli, root: glue, vocabulary: "{vocabulary}", max_length: 32}}
variants: [ce]
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write_glue(tmp_path / "glue")
    write_words(tmp_path / "words" / "vocab.txt")


def spec_of(vocabulary: str = "words") -> Spec:
    return parse_spec(FILE.format(vocabulary=vocabulary), "x")


def dataset_of(vocabulary: str = "words") -> dict[str, Any]:
    dataset: dict[str, Any] = spec_of(vocabulary).config({"distillation.method": "none"})["dataset"]
    return dataset


def test_places_are_kept_whole_and_names_as_they_are(tmp_path: Path) -> None:
    dataset = dataset_of()
    assert (dataset["root"], dataset["vocabulary"]) == (str(tmp_path / "glue"), str(tmp_path / "words"))
    (tmp_path / "learned").mkdir()
    for name in ("learned", "google/bert-base-cased", "$WORDS/vocab.txt"):
        assert dataset_of(name)["vocabulary"] == name


def test_a_sweep_rests_on_its_sentences_and_its_vocabulary(tmp_path: Path) -> None:
    before = surroundings(spec_of())
    assert set(before) == {f"the sentences in {tmp_path / 'glue'}", f"the vocabulary {tmp_path / 'words'}"}
    write_words(tmp_path / "words" / "vocab.txt", ["woman"])
    write_part(tmp_path / "glue" / "dev_matched.tsv", some_rows(12, seed=7))
    after = surroundings(spec_of())
    assert all(before[name] != after[name] for name in before)
    assert set(surroundings(spec_of("learned"))) == {f"the sentences in {tmp_path / 'glue'}"}


def test_a_vocabulary_stands_in_an_identity_by_what_it_is(tmp_path: Path) -> None:
    dataset = dataset_of()
    first = data_identity(dataset)
    assert "root" not in first
    (tmp_path / "words").rename(tmp_path / "others")
    moved = {**dataset, "vocabulary": str(tmp_path / "others")}
    assert data_identity(moved) == first
    assert data_identity({**moved, "vocabulary": str(tmp_path / "others" / "vocab.txt")}) == first
    write_words(tmp_path / "others" / "vocab.txt", ["woman"])
    assert data_identity(moved)["vocabulary"] != first["vocabulary"]
    assert data_identity(moved)["content"] == first["content"]
    assert data_identity({**dataset, "vocabulary": "bert-base-cased"})["vocabulary"] == "bert-base-cased"
    (tmp_path / "glue" / "train.tsv").unlink()
    assert data_identity(dataset)["content"] is None


def test_a_sweep_tokenises_its_sentences_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_data(spec_of()) == []
    assert len(list(tmp_path.glob("cache/data/mnli-*/tokens.safetensors"))) == 1
    with (tmp_path / "glue" / "train.tsv").open("a") as file:
        file.write("broken\n")
    with pytest.raises(WslSweepError, match=r"train.tsv line 62 \(1 field, 8 in the first line\)"):
        prepare_data(spec_of())
    with pytest.raises(WslSweepError, match=r"dataset.vocabulary: .*absent.txt: there is no such file or folder"):
        prepare_data(spec_of("absent.txt"))


def test_a_node_says_what_it_has(tmp_path: Path) -> None:
    (found,) = ask_node({"data": [dataset_of()]})["data"]["sets"]
    assert found["found"] == "3 files of sentences"
    assert _data_check("one", found, found).status == "ok"
    other = _data_check("one", {**found, "content": "another"}, found)
    assert (other.status, "not the driver's sentences" in other.found) == ("problem", True)
    (absent,) = ask_node({"data": [dataset_of("some/vocabulary")]})["data"]["sets"]
    assert absent["found"] == "3 files of sentences, without the vocabulary some/vocabulary"
    assert _data_check("one", absent, absent).status == "warning"
    (on_hub,) = ask_node({"data": [{"name": "mnli", "root": None, "vocabulary": "learned"}]})["data"]["sets"]
    assert (on_hub["found"], on_hub["download"]) == ("absent", True)
    (tmp_path / "glue" / "train.tsv").unlink()
    (gone,) = ask_node({"data": [dataset_of()]})["data"]["sets"]
    assert _data_check("one", gone, found).status == "problem"
    assert "train.tsv is not there" in gone["error"]
