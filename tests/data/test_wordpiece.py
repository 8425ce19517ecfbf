"""Vocabularies: where they come from, that they are what a model of BERT needs, and pairs as BERT reads them."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from wsl_sweep import hub
from wsl_sweep.data import wordpiece
from wsl_sweep.data.wordpiece import (
    Vocabulary,
    encode_pairs,
    found_vocabulary,
    learn_vocabulary,
    read_vocabulary,
    vocabulary_there,
)
from wsl_sweep.errors import WslSweepError

from .glue import SPECIAL, some_rows, write_words

SENTENCES = [sentence for one, other, _ in some_rows(60) for sentence in (one, other)]


@pytest.fixture
def words(tmp_path: Path) -> Vocabulary:
    return read_vocabulary([write_words(tmp_path / "vocab.txt")])


def texts(vocabulary: Vocabulary, *pairs: tuple[str, str], max_length: int = 64) -> list[str]:
    """The tokens of pairs, as text."""
    tokens = encode_pairs(vocabulary, pairs, max_length)
    ids, offsets = tokens.ids.tolist(), tokens.offsets.tolist()
    return [
        " ".join(vocabulary.words[number] for number in ids[start:stop]) for start, stop in itertools.pairwise(offsets)
    ]


def test_pairs_are_marked_as_bert_reads_them(words: Vocabulary) -> None:
    assert texts(words, ("The man", "houses"), ("a", "The house")) == [
        "[CLS] The man [SEP] house ##s [SEP]",
        "[CLS] a [SEP] The house [SEP]",
    ]
    assert encode_pairs(words, [("The man", "houses"), ("a", "The")], 64).firsts.tolist() == [4, 3]


def test_special_words_in_a_sentence_are_text(words: Vocabulary) -> None:
    assert texts(words, ("[SEP] [PAD]", "a")) == ["[CLS] [ S ##E ##P ] [ P ##A ##D ] [SEP] a [SEP]"]


def test_the_longer_sentence_is_cut_first(words: Vocabulary) -> None:
    generator = random.Random(0)
    pairs = [("a " * generator.randint(1, 30), "b " * generator.randint(1, 30)) for _ in range(50)]
    for max_length in (8, 9, 20):
        for (one, other), text in zip(pairs, texts(words, *pairs, max_length=max_length), strict=True):
            room = max_length - 3
            short, long = sorted([one.count("a"), other.count("b")])
            if short + long > room:
                short = min(short, room // 2)
                long = room - short
            kept = [text.split().count(letter) for letter in "ab"]
            assert sorted(kept) == [short, long]
            assert kept[0] <= kept[1] or one.count("a") >= other.count("b")
            assert text.startswith("[CLS]")
            assert text.endswith("[SEP]")


def test_many_pairs_on_several_threads_stay_in_their_order(words: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(one, other) for one, other, _ in some_rows(100)]
    alone = texts(words, *pairs)
    monkeypatch.setattr(wordpiece, "ENCODED_AT_ONCE", 7)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    seen: list[tuple[int, int]] = []
    encode_pairs(words, pairs, 64, lambda done, of: seen.append((done, of)))
    assert texts(words, *pairs) == alone
    assert seen[-1] == (100, 100)
    assert len(seen) == 15


@pytest.mark.parametrize("before", [None, "true"])
def test_the_environment_is_left_as_it_was(
    before: str | None, words: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    else:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    learn_vocabulary(SENTENCES[:10])
    encode_pairs(words, [("a", "b")], 16)
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


# --- a learned one ---------------------------------------------------------------------------------


def test_a_learned_vocabulary_has_words_of_the_sentences_and_keeps_case() -> None:
    learned = learn_vocabulary(SENTENCES, most=400)
    assert learned.words[:5] == SPECIAL
    assert {"The", "Woman", "embassy", "##s", "A"} <= set(learned.words)
    assert "the" in learned.words
    assert "woman" not in learned.words
    assert len(set(learned.words)) == len(learned.words) <= 400
    assert texts(learned, ("The woman", "A Woman")) != texts(learned, ("the woman", "a woman"))
    assert texts(learned, ("\u20ac", "it!")) == ["[CLS] [UNK] [SEP] it ! [SEP]"]


def test_a_learned_vocabulary_has_at_most_so_many_words() -> None:
    assert len(learn_vocabulary(SENTENCES, most=150).words) <= 150
    letters = {letter for sentence in SENTENCES for letter in sentence if letter != " "}
    assert len(learn_vocabulary(SENTENCES, most=10).words) == 5 + 2 * len(letters)


def test_a_learned_vocabulary_is_the_same_in_another_process() -> None:
    program = (
        "from tests.data.test_wordpiece import SENTENCES\n"
        "from wsl_sweep.data.wordpiece import learn_vocabulary\n"
        "print(learn_vocabulary(SENTENCES, most=300).digest)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == learn_vocabulary(SENTENCES, most=300).digest


# --- one that is there -----------------------------------------------------------------------------


def test_a_folder_a_file_and_the_librarys_own_form_are_the_same_vocabulary(tmp_path: Path) -> None:
    file = write_words(tmp_path / "words" / "vocab.txt")
    whole = tmp_path / "whole" / "tokenizer.json"
    whole.parent.mkdir()
    read = read_vocabulary([file])
    read.tokenizer.save(str(whole))
    for name in (file, file.parent, whole, whole.parent):
        files = found_vocabulary(str(name))
        assert files is not None
        assert read_vocabulary(files).digest == read.digest
        assert texts(read_vocabulary(files), ("The houses", "[SEP]")) == texts(read, ("The houses", "[SEP]"))


def test_lines_of_a_vocabulary_may_end_as_on_windows_and_hold_odd_letters(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_bytes("\r\n".join([*SPECIAL, "a", "\u2028", "B\x85", "c", ""]).encode())
    assert read_vocabulary([file]).words == (*SPECIAL, "a", "\u2028", "B\x85", "c")


@pytest.mark.parametrize(
    ("settings", "more", "expected"),
    [
        (None, (), "[CLS] The [SEP] man [SEP]"),
        ('{"do_lower_case": false}', (), "[CLS] The [SEP] man [SEP]"),
        ('{"do_lower_case": true}', ("the",), "[CLS] the [SEP] man [SEP]"),
        ("{}", (), "[CLS] The [SEP] man [SEP]"),
    ],
)
def test_case_is_kept_as_the_vocabulary_says(
    settings: str | None, more: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    write_words(tmp_path / "vocab.txt", more)
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(settings)
    files = found_vocabulary(str(tmp_path))
    assert files is not None
    assert texts(read_vocabulary(files), ("The", "man")) == [expected]


def test_a_vocabulary_without_capital_letters_is_of_small_letters(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*SPECIAL, "the", "man"]))
    assert texts(read_vocabulary([file]), ("The", "MAN")) == ["[CLS] the [SEP] man [SEP]"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["[UNK]", "[PAD]", "[CLS]", "[SEP]"], r"vocab.txt: \[PAD\] must be the first word, number 0, and is number 1"),
        (["[PAD]", "[UNK]", "a"], r"vocab.txt: has no \[CLS\] and no \[SEP\]; a vocabulary of BERT is needed"),
        (["\udcff"], "vocab.txt: is not UTF-8"),
    ],
)
def test_a_vocabulary_that_bert_cannot_read_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_bytes("\n".join(words).encode(errors="surrogateescape"))
    with pytest.raises(WslSweepError, match=message):
        read_vocabulary([file])


def test_a_damaged_tokenizer_is_told_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": "nothing"}))
    with pytest.raises(WslSweepError, match=r"tokenizer.json: is no tokenizer.json \("):
        read_vocabulary([file])


def test_a_path_of_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(WslSweepError, match=r"dataset.vocabulary: .*absent: there is no such file or folder"):
        found_vocabulary(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WslSweepError, match=r"empty holds neither tokenizer.json nor vocab.txt"):
        found_vocabulary(str(tmp_path / "empty"))
    assert not vocabulary_there(str(tmp_path / "empty"))
    assert vocabulary_there("learned")


# --- the hub ---------------------------------------------------------------------------------------


def put_into_cache(cache: Path, repository: str, name: str, content: bytes, kind: str = "model") -> Path:
    """A file as huggingface_hub keeps what it has downloaded."""
    base = cache / f"{kind}s--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True, exist_ok=True)
    (base / "refs" / "main").write_text("0" * 40)
    file = base / "snapshots" / ("0" * 40) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", no_network)
    return tmp_path / "hub"


def test_a_name_is_found_in_the_hubs_cache_without_asking_it(hub_cache: Path, tmp_path: Path) -> None:
    assert not vocabulary_there("bert-base-cased")
    content = write_words(tmp_path / "vocab.txt").read_bytes()
    words = put_into_cache(hub_cache, "bert-base-cased", "vocab.txt", content)
    settings = put_into_cache(hub_cache, "bert-base-cased", "tokenizer_config.json", b'{"do_lower_case": false}')
    assert found_vocabulary("bert-base-cased") == (words, settings)
    assert vocabulary_there("bert-base-cased")
    whole = put_into_cache(hub_cache, "bert-base-cased", "tokenizer.json", b"{}")
    assert found_vocabulary("bert-base-cased") == (whole,)


def test_a_name_that_cannot_be_had_says_what_else_may_be_taken(hub_cache: Path) -> None:
    with pytest.raises(WslSweepError) as caught:
        found_vocabulary("bert-base-cased")
    assert str(caught.value) == (
        "the vocabulary bert-base-cased is neither a file or folder here nor in the hub's cache, and bert-base-cased "
        "cannot be downloaded (no network); name a vocab.txt or the folder of one by dataset.vocabulary, or take "
        "dataset.vocabulary: learned"
    )
    with pytest.raises(WslSweepError, match=r"the hub has no file vocab.txt of no name at all"):
        found_vocabulary("no name at all")


def test_what_the_hub_has_is_downloaded(hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    asked: list[str] = []

    def download(repository: str, name: str, **_: object) -> str:
        asked.append(name)
        if name != "vocab.txt":
            raise EntryNotFoundError("404")
        return str(write_words(tmp_path / "vocab.txt"))

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert found_vocabulary("some/model") == (tmp_path / "vocab.txt",)
    assert asked == ["tokenizer.json", "vocab.txt", "tokenizer_config.json"]


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(WslSweepError, match=r'pip install "wsl-sweep\[nlp\]"'):
        learn_vocabulary(SENTENCES)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert hub.cached_file("some/model", "vocab.txt") is None
    with pytest.raises(WslSweepError, match=r'pip install "wsl-sweep\[nlp\]"'):
        found_vocabulary("some/model")
