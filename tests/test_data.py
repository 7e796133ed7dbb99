import gzip
import pickle
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

from genbench.data import cache
from genbench.data.folders import CelebA, Folder, Lsun
from genbench.data.images import DecodedOnDemand, Images
from genbench.data.sources import Cifar, Digits, Idx, Stl10, Svhn
from genbench.data.splits import SPLITS, set_aside
from genbench.data.stream import Batch, ImageStream, Order, StreamPlan
from genbench.errors import UserMistake

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def make_images(tmp_path, source=Digits, **changes):
    arguments = {
        "name": "some",
        "source": source,
        "root": str(tmp_path / "data"),
        "download": False,
        "validation": 0.2,
        "test": 0.2,
        "image_size": 8,
        "channels": 1,
        "levels": 256,
        "crop": None,
        "resize": "bicubic",
        "convert": False,
        "upscale": False,
        "flip": False,
        "cache": str(tmp_path / "cache"),
        "cache_gb": 1,
        "device_resident": "auto",
        "workers": 0,
    }
    return Images(**(arguments | changes))


def make_digits(tmp_path, **changes):
    return make_images(tmp_path, levels=17, validation=180, test=360, **changes)


def draw(size=(20, 16), mode="RGB", seed=0):
    shape = (size[1], size[0], 3)
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    return picture.convert(mode)


def make_folder(folder, count=20, **kind):
    for number in range(count):
        path = folder / ("cats" if number % 2 else "dogs") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(seed=number, **kind).save(path)
    return folder


def write_idx(path, count, seed=0, size=28):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)
    content = struct.pack(">4i", 2051, count, size, size) + pixels.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return pixels


def make_stream(images=10, flip=False, **plan):
    plan = {"seed": 0, "batch_size": 4, "pieces": 2, "steps": 9, "steps_per_batch": 2} | plan
    return ImageStream(StreamPlan(**plan), images, torch.from_numpy, flip=flip)


def steps_of(stream):
    """The indices and flips of every step of a stream, flattened out of its batches."""
    size = stream.plan.pieces * stream.plan.batch_size // stream.plan.world_size
    batches = list(stream)
    indices = torch.cat([batch.content for batch in batches]).split(size)
    if batches[0].flips is None:
        return [step.tolist() for step in indices]
    flips = torch.cat([batch.flips for batch in batches]).split(size)
    return [(i.tolist(), f.tolist()) for i, f in zip(indices, flips, strict=True)]


# --- sources and splits ---------------------------------------------------------------------------


def test_digits_are_1257_to_train_on_and_540_held_out(tmp_path):
    from sklearn.datasets import load_digits

    data = make_digits(tmp_path)
    data.prepare_data()
    assert [len(data.pixels(split)) for split in SPLITS] == [1257, 180, 360]
    assert data.pixels("train").shape == (1257, 1, 8, 8)
    held_out = np.random.RandomState(20_240_229).permutation(1797)[1257:]
    expected = load_digits().images.astype(np.uint8)
    mine = np.concatenate([data.pixels("validation"), data.pixels("test")])[:, 0]
    numbers = np.concatenate([np.sort(held_out[:180]), np.sort(held_out[180:])])
    assert np.array_equal(mine, expected[numbers])


def test_the_digits_are_the_ones_that_every_machine_has(tmp_path):
    data = make_digits(tmp_path)
    prints = [data.card(split)["fingerprint"][:12] for split in SPLITS]
    assert prints == ["8e68c0df87b5", "0aab42d5cd94", "6c783ea2eeb1"]


def test_splits_are_disjoint_and_complete():
    parts = set_aside(103, 0.1, 7)
    assert [len(parts[split]) for split in SPLITS] == [86, 10, 7]
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(103))


@pytest.mark.parametrize("shares", [(5, 5), (0.6, 0.5), (-1, 0), ("a", 0), (0.001, 1)])
def test_shares_that_cannot_be_set_aside_are_refused(shares):
    with pytest.raises(UserMistake, match="set aside|part of a dataset|cannot give"):
        set_aside(10, *shares)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read_plain_and_gzipped(tmp_path, ending):
    raw = tmp_path / "data" / "MNIST" / "raw"
    train = write_idx(raw / f"train-images-idx3-ubyte{ending}", 30)
    test = write_idx(raw / f"t10k-images-idx3-ubyte{ending}", 10, seed=1)
    data = make_images(tmp_path, mnist_like(), validation=5, test=None, image_size=28)
    kept = np.sort(np.random.RandomState(20_240_229).permutation(30)[:25])
    assert np.array_equal(data.pixels("train")[:, 0], train[kept])
    assert len(data.pixels("validation")) == 5
    assert np.array_equal(data.pixels("test")[:, 0], test)


