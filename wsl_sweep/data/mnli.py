"""MultiNLI (Williams et al. 2018): GLUE's files, or the hub's; tokenised once and kept in the user's cache."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from wsl_sweep.data.kept import find_tensors, keep_tensors
from wsl_sweep.data.raw import Progress
from wsl_sweep.data.text import Texts, Tokens
from wsl_sweep.data.wordpiece import (
    Vocabulary,
    encode_pairs,
    found_vocabulary,
    learn_vocabulary,
    read_vocabulary,
    vocabulary_there,
)
from wsl_sweep.errors import StorageError, WslSweepError
from wsl_sweep.files import write_whole
from wsl_sweep.hub import cached_file, hub_file
from wsl_sweep.pair_files import LEARNED, PARTS, WORDS_FILE, FileState, content_of, pair_files, vocabulary_files
from wsl_sweep.paths import cache_folder, node_folder

Config = Mapping[str, Any]

CLASSES = ("entailment", "neutral", "contradiction")
"""In the order of GLUE's labels on the hub."""

NO_CONSENSUS = "-"
"""The label of a pair of which no three of five annotators say the same."""

REPOSITORY = "nyu-mll/glue"
HUB_FILES: dict[str, str] = {
    "train": "mnli/train-00000-of-00001.parquet",
    "matched": "mnli/validation_matched-00000-of-00001.parquet",
    "mismatched": "mnli/validation_mismatched-00000-of-00001.parquet",
}
"""Of the hub's GLUE, by the parts of ``PARTS``."""

COLUMNS, HUB_COLUMNS = ("sentence1", "sentence2", "gold_label"), ("premise", "hypothesis", "label")

NAMED_AT_MOST = 5
"""Damaged lines that are named; the rest are counted."""

READER = 2
"""Changes with how files are read and kept, so that older ones in a cache are not taken for these."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass
class Pairs:
    """What a file holds.

    Attributes:
        sentences: the pairs.
        labels: of each a number of ``CLASSES``.
        undecided: how many were left out because their annotators do not agree.
        empty: how many have a sentence without a word, which is a text like any other.
        damaged: (where, why) of what cannot be read.
    """

    sentences: list[tuple[str, str]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    undecided: int = 0
    empty: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, sentences: tuple[str, str], label: int | None, said: str) -> None:
        """Takes one pair, if it is one; ``said`` is the label as the file has it."""
        if label is None:
            self.damaged.append((where, f"the label {said[:40]!r} is none of {', '.join(CLASSES)}"))
        else:
            self.sentences.append(sentences)
            self.labels.append(label)
            self.empty += not all(sentence.strip() for sentence in sentences)


def mnli_there(config: Config) -> bool:
    """Whether the sentences and the vocabulary of a ``dataset`` section are on this machine."""
    try:
        sentences = _on_disk(config.get("root")) is not None
    except WslSweepError:
        return False
    return sentences and vocabulary_there(str(config["vocabulary"]))


def mnli_stamp(config: Config) -> tuple[FileState, ...] | None:
    """Sizes and times of the files; None where they are not there."""
    try:
        files = (*(_on_disk(config.get("root")) or ()), *(vocabulary_files(str(config["vocabulary"])) or ()))
        return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except (WslSweepError, OSError):
        return None


def load_mnli(config: Config, progress: Progress = lambda done, of: None) -> Texts:
    """The pairs of MultiNLI as tokens: those of ``train``, then the two dev sets, which are the test part.

    Args:
        config: ``root`` (GLUE's files; without it the hub's), ``max_length``, ``vocabulary`` and ``damaged`` of a
            ``dataset`` section.
        progress: hears (done, of) while sentences are tokenised.

    Raises:
        WslSweepError: files are absent, or damaged and not to be skipped; or the vocabulary is not to be had.
    """
    root, max_length, damaged = config.get("root"), int(config["max_length"]), config.get("damaged", "refuse")
    files = _on_disk(root) or _from_hub()
    vocabulary = _vocabulary_files(str(config["vocabulary"]), root)
    try:
        tokenizers = version("tokenizers")
    except PackageNotFoundError:
        tokenizers = None
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    words = LEARNED if vocabulary is None else content_of(vocabulary)
    key = hashlib.sha256(repr((READER, states, words, max_length, damaged, tokenizers)).encode()).hexdigest()[:16]
    folder = cache_folder() / "data" / f"mnli-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            found = _kept(folder, str(root or REPOSITORY))
            if found is None:
                _tokenise(files, vocabulary, folder, max_length, damaged == "skip", progress)
                found = _kept(folder, str(root or REPOSITORY))
    except (OSError, StorageError) as error:
        raise WslSweepError(
            f"cannot keep the tokens of mnli in {folder}: {error}; set WSL_SWEEP_CACHE to a folder that can be written"
        ) from error
    assert found is not None
    return found


# --- files -----------------------------------------------------------------------------------------


def _on_disk(root: str | None) -> tuple[Path, ...] | None:
    """The files of ``root``, or of the hub's cache; None where that has not all of them."""
    if root is not None:
        return pair_files(root).files
    found = [cached_file(REPOSITORY, name, "dataset") for name in HUB_FILES.values()]
    there = tuple(file for file in found if file is not None)
    return there if len(there) == len(HUB_FILES) else None


