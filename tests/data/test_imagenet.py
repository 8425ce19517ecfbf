"""ImageNet's folders: what is found in them, which part is which, and what becomes of damaged files."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from wsl_sweep.data import available, class_names, dataset, imagenet, load, prepare
from wsl_sweep.data.dataset import load_test, task_of
from wsl_sweep.data.imagenet import ImageNet, top_accuracy
from wsl_sweep.errors import StorageError, TrialError, WslSweepError
from wsl_sweep.imagenet_listing import list_imagenet
from wsl_sweep.spec.identity import data_identity

from .imagenet_folders import CLASSES, as_jpeg, config, cut_off, fill, picture, put


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "imagenet")


def paths_of(ids: torch.Tensor, root: Path) -> list[str]:
    listing = list_imagenet(str(root))
    return [listing.path(int(row)) for row in ids]


# --- what is found ---------------------------------------------------------------------------------------------------


def test_pictures_are_listed_by_class_and_name_the_test_part_last(root: Path) -> None:
    listing = list_imagenet(str(root))
    paths = [listing.path(row) for row in range(len(listing))]
    assert listing.classes == CLASSES
    assert (len(listing), listing.train) == (30, 24)
    assert paths[:24] == sorted(str(path.relative_to(root)) for path in root.glob("train/*/*"))
    assert paths[24:] == sorted(str(path.relative_to(root)) for path in root.glob("val/*/*"))
    assert listing.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [0, 0, 1, 1, 2, 2]
    assert listing.sizes.tolist() == [(root / path).stat().st_size for path in paths]
    assert listing.modified.tolist() == [(root / path).stat().st_mtime_ns for path in paths]


def test_labels_are_those_of_torchvisions_folders(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    listing = list_imagenet(str(root))
    for part, rows in (("train", range(24)), ("val", range(24, 30))):
        theirs = {os.path.relpath(path, root): label for path, label in ImageFolder(str(root / part)).samples}
        assert {listing.path(row): int(listing.labels[row]) for row in rows} == theirs


def test_no_test_picture_is_ever_trained_on_though_a_test_folder_lies_beside(root: Path) -> None:
    for index in range(3):  # as the ILSVRC archives have it: no labels
        put(root / "test" / f"ILSVRC2012_test_{index}.JPEG", picture(index, 40, 40))
    fill(root / "elsewhere")
    shutil.copytree(root / "train" / CLASSES[0], root / "test" / CLASSES[0])
    section = config(root)
    data, test = load(section), load_test(section)
    assert all(path.startswith("val/") for path in paths_of(test.ids, root))
    learned = [*data.train.ids.tolist(), *data.validation.ids.tolist()]
    assert sorted(learned) == list(range(24))
    assert all(path.startswith("train/") for path in paths_of(torch.tensor(learned), root))
    whole = load(section, "train+validation")
    assert all(path.startswith("train/") for path in paths_of(whole.train.ids, root))
    assert len(whole.train) == 24


def test_validation_is_carved_from_each_class_of_the_training_pictures(root: Path) -> None:
    data = load(config(root))
    assert data.validation.labels.bincount().tolist() == [2, 2, 2]
    assert data.train.labels.bincount().tolist() == [6, 6, 6]
    assert (data.num_classes, data.in_channels) == (3, 3)
    assert class_names(config(root)) == CLASSES


def test_links_folders_in_folders_and_other_files_are_as_torchvision_takes_them(root: Path) -> None:
    name = CLASSES[0]
    put(root / "train" / name / "more" / "deep" / "z.jpg", picture(1, 20, 20))
    (root / "train" / name / "notes.txt").write_text("no picture")
    (root / "train" / name / ".hidden.JPEG").write_bytes(b"")
    (root / "train" / name / "more" / "again").symlink_to(root / "train" / name)
    (root / "train" / "n09").symlink_to(root / "train" / CLASSES[1])
    listing = list_imagenet(str(root))
    found = [listing.path(row) for row in range(listing.train)]
    assert sum(path.startswith(f"train/{name}/") for path in found) == 9
    assert f"train/{name}/more/deep/z.jpg" in found
    assert sum(path.startswith("train/n09/") for path in found) == 8
    assert len(found) == 33


def test_a_link_that_leads_nowhere_is_a_damaged_picture(root: Path, tmp_path: Path) -> None:
    folder = root / "train" / CLASSES[0]
    (folder / "away.JPEG").symlink_to(tmp_path / "away.JPEG")
    (folder / "itself.JPEG").symlink_to("itself.JPEG")
    (folder / "away.txt").symlink_to(tmp_path / "away.txt")
    with pytest.raises(WslSweepError, match=r"2 of 32 pictures cannot be read: .*away.JPEG.*itself.JPEG"):
        prepare(config(root))
    (note,) = prepare(config(root, damaged="skip"))
    assert "2 pictures cannot be read and are left out" in note
    put(tmp_path / "away.JPEG", picture(1, 20, 20))
    (folder / "itself.JPEG").unlink()
    dataset.forget()
    assert prepare(config(root)) == ()


def test_a_class_may_have_any_name(root: Path) -> None:
    names = sorted(["two\nlines", 'ä "quoted"', os.fsdecode(b"bad\xff")])
    for old, new in zip(CLASSES, names, strict=True):
        for part in ("train", "val"):
            (root / part / old).rename(root / part / new)
    data, test = load(config(root)), load_test(config(root))
    assert (len(data.train) + len(data.validation), len(test)) == (24, 6)
    assert test.views.plain(torch.arange(6)).shape == (6, 3, 32, 32)
    shown = class_names(config(root))
    assert [name.encode().decode() for name in shown] == [name.replace("\udcff", "\\udcff") for name in names]


def test_classes_without_training_pictures_are_left_out_and_told(root: Path) -> None:
    (root / "train" / "n00empty").mkdir()
    put(root / "val" / "n99" / "1.JPEG", picture(1, 20, 20))
    listing = list_imagenet(str(root))
    assert listing.classes == CLASSES
    assert len(listing) == 30
    empty, unknown = listing.notes
    assert "n00empty has no training pictures" in empty
    assert "n99 has pictures in val only" in unknown
    assert set(listing.notes) <= set(prepare(config(root)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda root: shutil.rmtree(root), "there is no such folder"),
        (lambda root: shutil.rmtree(root / "train"), "train: there is no such folder"),
        (lambda root: shutil.rmtree(root / "val"), "val: there is no such folder"),
        (lambda root: [shutil.rmtree(root / "train" / name) for name in CLASSES[1:]], "1 of its class folders"),
        (lambda root: [shutil.rmtree(root / "train" / name) for name in CLASSES], "has no folders, one for each class"),
        (lambda root: [path.unlink() for path in root.glob("val/*/*")], "has no pictures of the classes of train"),
    ],
)
def test_another_layout_is_told(root: Path, change: Any, what: str) -> None:
    change(root)
    with pytest.raises(WslSweepError, match=what):
        prepare(config(root))
    if "class" not in what:
        assert not available(config(root))


def test_val_as_it_is_unpacked_is_told_what_to_do(root: Path) -> None:
    shutil.rmtree(root / "val")
    for index in range(4):
        put(root / "val" / f"ILSVRC2012_val_{index}.JPEG", picture(index, 20, 20))
    with pytest.raises(WslSweepError, match="4 pictures that belong to no class: sort them into class folders"):
        list_imagenet(str(root))


def test_a_listing_is_anew_only_where_the_folder_has_changed(root: Path) -> None:
    first = list_imagenet(str(root))
    assert list_imagenet(str(root)) is first
    put(root / "train" / CLASSES[0] / "new.JPEG", picture(9, 20, 20))
    assert len(list_imagenet(str(root))) == len(first) + 1


def test_an_identity_holds_names_and_sizes_and_not_the_place(root: Path, tmp_path: Path) -> None:
    own = data_identity(config(root))
    assert own["content"]
    assert "root" not in own
    copy = shutil.copytree(root, tmp_path / "copy")
    assert data_identity(config(copy)) == own
    assert task_of(config(copy)).digest == task_of(config(root)).digest
    moved = next(copy.glob("train/*/*"))
    moved.rename(copy / "train" / CLASSES[2] / "renamed.JPEG")
    assert data_identity(config(copy))["content"] != own["content"]
    assert task_of(config(copy)).digest != task_of(config(root)).digest
    assert data_identity(config(tmp_path / "absent"))["content"] is None


def test_a_picture_that_moves_from_train_to_val_changes_the_identity(root: Path) -> None:
    own = list_imagenet(str(root)).content()
    name = CLASSES[2]
    last = sorted((root / "train" / name).iterdir())[-1]
    for path in (root / "val" / name).iterdir():
        path.unlink()
    last.rename(root / "val" / name / last.name)
    assert list_imagenet(str(root)).content() != own


def test_top_five_is_a_fraction_and_of_fewer_classes_among_all() -> None:
    logits = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6]] * 4)
    assert top_accuracy(logits, torch.tensor([6, 2, 1, 0]), 5) == 0.5
    assert top_accuracy(logits[:, :3], torch.tensor([0, 1, 2, 0]), 5) == 1.0


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(root: Path) -> list[str]:
    """A file that is cut off, an empty one and one that is no picture; one of them of the test part."""
    cut, text = root / "train" / CLASSES[0], root / "train" / CLASSES[1]
    found = [
        cut_off(sorted(cut.iterdir())[0]),
        sorted(text.iterdir())[1],
        sorted((root / "val" / CLASSES[2]).iterdir())[0],
    ]
    found[1].write_text("<html>not found</html>" * 40)
    found[2].write_bytes(b"")
    return [str(path.relative_to(root)) for path in found]


def test_damaged_files_are_refused_by_name_and_reason(root: Path, damaged: list[str]) -> None:
    with pytest.raises(WslSweepError) as caught:
        prepare(config(root))
    told = str(caught.value)
    assert "3 of 30 pictures cannot be read" in told
    assert all(path in told for path in damaged)
    assert "truncated" in told
    assert "cannot identify" in told
    assert "dataset.damaged: skip" in told
    assert "\n" not in told


def test_of_many_damaged_files_the_first_are_named(root: Path) -> None:
    for path in sorted(root.glob("train/*/*"))[:8]:
        cut_off(path)
    with pytest.raises(WslSweepError, match=r"8 of 30 pictures .* and 3 more; mend them"):
        prepare(config(root))


def test_damaged_files_are_left_out_of_every_part_if_asked_and_told(root: Path, damaged: list[str]) -> None:
    section = config(root, damaged="skip")
    notes = prepare(section)
    assert any("3 pictures cannot be read and are left out" in note and damaged[0] in note for note in notes)
    task = task_of(section)
    assert isinstance(task, ImageNet)
    assert len(task.labels) == 27
    assert task.test is not None
    assert len(task.test) == 5
    data, test = load(section), load_test(section)
    assert len(data.train) + len(data.validation) == 22
    for part in (data.train, data.validation, test):  # what is left can be read, and is labelled as before
        assert len(part.views.plain(torch.arange(len(part)))) == len(part)
    assert task.labels.bincount().tolist() == [9, 9, 9]
    assert load(section).notes == tuple(task.notes)


def test_what_is_left_out_belongs_to_the_digest(root: Path) -> None:
    section = config(root, damaged="skip")
    whole = task_of(section).digest
    path = sorted(root.glob("train/*/*"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\0" * (len(content) - 100))
    os.utime(path.parent)
    assert list_imagenet(str(root)).content()  # the names and sizes are the same
    assert task_of(section).digest != whole


def test_pictures_are_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(config(root), lambda done, of: seen.append((done, of)))
    assert seen[-1] == (30, 30)
    seen.clear()
    dataset.forget()
    monkeypatch.setattr(imagenet, "_look", None)
    prepare(config(root), lambda done, of: seen.append((done, of)))
    assert seen == []
    (kept,) = (own_cache / "data").glob("imagenet-*.json")
    assert json.loads(kept.read_text())["broken"] == []


def test_what_a_disk_could_not_read_for_a_while_is_looked_at_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    true, faulty = Image.open, [str(root / "train" / name / f"{name}_train_0.JPEG") for name in CLASSES[:2]]

    def opened(path: str, *more: Any, **named: Any) -> Image.Image:
        if path in faulty:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return true(path, *more, **named)

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(WslSweepError, match=r"2 of 30 pictures cannot be read: .*Permission denied"):
        prepare(config(root))
    monkeypatch.setattr(imagenet, "_look", None)  # the others are remembered
    faulty.pop()
    with pytest.raises(WslSweepError, match="1 of 30 pictures cannot be read: "):
        prepare(config(root))
    faulty.pop()
    assert prepare(config(root)) == ()
    (kept,) = (own_cache / "data").glob("imagenet-*.json")
    assert json.loads(kept.read_text())["broken"] == []


@pytest.mark.parametrize("left", [b"", b"{", b'{"broken": [[1]]}', b'{"pillow": "1.0", "broken": []}'])
def test_what_cannot_be_remembered_is_looked_at_again(root: Path, own_cache: Path, left: bytes) -> None:
    prepare(config(root))
    (kept,) = (own_cache / "data").glob("imagenet-*.json")
    whole = kept.read_bytes()
    kept.write_bytes(left)
    dataset.forget()
    prepare(config(root))
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_told(root: Path, own_cache: Path) -> None:
    own_cache.write_text("a file")
    with pytest.raises(WslSweepError, match="WSL_SWEEP_CACHE"):
        prepare(config(root))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["cut off", "gone"])
def test_a_file_that_is_damaged_while_it_is_trained_on_is_named(root: Path, workers: int, how: str) -> None:
    data = load(config(root), workers=workers)
    (path,) = paths_of(data.train.ids[3:4], root)
    if how == "gone":
        (root / path).unlink()
    else:
        cut_off(root / path)
    rows = torch.arange(len(data.train))
    with pytest.raises(TrialError) as caught:
        list(data.train.views.batches(rows, torch.zeros_like(rows), [6] * 3))
    told = str(caught.value)
    assert type(caught.value) is TrialError
    assert path in told
    assert ("No such file" if how == "gone" else "truncated") in told
    assert "Traceback" not in told
    assert "\n" not in told


def test_where_the_whole_folder_is_gone_no_other_trial_can_go_on(root: Path) -> None:
    data = load(config(root))
    shutil.rmtree(root)
    with pytest.raises(StorageError, match="is its disk gone"):
        data.train.views.plain(torch.arange(2))


# --- kinds of files --------------------------------------------------------------------------------------------------


def kinds(root: Path) -> dict[str, Path]:
    """Pictures that ImageNet has too, and worse: all called .JPEG."""
    folder, base = root / "train" / CLASSES[0], picture(5, 60, 50)
    deep = Image.fromarray((torch.arange(60 * 50).reshape(60, 50) * 21).numpy().astype("uint16"))
    return {
        "grey": put(folder / "k0.JPEG", base.convert("L")),
        "cmyk": put(folder / "k1.JPEG", base.convert("CMYK")),
        "png": put(folder / "k2.JPEG", base, "PNG"),
        "palette": put(folder / "k3.JPEG", base.convert("P"), "PNG"),
        "transparent": put(folder / "k4.JPEG", base.convert("RGBA"), "PNG"),
        "16 bits": put(folder / "k5.JPEG", deep, "PNG"),
        "progressive": put(folder / "k6.JPEG", base, progressive=True),
        "one pixel": put(folder / "k7.JPEG", picture(6, 1, 1)),
        "long": put(folder / "k8.JPEG", picture(6, 3, 900)),
        "tall": put(folder / "k9.JPEG", picture(6, 900, 2)),
    }


def test_pictures_of_every_kind_become_colours(root: Path) -> None:
    made = kinds(root)
    assert prepare(config(root)) == ()
    data = load(config(root), "train+validation")
    rows = {path: row for row, path in enumerate(paths_of(data.train.ids, root))}
    places = torch.tensor([rows[str(path.relative_to(root))] for path in made.values()])
    for view in (data.train.views.identity, 0, 2**60):
        pictures = data.train.views.take(places, torch.full_like(places, view))
        assert pictures.shape == (len(made), 3, 32, 32)
        assert pictures.isfinite().all()
    mean, std = torch.tensor(imagenet.MEAN).view(3, 1, 1), torch.tensor(imagenet.STD).view(3, 1, 1)
    shown = dict(zip(made, data.train.views.plain(places) * std + mean, strict=True))
    for name in ("grey", "16 bits"):
        assert (shown[name] - shown[name].mean(0)).abs().max() < 1e-5, name
    for name in ("cmyk", "transparent", "progressive", "palette"):
        assert (shown[name] - shown["png"]).abs().mean() < 0.06, name
    assert shown["16 bits"].min() < 0.2
    assert shown["16 bits"].max() > 0.8


def test_as_it_is_a_picture_is_what_torchvision_makes_of_it(root: Path) -> None:
    from torchvision.transforms import v2

    data = load(config(root))
    paths = paths_of(data.train.ids, root)
    short = round(32 * 256 / 224)
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(short, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(imagenet.MEAN, imagenet.STD),
        ]
    )
    ours = data.train.views.plain(torch.arange(len(paths)))
    compared = 0
    for picture_of, path in zip(ours, paths, strict=True):
        image = Image.open(root / path)
        if min(image.size) >= 2 * short:
            continue  # decoded at half the size
        compared += 1
        assert torch.allclose(picture_of, transform(image), atol=2e-6)
    assert compared >= 8


def test_exif_turns_no_picture(root: Path) -> None:
    name = root / "train" / CLASSES[0]
    exif = Image.Exif()
    exif[0x112] = 6
    image = as_jpeg(picture(3, 40, 60))
    put(name / "a0.JPEG", image, quality="keep")
    put(name / "a1.JPEG", image, quality="keep", exif=exif)
    data = load(config(root), "train+validation")
    first, second = data.train.views.plain(torch.tensor([0, 1]))
    assert paths_of(data.train.ids[:2], root)[1].endswith("a1.JPEG")
    assert torch.equal(first, second)


def test_large_pictures_are_decoded_smaller_and_look_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsl_sweep.data import jpegs

    put(root / "train" / CLASSES[0] / "0.JPEG", picture(3, 700, 900), quality=95)
    data = load(config(root), "train+validation")
    views = torch.arange(20)
    rows = torch.zeros_like(views)
    plain = data.train.views.plain(rows[:1])
    fast = data.train.views.take(rows, views)
    monkeypatch.setattr(jpegs, "REDUCTIONS", ())
    slow = data.train.views.take(rows, views)
    assert not torch.equal(fast, slow)
    # A pixel of the reduced picture is eight of the whole one at most, and crops begin at whole ones.
    assert (fast - slow).abs().mean() < 0.1
    assert (plain - data.train.views.plain(rows[:1])).abs().mean() < 0.05


def test_a_crop_smaller_than_wanted_is_never_decoded_smaller(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsl_sweep.data import jpegs

    data = load(config(root, size=48))
    views = torch.arange(len(data.train))
    before = data.train.views.take(torch.arange(len(data.train)), views)
    monkeypatch.setattr(jpegs, "REDUCTIONS", ())
    assert torch.equal(data.train.views.take(torch.arange(len(data.train)), views), before)