def mnist_like():
    return partial(Idx, torchvision_class="MNIST", title="MNIST", megabytes=11)


def test_a_half_downloaded_idx_file_is_named(tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    write_idx(raw / "train-images-idx3-ubyte", 30)
    write_idx(raw / "t10k-images-idx3-ubyte", 10)
    whole = raw / "train-images-idx3-ubyte"
    for content in (whole.read_bytes()[:5000], b"<html>not found</html>", b""):
        whole.write_bytes(content)
        data = make_images(tmp_path, mnist_like(), validation=5, test=None, image_size=28)
        with pytest.raises(UserMistake, match="train-images-idx3-ubyte is damaged or half"):
            data.prepare_data()


def test_the_real_mnist_is_read_from_a_folder_that_is_never_written_to(tmp_path):
    if not (REAL / "MNIST" / "raw").is_dir():
        pytest.skip(f"needs the real MNIST in {REAL}")
    from torchvision.datasets import MNIST

    before = sorted((p, p.stat().st_mtime_ns) for p in REAL.rglob("*"))
    data = make_images(
        tmp_path, mnist_like(), root=str(REAL), validation=5000, test=None, image_size=28
    )
    data.prepare_data()
    assert [len(data.pixels(split)) for split in SPLITS] == [55_000, 5_000, 10_000]
    official = MNIST(REAL, train=False).data.numpy()
    assert np.array_equal(data.pixels("test")[:, 0], official)
    assert sorted((p, p.stat().st_mtime_ns) for p in REAL.rglob("*")) == before


def test_cifar_batches_are_read_in_order_with_colours_where_they_belong(tmp_path, monkeypatch):
    import torchvision

    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    files = {}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = np.random.default_rng(number).integers(0, 256, (4, 3072), dtype=np.uint8)
        files[name] = rows
        (folder / name).write_bytes(pickle.dumps({"data": rows}))
    data = make_images(
        tmp_path,
        partial(Cifar, torchvision_class="CIFAR10", title="CIFAR-10"),
        validation=2,
        test=None,
        image_size=32,
        channels=3,
    )
    assert np.array_equal(data.pixels("test"), files["test_batch"].reshape(4, 3, 32, 32))
    every = np.concatenate([files[f"data_batch_{i}"] for i in range(1, 6)]).reshape(20, 3, 32, 32)
    assert np.array_equal(data.pixels("train"), every[data.source.split("train")])
    (folder / "data_batch_3").write_bytes(b"cut")
    with pytest.raises(UserMistake, match="damaged or half downloaded .its MD5"):
        make_images(
            tmp_path,
            partial(Cifar, torchvision_class="CIFAR10", title="CIFAR-10"),
            validation=2,
            test=None,
            image_size=32,
            channels=3,
        ).prepare_data()
    assert torchvision.datasets.CIFAR10.base_folder == folder.name


def test_stl10_and_svhn_are_read_the_right_way_up(tmp_path):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    stl = {}
    for name, count in (("unlabeled_X.bin", 6), ("train_X.bin", 3), ("test_X.bin", 2)):
        stl[name] = rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)  # N, C, column, row
        path = tmp_path / "data" / "stl10_binary" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stl[name].tobytes())
    shape = {"image_size": 96, "channels": 3, "validation": 2, "test": None}
    data = make_images(tmp_path, Stl10, **shape)
    assert np.array_equal(data.pixels("test"), stl["test_X.bin"].transpose(0, 1, 3, 2))
    assert len(data.pixels("train")) == 7
    svhn = rng.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / "data" / f"{split}_32x32.mat", {"X": svhn})
    data = make_images(tmp_path, Svhn, **(shape | {"image_size": 32}))
    assert np.array_equal(data.pixels("test"), svhn.transpose(3, 2, 0, 1))


