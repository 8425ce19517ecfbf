"""A folder of class folders, read by names alone: layouts, what is passed over, and when it is read again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from wsl_sweep.errors import WslSweepError
from wsl_sweep.image_listing import Listing, Picture, list_pictures

LONG_AGO = 1_000_000_000


def put(root: Path, *paths: str) -> str:
    """Files of one byte, in folders that were last changed long ago: no change falls into the same tick of a clock."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (LONG_AGO, LONG_AGO))
    for folder, _, _ in os.walk(root):
        os.utime(folder, (LONG_AGO, LONG_AGO))
    return str(root)


def paths(listing: Listing, *, test: bool | None = None) -> list[str]:
    """The pictures' places, of one part or of all."""
    return [picture.path for picture in listing.pictures if test is None or picture.test == test]


def by_class(listing: Listing) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in listing.classes}
    for picture in listing.pictures:
        found[listing.classes[picture.label]].append(picture.path)
    return found


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "zebra/1.png", "ant/2.png", "Moth/3.png", "10/4.png", "9/5.png"))
    assert listing.classes == ("10", "9", "Moth", "ant", "zebra")
    assert by_class(listing) == {
        "10": ["10/4.png"],
        "9": ["9/5.png"],
        "Moth": ["Moth/3.png"],
        "ant": ["ant/2.png"],
        "zebra": ["zebra/1.png"],
    }
    assert (listing.root, listing.has_test, listing.notes) == (tmp_path, False, ())


def test_pictures_come_in_the_order_of_their_paths_with_size_and_time(tmp_path: Path) -> None:
    root = put(tmp_path, "b/1.png", "a/2.png", "a/10.png")
    (tmp_path / "a" / "2.png").write_bytes(b"four")
    os.utime(tmp_path / "a" / "2.png", ns=(5, 7_000_000_001))
    assert list_pictures(root).pictures == (
        Picture("a/10.png", 0, False, 1, LONG_AGO * 10**9),
        Picture("a/2.png", 0, False, 4, 7_000_000_001),
        Picture("b/1.png", 1, False, 1, LONG_AGO * 10**9),
    )


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_a_folder_beside_train_is_the_test_part(name: str, tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "train/a/1.png", "train/b/1.png", f"{name}/a/2.png", f"{name}/b/2.png"))
    assert listing.classes == ("a", "b")
    assert paths(listing, test=False) == ["train/a/1.png", "train/b/1.png"]
    assert paths(listing, test=True) == [f"{name}/a/2.png", f"{name}/b/2.png"]
    assert listing.has_test


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_pictures_join_the_training_pictures_where_there_is_a_test(name: str, tmp_path: Path) -> None:
    root = put(tmp_path, *(f"{part}/{label}/{part}.png" for part in ("train", "test", name) for label in "ab"))
    listing = list_pictures(root)
    assert paths(listing, test=True) == ["test/a/test.png", "test/b/test.png"]
    assert paths(listing, test=False) == ["train/a/train.png", "train/b/train.png"] + [
        f"{name}/{label}/{name}.png" for label in "ab"
    ]


def test_a_class_that_only_the_validation_folder_has_is_a_class_too(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "train/a/1.png", "train/b/1.png", "val/c/1.png", "test/c/2.png"))
    assert listing.classes == ("a", "b", "c")
    assert by_class(listing)["c"] == ["test/c/2.png", "val/c/1.png"]
    assert listing.notes == ()


def test_with_a_train_folder_alone_there_is_no_test_part(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "train/a/1.png", "train/b/1.png"))
    assert (listing.classes, listing.has_test) == (("a", "b"), False)
    assert paths(listing) == ["train/a/1.png", "train/b/1.png"]


def test_an_empty_test_folder_is_no_test_part(tmp_path: Path) -> None:
    (tmp_path / "test" / "a").mkdir(parents=True)
    listing = list_pictures(put(tmp_path, "train/a/1.png", "train/b/1.png"))
    assert not listing.has_test
    assert listing.notes == ()


def test_without_train_a_folder_called_test_is_a_class(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "test/1.png", "val/1.png"))
    assert (listing.classes, listing.has_test) == (("test", "val"), False)


def test_pictures_in_nested_folders_belong_to_the_class_above(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "a/1.png", "a/x/2.png", "a/x/y/z/3.png", "b/2020/1.png"))
    assert by_class(listing) == {"a": ["a/1.png", "a/x/2.png", "a/x/y/z/3.png"], "b": ["b/2020/1.png"]}


# --- what is a picture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["a/.1.png", "a/.thumbs/1.png", ".c/1.png", "a/x/.y/1.png", "a/._1.png", ".png"],
)
def test_what_is_hidden_is_passed_over(path: str, tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "a/1.png", "b/1.png", path))
    assert paths(listing) == ["a/1.png", "b/1.png"]
    assert (listing.classes, listing.notes) == (("a", "b"), ())


@pytest.mark.parametrize("path", ["a/notes.txt", "labels.csv", "a/Thumbs.db", "a/png", "a/1.png.part", "a/1.png~"])
def test_other_files_are_passed_over(path: str, tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "a/1.png", "b/1.png", path))
    assert paths(listing) == ["a/1.png", "b/1.png"]
    assert listing.notes == ()