def _from_hub() -> tuple[Path, ...]:
    try:
        return tuple(hub_file(REPOSITORY, name, "dataset") for name in HUB_FILES.values())
    except WslSweepError as error:
        raise WslSweepError(
            f"mnli: {error}; put GLUE's {', '.join(PARTS.values())} into a folder, and name it by dataset.root"
        ) from error


def _vocabulary_files(name: str, root: str | None) -> tuple[Path, ...] | None:
    try:
        return found_vocabulary(name)
    except WslSweepError as error:
        beside = node_folder(root) / WORDS_FILE if root is not None else None
        if beside is not None and beside.is_file():
            raise WslSweepError(f"{error}; {root} holds a {WORDS_FILE}, which is taken if you name it") from error
        raise


# --- reading ---------------------------------------------------------------------------------------


def read_pairs(file: Path) -> Pairs:
    """The pairs of a file of GLUE's, or of the hub's. Raises WslSweepError: it is no such file."""
    try:
        return _read_parquet(file) if file.suffix == ".parquet" else _read_tsv(file)
    except OSError as error:
        raise WslSweepError(f"{file}: cannot be read ({error.strerror or error})") from error


def _read_tsv(file: Path) -> Pairs:
    """GLUE's files are written without quoting: a quote is part of a sentence, and a tab always ends a field.

    A line ends at a line feed only. One that has more fields than the header, or a label in quotes, may come from a
    program that quotes fields: it is read that way if it then has the right number.
    """
    lines = _lines(file)
    _, header = next(lines, (1, b""))
    try:
        names = [name.strip().strip('"') for name in header.decode().split("\t")]
    except UnicodeDecodeError as error:
        raise WslSweepError(f"{file}: its first line is not UTF-8") from error
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        shown = ", ".join(names)[:200] or "nothing"
        raise WslSweepError(f"{file}: has no column {' and no '.join(missing)}; its first line has: {shown}")
    one, other, gold = (names.index(name) for name in COLUMNS)
    numbers = {name: number for number, name in enumerate(CLASSES)}
    pairs = Pairs()
    for number, line in lines:
        where = f"{file.name} line {number}"
        try:
            fields = line.decode().split("\t")
        except UnicodeDecodeError:
            pairs.damaged.append((where, "not UTF-8"))
            continue
        if len(fields) > len(names) or (len(fields) == len(names) and fields[gold].strip().startswith('"')):
            fields = _quoted(line.decode()) or fields
        if len(fields) != len(names):
            what = "field" if len(fields) == 1 else "fields"
            pairs.damaged.append((where, f"{len(fields)} {what}, {len(names)} in the first line"))
            continue
        said = fields[gold].strip()
        if said == NO_CONSENSUS:
            pairs.undecided += 1
        else:
            pairs.add(where, (fields[one], fields[other]), numbers.get(said), said)
    return pairs


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Numbers, from 1, and bytes of a file's lines that are not empty, without their ends."""
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            text = text.removesuffix(b"\n").removesuffix(b"\r")
            if text or number == 1:
                yield number, text