def make_celeba(tmp_path, count=10, listed="txt"):
    folder = tmp_path / "data" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    rows = []
    for number in range(count):
        name = f"{number + 1:06d}.jpg"
        draw((178, 218), seed=number).save(folder / "img_align_celeba" / name)
        rows.append((name, number % 3 if number < 3 else 0))
    text = "\n".join(f"{name}{',' if listed == 'csv' else ' '}{part}" for name, part in rows)
    header = "image_id,partition\n" if listed == "csv" else ""
    (folder / f"list_eval_partition.{listed}").write_text(header + text + "\n")
    return folder


@pytest.mark.parametrize("listed", ["txt", "csv"])
def test_celeba_is_the_centre_crop_of_140_in_the_makers_splits(tmp_path, listed):
    folder = make_celeba(tmp_path, listed=listed)
    shape = {"image_size": 64, "channels": 3, "crop": 140, "validation": None, "test": None}
    data = make_images(tmp_path, CelebA, **shape)
    assert [len(data.pixels(split)) for split in SPLITS] == [8, 1, 1]
    picture = Image.open(folder / "img_align_celeba" / "000002.jpg")
    expected = picture.crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(data.pixels("validation")[0], np.asarray(expected).transpose(2, 0, 1))


def test_a_celeba_that_is_not_whole_says_what_is_missing(tmp_path):
    folder = tmp_path / "data" / "celeba"
    data = partial(make_images, tmp_path, CelebA, channels=3, validation=None, test=None)
    with pytest.raises(UserMistake, match="no list_eval_partition.txt.*get img_align_celeba.zip"):
        data().prepare_data()
    make_celeba(tmp_path)
    (folder / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(UserMistake, match="1 of 10 pictures of CelebA are missing.*000004.jpg"):
        data().prepare_data()
    (folder / "img_align_celeba").rename(folder / "elsewhere")
    (folder / "img_align_celeba.zip").touch()
    with pytest.raises(UserMistake, match="still packed: unzip"):
        data().prepare_data()


def test_lsun_is_read_from_its_database(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="LSUN needs the package lmdb")
    folder = tmp_path / "data" / "bedroom_train_lmdb"
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as database, database.begin(write=True) as write:
        for number in range(10):
            draw((40, 30), seed=number).save(tmp_path / "x.webp", lossless=True)
            write.put(f"{number:04d}".encode(), (tmp_path / "x.webp").read_bytes())
    data = make_images(tmp_path, partial(Lsun, category="bedroom"), channels=3, image_size=30)
    expected = np.asarray(draw((40, 30), seed=int(data.source.split("test")[0])))[:, 5:35]
    assert np.array_equal(data.pixels("test")[0], expected.transpose(2, 0, 1))
    missing = make_images(tmp_path, partial(Lsun, category="church_outdoor"), channels=3)
    with pytest.raises(UserMistake, match="church_outdoor_train_lmdb.*pip install lmdb"):
        missing.prepare_data()


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    data = make_images(tmp_path, mnist_like(), download=True, validation=5, test=None)
    with pytest.raises(UserMistake, match="the download failed.*MNIST is not complete.*paths.data"):
        data.prepare_data()


def refuse(*args, **kwargs):
    raise OSError("no network here")


# --- a user's own pictures ------------------------------------------------------------------------


def test_own_pictures_are_found_in_subfolders_and_in_any_format(tmp_path):
    root = make_folder(tmp_path / "data", 9)
    for ending in ("jpg", "webp", "bmp", "gif", "tiff", "PNG"):
        draw(seed=50).save(root / f"another.{ending}")
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_text("no picture")
    data = make_images(tmp_path, Folder, channels=3, convert=True)
    assert sum(len(data.pixels(split)) for split in SPLITS) == 15


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


def test_opaque_alpha_and_palettes_are_no_mistake_for_colour_images(tmp_path):
    root = make_folder(tmp_path / "data", 8)
    draw(mode="RGBA").save(root / "opaque.png")
    draw(mode="P").save(root / "palette.png")
    make_images(tmp_path, Folder, channels=3).prepare_data()


def test_colour_among_grey_images_is_refused_too(tmp_path):
    root = make_folder(tmp_path / "data", 8, mode="L")
    draw().save(root / "colour.png")
    with pytest.raises(UserMistake, match="colour.png is colour among grey"):
        make_images(tmp_path, Folder, channels=1).prepare_data()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": 17}, "smaller than dataset.crop=17.*crop=16 or less"),
        ({"crop": 4}, "dataset.crop=4 is smaller than dataset.image_size=8"),
        ({"crop": 0}, "dataset.crop=0 is not a number of pixels"),
        ({"image_size": 2.5}, "dataset.image_size=2.5 is not a number of pixels"),
        ({"channels": 2}, "grey .1. or colour .3."),
        ({"resize": "cubic"}, "is not one of nearest, box"),
        ({"device_resident": "yes"}, "is not one of auto, true, false"),
    ],
)
def test_an_impossible_setting_is_refused(tmp_path, changes, sentence):
    make_folder(tmp_path / "data")
    with pytest.raises(UserMistake, match=sentence):
        make_images(tmp_path, Folder, channels=changes.pop("channels", 3), **changes).prepare_data()


