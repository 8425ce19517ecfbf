"""Words to numbers: WordPiece vocabularies, and pairs of sentences as BERT reads them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsl_sweep.data.raw import Progress
from wsl_sweep.data.text import Tokens
from wsl_sweep.errors import WslSweepError
from wsl_sweep.hub import NotOnHubError, cached_file, hub_file
from wsl_sweep.pair_files import LEARNED, SETTINGS_FILE, TOKENIZER_FILE, WORDS_FILE, vocabulary_files

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

LEARNED_WORDS = 8000
"""Words of a learned vocabulary, at most."""

LEARNED_LETTERS = 1000
"""Of them letters; rarer ones are unknown."""

ENCODED_AT_ONCE = 2048


@dataclass(frozen=True)
class Vocabulary:
    """What tokens there are, and how a text is cut into them.

    Attributes:
        tokenizer: a ``tokenizers.Tokenizer`` that encodes pairs as ``[CLS] a [SEP] b [SEP]``.
        words: by their ids; empty where an id has none.
    """

    tokenizer: Any
    words: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (16 hex digits) of the words in their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:16]


def found_vocabulary(name: str) -> tuple[Path, ...] | None:
    """The files of a vocabulary, downloaded where it is a name on the hub; None for one to be learned.

    Raises:
        WslSweepError: it is neither on this machine nor to be had from the hub.
    """
    if name == LEARNED:
        return None
    there = vocabulary_files(name) or _cached(name)
    if there is not None:
        return there
    try:
        try:
            return (hub_file(name, TOKENIZER_FILE),)
        except NotOnHubError:
            words = hub_file(name, WORDS_FILE)
    except WslSweepError as error:
        raise WslSweepError(
            f"the vocabulary {name} is neither a file or folder here nor in the hub's cache, and {error}; name a "
            f"{WORDS_FILE} or the folder of one by dataset.vocabulary, or take dataset.vocabulary: {LEARNED}"
        ) from error
    with contextlib.suppress(NotOnHubError):
        return words, hub_file(name, SETTINGS_FILE)
    return (words,)


def vocabulary_there(name: str) -> bool:
    """Whether a vocabulary is on this machine."""
    try:
        return name == LEARNED or (vocabulary_files(name) or _cached(name)) is not None
    except WslSweepError:
        return False


def _cached(name: str) -> tuple[Path, ...] | None:
    whole = cached_file(name, TOKENIZER_FILE)
    if whole is not None:
        return (whole,)
    words, settings = cached_file(name, WORDS_FILE), cached_file(name, SETTINGS_FILE)
    if words is None:
        return None
    return (words,) if settings is None else (words, settings)


def read_vocabulary(files: Sequence[Path]) -> Vocabulary:
    """The vocabulary of ``found_vocabulary``'s files.

    Whether case is kept is said by ``tokenizer.json`` or ``tokenizer_config.json``; a ``vocab.txt`` alone keeps it if
    one of its words has a capital letter.

    Raises:
        WslSweepError: they are damaged, or have not the special words of BERT with ``[PAD]`` as number 0.
    """
    library, path = _library(), files[0]
    if path.suffix == ".json":
        try:
            tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise WslSweepError(f"{path}: is no {TOKENIZER_FILE} ({error})") from error
        return _for_pairs(tokenizer, str(path))
    words = _read_words(path)
    settings = _settings(files[1]) if len(files) > 1 else {}
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        lowercase = not any(word != word.lower() for word in words if word not in SPECIAL)
    tokenizer = _wordpiece(
        {word: number for number, word in enumerate(words)},
        lowercase=bool(lowercase),
        strip_accents=settings.get("strip_accents"),
        chinese=bool(settings.get("tokenize_chinese_chars", True)),
    )
    return _for_pairs(tokenizer, str(path))


def learn_vocabulary(sentences: Sequence[str], most: int = LEARNED_WORDS) -> Vocabulary:
    """A WordPiece vocabulary of at most ``most`` words (more only if the special ones and the letters are more) that
    keeps case; a function of the sentences alone.
    """
    library = _library()
    tokenizer = _wordpiece({word: number for number, word in enumerate(SPECIAL)}, lowercase=False)
    letters: Counter[str] = Counter()
    for word, times in Counter(itertools.chain.from_iterable(map(str.split, sentences))).items():
        for letter in tokenizer.normalizer.normalize_str(word):
            letters[letter] += times
    del letters[" "]
    alphabet = sorted(letters, key=lambda letter: (-letters[letter], letter))[:LEARNED_LETTERS]
    # The library numbers letters inside of words as they come out of a hash table, and breaks ties by their numbers:
    # what stands among the special words has its number beforehand.
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=most,
        min_frequency=2,
        special_tokens=[*SPECIAL, *(form for letter in alphabet for form in (letter, f"##{letter}"))],
        initial_alphabet=alphabet,
        limit_alphabet=max(1, len(alphabet)),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    with _one_thread():
        tokenizer.train_from_iterator(iter(sentences), trainer)
    found = tokenizer.get_vocab(with_added_tokens=False)
    return _for_pairs(_wordpiece(found, lowercase=False), LEARNED)


def encode_pairs(
    vocabulary: Vocabulary,
    pairs: Sequence[tuple[str, str]],
    max_length: int,
    progress: Progress = lambda done, of: None,
) -> Tokens:
    """Pairs of sentences as ``[CLS] a [SEP] b [SEP]``, of the longer one as much cut off as is above ``max_length``.

    With as many threads as torch has.
    """
    tokenizer = vocabulary.tokenizer
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")

    def encode(start: int) -> tuple[NDArray[np.int32], list[int], list[int]]:
        encoded = tokenizer.encode_batch_fast(list(pairs[start : start + ENCODED_AT_ONCE]))
        ids = np.fromiter(itertools.chain.from_iterable(one.ids for one in encoded), dtype=np.int32)
        return ids, [len(one) for one in encoded], [one.type_ids.index(1) for one in encoded]

    ids, lengths, firsts = [np.zeros(0, dtype=np.int32)], list[int](), list[int]()
    with _one_thread(), ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as workers:
        for of_some, length, first in workers.map(encode, range(0, len(pairs), ENCODED_AT_ONCE)):
            ids.append(of_some)
            lengths += length
            firsts += first
            progress(len(lengths), len(pairs))
    return Tokens.of(
        torch.from_numpy(np.concatenate(ids)),
        torch.tensor(lengths, dtype=torch.int64),
        torch.tensor(firsts, dtype=torch.int32),
    )


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise WslSweepError('texts need the library tokenizers: pip install "wsl-sweep[nlp]"') from error
    return tokenizers


def _wordpiece(
    words: dict[str, int], *, lowercase: bool, strip_accents: bool | None = None, chinese: bool = True
) -> Any:
    library = _library()
    tokenizer = library.Tokenizer(library.models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = library.normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _for_pairs(tokenizer: Any, name: str) -> Vocabulary:
    """Checks a tokenizer's special words, and lets it put them around pairs."""
    numbers = {word: tokenizer.token_to_id(word) for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")}
    missing = [word for word, number in numbers.items() if number is None]
    if missing:
        raise WslSweepError(f"{name}: has no {' and no '.join(missing)}; a vocabulary of BERT is needed")
    if numbers["[PAD]"] != 0:
        raise WslSweepError(f"{name}: [PAD] must be the first word, number 0, and is number {numbers['[PAD]']}")
    tokenizer.post_processor = _library().processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, numbers[word]) for word in ("[CLS]", "[SEP]")],
    )
    tokenizer.encode_special_tokens = True  # a sentence that holds "[SEP]" is a text that does
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    words = [""] * (max(vocabulary.values()) + 1)
    for word, number in vocabulary.items():
        words[number] = word
    return Vocabulary(tokenizer, tuple(words))


def _read_words(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise WslSweepError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise WslSweepError(f"{path}: is not UTF-8, and so no {WORDS_FILE}") from error
    return [line.rstrip("\r") for line in text.removeprefix("\ufeff").rstrip("\r\n").split("\n")]


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WslSweepError(f"{path}: cannot be read ({error})") from error
    return settings if isinstance(settings, dict) else {}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Within this the library starts no threads of its own, of which it warns whenever the process forks later."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
