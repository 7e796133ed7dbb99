"""Zips of pictures are read as they are."""

import os
import zipfile

import numpy as np
import pytest

from fixtures.data import draw, make_folder, make_images
from fixtures.places import ROOT
from fixtures.zips import deflated64, encoded, locked, pictures, write_zip, zip_folder
from genbench.data.folders import Folder
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake


def own(tmp_path, root, **changes):
    return make_images(tmp_path, Folder, root=str(root), channels=3, **changes)


def contents(data):
    return {split: np.array(data.pixels(split)) for split in SPLITS}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_zip_gives_the_splits_and_pixels_of_its_folder_and_is_not_unpacked(tmp_path, method, top):
    folder = make_folder(tmp_path / "data", 20)
    packed = zip_folder(folder, tmp_path / "photos.zip", top, method)
    expected, found = (contents(own(tmp_path, root)) for root in (folder, packed))
    assert all(np.array_equal(expected[split], found[split]) for split in SPLITS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data", "photos.zip"]


@pytest.mark.parametrize("top", ["", "photos/"])
def test_folders_named_after_splits_are_the_splits_of_a_zip_too(tmp_path, top):
    entries = {}
    for split, count in (("train", 10), ("test", 4)):
        entries |= pictures(count, f"{top}{split}/")
    data = own(tmp_path, write_zip(tmp_path / "photos.zip", entries))
    assert [len(data.pixels(split)) for split in SPLITS] == [8, 2, 4]
    tested = {data.source.label(number) for number in data.source.split("test")}
    assert tested == {f"{name} in photos.zip" for name in entries if "test/" in name}
    assert data.class_names == ("cats", "dogs")


def test_a_zip_that_has_only_a_folder_train_keeps_it_as_a_split(tmp_path):
    data = own(tmp_path, write_zip(tmp_path / "photos.zip", pictures(20, "train/")))
    assert data.source.files()[0].startswith("train/")
    assert [len(data.pixels(split)) for split in SPLITS] == [12, 4, 4]


def test_what_macos_and_windows_add_to_a_zip_is_left_out(tmp_path):
    entries = {name.replace("/", "\\"): content for name, content in pictures(10, "p/").items()}
    entries |= {"__MACOSX/p/cats/._01.png": b"x", "p/.DS_Store": b"x", "p/._cats.png": b"x"}
    entries |= {"__MACOSX/p/cats/01.png": b"x", "p/.thumbnails/1.png": b"x", "p/notes.txt": b"x"}
    data = own(tmp_path, write_zip(tmp_path / "p.zip", entries))
    assert data.source.files() == sorted(name.removeprefix("p/") for name in pictures(10, "p/"))
    data.prepare_data()


def test_a_copied_zip_uses_the_same_cache_and_a_changed_one_another(tmp_path):
    first = write_zip(tmp_path / "a" / "photos.zip", pictures())
    second = tmp_path / "b" / "others.zip"
    second.parent.mkdir()
    second.write_bytes(first.read_bytes())
    os.utime(second, (0, 0))
    one, other = own(tmp_path, first), own(tmp_path, second, name="others")
    one.prepare_data()
    assert one.folder("train") == other.folder("train")
    write_zip(second, pictures() | {"cats/01.png": encoded(99)})
    assert own(tmp_path, second).folder("train") != one.folder("train")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_zip_above_the_limit_is_decoded_on_demand_in_forked_processes_too(tmp_path, workers):
    packed = write_zip(tmp_path / "photos.zip", pictures(40))
    expected = own(tmp_path, packed).pixels("train")
    data = own(tmp_path, packed, cache_gb=0, workers=workers)
    data.prepare_data()
    data.plan(seed=1, batch_size=8, pieces=1, steps=6, steps_per_batch=1)
    for batch in data.train_dataloader():
        seen = batch.content.numpy()
        assert all(any(np.array_equal(one, known) for known in expected) for one in seen)


def test_cifar10_as_jpeg_is_read_from_its_zip_with_its_classes(tmp_path):
    path = ROOT.parent / "shared" / "data" / "cifar10-jpeg.zip"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    data = own(tmp_path, path, validation=0.1, test=0.1, image_size=32)
    assert [len(data.source.split(split)) for split in SPLITS] == [45_000, 5_000, 10_000]
    assert len(data.class_names) == 10
    assert np.bincount(data.labels("test")).tolist() == [1000] * 10
    assert np.bincount(data.labels("validation")).min() > 400
    assert data.decode("test")(0).shape == (3, 32, 32)


# --- bad input ------------------------------------------------------------------------------------


def broken(content, name):
    """The zip with a byte of this entry's content changed."""
    place = content.index(pictures()[name]) + 40
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


BAD_FILES = {
    "a page": (lambda zipped: b"<html>404</html>", "neither a folder nor a readable zip.*half"),
    "nothing": (lambda zipped: b"", "neither a folder nor a readable zip"),
    "a part": (lambda zipped: zipped[: len(zipped) // 2], "neither a folder nor a readable zip"),
    "altered": (lambda zipped: broken(zipped, "cats/07.png"), "cats/07.png in p.zip is a damaged"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_zip_that_is_none_or_has_a_corrupt_file_is_named_with_what_to_do(tmp_path, what):
    change, sentence = BAD_FILES[what]
    path = write_zip(tmp_path / "p.zip", pictures())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserMistake, match=sentence):
        own(tmp_path, path).prepare_data()


BAD_ENTRIES = {
    "empty": ({}, "has no pictures: it and its subfolders"),
    "no pictures": ({"notes.txt": "x"}, "has no pictures: it and its subfolders"),
    "a zip": ({"inner.zip": "x"}, "has no pictures but inner.zip: unpack the outer zip"),
    "text": ({"cats/x.png": "hello"}, "cats/x.png in p.zip is not a picture: remove it"),
    "cut": ({"x.jpg": encoded(0, kind="JPEG")[:300]}, "x.jpg in p.zip is a damaged picture"),
    "grey": ({"x.png": encoded(0, mode="L")}, "x.png in p.zip is grey among colour"),
    "small": ({"x.png": encoded(0, (30, 7))}, "x.png in p.zip is 30 x 7, which is smaller"),
}


@pytest.mark.parametrize("what", BAD_ENTRIES)
def test_a_zip_with_a_bad_picture_or_none_gets_a_sentence(tmp_path, what):
    more, sentence = BAD_ENTRIES[what]
    entries = pictures() | more if any("." in n and "/x" in f"/{n}" for n in more) else more
    with pytest.raises(UserMistake, match=sentence):
        own(tmp_path, write_zip(tmp_path / "p.zip", entries)).prepare_data()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (locked, "p.zip cannot be read as it is .cats/01.png needs a password.: unpack it"),
        (deflated64, "p.zip cannot be read as it is .cats/01.png is compressed by method 9"),
    ],
)
def test_a_zip_that_python_cannot_read_is_refused_before_training(tmp_path, change, sentence):
    path = change(write_zip(tmp_path / "p.zip", pictures()))
    with pytest.raises(UserMistake, match=sentence):
        own(tmp_path, path).prepare_data()


def test_a_folder_that_holds_a_zip_says_that_the_zip_can_be_read(tmp_path):
    path = write_zip(tmp_path / "data" / "p.zip", pictures())
    with pytest.raises(UserMistake, match="no pictures but p.zip.*dataset.root=.*p.zip"):
        own(tmp_path, path.parent).prepare_data()


def test_unequal_pictures_are_cropped_as_those_of_a_folder(tmp_path):
    entries = pictures() | {"wide.png": encoded(30, (60, 16)), "high.png": encoded(31, (16, 60))}
    data = own(tmp_path, write_zip(tmp_path / "p.zip", entries))
    data.prepare_data()
    number = data.source.files().index("wide.png")
    seen = data.transform(data.source.picture(number), "wide.png")
    expected = draw((60, 16), seed=30).crop((22, 0, 38, 16)).resize((8, 8), 3)
    assert np.array_equal(seen, np.asarray(expected).transpose(2, 0, 1))