@pytest.mark.parametrize("kernel", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_the_resize_is_pils(tmp_path, kernel):
    make_folder(tmp_path / "data")
    data = make_images(tmp_path, Folder, channels=3, resize=kernel)
    square = draw().crop((2, 0, 18, 16))
    expected = square.resize((8, 8), getattr(Image.Resampling, kernel.upper()))
    assert np.array_equal(data.transform(draw(), "x"), np.asarray(expected).transpose(2, 0, 1))
    assert data.card("test")["transform"]["resize"] == kernel


def test_enlarged_digits_stay_within_their_levels(tmp_path):
    data = make_digits(tmp_path, image_size=16, upscale=True)
    assert data.pixels("test").shape == (360, 1, 16, 16)
    assert data.pixels("test").max() == 16


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_level_survives_the_way_to_an_image_and_back(tmp_path, levels):
    data = make_images(tmp_path, levels=levels)
    pixels = torch.arange(levels, dtype=torch.uint8)
    images = data.to_images(pixels)
    assert images[0] == -1
    assert images[-1] == pytest.approx(1, abs=1e-6)
    assert torch.equal(data.to_pixels(images), pixels)


# --- cache ----------------------------------------------------------------------------------------


def test_a_second_start_opens_the_cache_and_decodes_nothing(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    first = make_images(tmp_path, Folder, channels=3)
    first.prepare_data()
    second = make_images(tmp_path, Folder, channels=3)
    second.source.picture = None  # any decoding would fail
    second.prepare_data()
    for split in SPLITS:
        assert isinstance(second.pixels(split), np.memmap)
        assert np.array_equal(first.pixels(split), second.pixels(split))
        assert first.card(split) == second.card(split)


def test_the_fingerprint_is_the_sha256_of_the_pixels_in_order(tmp_path):
    import hashlib

    data = make_digits(tmp_path)
    expected = hashlib.sha256(np.ascontiguousarray(data.pixels("train")).tobytes()).hexdigest()
    assert data.card("train")["fingerprint"] == expected
    assert data.card("train")["n"] == 1257


@pytest.mark.parametrize("change", ["transform", "shares", "file"])
def test_whatever_changes_the_pixels_changes_the_cache(tmp_path, change):
    root = make_folder(tmp_path / "data")
    before = make_images(tmp_path, Folder, channels=3).folder("train")
    changes = {"transform": {"resize": "box"}, "shares": {"test": 0.3}, "file": {}}[change]
    if change == "file":
        draw(seed=77, size=(40, 40)).save(root / "cats" / "01.png")
    after = make_images(tmp_path, Folder, channels=3, **changes)
    assert after.folder("train") != before


def test_flips_and_devices_do_not_change_the_cache(tmp_path):
    a, b = make_digits(tmp_path), make_digits(tmp_path, flip=True, device_resident=True, workers=3)
    assert a.folder("train") == b.folder("train")


@pytest.mark.parametrize("damage", ["cut", "altered", "no card", "no pixels", "empty card"])
def test_a_damaged_cache_is_noticed_and_built_again(tmp_path, damage, capsys):
    data = make_digits(tmp_path)
    expected = np.array(data.pixels("train"))
    folder = data.folder("train")
    pixels, card = folder / "pixels.npy", folder / "card.json"
    if damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:1000])
    elif damage == "altered":
        content = bytearray(pixels.read_bytes())
        content[-1] ^= 1
        pixels.write_bytes(content)
    elif damage == "empty card":
        card.write_text("")
    else:
        (card if damage == "no card" else pixels).unlink()
    again = make_digits(tmp_path)
    assert np.array_equal(again.pixels("train"), expected)
    assert "the cache is damaged" in capsys.readouterr().err
    assert cache.read(folder, verify=True) is not None


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def decode(i):
        if i == 5:
            raise UserMistake("picture 5 is bad")
        return np.zeros((1, 2, 2), np.uint8)

    with pytest.raises(UserMistake, match="picture 5"):
        cache.build(tmp_path / "cache" / "x", (9, 1, 2, 2), decode, "x")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["x.lock"]


