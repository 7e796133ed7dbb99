"""Datasets in the formats in which they are published, and splits."""

import pickle
from functools import partial

import numpy as np
import pytest
from PIL import Image

from fixtures.data import make_digits, make_images, write_idx
from fixtures.places import ROOT
from fixtures.stand_ins import make_celeba
from genbench.data.folders import CelebA, Lsun
from genbench.data.sources import Cifar, Idx
from genbench.data.splits import SPLITS, set_aside
from genbench.errors import UserMistake

REAL = ROOT.parent / "shared" / "data"


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


def test_the_digits_have_the_recorded_fingerprints(tmp_path):
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


@pytest.mark.parametrize("listed", ["txt", "csv"])
def test_celeba_is_the_centre_crop_of_140_in_the_makers_splits(tmp_path, listed):
    folder = make_celeba(tmp_path / "data", listed=listed)
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
    make_celeba(tmp_path / "data")
    (folder / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(UserMistake, match="1 of 10 pictures of CelebA are missing.*000004.jpg"):
        data().prepare_data()
    (folder / "img_align_celeba").rename(folder / "elsewhere")
    (folder / "img_align_celeba.zip").touch()
    with pytest.raises(UserMistake, match="still packed: unzip"):
        data().prepare_data()


def test_a_missing_lsun_says_where_to_get_it_and_what_reads_it(tmp_path):
    missing = make_images(tmp_path, partial(Lsun, category="church_outdoor"), channels=3)
    with pytest.raises(UserMistake, match="church_outdoor_train_lmdb.*pip install .genbench.lsun"):
        missing.prepare_data()


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    data = make_images(tmp_path, mnist_like(), download=True, validation=5, test=None)
    with pytest.raises(UserMistake, match="the download failed.*MNIST is not complete.*paths.data"):
        data.prepare_data()


def refuse(*args, **kwargs):
    raise OSError("no network here")


@pytest.mark.parametrize("name", [0, None, 1.5])
@pytest.mark.parametrize("source", [Idx, Cifar])
def test_a_class_of_torchvision_is_a_name(tmp_path, source, name):
    shared = {"root": tmp_path, "download": False, "validation": 2, "test": None}
    shared |= {"megabytes": 1} if source is Idx else {}
    with pytest.raises(UserMistake, match=f"torchvision_class={name} is not the name of a dataset"):
        source(name, title="x", **shared)


def test_a_class_that_torchvision_does_not_have_is_said(tmp_path):
    source = Cifar("CIFAR1000", title="x", root=tmp_path, download=False, validation=2, test=None)
    with pytest.raises(UserMistake, match="torchvision has no dataset CIFAR1000"):
        source.prepare()
