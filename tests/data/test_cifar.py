"""CIFAR in the form in which it is published, made small by the test: read exactly, checked, and without a network."""

from __future__ import annotations

import hashlib
import pickle
import socket
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from wsl_sweep.data import available, cifar, class_names, load, prepare, superclasses
from wsl_sweep.data.cifar import cifar_root, load_cifar
from wsl_sweep.data.dataset import load_test
from wsl_sweep.errors import WslSweepError

NAMES = ["cifar10", "cifar100"]
KINDS: dict[str, Any] = {"cifar10": CIFAR10, "cifar100": CIFAR100}
TRAIN, TEST = 50, 10


@dataclass
class Published:
    """A data set as its authors' archive holds it.

    Attributes:
        name: of the data set.
        root: the folder that it lies in.
        pictures: (60, 3, 32, 32), the training pictures first.
        labels: of all of them.
    """

    name: str
    root: Path
    pictures: npt.NDArray[np.uint8]
    labels: list[int]

    @property
    def folder(self) -> Path:
        """What the archive unpacks to."""
        return self.root / str(KINDS[self.name].base_folder)

    @property
    def archive(self) -> Path:
        return self.root / str(KINDS[self.name].filename)

    @property
    def batches(self) -> list[str]:
        return [entry[0] for entry in (*KINDS[self.name].train_list, *KINDS[self.name].test_list)]

    def pack(self) -> None:
        """Puts the folder into the archive, and takes the folder away."""
        with tarfile.open(self.archive, "w:gz") as archive:
            archive.add(self.folder, self.folder.name)
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def make(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Writes the files of a data set and tells torchvision their checksums."""
    kind, classes = KINDS[name], int(name.removeprefix("cifar"))
    generator = np.random.default_rng(classes)
    pictures = generator.integers(0, 256, (TRAIN + TEST, 3, 32, 32), dtype=np.uint8)
    labels = [index * 7 % classes for index in range(TRAIN + TEST)]
    made = Published(name, root, pictures, labels)
    made.folder.mkdir(parents=True)
    files = made.batches
    each = TRAIN // (len(files) - 1)
    for index, file in enumerate(files):
        rows = slice(index * each, (index + 1) * each) if index < len(files) - 1 else slice(TRAIN, None)
        entry: dict[str, Any] = {"data": pictures[rows].reshape(-1, 3072), "batch_label": file}
        entry["filenames"] = [f"{row}.png" for row in range(*rows.indices(TRAIN + TEST))]
        if name == "cifar10":
            entry["labels"] = labels[rows]
        else:
            entry |= {"fine_labels": labels[rows], "coarse_labels": [label // 5 for label in labels[rows]]}
        (made.folder / file).write_bytes(pickle.dumps(entry, protocol=2))
    meta = dict(kind.meta)
    names = [f"class {label}" for label in range(classes)]
    above = (
        {} if name == "cifar10" else {"coarse_label_names": [f"superclass {label}" for label in range(classes // 5)]}
    )
    (made.folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: names, **above}, protocol=2))
    monkeypatch.setattr(kind, "meta", {**meta, "md5": md5(made.folder / meta["filename"])})
    monkeypatch.setattr(kind, "train_list", [[file, md5(made.folder / file)] for file in files[:-1]])
    monkeypatch.setattr(kind, "test_list", [[files[-1], md5(made.folder / files[-1])]])
    return made


class Network:
    """In place of urllib's: nothing is ever reached.

    Attributes:
        error: what every attempt ends with.
        timeouts: the default timeout of sockets at each attempt.
    """

    def __init__(self) -> None:
        self.error: Exception = urllib.error.URLError("no network in this test")
        self.timeouts: list[float | None] = []

    def urlopen(self, *_: Any, **__: Any) -> Any:
        self.timeouts.append(socket.getdefaulttimeout())
        raise self.error


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """No test reaches further than this."""
    made = Network()
    monkeypatch.setattr(urllib.request, "urlopen", made.urlopen)
    return made


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(folder))
    return folder


@pytest.fixture(params=NAMES)
def published(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    return make(request.param, tmp_path / "data", monkeypatch)


def config(name: str, root: Path | None, **changes: Any) -> dict[str, Any]:
    """A resolved ``dataset`` section."""
    return {
        "name": name,
        **({"root": str(root)} if root else {}),
        "validation_fraction": 0.4,
        "train_fraction": 1.0,
        "label_noise": 0.0,
        "padding": 4,
        "padding_mode": "reflect",
        "flip": True,
        "views": "all",
    } | changes


# --- as they are published -------------------------------------------------------------------------------------------


def test_pictures_labels_and_the_official_test_part_arrive_exactly(published: Published, network: Network) -> None:
    raw = load_cifar(published.name, str(published.root))
    assert (raw.images.numpy() == published.pictures).all()
    assert raw.images.dtype == torch.uint8
    assert raw.labels.tolist() == published.labels
    assert raw.labels.dtype == torch.int64
    assert raw.test is not None
    assert raw.test.tolist() == list(range(TRAIN, TRAIN + TEST))
    assert (raw.num_classes, raw.scale, raw.notes) == (int(published.name.removeprefix("cifar")), 255.0, ())
    assert network.timeouts == []


def test_classes_have_the_names_that_the_archive_gives_them(published: Published) -> None:
    section = config(published.name, published.root)
    classes = int(published.name.removeprefix("cifar"))
    assert class_names(section) == tuple(f"class {label}" for label in range(classes))
    load_cifar(published.name, str(published.root))  # whose pictures are kept from now on
    assert class_names(section) == tuple(f"class {label}" for label in range(classes))
    (published.folder / published.batches[-1]).unlink()
    with pytest.raises(WslSweepError, match=f"{published.name} in .*: Dataset not found or corrupted"):
        class_names(section)


def with_superclasses(made: Published, pairs: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Training examples of these classes and superclasses, in place of the others; returns its section."""
    (file,) = made.batches[:-1]
    fine, coarse = zip(*pairs, strict=True)
    batch = pickle.dumps({"data": [], "fine_labels": [*fine], "coarse_labels": [*coarse]}, protocol=2)
    (made.folder / file).write_bytes(batch)
    monkeypatch.setattr(CIFAR100, "train_list", [[file, md5(made.folder / file)]])
    return config("cifar100", made.root)


def test_superclasses_are_those_of_the_coarse_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar100", tmp_path / "data", monkeypatch)
    above = [(7 * label + 3) % 20 for label in range(100)]  # as mixed as the true ones
    pairs = [(label, above[label]) for label in (*reversed(range(100)), *range(0, 100, 3))]
    section = with_superclasses(made, pairs, monkeypatch)
    assert superclasses(section) == tuple(f"superclass {one}" for one in above)
    (made.folder / made.batches[-1]).unlink()
    assert superclasses(section) is not None, "the test part is not needed"


@pytest.mark.parametrize("change", [(5, 19), None])
def test_a_class_has_exactly_one_superclass(
    change: tuple[int, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("cifar100", tmp_path / "data", monkeypatch)
    pairs = [(label, label // 5) for label in range(100)]
    section = with_superclasses(made, pairs[:-1] if change is None else [*pairs, change], monkeypatch)
    with pytest.raises(WslSweepError, match="not every class of cifar100 has exactly one superclass"):
        superclasses(section)


def test_other_data_sets_have_no_superclasses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar10", tmp_path / "data", monkeypatch)
    assert superclasses(config("cifar10", made.root)) is None
    assert superclasses({"name": "digits"}) is None


def test_superclasses_are_read_from_nothing_but_the_published_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Network
) -> None:
    made = make("cifar100", tmp_path / "data", monkeypatch)
    section = with_superclasses(made, [(label, label // 5) for label in range(100)], monkeypatch)
    for file in (made.batches[0], str(CIFAR100.meta["filename"])):
        whole, mark = (made.folder / file).read_bytes(), tmp_path / "opened"
        (made.folder / file).write_bytes(pickle.dumps({"fine_labels": Bomb(mark)}))
        with pytest.raises(WslSweepError, match=f"cifar100 in .*data: {file} is absent or damaged"):
            superclasses(section)
        assert not mark.exists()
        (made.folder / file).unlink()
        with pytest.raises(WslSweepError, match="absent or damaged"):
            superclasses(section)
        (made.folder / file).write_bytes(whole)
    assert superclasses(section) is not None
    assert network.timeouts == [], "nothing is downloaded for it"


def test_the_digest_is_of_pictures_and_labels(published: Published) -> None:
    labels = np.array(published.labels, dtype=np.int64)
    wanted = hashlib.sha256(published.pictures.tobytes() + labels.tobytes()).hexdigest()
    assert load_cifar(published.name, str(published.root)).digest == wanted


def test_pictures_are_in_one_piece_in_memory(published: Published) -> None:
    assert load_cifar(published.name, str(published.root)).images.is_contiguous()


def test_cifar_100_is_normalised_as_in_repdistiller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar100", tmp_path / "data", monkeypatch)
    raw = load_cifar("cifar100", str(made.root))
    assert raw.mean is not None
    assert raw.std is not None
    assert raw.mean.tolist() == pytest.approx([0.5071, 0.4867, 0.4408])
    assert raw.std.tolist() == pytest.approx([0.2675, 0.2565, 0.2761])
    test = load_test(config("cifar100", made.root))
    mean, std = (np.array(values)[:, None, None] for values in cifar.STATISTICS["cifar100"])
    wanted = (made.pictures[TRAIN:] / 255 - mean) / std
    torch.testing.assert_close(
        test.views.plain(torch.arange(TEST)), torch.from_numpy(wanted).float(), rtol=1e-5, atol=1e-5
    )


def test_cifar_10_is_normalised_by_its_training_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar10", tmp_path / "data", monkeypatch)
    raw = load_cifar("cifar10", str(made.root))
    assert (raw.mean, raw.std) == (None, None)
    test = load_test(config("cifar10", made.root))
    pixels = made.pictures[:TRAIN] / 255
    mean, std = (pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3)))
    wanted = (made.pictures[TRAIN:] / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(
        test.views.plain(torch.arange(TEST)), torch.from_numpy(wanted).float(), rtol=1e-5, atol=1e-5
    )


def test_the_parts_are_the_official_test_part_and_a_split_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("cifar10", tmp_path / "data", monkeypatch)
    settings = config("cifar10", made.root)
    data, test = load(settings), load_test(settings)
    assert test.ids.tolist() == list(range(TRAIN, TRAIN + TEST))
    assert test.labels.tolist() == made.labels[TRAIN:]
    assert sorted(data.train.ids.tolist() + data.validation.ids.tolist()) == list(range(TRAIN))
    assert torch.bincount(data.validation.labels).tolist() == [2] * 10
    assert load(settings, part="train+validation").train.ids.tolist() == list(range(TRAIN))
    assert (data.num_classes, data.in_channels, data.train.views.count) == (10, 3, 162)
    assert prepare(settings) == ()


def test_data_lie_in_the_cache_where_no_root_is_given(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar10", own_cache / "datasets", monkeypatch)
    assert cifar_root(None) == made.root
    assert (load_cifar("cifar10").images.numpy() == made.pictures).all()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar10", tmp_path / "data", monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert available(config("cifar10", Path("~/data")))
    assert (load_cifar("cifar10", "~/data").images.numpy() == made.pictures).all()


# --- the archive -----------------------------------------------------------------------------------------------------


def test_an_archive_that_was_put_there_is_unpacked(
    published: Published, network: Network, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    published.pack()
    monkeypatch.setattr(KINDS[published.name], "tgz_md5", md5(published.archive))
    raw = load_cifar(published.name, str(published.root))
    assert (raw.images.numpy() == published.pictures).all()
    assert published.folder.is_dir()
    assert network.timeouts == []
    assert capfd.readouterr().out == ""


def test_files_that_are_damaged_come_again_from_the_archive(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.pack()
    monkeypatch.setattr(KINDS[published.name], "tgz_md5", md5(published.archive))
    load_cifar(published.name, str(published.root))
    (published.folder / published.batches[0]).write_bytes(b"damaged")
    (published.folder / published.batches[-1]).unlink()
    raw = load_cifar(published.name, str(published.root))
    assert (raw.images.numpy() == published.pictures).all()


def test_the_names_of_the_classes_come_again_from_the_archive(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.pack()
    monkeypatch.setattr(KINDS[published.name], "tgz_md5", md5(published.archive))
    load_cifar(published.name, str(published.root))
    (published.folder / str(KINDS[published.name].meta["filename"])).unlink()
    assert len(load_cifar(published.name, str(published.root)).images) == TRAIN + TEST


def test_an_archive_with_another_checksum_is_not_unpacked(published: Published, network: Network) -> None:
    published.pack()
    with pytest.raises(WslSweepError, match="cannot be downloaded"):
        load_cifar(published.name, str(published.root))
    assert not published.folder.exists()
    assert network.timeouts


# --- checksums -------------------------------------------------------------------------------------------------------


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("which", ["first batch", "last batch", "names of classes"])
def test_a_file_whose_checksum_is_wrong_is_not_opened(which: str, published: Published, tmp_path: Path) -> None:
    names = {
        "first batch": published.batches[0],
        "last batch": published.batches[-1],
        "names of classes": str(KINDS[published.name].meta["filename"]),
    }
    exploded = tmp_path / "exploded"
    (published.folder / names[which]).write_bytes(pickle.dumps(Bomb(exploded)))
    with pytest.raises(WslSweepError) as caught:
        load_cifar(published.name, str(published.root))
    assert not exploded.exists()
    assert str(published.root) in str(caught.value)
    pickle.loads((published.folder / names[which]).read_bytes())
    assert exploded.exists()


# --- no network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Temporary failure in name resolution"),
        TimeoutError("timed out"),
        ConnectionResetError("Connection reset by peer"),
        OSError("no route"),
        TimeoutError(),
    ],
    ids=["unknown host", "timeout", "reset", "no route", "without a word"],
)
@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_the_message_says_what_to_put_where(
    name: str, error: Exception, tmp_path: Path, network: Network
) -> None:
    network.error = error
    folder = tmp_path / "nowhere" / "yet"
    with pytest.raises(WslSweepError) as caught:
        load(config(name, folder))
    message = str(caught.value)
    assert message.startswith(f"{name} is not in {folder} and cannot be downloaded (")
    assert str(KINDS[name].filename) in message
    assert str(KINDS[name].base_folder) in message
    assert "dataset.root" in message
    assert (str(error) or "TimeoutError") in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_a_download_is_given_up_after_a_while_and_others_keep_their_patience(tmp_path: Path, network: Network) -> None:
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(77.0)
        with pytest.raises(WslSweepError):
            load_cifar("cifar10", str(tmp_path))
        assert socket.getdefaulttimeout() == 77.0
    finally:
        socket.setdefaulttimeout(before)
    assert set(network.timeouts) == {cifar.DOWNLOAD_TIMEOUT}


def test_a_folder_that_cannot_be_made_is_a_clear_mistake() -> None:
    with pytest.raises(WslSweepError, match=r"cifar10 is not in /dev/null/data and cannot be downloaded"):
        load_cifar("cifar10", "/dev/null/data")


def test_what_was_missing_may_be_put_there_without_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WslSweepError):
        load(config("cifar10", tmp_path / "data"))
    made = make("cifar10", tmp_path / "other", monkeypatch)
    (tmp_path / "data" / made.folder.name).mkdir(parents=True, exist_ok=True)
    for file in made.folder.iterdir():
        (tmp_path / "data" / made.folder.name / file.name).write_bytes(file.read_bytes())
    assert len(load(config("cifar10", tmp_path / "data")).train) == 30


# --- whether they are there ------------------------------------------------------------------------------------------


def test_data_are_available_unpacked_or_not(published: Published) -> None:
    settings = config(published.name, published.root)
    assert available(settings)
    published.pack()
    assert available(settings)
    published.archive.unlink()
    assert not available(settings)
    assert not available(config(published.name, None))


def test_one_of_the_two_is_not_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("cifar10", tmp_path / "data", monkeypatch)
    assert available(config("cifar10", made.root))
    assert not available(config("cifar100", made.root))


def test_digits_are_always_available(network: Network) -> None:
    assert available({"name": "digits"})
    assert network.timeouts == []
