"""Readers of factors: how they are trained, and what they say of their pictures."""

import pytest
import torch

from fixtures.data import make_images
from fixtures.worlds import make_shapes, make_stacked
from genbench.data.sources import Digits
from genbench.errors import UserMistake
from genbench.metrics.extractors import factors_training, fitting, read_card
from genbench.metrics.extractors.factors import FactorReader
from genbench.metrics.extractors.training import Training, write

ONCE = Training("factors", epochs=1)


@pytest.mark.slow
def test_a_reader_is_trained_to_the_same_file_and_its_card_says_what_it_reads(tmp_path):
    data = make_shapes(tmp_path, pictures=300)
    paths = [write(None, data, tmp_path / folder, ONCE) for folder in "ab"]
    assert paths[0].name.startswith("shapes-factors-")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    card = read_card(paths[0])
    assert (card["image_size"], card["channels"], card["classes"]) == (32, 3, 21)
    assert [len(factor["values"]) for factor in card["factors"]] == [4, 5, 2, 3, 4, 3]
    reader = FactorReader(str(paths[0]))
    reader.prepare()
    pixels = torch.from_numpy(data.pixels("test").copy())
    found = reader.read(reader(pixels, 256).logits).numpy()
    wrong = found != data.factors("test").labels
    for name, share in zip(reader.names, wrong.mean(0), strict=True):
        assert card["errors"]["test"][name] == pytest.approx(share)
    assert card["errors"]["test"]["any"] == pytest.approx(wrong.any(1).mean())


@pytest.mark.slow
def test_digits_in_channels_can_be_read_too(tmp_path):
    data = make_stacked(tmp_path, train=200)
    reader = FactorReader(str(write(None, data, tmp_path, ONCE)))
    assert reader.names == ("red", "green", "blue")
    assert reader.values[2] == tuple("0123456789")


def test_pictures_of_which_nothing_is_known_cannot_be_read(tmp_path):
    class Unknown(Digits):
        def classes(self):
            return None

    with pytest.raises(UserMistake, match="nothing is known of the factors of some"):
        write(None, make_images(tmp_path, Unknown), tmp_path, ONCE)


def test_a_head_loses_by_its_own_factor_alone():
    logits = torch.zeros(2, 5)
    logits[:, 0] = 9.0
    losses = factors_training.head_losses(logits, torch.tensor([[0, 1], [0, 2]]), (2, 3))
    assert losses[0] == pytest.approx(0, abs=1e-3)
    assert losses[1] == pytest.approx(torch.tensor(3.0).log())


def test_spoiled_pictures_stay_near_and_half_of_them_are_as_they_were():
    import numpy as np

    images = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    spoiled = factors_training.spoiled(images, np.random.RandomState(0))
    same = (spoiled == images).flatten(1).all(1)
    assert 0.4 < same.double().mean() < 0.6
    assert 0.01 < (spoiled - images)[~same].abs().mean() < 0.3


def test_a_reader_of_shapes_is_never_offered_for_distances():
    assert not any(name.startswith("factors") for name in fitting(32, 3))
