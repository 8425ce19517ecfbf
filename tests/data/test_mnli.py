"""MultiNLI from GLUE's files: every odd line, every part, and tokens that are kept."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wsl_sweep.data import available, dataset, load, mnli, prepare, some_inputs
from wsl_sweep.data.dataset import load_test, task_of
from wsl_sweep.data.mnli import load_mnli, read_pairs
from wsl_sweep.data.text import Texts
from wsl_sweep.errors import WslSweepError

from .glue import CLASSES, HEADER, row, some_rows, write_glue, write_part, write_words

Config = dict[str, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    dataset.forget()
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_glue(tmp_path / "glue")


def config_of(root: Path | None, **more: Any) -> Config:
    """A ``dataset`` section."""
    config = {
        "name": "mnli",
        "max_length": 128,
        "vocabulary": "learned",
        "validation_fraction": 0.2,
        "train_fraction": 1.0,
        "label_noise": 0.0,
    }
    return config | ({} if root is None else {"root": str(root)}) | more


# --- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence",
    [
        'He said "no" to me.',
        '"Quite so," she said.',
        '"',
        '"All of it."',
        "'s",
        "a\x85b",
        "a\u2028b\u2029c",
        "a\x0bb\x0cc\x1cd\x1ee",
        "a\rb",
        "\u00e9t\u00e9 \U0001f600",
        "a,b;c|d\\t\\n",
        "#",
        "n/a",
        "NaN",
    ],
)
def test_a_sentence_is_what_lies_between_two_tabs(sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    write_part(file, [(sentence, "Other.", "neutral"), ("Second.", sentence, "contradiction")])
    pairs = read_pairs(file)
    assert pairs.sentences == [(sentence, "Other."), ("Second.", sentence)]
    assert pairs.labels == [1, 2]
    assert pairs.damaged == []


def test_a_quoted_field_may_hold_a_tab(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    write_part(file, [row('"He said ""a\tb""."', "Other.", "entailment"), ('"Plain," she said.', '"', "neutral")])
    assert read_pairs(file).sentences == [('He said "a\tb".', "Other."), ('"Plain," she said.', '"')]


def test_a_file_may_have_every_field_in_quotes(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    rows = [("A\ttab.", 'He said "b".', "neutral"), ("Plain.", "", "entailment")]
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(HEADER.split("\t"))
        writer.writerows([0, 1, 2, "fiction", one, other, label, label] for one, other, label in rows)
    pairs = read_pairs(file)
    assert pairs.sentences == [(one, other) for one, other, _ in rows]
    assert pairs.labels == [1, 0]
    assert pairs.damaged == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("tail", ["", "\n\n"])
def test_ends_of_lines_a_mark_at_the_beginning_and_empty_lines_change_nothing(
    end: str, start: bytes, tail: str, tmp_path: Path
) -> None:
    file = tmp_path / "train.tsv"
    write_part(file, some_rows(4), end=end, start=start)
    content = file.read_bytes().removesuffix(end.encode()) + tail.encode()
    file.write_bytes(content)
    pairs = read_pairs(file)
    assert pairs.sentences == [(one, other) for one, other, _ in some_rows(4)]
    assert pairs.labels == [0, 1, 2, 0]
    assert pairs.damaged == []


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("gold_label\tx\tsentence2\tsentence1\nneutral\t\tTwo.\tOne.\n")
    assert read_pairs(file).sentences == [("One.", "Two.")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0\tOne.\tTwo.\tneutral", "4 fields, 8 in the first line"),
        ("nothing", "1 field, 8 in the first line"),
        (row("One\ttwo.", "Other.", "neutral"), "9 fields, 8 in the first line"),
        (row('"One\ttwo.', "Other.", "neutral"), "9 fields, 8 in the first line"),
        (row("One.", "Other.", "perhaps"), "the label 'perhaps' is none of entailment, neutral, contradiction"),
        (row("One.", "Other.", ""), "the label '' is none of entailment, neutral, contradiction"),
        (row("One.", "\udcff\udcfe", "neutral"), "not UTF-8"),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(line: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    write_part(file, some_rows(3))
    with file.open("ab") as opened:
        opened.write(f"{line}\n".encode(errors="surrogateescape"))
        opened.write(f"{row('Last.', 'One.', 'neutral')}\n".encode())
    pairs = read_pairs(file)
    assert pairs.damaged == [("train.tsv line 5", why)]
    assert len(pairs.sentences) == 4
    assert pairs.sentences[-1] == ("Last.", "One.")


def test_damage_is_refused_or_skipped_as_asked(root: Path) -> None:
    with (root / "train.tsv").open("a") as file:
        file.write("broken\n" * 7)
    with (root / "dev_matched.tsv").open("a") as file:
        file.write(row("One.", "Other.", "what") + "\n")
    with pytest.raises(WslSweepError) as caught:
        prepare(config_of(root))
    assert str(caught.value) == (
        f"{root}: 8 damaged lines are refused: train.tsv line 62 (1 field, 8 in the first line), train.tsv line 63 "
        "(1 field, 8 in the first line), train.tsv line 64 (1 field, 8 in the first line), train.tsv line 65 (1 field, "
        "8 in the first line), train.tsv line 66 (1 field, 8 in the first line), and 3 more; mend them, or leave them "
        "out by dataset.damaged: skip"
    )
    notes = prepare(config_of(root, damaged="skip"))
    assert len(notes) == 1
    assert notes[0].startswith(f"{root}: 8 damaged lines are left out: train.tsv line 62 (1 field, ")
    assert len(load(config_of(root, damaged="skip")).all_labels) == 60 + 12 + 9


def test_pairs_without_consensus_are_left_out_and_counted(root: Path) -> None:
    with (root / "dev_matched.tsv").open("a") as file:
        file.write((row("One.", "Other.", "-") + "\n") * 3)
    assert prepare(config_of(root)) == (
        f"{root}: 3 pairs on whose label the annotators do not agree are left out (matched 3)",
    )
    assert len(load_test(config_of(root))) == 12 + 9


@pytest.mark.parametrize("vocabulary", ["learned", "words"])
def test_an_empty_sentence_is_a_text_like_any_other(vocabulary: str, root: Path) -> None:
    pairs = [("", "The man.", "neutral"), ("The man.", "", "entailment"), (" ", "\u00a0", "contradiction")]
    write_part(root / "dev_matched.tsv", [*some_rows(2), *pairs, ("", "man " * 50, "neutral")])
    write_part(root / "dev_mismatched.tsv", [("Empty.", "", "neutral")])
    if vocabulary == "words":
        vocabulary = str(write_words(root / "vocab.txt"))
    config = config_of(root, vocabulary=vocabulary, max_length=16)
    assert prepare(config) == (f"{root}: 5 pairs with an empty sentence (matched 4, mismatched 1), kept as such",)
    test = load_test(config)
    assert test.labels.tolist() == [0, 1, 1, 0, 2, 1, 1]
    task = task_of(config)
    assert isinstance(task, Texts)
    lengths, firsts = task.tokens.lengths[62:66].tolist(), task.tokens.firsts[62:66].tolist()
    assert (lengths[2:], [firsts[0], *firsts[2:]]) == ([3, 16], [2, 2, 2])  # [CLS] [SEP] [SEP]; [CLS] [SEP] man …
    assert (firsts[1], lengths[0]) == (lengths[1] - 1, lengths[1])  # the same words first, and second


def test_one_empty_sentence_is_told_as_one(root: Path) -> None:
    with (root / "train.tsv").open("a") as file:
        file.write(row("One.", "", "neutral") + "\n")
    assert prepare(config_of(root)) == (f"{root}: 1 pair with an empty sentence (train 1), kept as such",)
    assert len(task_of(config_of(root)).labels) == 61 + 12 + 9


# --- files -----------------------------------------------------------------------------------------


def remove(root: Path) -> None:
    (root / "dev_matched.tsv").unlink()
    (root / "dev_mismatched.tsv").unlink()


def without_column(root: Path) -> None:
    (root / "train.tsv").write_text("index\tsentence1\tlabel\n")


def empty(root: Path) -> None:
    (root / "train.tsv").write_bytes(b"")


def header_only(root: Path) -> None:
    (root / "dev_matched.tsv").write_text(HEADER + "\n")


def not_text(root: Path) -> None:
    (root / "train.tsv").write_bytes(b"\xff\xfei\x00n\x00\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, r"glue: dev_matched.tsv and dev_mismatched.tsv are not there; mnli needs GLUE's train.tsv, dev_match"),
        (without_column, r"glue/train.tsv: has no column sentence2 and no gold_label; its first line has: index, sent"),
        (empty, r"glue/train.tsv: has no column sentence1 and no sentence2 and no gold_label"),
        (header_only, r"glue/dev_matched.tsv: holds no pair of sentences with a label"),
        (not_text, r"glue/train.tsv: its first line is not UTF-8"),
    ],
)
def test_files_that_are_not_glues_are_told_with_their_path(
    damage: Callable[[Path], None], message: str, root: Path
) -> None:
    damage(root)
    with pytest.raises(WslSweepError, match=message):
        prepare(config_of(root, damaged="skip"))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, root: Path) -> None:
    with pytest.raises(WslSweepError, match="absent: there is no such folder"):
        prepare(config_of(tmp_path / "absent"))
    with pytest.raises(WslSweepError, match=r"train.tsv: is a file, not a folder"):
        prepare(config_of(root / "train.tsv"))
    assert not available(config_of(tmp_path / "absent"))
    assert available(config_of(root))
    assert not available(config_of(root, vocabulary=str(tmp_path / "absent")))


def test_the_folder_of_glues_archive_is_found_too(tmp_path: Path, root: Path) -> None:
    write_glue(tmp_path / "archive" / "MNLI")
    inside = load_mnli(config_of(tmp_path / "archive"))
    assert inside.digest == load_mnli(config_of(root)).digest


# --- parts -----------------------------------------------------------------------------------------


def test_the_dev_sets_are_the_test_part_and_none_of_it_is_trained_or_chosen_on(root: Path) -> None:
    config = config_of(root)
    data, test = load(config), load_test(config)
    parts = [set(data.train.ids.tolist()), set(data.validation.ids.tolist()), set(test.ids.tolist())]
    assert parts[0] | parts[1] == set(range(60))
    assert parts[2] == set(range(60, 81))
    assert len(parts[0]) + len(parts[1]) == 60
    assert {name: sorted(test.ids[rows].tolist()) for name, rows in test.groups.items()} == {
        "matched": list(range(60, 72)),
        "mismatched": list(range(72, 81)),
    }
    assert data.validation.groups == {}
    assert (data.num_classes, test.task.class_names if test.task else ()) == (3, CLASSES)
    assert data.all_labels.tolist() == [index % 3 for count in (60, 12, 9) for index in range(count)]


def decoded(task: Texts, row: int, words: list[str]) -> tuple[str, list[int]]:
    """The tokens of a row as text, and their segments."""
    ids, types = task.take(torch.tensor([row]), torch.zeros(1))[0]
    return " ".join(words[number] for number in ids.tolist() if number), types.tolist()


def test_rows_hold_the_sentences_of_their_lines(root: Path, tmp_path: Path) -> None:
    write_part(root / "dev_mismatched.tsv", [("The man.", "A house\u2028es", "contradiction")])
    file = write_words(tmp_path / "words" / "vocab.txt")
    task = load_mnli(config_of(root, vocabulary=str(file.parent)))
    text, types = decoded(task, 72, file.read_text().split("\n"))
    assert text == "[CLS] The man . [SEP] A house e ##s [SEP]"
    assert types == [0] * 5 + [1] * 5 + [0] * 6
    assert task.in_channels == len(file.read_text().split())
    of_two = some_inputs(config_of(root, vocabulary=str(file)))
    assert torch.equal(of_two, task.take(torch.arange(2), torch.zeros(2)))


def test_the_vocabulary_is_learned_from_the_training_file_alone(root: Path) -> None:
    before = load_mnli(config_of(root))
    write_part(root / "dev_matched.tsv", [("Zebra zebra zebra zebra.", "Zebra zebra?", "neutral")] * 12)
    after = load_mnli(config_of(root))
    assert (before.vocabulary, before.in_channels) == (after.vocabulary, after.in_channels)
    assert before.digest != after.digest


def test_sentences_are_cut_to_the_asked_length(root: Path) -> None:
    long = load_mnli(config_of(root))
    short = load_mnli(config_of(root, max_length=12))
    assert int(long.tokens.lengths.max()) > 12
    assert int(short.tokens.lengths.max()) == 12
    assert short.inputs({}, torch.arange(81), "cpu", training=True).facts()["max_length"] == 12
    assert short.take(torch.arange(81), torch.zeros(81)).shape == (81, 2, 12)


# --- what is kept ----------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs were tokenised, each time."""
    calls: list[int] = []
    true = mnli.encode_pairs

    def encode(words: Any, pairs: Any, *more: Any) -> Any:
        calls.append(len(pairs))
        return true(words, pairs, *more)

    monkeypatch.setattr(mnli, "encode_pairs", encode)
    return calls


