"""Features of splits: extracted once, kept under names that never change, shared by processes."""

import hashlib

import numpy as np
import pytest
import torch

from genbench.data.contract import ImageData
from genbench.metrics.contract import Extractor, Features
from genbench.metrics.feature_cache import FeatureCache
from genbench.metrics.feature_store import FeatureStore
from genbench.metrics.feature_workers import ALONE, FeatureWorkers

CPU = torch.device("cpu")


class Sums(Extractor):
    """Sums of rows; counts the images that it has read."""

    def __init__(self):
        super().__init__()
        self.name, self.card, self.read = "sums", {"name": "sums", "sha256": "0" * 64}, 0

    def forward(self, pixels, levels):
        self.read += len(pixels)
        sums = pixels.float().sum((1, 3))
        return Features(sums, sums[:, :2])


class Given(ImageData):
    """Ten, four and six images; without fingerprints if `decoded_on_demand`."""

    name, image_size, channels, levels = "given", 4, 1, 5

    def __init__(self, decoded_on_demand=False):
        super().__init__()
        draw = np.random.RandomState(0)
        sizes = {"train": 10, "validation": 4, "test": 6}
        self.images = {
            split: draw.randint(0, 5, (n, 1, 4, 4)).astype(np.uint8) for split, n in sizes.items()
        }
        self.decoded_on_demand = decoded_on_demand

    def pixels(self, split):
        return self.images[split]

    def sha256(self, split):
        return hashlib.sha256(self.images[split].tobytes()).hexdigest()

    def card(self, split):
        fingerprint = None if self.decoded_on_demand else self.sha256(split)
        return {"split": split, "n": len(self.images[split]), "fingerprint": fingerprint}

    def plan(self, **kwargs):
        raise NotImplementedError


def make_store(folder, extractor=None, workers=ALONE, batch_size=3):
    extractor = extractor or Sums()
    cache = FeatureCache(folder, extractor)
    return FeatureStore(extractor, cache, workers, batch_size=batch_size, device=CPU)


def expected(data, split):
    return torch.from_numpy(data.pixels(split)).float().sum((1, 3))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_features_are_those_of_the_split_in_order_and_read_once(tmp_path, split):
    data, extractor = Given(), Sums()
    for _ in range(2):
        found, card = make_store(tmp_path, extractor).of(data, split)
        assert torch.equal(found.features, expected(data, split))
        assert torch.equal(found.logits, expected(data, split)[:, :2])
        assert card == data.card(split)
    assert extractor.read == len(data.pixels(split))


# as written by `Evaluation._place` before there was a store
NAMES = [
    "sums-given-heldout-122cbd3ace75b5b4d98546a0.safetensors",
    "sums-given-real-ea5e3e7fef4b468a09322811.safetensors",
    "sums-given-validation-da250e49549366f4efe8f707.safetensors",
]


def test_files_have_the_names_that_earlier_caches_have(tmp_path):
    """A changed name would silently extract everything again."""
    store = make_store(tmp_path)
    for split in ("train", "validation", "test"):
        store.of(Given(), split)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_a_split_without_a_fingerprint_gets_it_here_and_is_not_cached(tmp_path):
    data = Given(decoded_on_demand=True)
    workers = FeatureWorkers(0, 2, tmp_path / "nobody")  # would wait for rank 1 for ever
    found, card = make_store(tmp_path / "cache", workers=workers).of(data, "train")
    assert torch.equal(found.features, expected(data, "train"))
    assert card == data.card("train") | {"fingerprint": data.sha256("train")}
    assert not (tmp_path / "cache").exists()


def test_workers_read_disjoint_batches_that_make_the_same_features(tmp_path):
    data, extractors = Given(), [Sums() for _ in range(3)]
    stores = [
        make_store(tmp_path / "cache", extractor, FeatureWorkers(rank, 3, tmp_path))
        for rank, extractor in enumerate(extractors)
    ]
    for store in stores[1:]:
        store.contribute(data, "train")
    found, _ = stores[0].of(data, "train")
    assert torch.equal(found.features, expected(data, "train"))
    assert sum(extractor.read for extractor in extractors) == 10
    assert all(extractor.read < 10 for extractor in extractors)
    alone = Sums()
    again, _ = make_store(tmp_path / "cache", alone).of(data, "train")
    assert alone.read == 0
    assert torch.equal(again.features, found.features)