@pytest.mark.parametrize(
    "name", ["x.PNG", "x.Jpg", "x.JPEG", "x.tIF", "x.tiff", "x.bmp", "x.gif", "x.webp", "x.pgm", "x.ppm", "x.y.jpg"]
)
def test_suffixes_count_in_any_case(name: str, tmp_path: Path) -> None:
    assert f"a/{name}" in paths(list_pictures(put(tmp_path, "a/1.png", "b/1.png", f"a/{name}")))


@pytest.mark.parametrize("name", ["with blank.png", "größe.png", "日本.png", "new\nline.png", "-rf.png", "%s{x}.png"])
def test_any_name_is_a_name(name: str, tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, f"a b/{name}", "ä/1.png"))
    assert paths(listing) == [f"a b/{name}", "ä/1.png"]
    assert len(listing.content()) == len(listing.state()) == 64


def test_a_name_that_is_not_utf_8_is_a_name_too(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, os.fsdecode(b"a/\xff\xfe.png"), "b/1.png"))
    assert len(listing.pictures) == 2
    assert len(listing.content()) == 64


def test_a_folder_with_the_name_of_a_picture_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty.png").mkdir(parents=True)
    listing = list_pictures(put(tmp_path, "a/x.png/1.png", "b/1.png", "c.png/1.jpg"))
    assert by_class(listing) == {"a": ["a/x.png/1.png"], "b": ["b/1.png"], "c.png": ["c.png/1.jpg"]}


# --- links -----------------------------------------------------------------------------------------------------------


def test_links_to_pictures_to_classes_and_to_the_whole_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "store", "many/1.png", "many/2.png", "one.png")
    root = tmp_path / "root"
    put(root, "b/1.png")
    (root / "a").symlink_to(tmp_path / "store" / "many")
    (root / "b" / "2.png").symlink_to(tmp_path / "store" / "one.png")
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        assert paths(list_pictures(str(place))) == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]


def test_a_link_to_nothing_is_passed_over(tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert paths(list_pictures(root)) == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("target", ["a", "."])
def test_a_link_in_a_circle_makes_no_picture_twice(target: str, tmp_path: Path) -> None:
    """Else the same picture is for training and for validation."""
    root = put(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / target)
    listing = list_pictures(root)
    files = [os.path.realpath(tmp_path / path) for path in paths(listing)]
    assert sorted(files) == [str(tmp_path.resolve() / "a" / "1.png"), str(tmp_path.resolve() / "b" / "1.png")]


# --- what is left out, and what is wrong -----------------------------------------------------------------------------


def test_a_class_folder_without_pictures_is_left_out_and_told(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "a/1.png", "b/readme.txt", "c/1.png"))
    assert listing.classes == ("a", "c")
    assert [picture.label for picture in listing.pictures] == [0, 1]
    assert listing.notes == (f"{tmp_path}: class folder b has no pictures and is left out",)


def test_a_class_with_test_pictures_only_is_left_out_and_told(tmp_path: Path) -> None:
    listing = list_pictures(put(tmp_path, "train/a/1.png", "train/b/1.png", "test/c/1.png", "test/b/2.png"))
    assert listing.classes == ("a", "b")
    assert paths(listing, test=True) == ["test/b/2.png"]
    assert listing.notes == (f"{tmp_path}: class c has test pictures only and is left out",)


def test_a_class_that_is_empty_in_train_and_has_test_pictures_is_not_a_class(tmp_path: Path) -> None:
    (tmp_path / "train" / "c").mkdir(parents=True)
    listing = list_pictures(put(tmp_path, "train/a/1.png", "train/b/1.png", "test/c/1.png"))
    assert listing.classes == ("a", "b")
    assert not listing.has_test
    assert any("c has test pictures only" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["a/1.png"], "1 of its class folders have pictures; two or more must"),
        (["a/1.png", "b/notes.txt"], "1 of its class folders have pictures"),
        (["a/notes.txt", "b/notes.txt"], "0 of its class folders have pictures"),
        (["train/a/1.png", "test/a/1.png", "test/b/1.png"], "1 of its class folders have pictures"),
        (["1.png", "2.PNG", "notes.txt"], "has no folders, one for each class (but 2 pictures that belong to no class"),
        (["train/1.png"], "1 of its class folders have pictures; two or more must"),
        (["notes.txt"], "has no folders, one for each class"),
        ([], "has no folders, one for each class"),
    ],
)
def test_fewer_than_two_classes_are_a_mistake(files: list[str], what: str, tmp_path: Path) -> None:
    with pytest.raises(WslSweepError) as caught:
        list_pictures(put(tmp_path, *files))
    assert what in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_folder_that_is_not_there_or_is_a_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(WslSweepError, match=r"nowhere: there is no such folder"):
        list_pictures(str(tmp_path / "nowhere"))
    with pytest.raises(WslSweepError, match=r"file: is a file, not a folder"):
        list_pictures(str(tmp_path / "file"))


