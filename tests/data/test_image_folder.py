"""A folder of pictures becomes tensors: decoded as PIL says, cut and resized, kept; and its parts and statistics."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wsl_sweep.data import Views, available, dataset, image_folder, load, prepare
from wsl_sweep.data.dataset import load_test
from wsl_sweep.data.image_folder import load_image_folder
from wsl_sweep.data.raw import RawData
from wsl_sweep.data.statistics import mean_and_std
from wsl_sweep.errors import WslSweepError

Pixels = npt.NDArray[np.uint8]

ORIENTATION = 0x112


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSL_SWEEP_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def noise(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> Pixels:
    """Random pixels, (H, W, 3), or (H, W) for one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(root: Path, path: str, pixels: npt.NDArray[Any] | Image.Image, **options: Any) -> None:
    """A picture file; its folder is made."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(root / path, **options)


def fill(root: Path, count: int = 2, classes: str = "ab", prefix: str = "", channels: int = 3) -> dict[str, Pixels]:
    """``count`` PNG pictures of noise in each class; their pixels by their paths."""
    made = {}
    for label in classes:
        for index in range(count):
            path = f"{prefix}{label}/{index:02}.png"
            made[path] = noise(zlib.crc32(path.encode()), channels=channels)
            save(root, path, made[path])
    return made


def one(root: Path, name: str, picture: npt.NDArray[Any] | Image.Image, size: int = 8, **options: Any) -> Tensor:
    """(C, size, size) of one picture among grey ones, which leave the number of channels to it."""
    save(root, f"a/{name}", picture, **options)
    for index in range(2):
        save(root, f"b/{index}.png", noise(index, channels=1))
    raw = load_image_folder(str(root), size)
    assert raw.notes == ()
    return raw.images[0]


def channels_last(images: Tensor) -> Pixels:
    pixels: Pixels = images.permute(1, 2, 0).numpy()
    return pixels


def config(root: Path, **changes: Any) -> dict[str, Any]:
    """A resolved ``dataset`` section."""
    return {
        "name": "image_folder",
        "root": str(root),
        "size": 8,
        "validation_fraction": 0.25,
        "train_fraction": 1.0,
        "label_noise": 0.0,
        "padding": 0,
        "padding_mode": "zeros",
        "flip": False,
        "views": "all",
    } | changes


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("must not be called")


# --- as they are -----------------------------------------------------------------------------------------------------


def test_pictures_of_the_right_size_arrive_bit_for_bit_with_their_labels(root: Path) -> None:
    made = fill(root, 3, "cab")
    raw = load_image_folder(str(root), 8)
    wanted = np.stack([made[path] for path in sorted(made)]).transpose(0, 3, 1, 2)
    assert (raw.images.numpy() == wanted).all()
    assert raw.images.dtype == torch.uint8
    assert raw.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (raw.num_classes, raw.scale, raw.test, raw.notes) == (3, 255.0, None, ())
    assert (raw.mean, raw.std) == (None, None)


def test_labels_fit_the_class_names_that_are_kept(root: Path, own_cache: Path) -> None:
    fill(root, 2, classes="cab")
    raw = load_image_folder(str(root), 8)
    (facts_file,) = own_cache.glob("data/*/facts.json")
    facts = json.loads(facts_file.read_text())
    assert facts["class_names"] == ["a", "b", "c"]
    assert set(raw.labels.tolist()) == set(range(len(facts["class_names"])))


def test_the_official_test_part_is_told_by_its_rows(root: Path) -> None:
    made = fill(root, 3, prefix="train/") | fill(root, 2, prefix="test/")
    raw = load_image_folder(str(root), 8)
    assert raw.test is not None
    places = sorted(made)
    assert [places[row] for row in raw.test.tolist()] == [path for path in places if path.startswith("test/")]


def test_progress_counts_every_picture(root: Path) -> None:
    fill(root, 3)
    heard: list[tuple[int, int]] = []
    load_image_folder(str(root), 8, lambda done, of: heard.append((done, of)))
    assert heard == [(done, 6) for done in range(1, 7)]


# --- channels and modes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif", "x.pgm"])
def test_grey_pictures_have_one_channel(name: str, root: Path) -> None:
    pixels = noise(1, channels=1)
    assert torch.equal(one(root, name, pixels), torch.from_numpy(pixels).unsqueeze(0))


def test_black_and_white_is_grey(root: Path) -> None:
    bits = noise(2, channels=1) > 127
    found = one(root, "x.png", Image.fromarray(bits))
    assert torch.equal(found, torch.from_numpy(bits.astype(np.uint8) * 255).unsqueeze(0))


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_of_16_bits_the_upper_eight_are_taken(name: str, root: Path) -> None:
    pixels = noise(3, channels=1)
    found = one(root, name, pixels.astype(np.uint16) * 257)
    assert torch.equal(found, torch.from_numpy(pixels).unsqueeze(0))


def test_grey_with_transparency_is_grey(root: Path) -> None:
    pixels = noise(4, channels=1)
    picture = Image.merge("LA", [Image.fromarray(pixels), Image.fromarray(noise(5, channels=1))])
    assert torch.equal(one(root, "x.png", picture), torch.from_numpy(pixels).unsqueeze(0))


def test_floats_from_0_to_255_are_grey(root: Path) -> None:
    pixels = noise(6, channels=1)
    found = one(root, "x.tif", pixels.astype(np.float32) + 0.25)
    assert torch.equal(found, torch.from_numpy(pixels).unsqueeze(0))


def test_one_picture_in_colour_makes_all_of_three_channels(root: Path) -> None:
    grey, colour = noise(1, channels=1), noise(2)
    save(root, "a/1.png", grey)
    save(root, "a/2.png", colour)
    save(root, "b/1.png", grey)
    raw = load_image_folder(str(root), 8)
    assert raw.images.shape == (3, 3, 8, 8)
    assert (channels_last(raw.images[1]) == colour).all()
    for row in (0, 2):
        assert (channels_last(raw.images[row]) == grey[:, :, None]).all()


def test_a_broken_picture_has_no_say_in_the_number_of_channels(root: Path) -> None:
    fill(root, channels=1)
    save(root, "a/colour.png", noise(1))
    whole = (root / "a" / "colour.png").read_bytes()
    (root / "a" / "colour.png").write_bytes(whole[: len(whole) // 2])
    assert load_image_folder(str(root), 8).images.shape == (4, 1, 8, 8)


def test_a_palette_is_looked_up(root: Path) -> None:
    picture = Image.fromarray(noise(7)).quantize(16)
    assert picture.mode == "P"
    assert (channels_last(one(root, "x.png", picture)) == np.asarray(picture.convert("RGB"))).all()


def test_a_palette_with_a_transparent_colour_is_looked_up(root: Path) -> None:
    picture = Image.fromarray(noise(7)).quantize(16)
    assert (channels_last(one(root, "x.png", picture, transparency=3)) == np.asarray(picture.convert("RGB"))).all()


def test_transparency_is_left_out(root: Path) -> None:
    pixels = np.concatenate([noise(8), noise(9, channels=1)[:, :, None]], axis=2)
    assert (channels_last(one(root, "x.png", pixels)) == pixels[:, :, :3]).all()


def test_ink_becomes_light(root: Path) -> None:
    """CMYK, as prints have it: no cyan, all magenta and yellow is red."""
    found = one(root, "x.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    red, green, blue = found.float().mean(dim=(1, 2)).tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(("name", "mode"), [("x.png", "RGB"), ("x.png", "L"), ("x.png", "I;16"), ("x.tif", "RGB")])
def test_a_picture_is_seen_as_its_camera_was_held(name: str, mode: str, root: Path) -> None:
    """Orientation 6: the camera was turned, the picture is shown turned by 90 degrees to the right."""
    grey = noise(10, channels=1)
    stored: dict[str, npt.NDArray[Any]] = {"RGB": noise(10), "L": grey, "I;16": grey.astype(np.uint16) * 257}
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = one(root, name, stored[mode], exif=exif)
    wanted = np.rot90(stored["RGB"] if mode == "RGB" else grey[:, :, None], -1)
    assert (channels_last(found) == wanted).all()


def test_of_an_animation_the_first_picture_is_taken(root: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    found = one(root, "x.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    assert found.float().mean(dim=(1, 2)).tolist() == [255.0, 0.0, 0.0]


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8)])
def test_of_a_wide_or_tall_picture_the_middle_square_is_taken(height: int, width: int, root: Path) -> None:
    pixels = noise(11, height, width)
    middle = pixels[:, 6:14] if width > height else pixels[6:14]
    assert (channels_last(one(root, "x.png", pixels)) == middle).all()


@pytest.mark.parametrize(("height", "width"), [(16, 48), (48, 16)])
def test_only_the_edge_of_a_smaller_picture_has_something_of_what_lies_beside_its_square(
    height: int, width: int, root: Path
) -> None:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    square = (slice(None), slice(16, 32)) if width > height else (slice(16, 32), slice(None))
    pixels[square] = (200, 100, 50)
    found = one(root, "x.png", pixels)
    inner = found[:, :, 1:-1] if width > height else found[:, 1:-1]
    assert (channels_last(inner) == np.array([200, 100, 50])).all()
    assert (channels_last(found) > np.array([160, 80, 40])).all()


@pytest.mark.parametrize("size", [8, 9, 32, 64])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 24), (1, 1), (3, 100)])
def test_every_picture_becomes_a_square_of_the_size_that_is_asked_for(
    size: int, height: int, width: int, root: Path
) -> None:
    assert one(root, "x.png", noise(12, height, width), size).shape == (3, size, size)


def test_a_smaller_picture_is_an_average_and_not_every_second_pixel(root: Path) -> None:
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = one(root, "x.png", stripes).float()
    assert (found - 127.5).abs().max() < 30
    assert (found.mean() - 127.5).abs() < 2


def test_sizes_are_kept_apart(root: Path) -> None:
    fill(root)
    for size in (8, 16, 8):
        assert load_image_folder(str(root), size).images.shape == (4, 3, size, size)


def test_more_pictures_than_memory_are_refused_before_any_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root)
    monkeypatch.setattr(image_folder, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(PIL.Image, "open", refuse)
    with pytest.raises(WslSweepError, match=r"4 pictures of 8x8 take .* GiB.*lower dataset\.size"):
        load_image_folder(str(root), 8)


# --- broken pictures -------------------------------------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def truncated(path: Path) -> None:
    Image.fromarray(noise(1, 64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("This is no picture.\n")


def only_a_header(path: Path) -> None:
    Image.fromarray(noise(1, 64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
@pytest.mark.parametrize("breaks", [garbage, truncated, empty, text, only_a_header], ids=lambda breaks: breaks.__name__)
def test_a_broken_picture_is_left_out_and_named(breaks: Callable[[Path], None], name: str, root: Path) -> None:
    made = fill(root)
    breaks(root / "a" / name)
    raw = load_image_folder(str(root), 8)
    assert len(raw.images) == len(raw.labels) == 4
    assert (raw.images.numpy().transpose(0, 2, 3, 1) == np.stack([made[path] for path in sorted(made)])).all()
    (note,) = raw.notes
    assert note.startswith(f"{root}: 1 picture cannot be read and is left out: a/{name} (")
    assert str(root) not in note.removeprefix(str(root))


def test_pictures_and_labels_stay_together_where_one_between_them_is_broken(root: Path) -> None:
    made = fill(root, 3)
    garbage(root / "a" / "01.png")
    del made["a/01.png"]
    raw = load_image_folder(str(root), 8)
    assert (raw.images.numpy().transpose(0, 2, 3, 1) == np.stack([made[path] for path in sorted(made)])).all()
    assert raw.labels.tolist() == [0, 0, 1, 1, 1]


def test_a_folder_called_like_a_picture_is_not_a_broken_picture(root: Path) -> None:
    fill(root)
    (root / "a" / "x.png").mkdir()
    raw = load_image_folder(str(root), 8)
    assert (len(raw.images), raw.notes) == (4, ())


def test_of_many_broken_pictures_some_are_named_and_the_rest_are_counted(root: Path) -> None:
    fill(root, 6)
    for index in range(8):
        garbage(root / "a" / f"broken{index}.png")
    (note,) = load_image_folder(str(root), 8).notes
    assert "8 pictures cannot be read and are left out" in note
    assert [f"broken{index}.png" in note for index in range(8)] == [True] * 5 + [False] * 3
    assert note.endswith("and 3 more")


def test_half_broken_is_told_and_more_than_half_is_a_mistake(root: Path) -> None:
    fill(root)
    for index in range(4):
        garbage(root / "b" / f"broken{index}.png")
    assert len(load_image_folder(str(root), 8).images) == 4
    garbage(root / "b" / "broken4.png")
    with pytest.raises(WslSweepError, match=r"5 of 9 pictures cannot be read, the first of them b/broken0\.png \("):
        load_image_folder(str(root), 8)


def test_a_class_whose_pictures_are_all_broken_is_left_out_and_told(root: Path) -> None:
    made = fill(root, 2, "ac")
    (root / "b").mkdir()
    garbage(root / "b" / "1.png")
    raw = load_image_folder(str(root), 8)
    assert raw.num_classes == 2
    assert raw.labels.tolist() == [0, 0, 1, 1]
    assert (channels_last(raw.images[2]) == made["c/00.png"]).all()
    assert any("no picture of class b can be read; the class is left out" in note for note in raw.notes)
    assert raw.class_names == ("a", "c")
    assert any("b/1.png" in note for note in raw.notes)


def test_test_pictures_of_a_class_whose_training_pictures_are_broken_go_with_it(root: Path) -> None:
    fill(root, 2, "ac", prefix="train/")
    made = fill(root, 1, "abc", prefix="test/")
    (root / "train" / "b").mkdir()
    garbage(root / "train" / "b" / "1.png")
    raw = load_image_folder(str(root), 8)
    assert raw.num_classes == 2
    assert raw.labels.tolist() == [0, 1, 0, 0, 1, 1]
    assert raw.test is not None
    assert raw.test.tolist() == [0, 1]
    assert (channels_last(raw.images[1]) == made["test/c/00.png"]).all()


def test_a_single_class_that_can_be_read_is_a_mistake(root: Path) -> None:
    fill(root, 3, "a")
    (root / "b").mkdir()
    garbage(root / "b" / "1.png")
    with pytest.raises(WslSweepError, match="pictures of 1 class can be read; two or more must"):
        load_image_folder(str(root), 8)


def test_what_the_listing_leaves_out_is_told_with_the_rest(root: Path) -> None:
    fill(root)
    (root / "empty").mkdir()
    garbage(root / "a" / "x.png")
    notes = load_image_folder(str(root), 8).notes
    assert len(notes) == 2
    assert "class folder empty has no pictures" in notes[0]
    assert prepare(config(root, validation_fraction=0.5)) == notes


def test_an_official_test_part_of_which_nothing_can_be_read_is_not_silently_replaced(root: Path) -> None:
    """Either a mistake, or something that is told beside the broken pictures: the test part would be another."""
    fill(root, 8, prefix="train/")
    for label in "ab":
        (root / "test" / label).mkdir(parents=True)
        garbage(root / "test" / label / "1.png")
    try:
        notes = load_image_folder(str(root), 8).notes
    except WslSweepError as error:
        notes = (str(error),)
    assert any("test" in note.replace(str(root), "").replace("test/", "") for note in notes)


# --- the cache -------------------------------------------------------------------------------------------------------


def test_what_was_decoded_once_is_not_decoded_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root)
    garbage(root / "a" / "x.png")
    first = load_image_folder(str(root), 8)
    monkeypatch.setattr(PIL.Image, "open", refuse)
    second = load_image_folder(str(root), 8, refuse)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert (first.digest, first.num_classes, first.notes) == (second.digest, second.num_classes, second.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pictures.safetensors", None),
        ("pictures.safetensors", b""),
        ("pictures.safetensors", b"\x00" * 100),
        ("facts.json", None),
        ("facts.json", b""),
        ("facts.json", b"\xff\xfe"),
        ("facts.json", b"[]"),
        ("facts.json", b"{}"),
    ],
)
def test_a_damaged_cache_is_made_again(name: str, content: bytes | None, root: Path, own_cache: Path) -> None:
    fill(root)
    first = load_image_folder(str(root), 8)
    (file,) = own_cache.glob(f"data/*/{name}")
    file.unlink()  # not written over: the tensors of the first are a view of the file
    if content is not None:
        file.write_bytes(content)
    second = load_image_folder(str(root), 8)
    assert torch.equal(first.images, second.images)
    assert file.stat().st_size > 100


def test_a_cache_that_was_cut_short_is_made_again(root: Path, own_cache: Path) -> None:
    fill(root)
    first = load_image_folder(str(root), 8)
    (file,) = own_cache.glob("data/*/pictures.safetensors")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-10])
    assert torch.equal(load_image_folder(str(root), 8).images, first.images)


@pytest.mark.parametrize("fact", ["class_names", "broken", "notes", "digest"])
def test_a_cache_with_a_fact_too_few_is_made_again(fact: str, root: Path, own_cache: Path) -> None:
    fill(root)
    first = load_image_folder(str(root), 8)
    (file,) = own_cache.glob("data/*/facts.json")
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in facts.items() if key != fact}))
    again = load_image_folder(str(root), 8)
    assert (again.digest, again.num_classes, again.notes) == (first.digest, first.num_classes, first.notes)


def test_a_folder_that_changes_is_decoded_again_in_the_same_process(root: Path) -> None:
    made = fill(root, 8)
    for place in (root, root / "a", root / "b"):
        os.utime(place, (1, 1))
    before = load(config(root))
    save(root, "a/new.png", noise(99))
    after = load(config(root))
    assert sum(len(part) for part in (before.train, before.validation, load_test(config(root)))) in (16, 17)
    assert len(load_image_folder(str(root), 8).images) == 17
    assert before.digest != after.digest
    os.utime(root / "a", (2, 2))
    save(root, "a/other.png", 255 - made["a/00.png"])
    (root / "a" / "other.png").replace(root / "a" / "00.png")
    raw = load_image_folder(str(root), 8)
    assert (channels_last(raw.images[0]) == 255 - made["a/00.png"]).all()
    assert load(config(root)).digest != after.digest


def test_a_copy_elsewhere_with_its_times_is_spoken_of_by_its_own_name(root: Path, tmp_path: Path) -> None:
    fill(root, 2, "ac")
    (root / "b").mkdir()
    garbage(root / "b" / "1.png")
    (root / "empty").mkdir()
    first = load_image_folder(str(root), 8)
    copy = tmp_path / "copied"
    shutil.copytree(root, copy)
    second = load_image_folder(str(copy), 8)
    assert torch.equal(first.images, second.images)
    assert first.digest == second.digest
    assert len(first.notes) == len(second.notes) == 3
    assert all(note.startswith(f"{root}:") for note in first.notes)
    assert all(note.startswith(f"{copy}:") for note in second.notes)


def test_the_digest_tells_pictures_labels_and_parts_apart(tmp_path: Path) -> None:
    pixels = [noise(index) for index in range(4)]
    layouts = {
        "one": ["a/0.png", "a/1.png", "b/2.png", "b/3.png"],
        "other labels": ["a/0.png", "a/1.png", "a/2.png", "b/3.png"],
        "with test": ["test/a/0.png", "train/a/1.png", "train/b/2.png", "train/b/3.png"],
    }
    digests = {}
    for name, places in layouts.items():
        for place, picture in zip(places, pixels, strict=True):
            save(tmp_path / name, place, picture)
        digests[name] = load_image_folder(str(tmp_path / name), 8).digest
    for place, picture in zip(layouts["one"], [*pixels[:3], 255 - pixels[3]], strict=True):
        save(tmp_path / "another picture", place, picture)
    digests["another picture"] = load_image_folder(str(tmp_path / "another picture"), 8).digest
    assert len(set(digests.values())) == 4


@pytest.mark.parametrize("cache", ["/dev/null/cache", "/proc/nowhere"])
def test_a_cache_that_cannot_be_written_is_a_clear_mistake(
    cache: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root)
    monkeypatch.setenv("WSL_SWEEP_CACHE", cache)
    with pytest.raises(WslSweepError, match=r"cannot keep the pictures of .*set WSL_SWEEP_CACHE to a folder"):
        load_image_folder(str(root), 8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_without_permission_is_a_clear_mistake(root: Path, own_cache: Path) -> None:
    fill(root)
    own_cache.mkdir(mode=0o500)
    with pytest.raises(WslSweepError, match="set WSL_SWEEP_CACHE to a folder"):
        load_image_folder(str(root), 8)


def test_a_full_disk_is_a_clear_mistake_and_leaves_nothing_half_done(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WslSweepError, match="No space left on device"):
            load_image_folder(str(root), 8)
    assert [path.name for path in own_cache.glob("data/*/*") if path.name != ".lock"] == []
    assert len(load_image_folder(str(root), 8).images) == 4


def test_a_folder_that_cannot_be_used_is_told_by_load_too(root: Path) -> None:
    with pytest.raises(WslSweepError, match="there is no such folder"):
        load(config(root))
    with pytest.raises(WslSweepError, match=r"needs dataset\.root"):
        load({key: value for key, value in config(root).items() if key != "root"})


def test_data_are_available_where_their_folder_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not available(config(root))
    fill(root)
    assert available(config(root))
    monkeypatch.setenv("HOME", str(root.parent))
    assert available(config(Path("~/pictures")))


# --- parts -----------------------------------------------------------------------------------------------------------


def counts(labels: Tensor) -> list[int]:
    found: list[int] = torch.bincount(labels, minlength=2).tolist()
    return found


def test_validation_is_the_same_share_of_each_class_and_the_same_each_time(root: Path) -> None:
    fill(root, 20, "a")
    fill(root, 40, "b")
    data, test = load(config(root)), load_test(config(root))
    assert counts(test.labels) == [4, 8]
    assert counts(data.validation.labels) == [4, 8]
    assert counts(data.train.labels) == [12, 24]
    everything = torch.cat([data.train.ids, data.validation.ids, test.ids]).sort().values
    assert torch.equal(everything, torch.arange(60))
    dataset.forget()
    torch.manual_seed(5)
    assert torch.equal(load(config(root)).validation.ids, data.validation.ids)
    assert (data.num_classes, data.in_channels) == (2, 3)


def test_an_official_test_part_stays_whole_and_out_of_all_else(root: Path) -> None:
    fill(root, 10, prefix="train/")
    fill(root, 3, prefix="val/")
    fill(root, 4, prefix="test/")
    raw = load_image_folder(str(root), 8)
    data, test = load(config(root)), load_test(config(root))
    assert raw.test is not None
    assert torch.equal(test.ids, raw.test)
    assert counts(test.labels) == [4, 4]
    whole = load(config(root), part="train+validation")
    assert len(whole.train) == len(data.train) + len(data.validation) == 26
    assert not set(whole.train.ids.tolist()) & set(test.ids.tolist())


@pytest.mark.parametrize("train_fraction", [1.0, 0.5])
def test_a_part_without_examples_is_a_clear_mistake(train_fraction: float, root: Path) -> None:
    fill(root, 2)
    with pytest.raises(WslSweepError, match=r"the training part of image_folder has 0 examples"):
        load(config(root, validation_fraction=0.9, train_fraction=train_fraction))
    with pytest.raises(WslSweepError, match=r"the validation part of image_folder has 0 examples"):
        load(config(root, validation_fraction=0.1, train_fraction=train_fraction))


@pytest.mark.parametrize(("padding", "flip", "count"), [(0, False, 1), (0, True, 2), (1, False, 9), (4, True, 162)])
def test_views_of_training_pictures_are_counted_and_others_have_one(
    padding: int, flip: bool, count: int, root: Path
) -> None:
    fill(root, 10)
    settings = config(root, padding=padding, flip=flip)
    data = load(settings)
    assert data.train.views.count == count
    assert data.validation.views.count == load_test(settings).views.count == 1
    taken = data.train.views.take(torch.zeros(count, dtype=torch.int64), torch.arange(count))
    assert taken.shape == (count, 3, 8, 8)
    assert len({tuple(picture) for picture in taken.flatten(1).tolist()}) == count


def test_a_picture_cannot_be_reflected_by_more_than_it_has(root: Path) -> None:
    fill(root, 10)
    assert load(config(root, padding=7, padding_mode="reflect")).train.views.count == 225
    with pytest.raises(WslSweepError, match="pictures of 8 pixels can be reflected by 7 at most, not by 8"):
        load(config(root, padding=8, padding_mode="reflect"))
    assert load(config(root, padding=8)).train.views.count == 289


# --- statistics ------------------------------------------------------------------------------------------------------


def pool_pixels(made: dict[str, Pixels], test_ids: Tensor) -> npt.NDArray[np.float64]:
    """(3, all pixels), in [0, 1], of everything but the test part."""
    test = set(test_ids.tolist())
    kept = [made[path] for row, path in enumerate(sorted(made)) if row not in test]
    pixels: npt.NDArray[np.float64] = np.stack(kept).reshape(-1, 3).T / 255
    return pixels


@pytest.mark.parametrize("official", [False, True])
def test_pictures_are_normalised_by_all_but_the_test_part(official: bool, root: Path) -> None:
    made = fill(root, 10, prefix="train/")
    if official:
        for label in "ab":  # so different that it would be seen
            made[f"test/{label}/0.png"] = np.full((8, 8, 3), 255, dtype=np.uint8)
            save(root, f"test/{label}/0.png", made[f"test/{label}/0.png"])
    data, test = load(config(root)), load_test(config(root))
    pixels = pool_pixels(made, test.ids)
    mean, std = pixels.mean(axis=1), pixels.std(axis=1)
    for part in (data.train, data.validation, test):
        stored = np.stack([made[sorted(made)[row]] for row in part.ids.tolist()]) / 255
        wanted = torch.from_numpy(((stored - mean) / std).transpose(0, 3, 1, 2)).float()
        torch.testing.assert_close(part.views.plain(torch.arange(len(part))), wanted, rtol=1e-5, atol=1e-5)


def test_statistics_do_not_depend_on_what_is_for_validation_or_trained_on(root: Path) -> None:
    fill(root, 20)
    settings = [config(root), config(root, validation_fraction=0.5), config(root, train_fraction=0.5)]
    first = [load_test(one).views.plain(torch.arange(8)) for one in settings]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])


def raw_of(images: Tensor, digest: str = "digest") -> RawData:
    return RawData(images=images, labels=torch.zeros(len(images), dtype=torch.int64), num_classes=2, digest=digest)


def test_statistics_are_kept_and_read_the_second_time(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_of(torch.from_numpy(np.stack([noise(index) for index in range(5)]).transpose(0, 3, 1, 2).copy()))
    rows = torch.tensor([0, 2, 3])
    first = mean_and_std(raw, rows)
    (kept,) = own_cache.glob("data/statistics-*.json")
    pixels = raw.images[rows].double() / 255
    assert json.loads(kept.read_text())["mean"] == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), rel=1e-12)
    assert first[1].tolist() == pytest.approx(pixels.transpose(0, 1).flatten(1).std(1, correction=0).tolist())
    monkeypatch.setattr(torch, "bincount", refuse)
    second = mean_and_std(raw, rows)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_statistics_of_other_rows_or_pictures_are_other_statistics(own_cache: Path) -> None:
    images = torch.from_numpy(np.stack([noise(index) for index in range(5)]).transpose(0, 3, 1, 2).copy())
    found = [
        mean_and_std(raw_of(images), torch.tensor([0, 1])),
        mean_and_std(raw_of(images), torch.tensor([0, 2])),
        mean_and_std(raw_of(255 - images, "other"), torch.tensor([0, 1])),
    ]
    assert len({tuple(mean.tolist()) for mean, _ in found}) == 3
    assert len(list(own_cache.glob("data/statistics-*.json"))) == 3


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"mean": "x", "std": [1]}', b"[]"])
def test_statistics_that_are_damaged_are_computed_again(content: bytes, own_cache: Path) -> None:
    raw = raw_of(torch.from_numpy(noise(1)).permute(2, 0, 1).unsqueeze(0).contiguous())
    first = mean_and_std(raw, torch.tensor([0]))
    (kept,) = own_cache.glob("data/statistics-*.json")
    kept.write_bytes(content)
    second = mean_and_std(raw, torch.tensor([0]))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_statistics_that_cannot_be_kept_are_computed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSL_SWEEP_CACHE", "/dev/null/cache")
    mean, _ = mean_and_std(raw_of(torch.full((1, 1, 8, 8), 51, dtype=torch.uint8)), torch.tensor([0]))
    assert mean.tolist() == pytest.approx([0.2])


def test_many_large_pictures_do_not_change_the_sum() -> None:
    """More rows than are counted at once."""
    images = torch.randint(0, 256, (5000, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, std = mean_and_std(raw_of(images), torch.arange(5000))
    pixels = images.double() / 255
    assert mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)


def test_a_constant_channel_is_moved_and_not_stretched(root: Path) -> None:
    for path in fill(root, 8):
        pixels = noise(len(path))
        pixels[:, :, 1] = 51
        save(root, path, pixels)
    data = load(config(root))
    taken = data.train.views.plain(torch.arange(len(data.train)))
    assert bool(taken.isfinite().all())
    assert taken[:, 1].abs().max() < 1e-6
    assert taken[:, 0].abs().max() > 0.5


# --- bytes stay bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [1, 3, 7])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_padding_of_bytes_is_padding_of_floats(padding: int, mode: Any, root: Path) -> None:
    images = torch.from_numpy(np.stack([noise(index, 8, 9) for index in range(3)]).transpose(0, 3, 1, 2).copy())
    views = Views(images, padding=padding, padding_mode=mode, flip=False, mean=torch.zeros(3), std=torch.ones(3))
    torch_mode = "constant" if mode == "zeros" else "reflect"
    padded = F.pad(images.float(), (padding,) * 4, mode=torch_mode)
    for view in range(views.count):
        row, column = divmod(view, 2 * padding + 1)
        found = views.take(torch.arange(3), torch.full((3,), view))
        assert torch.equal(found, padded[:, :, row : row + 8, column : column + 9])


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_bytes_and_floats_make_the_same_pictures_bit_for_bit(mode: Any) -> None:
    images = torch.from_numpy(np.stack([noise(index) for index in range(4)]).transpose(0, 3, 1, 2).copy())
    mean, std = torch.tensor([0.1, 0.5, 0.7]), torch.tensor([0.2, 0.3, 0.4])
    of_bytes = Views(images, padding=2, padding_mode=mode, flip=True, mean=mean, std=std, scale=255.0)
    of_floats = Views(images.float() / 255, padding=2, padding_mode=mode, flip=True, mean=mean, std=std)
    assert of_bytes.count == of_floats.count == 50
    examples = torch.arange(4).repeat_interleave(50)
    numbers = torch.arange(50).repeat(4)
    assert torch.equal(of_bytes.take(examples, numbers), of_floats.take(examples, numbers))
    assert of_bytes._images.data_ptr() == images.data_ptr()  # bytes stay bytes, and no padded copy is made
