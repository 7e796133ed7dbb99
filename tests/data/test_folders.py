"""Folders of a user's own pictures."""

import numpy as np
import pytest
from PIL import Image

from fixtures.data import draw, make_folder, make_images
from genbench.data.folders import Folder
from genbench.data.splits import SPLITS
from genbench.errors import Notice, UserMistake


def test_own_pictures_are_found_in_subfolders_and_in_any_format(tmp_path):
    root = make_folder(tmp_path / "data", 9)
    for ending in ("jpg", "webp", "bmp", "gif", "tiff", "PNG"):
        draw(seed=50).save(root / f"another.{ending}")
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_text("no picture")
    data = make_images(tmp_path, Folder, channels=3, convert=True)
    assert sum(len(data.pixels(split)) for split in SPLITS) == 15


def test_hidden_folders_and_files_that_pil_cannot_decode_are_left_out(tmp_path):
    root = make_folder(tmp_path / "data", 9)
    for folder in (".ipynb_checkpoints", "__MACOSX"):
        (root / folder).mkdir()
        draw(seed=50).save(root / folder / "copy.png")
    for name in ("features.h5", "film.mpg"):
        (root / name).write_text("no picture")
    assert sum(map(len, names_by_split(tmp_path).values())) == 9


def test_links_bring_no_picture_twice_and_links_to_elsewhere_are_followed(tmp_path):
    root = make_folder(tmp_path / "data", 9)
    elsewhere = make_folder(tmp_path / "elsewhere", 4)
    (root / "more").symlink_to(elsewhere)
    for name, target in (("loop", root), ("dogs/up", ".."), ("same", root / "cats")):
        (root / name).symlink_to(target, target_is_directory=True)
    (elsewhere / "back").symlink_to(root)
    with pytest.warns(Notice, match=r"the link loop \(and 3 more\) leads to a folder that"):
        names = names_by_split(tmp_path)
    found = [name for split in SPLITS for name in names[split]]
    assert len(found) == 13 and sum(name.startswith("more/") for name in found) == 4


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("Train", "Test"), "what lies in Test, Train is no split"),
        (("train", "extra"), r"beside the folder train \(in extra/\) count as training"),
    ],
)
def test_folders_that_look_like_splits_and_are_none_are_named(tmp_path, folders, said):
    for folder in folders:
        make_folder(tmp_path / "data" / folder, 10)
    with pytest.warns(Notice, match=said):
        names_by_split(tmp_path)


@pytest.mark.parametrize("root", ["", " "])
def test_an_empty_root_is_not_the_current_folder(tmp_path, root):
    with pytest.raises(UserMistake, match="dataset.root= is empty"):
        make_images(tmp_path, Folder, root=root)


def test_a_picture_of_too_many_pixels_is_not_called_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    make_folder(tmp_path / "data")
    with pytest.raises(UserMistake, match="has more than 200 pixels"):
        make_images(tmp_path, Folder, channels=3).prepare_data()


def test_adding_a_picture_leaves_the_others_in_their_splits(tmp_path):
    root = make_folder(tmp_path / "data", 40)
    before = names_by_split(tmp_path)
    draw(seed=99).save(root / "cats" / "new.png")
    after = names_by_split(tmp_path)
    moved = sum(len(before[split] - after[split]) for split in SPLITS)
    assert moved <= 2


def names_by_split(tmp_path):
    source = make_images(tmp_path, Folder, channels=3).source
    return {split: {source.label(i) for i in source.split(split)} for split in SPLITS}


def test_subfolders_named_train_and_test_are_the_splits(tmp_path):
    for split, count in (("train", 10), ("val", 3), ("test", 4)):
        make_folder(tmp_path / "data" / split, count)
    names = names_by_split(tmp_path)
    assert [len(names[split]) for split in SPLITS] == [10, 3, 4]
    assert all(name.startswith("val/") for name in names["validation"])