def _quoted(line: str) -> list[str] | None:
    """The fields of a line as a program that quotes them would have written it; None where it is no such line."""
    try:
        rows = list(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _read_parquet(file: Path) -> Pairs:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(file, columns=list(HUB_COLUMNS))
        columns = [table.column(name).to_pylist() for name in HUB_COLUMNS]
    except (ArrowException, KeyError, ValueError) as error:
        raise WslSweepError(f"{file}: is no parquet file with {', '.join(HUB_COLUMNS)} ({error})") from error
    pairs = Pairs()
    for number, (one, other, label) in enumerate(zip(*columns, strict=True), start=1):
        where = f"{file.name} row {number}"
        if label == -1:
            pairs.undecided += 1
        elif one is None or other is None:
            pairs.damaged.append((where, "a sentence is missing"))
        else:
            pairs.add(where, (one, other), label if label in range(len(CLASSES)) else None, str(label))
    return pairs


def _told(damaged: Sequence[Sequence[str]], count: int, done: str) -> str:
    """The first of ``count`` damaged lines, and what is ``done`` with them."""
    shown = ", ".join(f"{line} ({why})" for line, why in damaged[:NAMED_AT_MOST])
    more = f", and {count - NAMED_AT_MOST:,} more" if count > NAMED_AT_MOST else ""
    return f"{count:,} damaged line{'s are' if count > 1 else ' is'} {done}: {shown}{more}"


# --- tokens ----------------------------------------------------------------------------------------


def _tokenise(
    files: Sequence[Path],
    vocabulary: Sequence[Path] | None,
    folder: Path,
    max_length: int,
    skip: bool,
    progress: Progress,
) -> None:
    """Reads the files, and keeps their tokens in ``folder``."""
    words: Vocabulary | None = read_vocabulary(vocabulary) if vocabulary is not None else None
    parts = {name: read_pairs(file) for name, file in zip(PARTS, files, strict=True)}
    damaged = [line for part in parts.values() for line in part.damaged]
    if damaged and not skip:
        mend = "mend them, or leave them out by dataset.damaged: skip"
        raise WslSweepError(f"{files[0].parent}: {_told(damaged, len(damaged), 'refused')}; {mend}")
    for file, part in zip(files, parts.values(), strict=True):
        if not part.sentences:
            first = f"; the first of its damaged lines: {': '.join(part.damaged[0])}" if part.damaged else ""
            raise WslSweepError(f"{file}: holds no pair of sentences with a label{first}")
    if words is None:
        words = learn_vocabulary([sentence for pair in parts["train"].sentences for sentence in pair])
        write_whole(folder / WORDS_FILE, ("\n".join(words.words) + "\n").encode())
    tokens = encode_pairs(words, [pair for part in parts.values() for pair in part.sentences], max_length, progress)
    tensors = {
        "ids": tokens.ids,
        "offsets": tokens.offsets,
        "firsts": tokens.firsts,
        "labels": torch.tensor([label for part in parts.values() for label in part.labels], dtype=torch.int64),
    }
    facts = {
        "sizes": {name: len(part.sentences) for name, part in parts.items()},
        "undecided": {name: part.undecided for name, part in parts.items() if part.undecided},
        "empty": {name: part.empty for name, part in parts.items() if part.empty},
        "damaged": [damaged[:NAMED_AT_MOST], len(damaged)],
        "words": len(words.words),
        "vocabulary": words.digest,
        "max_length": max_length,
    }
    keep_tensors(folder / "tokens.safetensors", tensors, {"facts": json.dumps(facts)})


def _kept(folder: Path, where: str) -> Texts | None:
    """What an earlier run has left, or None."""
    found = find_tensors(folder / "tokens.safetensors")
    if found is None:
        return None
    tensors, facts = found[0], json.loads(found[1]["facts"])
    task = Texts(
        Tokens(tensors["ids"], tensors["offsets"], tensors["firsts"]),
        tensors["labels"],
        CLASSES,
        words=int(facts["words"]),
        max_length=int(facts["max_length"]),
        vocabulary=str(facts["vocabulary"]),
    )
    begin = int(facts["sizes"]["train"])
    groups = {}
    for name in list(PARTS)[1:]:
        groups[name] = torch.arange(begin, begin + int(facts["sizes"][name]))
        begin += int(facts["sizes"][name])
    task.test, task.test_groups = torch.cat(list(groups.values())), groups
    task.notes = _notes(where, facts)
    return task


def _notes(where: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if facts["undecided"]:
        count, parts = _counted(facts["undecided"])
        notes.append(f"{where}: {count:,} pairs on whose label the annotators do not agree are left out ({parts})")
    if facts["empty"]:
        count, parts = _counted(facts["empty"])
        notes.append(
            f"{where}: {count:,} pair{'s' if count > 1 else ''} with an empty sentence ({parts}), kept as such"
        )
    named, count = facts["damaged"]
    if count:
        notes.append(f"{where}: {_told(named, count, 'left out')}")
    return tuple(notes)


def _counted(by_part: Mapping[str, int]) -> tuple[int, str]:
    """How many of something there are, and how many in which part."""
    return sum(by_part.values()), ", ".join(f"{name} {number:,}" for name, number in by_part.items())
