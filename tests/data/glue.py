"""Files of MultiNLI as GLUE has them, made up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

NAMES = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv")
CLASSES = ("entailment", "neutral", "contradiction")

HEADER = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label"
"""The columns of GLUE's header, without the parses."""

SUBJECTS = ("The man", "A Woman", "Nobody", "Every child in town", "My sister's dog", "He")
VERBS = ("sees", "doesn't see", "has seen", "bought", "will never buy", "is")
OBJECTS = ("a house.", "the U.S. embassy.", "it!", "two cats, and a very long story about them and their mother?")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Row = tuple[str, str, str]


def row(one: str, other: str, label: str, index: int = 0) -> str:
    """A line of a file."""
    return f"{index}\t{index}p\t{index}e\tfiction\t{one}\t{other}\t{label}\t{label}"


def some_rows(count: int, seed: int = 0) -> list[Row]:
    """Sentence pairs; those that say the same are entailment, so that there is something to learn."""
    generator = random.Random(seed)

    def sentence() -> str:
        return " ".join(generator.choice(words) for words in (SUBJECTS, VERBS, OBJECTS))

    rows = []
    for index in range(count):
        label = CLASSES[index % 3]
        one = sentence()
        other = {"entailment": one, "neutral": sentence(), "contradiction": f"It is false that {sentence()}"}[label]
        rows.append((one, other, label))
    return rows


def write_part(file: Path, rows: Sequence[Row | str], *, end: str = "\n", start: bytes = b"") -> None:
    """A file of rows; a text among them is a line as it is."""
    lines = [one if isinstance(one, str) else row(*one, index) for index, one in enumerate(rows)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(start + "".join(line + end for line in (HEADER, *lines)).encode())


def write_glue(root: Path, train: int = 60, matched: int = 12, mismatched: int = 9) -> Path:
    """A whole folder, with what of GLUE's is not read beside it."""
    for number, (name, count) in enumerate(zip(NAMES, (train, matched, mismatched), strict=True)):
        write_part(root / name, some_rows(count, seed=number))
    (root / "test_matched.tsv").write_text("index\tsentence1\tsentence2\n0\tA test.\tIs not read.\n")
    (root / "original").mkdir(exist_ok=True)
    (root / "original" / "multinli_1.0_train.txt").write_text("not read\n")
    return root


def write_words(file: Path, more: Sequence[str] = ()) -> Path:
    """A cased vocabulary of letters and some words, ``[PAD]`` first."""
    letters = [chr(number) for number in range(33, 127)]
    words = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), "The", "man", "house", "##es", *more]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(words) + "\n")
    return file