def test_a_validation_part_is_set_aside_where_only_train_and_test_are_given(tmp_path):
    for split, count in (("train", 10), ("test", 4)):
        make_folder(tmp_path / "data" / split, count)
    names = names_by_split(tmp_path)
    assert [len(names[split]) for split in SPLITS] == [8, 2, 4]


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    root = make_folder(tmp_path / "data", 10)
    picture = draw((8, 8))
    exif = picture.getexif()
    exif[0x0112] = 3  # turned by 180 degrees
    picture.save(root / "test.png", exif=exif)
    source = make_images(tmp_path, Folder, channels=3).source
    number = next(i for i in range(11) if source.label(i) == "test.png")
    turned = np.asarray(source.picture(number))
    assert np.array_equal(turned, np.asarray(picture)[::-1, ::-1])


BAD = {
    "cut.jpg": (
        lambda path: draw().save(path) or path.write_bytes(path.read_bytes()[:300]),
        "damaged",
    ),
    "text.png": (lambda path: path.write_text("hello"), "is not a picture"),
    "empty.png": (lambda path: path.touch(), "is not a picture"),
    "gone.png": (lambda path: path.symlink_to("nowhere.png"), "cannot be read|not there"),
    "grey.png": (lambda path: draw(mode="L").save(path), "is grey among colour.*convert=true"),
    "glass.png": (lambda path: make_glass().save(path), "is transparent.*convert=true"),
    "deep.png": (lambda path: make_deep().save(path), "more than 8 bits"),
    "small.png": (lambda path: draw((30, 7)).save(path), "30 x 7.*image_size=8.*upscale=true"),
}


def make_glass():
    glass = draw(mode="RGBA")
    glass.putalpha(100)
    return glass


def make_deep():
    return Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named_before_training_with_what_to_do(tmp_path, name):
    root = make_folder(tmp_path / "data")
    spoil, sentence = BAD[name]
    spoil(root / name)
    with pytest.raises(UserMistake, match=sentence) as raised:
        make_images(tmp_path, Folder, channels=3).prepare_data()
    assert name in str(raised.value)
    assert not list((tmp_path / "cache" / "data").glob("*/pixels.npy.partial"))


@pytest.mark.parametrize("settings", ["missing", "none", "empty"])
def test_a_folder_without_pictures_is_refused(tmp_path, settings):
    if settings == "empty":
        (tmp_path / "data" / "sub").mkdir(parents=True)
    root = None if settings == "none" else str(tmp_path / "data")
    expected = {"missing": "not a folder", "none": "needs dataset.root", "empty": "no pictures"}
    with pytest.raises(UserMistake, match=expected[settings]):
        make_images(tmp_path, Folder, channels=3, root=root).prepare_data()


def test_convert_turns_grey_transparent_and_palette_pictures_into_colour(tmp_path):
    root = tmp_path / "data"
    make_folder(root, 8)
    draw(mode="L").save(root / "grey.png")
    make_glass().save(root / "glass.png")
    draw(mode="P").save(root / "palette.png")
    draw(mode="CMYK").save(root / "print.jpg")
    data = make_images(tmp_path, Folder, channels=3, convert=True)
    data.prepare_data()
    source = data.source
    number = next(i for i in range(12) if source.label(i) == "glass.png")
    over_white = np.asarray(draw().crop((2, 0, 18, 16)), float) * 100 / 255 + 155
    seen = make_images(tmp_path, Folder, channels=3, convert=True, image_size=16).transform(
        source.picture(number), "glass.png"
    )
    assert np.abs(seen - over_white.transpose(2, 0, 1)).max() <= 1.5


def test_opaque_alpha_and_palettes_are_accepted_as_colour(tmp_path):
    root = make_folder(tmp_path / "data", 8)
    draw(mode="RGBA").save(root / "opaque.png")
    draw(mode="P").save(root / "palette.png")
    data = make_images(tmp_path, Folder, channels=3)
    data.prepare_data()
    shapes = [data.pixels(split).shape for split in ("train", "validation", "test")]
    assert sum(number for number, *_ in shapes) == 10
    assert {tuple(shape) for _, *shape in shapes} == {(3, 8, 8)}


def test_colour_among_grey_images_is_refused_too(tmp_path):
    root = make_folder(tmp_path / "data", 8, mode="L")
    draw().save(root / "colour.png")
    with pytest.raises(UserMistake, match="colour.png is colour among grey"):
        make_images(tmp_path, Folder, channels=1).prepare_data()