BUILDER = """
import sys, time
if sys.argv[2] == "without locks":
    sys.modules["fcntl"] = None
import numpy as np
from pathlib import Path
from genbench.data import cache
calls = []
def decode(i):
    calls.append(i)
    time.sleep(0.005)
    return np.full((1, 4, 4), i % 256, np.uint8)
pixels, card = cache.build(Path(sys.argv[1]), (200, 1, 4, 4), decode, "x")
assert (pixels[:, 0, 0, 0] == np.arange(200) % 256).all()
print(len(calls), card["fingerprint"])
"""


@pytest.mark.parametrize("locks", ["with locks", "without locks"])
def test_two_processes_may_build_the_same_cache_at_once(tmp_path, locks):
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "cache" / "x"), locks]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][1] == said[1][1]
    if locks == "with locks":
        assert sorted(int(calls) for calls, _ in said) == [0, 200]
    assert not list((tmp_path / "cache").glob(".partial-*"))


def test_a_cache_folder_that_cannot_be_written_is_the_users_to_change(tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(UserMistake, match="cannot be written.*paths.cache"):
        make_digits(tmp_path).prepare_data()


def test_a_cache_that_would_not_fit_is_refused_before_it_is_begun(tmp_path):
    with pytest.raises(UserMistake, match="GB left: set paths.cache"):
        cache.build(tmp_path / "x", (10**12, 3, 64, 64), lambda i: None, "x")


# --- order ----------------------------------------------------------------------------------------


def test_every_image_is_shown_once_per_epoch():
    shown = np.concatenate(steps_of(make_stream(images=10, steps=10, pieces=2, batch_size=4)))
    epochs = shown.reshape(8, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert not (epochs[0] == epochs[1]).all()


def test_the_order_never_changes():
    assert Order(10, 0).indices(np.arange(10)).tolist() == [7, 4, 1, 2, 3, 5, 0, 6, 8, 9]
    assert Order(10, 3).indices(np.arange(10, 20)).tolist() == [5, 4, 1, 9, 6, 8, 2, 3, 0, 7]
    assert Order(10, 0).flips(np.arange(12)).astype(int).tolist() == [
        0,
        0,
        1,
        0,
        1,
        1,
        0,
        1,
        1,
        0,
        1,
        1,
    ]


def test_order_and_flips_depend_on_the_seed():
    assert steps_of(make_stream(flip=True)) != steps_of(make_stream(flip=True, seed=1))
    assert steps_of(make_stream(flip=True)) == steps_of(make_stream(flip=True))


@pytest.mark.parametrize("steps_per_batch", [1, 3, 4, 100])
def test_the_order_does_not_depend_on_the_steps_per_batch(steps_per_batch):
    expected = steps_of(make_stream(flip=True, steps_per_batch=1))
    assert steps_of(make_stream(flip=True, steps_per_batch=steps_per_batch)) == expected
    assert len(expected) == 9


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("steps_per_batch", [1, 4])
def test_the_ranks_together_take_what_one_process_takes(world_size, steps_per_batch):
    alone = steps_of(make_stream(flip=True, batch_size=8))
    ranks = [
        steps_of(
            make_stream(
                flip=True,
                batch_size=8,
                steps_per_batch=steps_per_batch,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        for what in (0, 1):  # indices, flips: by piece, then by rank
            pieces = [np.array(rank[step][what]).reshape(2, -1) for rank in ranks]
            assert np.concatenate(pieces, axis=1).ravel().tolist() == whole[what]


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    with pytest.raises(UserMistake, match="batch_size=6 cannot be split over 4"):
        make_stream(batch_size=6, world_size=4)


@pytest.mark.parametrize("done", range(10))
@pytest.mark.parametrize("portions", [1, 4])
def test_a_stream_goes_on_where_it_was_saved(done, portions):
    expected = steps_of(make_stream(flip=True))
    stopped = make_stream(flip=True, steps_per_batch=1)
    for _, _batch in zip(range(done), stopped, strict=False):
        pass
    resumed = make_stream(flip=True, steps_per_batch=portions)
    resumed.load_state_dict(stopped.state_dict())
    assert (steps_of(resumed) if done < 9 else list(resumed)) == expected[done:]


def test_flips_are_fair_and_unlike_their_neighbours():
    flips = Order(10, 5).flips(np.arange(100_000))
    assert abs(flips.mean() - 0.5) < 0.01
    assert abs((flips[1:] == flips[:-1]).mean() - 0.5) < 0.01
    assert abs((flips == Order(10, 6).flips(np.arange(100_000))).mean() - 0.5) < 0.01


# --- the loader in training -----------------------------------------------------------------------


class Recorder(LightningModule):
    """Keeps every batch that a Trainer hands to a training step."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.seen = []

    def configure_optimizers(self):
        return []

    def training_step(self, batch, batch_idx):
        assert batch.dtype == torch.float32
        self.seen.append(batch.clone())


class SaveAfter(Callback):
    """Saves a checkpoint after a batch and stops there."""

    def __init__(self, batch, path):
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def fit(data, steps_per_batch, *callbacks, resume=None, steps=20):
    data.plan(seed=4, batch_size=8, pieces=2, steps=steps, steps_per_batch=steps_per_batch)
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data, ckpt_path=resume, weights_only=None if resume is None else True)
    return torch.cat(model.seen)


quiet = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning's own


@quiet
def test_a_trainer_gets_flipped_images_between_minus_one_and_one(tmp_path):
    data = make_digits(tmp_path, flip=True)
    seen = fit(data, 3)
    assert seen.shape == (20 * 16, 1, 8, 8)
    positions = np.arange(320)
    order = Order(1257, 4)
    expected = data.to_images(torch.from_numpy(data.pixels("train")[order.indices(positions)]))
    flips = torch.from_numpy(order.flips(positions))
    expected[flips] = expected[flips].flip(-1)
    assert torch.equal(seen, expected)
    assert seen.min() == -1 and seen.max() == 1


@quiet
@pytest.mark.parametrize("before", [1, 5])
@pytest.mark.parametrize("after", [1, 3, 16])
def test_a_trainer_resumes_in_the_middle_with_other_portions(tmp_path, before, after):
    data = make_digits(tmp_path, flip=True)
    whole = fit(data, 4)
    path = tmp_path / "stopped.ckpt"
    first = fit(data, before, SaveAfter(2, path))
    rest = fit(data, after, resume=path)
    assert len(first) == 3 * before * 16
    assert torch.equal(torch.cat([first, rest]), whole)


@quiet
def test_a_budget_can_be_extended_on_resuming(tmp_path):
    data = make_digits(tmp_path)
    path = tmp_path / "stopped.ckpt"
    first = fit(data, 4, SaveAfter(2, path), steps=12)
    rest = fit(data, 1, resume=path, steps=20)
    assert torch.equal(torch.cat([first, rest]), fit(data, 4))


@quiet
@pytest.mark.parametrize(
    "how", [{"device_resident": True}, {"cache_gb": 0}, {"cache_gb": 0, "workers": 1}]
)
def test_where_the_pixels_come_from_does_not_change_what_is_seen(tmp_path, how):
    expected = fit(make_digits(tmp_path, flip=True), 4)
    before = torch.random.get_rng_state()
    assert torch.equal(fit(make_digits(tmp_path, flip=True, **how), 4), expected)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_split_above_the_limit_is_decoded_on_demand(tmp_path):
    cached, lazy = make_digits(tmp_path), make_digits(tmp_path, cache_gb=1e-5)
    pixels = lazy.pixels("train")
    assert isinstance(pixels, DecodedOnDemand)
    assert lazy.card("train")["fingerprint"] is None
    assert pixels.shape == cached.pixels("train").shape
    for which in (slice(5, 9), slice(1250, None), np.array([3, 1]), slice(0, 0), 7):
        assert np.array_equal(pixels[which], cached.pixels("train")[which])


def test_images_on_the_device_are_gathered_there(tmp_path):
    data = make_digits(tmp_path, device_resident=True)
    data.plan(seed=0, batch_size=4, pieces=1, steps=3, steps_per_batch=1)
    batch = next(iter(data.train_dataloader()))
    assert batch.content.dtype == torch.int64
    assert data.on_after_batch_transfer(Batch(batch.content, None), 0).shape == (4, 1, 8, 8)
