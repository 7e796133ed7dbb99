"""Binarised grey images: static, drawn once, and dynamic, drawn at each showing."""

import numpy as np
import pytest
import torch

from genbench.data.binarisation import binarized, dynamic_keys, static_keys, thresholds
from genbench.data.images import Images
from genbench.data.source import Source
from genbench.errors import UserMistake

TRAIN, VALIDATION, TEST = 30, 5, 9
SIZE = 6
GOLDEN = [[18, 223, 155, 17, 150], [45, 12, 195, 143, 64], [151, 65, 118, 31, 148]]
PARTS = {
    "train": np.arange(TRAIN),
    "validation": np.arange(TRAIN, TRAIN + VALIDATION),
    "test": np.arange(TRAIN + VALIDATION, TRAIN + VALIDATION + TEST),
}


class Grey(Source):
    """Pictures of 256 levels: ramps, each with its own end."""

    place = "here"

    def missing(self):
        return None

    def identity(self):
        return "ramps"

    def split(self, split):
        return PARTS[split]

    def picture(self, number):
        ramp = np.linspace(0, 255 - number, SIZE * SIZE)
        return ramp.round().astype(np.uint8).reshape(SIZE, SIZE)

    def label(self, number):
        return str(number)


def make(folder, binarize, **changes):
    arguments = dict(
        name=f"ramps-{binarize}",
        source=Grey,
        root=None,
        download=False,
        validation=None,
        test=None,
        image_size=SIZE,
        channels=1,
        levels=2 if binarize else 256,
        crop=None,
        resize="bicubic",
        convert=False,
        upscale=False,
        flip=False,
        cache=str(folder),
        cache_gb=1,
        device_resident=False,
        workers=0,
        binarize=binarize,
    )
    data = Images(**arguments | changes)
    data.prepare_data()
    return data


def shown(data, steps=20, seed=0, steps_per_batch=1, batch_size=6):
    data.plan(
        seed=seed, batch_size=batch_size, pieces=1, steps=steps, steps_per_batch=steps_per_batch
    )
    return torch.cat([data.training_images(b) for b in data.train_dataloader()])


def test_binarised_pixels_equal_the_recorded_ones():
    drawn = thresholds(static_keys(torch.tensor([0, 1, 59_999])), 5).tolist()
    assert drawn == GOLDEN


def test_the_hash_is_splitmix64():
    """Against Python's integers, which do not wrap around."""
    size = 1 << 64
    golden = 0x9E3779B97F4A7C15

    def mixed(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % size
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % size
        return x ^ (x >> 31)

    def static(number):
        return mixed((number * golden + 1312 * golden + 2718) % size)

    def dynamic(seed, position):
        return mixed((position * golden + mixed((seed * golden + 2718) % size)) % size)

    def one(key, column):
        bits = mixed((key + (column + 1) * golden) % size) & 0xFFFFFFFF
        return bits * 255 >> 32

    rows = torch.tensor([0, 3, 2**40])
    for keys, drawn in (
        ([static(int(row)) for row in rows], static_keys(rows)),
        ([dynamic(12, int(row)) for row in rows], dynamic_keys(12, rows)),
    ):
        expected = [[one(key, column) for column in range(7)] for key in keys]
        assert thresholds(drawn, 7).tolist() == expected


def test_no_two_seeds_share_draws_at_any_distance_of_positions():
    positions = torch.arange(2000)
    seeds = [set(dynamic_keys(seed, positions).tolist()) for seed in range(20)]
    assert len(set.union(*seeds)) == 20 * 2000


def test_a_pixel_is_one_as_often_as_it_is_bright():
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(20_000, -1, -1, -1)
    ones = binarized(grey, dynamic_keys(0, torch.arange(20_000))).float().mean(0).flatten()
    expected = torch.arange(256) / 255
    spread = (expected * (1 - expected) / 20_000).sqrt()
    assert ((ones - expected).abs() <= 4.5 * spread).all()
    assert ones[0] == 0
    assert ones[255] == 1


def test_draws_of_neighbouring_rows_and_pixels_are_independent():
    drawn = thresholds(dynamic_keys(5, torch.arange(3000)), 30).double()
    spread = 4.5 / 3000**0.5
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < spread
    rows = torch.corrcoef(torch.stack([drawn[1:].flatten(), drawn[:-1].flatten()]))
    assert rows[0, 1].abs() < spread


def test_a_static_image_is_drawn_once_and_the_same_in_every_cache(tmp_path):
    first, second = make(tmp_path / "a", "static"), make(tmp_path / "b", "static")
    for split in PARTS:
        pixels = first.pixels(split)
        assert set(np.unique(pixels)) == {0, 1}
        assert np.array_equal(pixels, second.pixels(split))
    images = shown(first, steps=5)  # one epoch
    assert set(images.unique().tolist()) == {-1.0, 1.0}
    rows = {bytes(row) for row in first.pixels("train").reshape(TRAIN, -1).copy()}
    assert {bytes(row) for row in first.to_pixels(images).reshape(TRAIN, -1).numpy()} == rows


def test_what_is_scored_under_dynamic_binarisation_is_the_static_one(tmp_path):
    static, dynamic = make(tmp_path, "static"), make(tmp_path, "dynamic")
    for split in PARTS:
        assert np.array_equal(static.pixels(split), dynamic.pixels(split))
    assert static.card("test") != dynamic.card("test")
    assert dynamic.card("test")["binarisation"]["training"] == "dynamic"
    assert "binarisation" not in make(tmp_path, None).card("test")


def test_dynamic_training_draws_anew_at_each_showing(tmp_path):
    data = make(tmp_path, "dynamic")
    epochs = 400
    images = shown(data, steps=5 * epochs)
    assert set(images.unique().tolist()) == {-1.0, 1.0}
    first, second = images[:TRAIN], images[TRAIN : 2 * TRAIN]
    assert not torch.equal(first.mean(0), second.mean(0))
    grey = torch.from_numpy(make(tmp_path, None).pixels("train").copy()).float().mean(0) / 255
    spread = (0.25 / (TRAIN * epochs)) ** 0.5
    assert ((images + 1) / 2).mean(0).sub(grey).abs().max() < 4.5 * spread


def test_dynamic_draws_depend_on_seed_and_position_alone(tmp_path):
    data = make(tmp_path, "dynamic")
    reference = shown(data)
    assert torch.equal(shown(data, steps_per_batch=7), reference)
    assert torch.equal(shown(make(tmp_path, "dynamic", device_resident=True)), reference)
    assert not torch.equal(shown(data, seed=1), reference)
    data.plan(seed=0, batch_size=6, pieces=1, steps=20, steps_per_batch=1)
    resumed = data.train_dataloader()
    resumed.load_state_dict({"steps": 13})
    later = torch.cat([data.training_images(b) for b in resumed])
    assert torch.equal(later, reference[13 * 6 :])


@pytest.mark.parametrize(("kind", "levels"), [("once", 2), ("static", 256), ("dynamic", 17)])
def test_a_wrong_binarisation_is_refused(tmp_path, kind, levels):
    with pytest.raises(UserMistake, match="binarize="):
        make(tmp_path, kind, levels=levels)