def test_sentences_are_tokenised_once(root: Path, counted: list[int], own_cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(config_of(root), lambda done, of: seen.append((done, of)))
    first = task_of(config_of(root))
    dataset.forget()
    again = load_mnli(config_of(root), lambda *_: pytest.fail("nothing is to be done"))
    assert counted == [81]
    assert seen == [(81, 81)]
    assert first.digest == again.digest
    assert first.notes == again.notes
    assert torch.equal(first.labels, again.labels)
    (words,) = own_cache.glob("data/mnli-*/vocab.txt")
    assert len(words.read_text().split("\n")) == again.in_channels + 1


def test_a_copy_elsewhere_is_not_tokenised_again(root: Path, tmp_path: Path, counted: list[int]) -> None:
    load_mnli(config_of(root))
    root.rename(tmp_path / "moved")
    load_mnli(config_of(tmp_path / "moved"))
    assert counted == [81]


def touch(root: Path) -> None:
    os.utime(root / "train.tsv", ns=(1, 1))


def add_a_line(root: Path) -> None:
    with (root / "dev_matched.tsv").open("a") as file:
        file.write(row("One.", "Other.", "neutral") + "\n")


def another_word(root: Path) -> None:
    write_words(root / "vocab.txt", ["woman"])


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (touch, {}),
        (add_a_line, {}),
        (another_word, {}),
        (lambda root: None, {"max_length": 64}),
        (lambda root: None, {"damaged": "skip"}),
    ],
)
def test_what_changed_is_tokenised_again(
    change: Callable[[Path], None], more: Config, root: Path, counted: list[int]
) -> None:
    words = write_words(root / "vocab.txt")
    first = task_of(config_of(root, vocabulary=str(words)))
    change(root)
    again = task_of(config_of(root, vocabulary=str(words), **more))
    assert len(counted) == 2
    assert first is not again


