"""The large datasets in their own formats, read through their own configs."""

import numpy as np
import pytest
from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from fixtures.data import draw
from fixtures.stand_ins import make_celeba, make_lsun, make_stl10, make_svhn
from genbench.data.splits import SPLITS
from genbench.launch.settings import composing


@pytest.fixture
def configured(tmp_path):
    """The data of a dataset's config, with its files in `tmp_path / "data"`."""

    def configured(name, *overrides):
        paths = [f"paths.data={tmp_path / 'data'}", f"paths.cache={tmp_path / 'cache'}"]
        with composing():
            cfg = compose("train", [f"dataset={name}", *paths, *overrides])
            return instantiate(OmegaConf.to_container(cfg.dataset, resolve=True))

    return configured


def squared(picture, crop, size):
    """The centre crop, resized."""
    left, top = (picture.width - crop) // 2, (picture.height - crop) // 2
    square = picture.crop((left, top, left + crop, top + crop))
    small = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def test_celeba_is_read_in_the_layout_in_which_torchvision_reads_it(
    tmp_path, configured, monkeypatch
):
    from torchvision.datasets import CelebA

    folder = make_celeba(tmp_path / "data", parts=[0, 0, 1, 0, 2, 2, 0, 1])
    monkeypatch.setattr(CelebA, "_check_integrity", lambda self: True)  # of the real files' MD5
    data = configured("celeba")
    for split, theirs in zip(SPLITS, ("train", "valid", "test"), strict=True):
        official = CelebA(tmp_path / "data", theirs, ["attr", "identity", "bbox", "landmarks"])
        names = [data.source.label(number) for number in data.source.split(split)]
        assert names == official.filename
        expected = [squared(official[i][0], 140, 64) for i in range(len(official))]
        assert np.array_equal(data.pixels(split), expected)
        assert np.array_equal(data.attributes(split).values, official.attr.numpy())
        assert list(data.attributes(split).names) == official.attr_names[:40]
    assert official.attr.shape == (2, 40)
    with Image.open(folder / "img_align_celeba" / "000001.jpg") as picture:
        assert picture.size == (178, 218)


def test_lsun_is_read_from_its_lmdb(tmp_path, configured):
    lmdb = pytest.importorskip("lmdb", reason="LSUN needs the package lmdb")
    make_lsun(lmdb, tmp_path / "data")
    data = configured("lsun", "dataset.validation=2", "dataset.test=2")
    data.prepare_data()
    assert [len(data.pixels(split)) for split in SPLITS] == [6, 2, 2]
    drawn = {np.random.default_rng(n).bytes(20).hex(): n for n in range(10)}
    for split in SPLITS:
        for number, pixels in zip(data.source.split(split), data.pixels(split), strict=True):
            seed = drawn[data.source.label(int(number)).removeprefix("LSUN picture ")]
            assert np.array_equal(pixels, squared(draw((341, 256), seed=seed), 256, 64))
    assert data.name == "lsun-bedroom"


def test_stl10_is_read_from_its_binary_files(tmp_path, configured):
    made = make_stl10(tmp_path / "data")
    data = configured("stl10", "dataset.validation=2")
    upright = {split: pixels.transpose(0, 3, 2, 1) for split, pixels in made.items()}
    expected = [squared(Image.fromarray(picture), 96, 48) for picture in upright["test"]]
    assert np.array_equal(data.pixels("test"), expected)
    both = np.concatenate([upright["unlabeled"], upright["train"]])
    for split in ("train", "validation"):
        shown = [squared(Image.fromarray(both[n]), 96, 48) for n in data.source.split(split)]
        assert np.array_equal(data.pixels(split), shown)


def test_svhn_is_read_from_its_mat_files(tmp_path, configured):
    made = make_svhn(tmp_path / "data", train=5, test=3)
    data = configured("svhn", "dataset.validation=2")
    assert [len(data.pixels(split)) for split in SPLITS] == [3, 2, 3]
    assert np.array_equal(data.pixels("test"), made["test"].transpose(3, 2, 0, 1))
    train = made["train"].transpose(3, 2, 0, 1)
    assert np.array_equal(data.pixels("train"), train[data.source.split("train")])
    from scipy.io import loadmat

    y = loadmat(tmp_path / "data" / "test_32x32.mat")["y"].ravel() % 10  # 10 stands for 0
    assert [int(data.class_names[label]) for label in data.labels("test")] == y.tolist()
