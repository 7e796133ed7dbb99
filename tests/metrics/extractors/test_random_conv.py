"""The untrained network: the same bits everywhere, any size of image, and what it sees."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fixtures.extractors import draw_pixels
from genbench.errors import UserMistake
from genbench.metrics.extractors import random_conv
from genbench.metrics.extractors.random_conv import RandomConv, draw_weights
from genbench.metrics.frechet import distance, moments


def test_its_weights_have_the_pinned_sha256_and_the_variance_of_he():
    weights = draw_weights()
    assert (
        random_conv.sha256_of_weights(weights)
        == RandomConv().card["sha256"]
        == "20d5c9234cd416dffd5f4fefefad2059f8304e04db22c40b274c7887cf2854c5"
    )
    for name, values in weights.items():
        gain = 1 if name == "projection.weight" else 2
        assert values.var() == pytest.approx(gain / values[0].size, rel=0.06)


def test_other_weights_than_the_pinned_ones_are_refused(monkeypatch):
    monkeypatch.setattr(random_conv, "SEED", 0)
    with pytest.raises(UserMistake, match="draws other numbers, so choose another extractor"):
        RandomConv().prepare()


@pytest.mark.parametrize("size", [2, 8, 28, 48, 300])
def test_grey_and_colour_of_any_size_are_read_without_classes(size):
    extractor = RandomConv()
    grey = draw_pixels(n=2, channels=1, size=size)
    found = extractor(grey, 256)
    assert found.features.shape == (2, extractor.card["feature_dim"])
    assert found.logits.shape == (2, 0)
    repeated = extractor(grey.expand(-1, 3, -1, -1), 256)
    torch.testing.assert_close(found.features, repeated.features)
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        extractor(draw_pixels(channels=2, size=size), 256)


def test_batches_autocast_and_levels_change_no_feature(monkeypatch):
    extractor, pixels = RandomConv(), draw_pixels(n=5, size=8, levels=16)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = extractor(pixels, 16).features
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(random_conv, "BATCH_PIXELS", 128)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(extractor(pixels * 17, 256).features, whole)


def test_an_image_is_halved_until_its_layout_is_left():
    """By hand, for 16 pixels: two stages, each a convolution, ReLU and a mean of 2 x 2."""
    weights = {name: torch.from_numpy(values) for name, values in draw_weights().items()}
    pixels = draw_pixels(n=2, size=16)
    x = pixels.double() / 127.5 - 1
    for stage in range(2):
        x = F.conv2d(x, weights[f"stages.{stage}.weight"].double(), padding=1).clamp_min(0)
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    expected = x.flatten(1) @ weights["projection.weight"].double().T
    torch.testing.assert_close(
        RandomConv()(pixels, 256).features.double(), expected, rtol=1e-4, atol=1e-5
    )


def test_it_tells_blur_noise_and_a_missing_kind_from_new_images():
    draw, n = np.random.RandomState(0), 400
    x = np.linspace(-1, 1, 16)

    def images(kinds):
        """Soft bars of two directions at random places."""
        place, kind = draw.uniform(-0.7, 0.7, n), draw.choice(kinds, n)
        bars = np.exp(-(((x[None] - place[:, None]) / 0.15) ** 2))
        flat = np.repeat(bars[:, None, :], 16, axis=1)
        flat[kind == 1] = flat[kind == 1].transpose(0, 2, 1)
        return torch.from_numpy((255 * flat).astype(np.uint8))[:, None]

    extractor = RandomConv()
    real, new, half = images([0, 1]), images([0, 1]), images([0])
    blurred = F.avg_pool2d(images([0, 1]).float(), 5, 1, 2).byte()
    noise = draw_pixels(n=n, channels=1, size=16)
    mine = moments(extractor(real, 256).features)
    fd = [
        distance(mine, moments(extractor(one, 256).features)) for one in (new, half, blurred, noise)
    ]
    assert all(4 * fd[0] < other for other in fd[1:])