def test_a_folder_that_appears_is_found_by_the_same_process(tmp_path: Path) -> None:
    root = tmp_path / "later"
    with pytest.raises(WslSweepError):
        list_pictures(str(root))
    put(root, "a/1.png", "b/1.png")
    assert list_pictures(str(root)).classes == ("a", "b")


@pytest.mark.parametrize("inner", ["", "a"])
def test_a_folder_that_may_not_be_read_is_a_mistake_and_not_an_empty_one(
    inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path) == tmp_path / inner:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(WslSweepError, match="cannot be read"):
        list_pictures(root)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "pictures", "a/1.png", "b/1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths(list_pictures("~/pictures")) == ["a/1.png", "b/1.png"]


# --- content and state -----------------------------------------------------------------------------------------------


def test_content_is_the_same_for_a_copy_elsewhere_at_another_time(tmp_path: Path) -> None:
    one = list_pictures(put(tmp_path / "one", "a/1.png", "b/1.png", "b/x/2.jpg"))
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    two = list_pictures(str(tmp_path / "two"))
    assert one.content() == two.content()
    assert one.state() != two.state()


def test_content_does_not_depend_on_what_is_no_picture(tmp_path: Path) -> None:
    one = list_pictures(put(tmp_path / "one", "a/1.png", "b/1.png"))
    two = list_pictures(put(tmp_path / "two", "a/1.png", "b/1.png", "a/.hidden.png", "readme.txt", "c/notes.txt"))
    assert one.content() == two.content()


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "moved to another class", "larger"])
def test_content_changes_with_every_picture(change: str, tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "a/2.png", "b/1.png")
    before = list_pictures(root).content()
    if change == "added":
        (tmp_path / "b" / "new.png").write_bytes(b"x")
    elif change == "removed":
        (tmp_path / "a" / "2.png").unlink()
    elif change == "larger":
        (tmp_path / "a" / "new").write_bytes(b"xx")
        (tmp_path / "a" / "new").replace(tmp_path / "a" / "2.png")
    else:
        (tmp_path / "a" / "2.png").rename(tmp_path / ("a/3.png" if change == "renamed" else "b/2.png"))
    assert list_pictures(root).content() != before


def test_content_and_state_change_with_a_picture_of_the_same_size(tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "b/1.png")
    before = list_pictures(root)
    content = before.content()
    (tmp_path / "a" / "new").write_bytes(b"y")
    (tmp_path / "a" / "new").replace(tmp_path / "a" / "1.png")
    after = list_pictures(root)
    assert content != after.content()
    assert before.state() != after.state()


@pytest.mark.parametrize("names", [("Training", "Testing"), ("Train", "Test"), ("TRAIN", "val")])
def test_parts_are_told_by_their_names_in_any_case(names: tuple[str, str], tmp_path: Path) -> None:
    train, test = names
    root = put(tmp_path, *(f"{part}/{name}/1.png" for part in names for name in "abc"))
    listing = list_pictures(root)
    assert listing.classes == ("a", "b", "c")
    assert [picture.path.split("/")[0] for picture in listing.pictures if picture.test] == [test] * 3
    assert train != test


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = put(tmp_path, "car/1.png", "plane/1.png", "train/1.png")
    assert list_pictures(root).classes == ("car", "plane", "train")


def test_folders_that_hold_the_same_folders_are_no_classes(tmp_path: Path) -> None:
    root = put(tmp_path, *(f"{part}/{name}/1.png" for part in ("one", "two") for name in "abc"))
    with pytest.raises(WslSweepError, match="one, two hold the same folders, a, b, c"):
        list_pictures(root)


# --- read again only where something has changed ---------------------------------------------------------------------


def test_a_folder_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "b/1.png")
    assert list_pictures(root) is list_pictures(root)


@pytest.mark.parametrize("where", ["a", "a/x"])
def test_a_file_that_comes_or_goes_is_noticed(where: str, tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "a/x/1.png", "b/1.png")
    assert len(list_pictures(root).pictures) == 3
    (tmp_path / where / "2.png").write_bytes(b"x")
    assert len(list_pictures(root).pictures) == 4
    os.utime(tmp_path / where, (LONG_AGO + 1, LONG_AGO + 1))
    (tmp_path / where / "2.png").unlink()
    assert len(list_pictures(root).pictures) == 3


def test_a_new_class_is_noticed(tmp_path: Path) -> None:
    root = put(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    assert list_pictures(root).classes == ("a", "b")
    (tmp_path / "train" / "c").mkdir()
    (tmp_path / "train" / "c" / "1.png").write_bytes(b"x")
    assert list_pictures(root).classes == ("a", "b", "c")


def test_a_file_that_another_takes_the_place_of_is_noticed(tmp_path: Path) -> None:
    root = put(tmp_path, "a/1.png", "b/1.png")
    assert list_pictures(root).pictures[0].size == 1
    (tmp_path / "new").write_bytes(b"larger")
    (tmp_path / "new").replace(tmp_path / "a" / "1.png")
    assert list_pictures(root).pictures[0].size == 6