def test_damaged_bytes_in_the_cache_are_not_believed(root: Path, counted: list[int], own_cache: Path) -> None:
    digest = load_mnli(config_of(root)).digest
    (file,) = own_cache.glob("data/mnli-*/tokens.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert load_mnli(config_of(root)).digest == digest
    assert counted == [81, 81]


def test_a_cache_that_cannot_be_written_is_told(root: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where a folder should be")
    with pytest.raises(WslSweepError, match=r"cannot keep the tokens of mnli .* set WSL_SWEEP_CACHE"):
        load_mnli(config_of(root))


# --- the hub ---------------------------------------------------------------------------------------


def write_parquet(folder: Path) -> dict[str, Path]:
    """The hub's files, of the same pairs as ``write_glue``."""
    from pyarrow import table
    from pyarrow.parquet import write_table

    found = {}
    for number, (name, count) in enumerate(zip(mnli.HUB_FILES.values(), (60, 12, 9), strict=True)):
        rows = [*some_rows(count, seed=number), ("No.", "Label.", "-")]
        columns = {
            "premise": [one for one, _, _ in rows],
            "hypothesis": [other for _, other, _ in rows],
            "label": [CLASSES.index(label) if label in CLASSES else -1 for _, _, label in rows],
            "idx": list(range(len(rows))),
        }
        found[name] = folder / name
        found[name].parent.mkdir(parents=True, exist_ok=True)
        write_table(table(columns), found[name])
    return found


def test_without_a_folder_the_hubs_files_are_taken_and_say_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_parquet(tmp_path / "downloaded")
    asked: list[tuple[str, str]] = []

    def download(repository: str, name: str, *, repo_type: str, **_: object) -> str:
        asked.append((repository, repo_type))
        return str(files[name])

    assert not available(config_of(None))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    hub, disk = load_mnli(config_of(None)), load_mnli(config_of(root))
    assert hub.digest == disk.digest
    assert asked == [("nyu-mll/glue", "dataset")] * 3
    assert hub.notes == (
        "nyu-mll/glue: 3 pairs on whose label the annotators do not agree are left out "
        "(train 1, matched 1, mismatched 1)",
    )


def test_without_a_folder_and_the_hub_it_is_said_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    with pytest.raises(WslSweepError) as caught:
        prepare(config_of(None))
    assert str(caught.value) == (
        "mnli: nyu-mll/glue cannot be downloaded (no network); put GLUE's train.tsv, dev_matched.tsv, "
        "dev_mismatched.tsv into a folder, and name it by dataset.root"
    )


def test_a_file_of_the_hub_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    file.write_bytes(b"nothing")
    with pytest.raises(WslSweepError, match=r"train.parquet: is no parquet file with premise, hypothesis, label"):
        read_pairs(file)


def test_a_sentence_that_the_hub_does_not_have_is_damage_and_an_empty_one_is_not(tmp_path: Path) -> None:
    from pyarrow import table
    from pyarrow.parquet import write_table

    columns = {"premise": ["One.", None, ""], "hypothesis": ["Two.", "Two.", "Two."], "label": [0, 1, 2]}
    write_table(table(columns), tmp_path / "train.parquet")
    pairs = read_pairs(tmp_path / "train.parquet")
    assert (pairs.sentences, pairs.labels, pairs.empty) == ([("One.", "Two."), ("", "Two.")], [0, 2], 1)
    assert pairs.damaged == [("train.parquet row 2", "a sentence is missing")]


def test_a_vocabulary_beside_the_sentences_is_not_taken_unasked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    write_words(root / "vocab.txt")
    with pytest.raises(WslSweepError, match=r"bert-base-cased is neither .*glue holds a vocab.txt, which is taken if"):
        prepare(config_of(root, vocabulary="bert-base-cased"))
