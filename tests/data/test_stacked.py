"""Stacked digits: which digits are in a picture, and that their splits are those of the digits."""

import gzip
from functools import partial

import numpy as np
import pytest

from fixtures.data import make_digits, make_images, write_idx
from fixtures.worlds import make_stacked
from genbench.data.sources import Idx
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake


def test_channels_are_digits_of_the_same_split_whose_classes_are_the_factors(tmp_path):
    digits, stacked = make_digits(tmp_path), make_stacked(tmp_path)
    for split in SPLITS:
        there = {
            row.tobytes(): int(label)
            for row, label in zip(digits.pixels(split), digits.labels(split), strict=True)
        }
        factors = stacked.factors(split)
        assert factors.names == ("red", "green", "blue")
        for picture, labels in zip(stacked.pixels(split)[:40], factors.labels, strict=False):
            assert [there[channel.tobytes()] for channel in picture] == labels.tolist()


def test_digits_are_named_by_their_class(tmp_path):
    from sklearn.datasets import load_digits

    data = make_digits(tmp_path)
    expected = load_digits().target[data.source.split("test")]
    names = data.class_names  # reads all digits
    assert [int(names[label]) for label in data.labels("test")] == expected.tolist()
    assert data.factors("test").names == ("class",)


def test_stacked_digits_have_the_recorded_fingerprints(tmp_path):
    prints = [make_stacked(tmp_path).card(split)["fingerprint"][:12] for split in SPLITS]
    assert prints == ["5e25a1f6c94f", "90c596f055e5", "6148c7be10b1"]


def test_every_mode_occurs_and_none_often(tmp_path):
    combinations = make_stacked(tmp_path, train=20_000).factors("train").combinations()
    counts = np.bincount(combinations, minlength=1000)
    assert counts.min() >= 5
    assert counts.max() <= 45


def test_combinations_of_digits_can_be_held_out(tmp_path):
    data = make_stacked(tmp_path, holdout=["red:3+green:3", "blue:7"])
    for split, some in (("train", False), ("validation", False), ("test", True)):
        labels = data.factors(split).labels
        held = (labels[:, 0] == 3) & (labels[:, 1] == 3) | (labels[:, 2] == 7)
        assert held.any() == some
        assert len(held) == len(data.pixels(split))


def test_a_count_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserMistake, match="dataset.source.counts.train=0"):
        make_stacked(tmp_path, train=0)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_classes_of_mnist_are_those_of_its_label_files_where_these_are(tmp_path, ending):
    raw = tmp_path / "data" / "MNIST" / "raw"
    for part, count in (("train", 30), ("t10k", 10)):
        write_idx(raw / f"{part}-images-idx3-ubyte", count)
    idx = partial(Idx, torchvision_class="MNIST", title="MNIST", megabytes=11)
    shape = {"image_size": 28, "validation": 5, "test": None}
    assert make_images(tmp_path, idx, **shape).labels("test") is None
    pack = gzip.compress if ending else bytes
    for part, count in (("train", 30), ("t10k", 10)):
        labels = bytes(number % 10 for number in range(count))
        (raw / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(bytes(8) + labels))
    data = make_images(tmp_path, idx, **shape)
    assert data.labels("test").tolist() == list(range(10))
    assert data.class_names == tuple("0123456789")
