"""Models whose fault is known: what they make is exactly what their name says."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from torch.nn import functional as F

from fixtures.places import CONFIGS
from genbench.data.images import Images
from genbench.data.sources import Digits
from genbench.errors import UserMistake
from genbench.models.replay import Blur, ModeDrop, Replay, clusters, gaussian_blur
from genbench.training import loading

MODELS = {"replay": Replay, "blur": Blur, "mode-drop": ModeDrop}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return Images(
        name="digits",
        source=Digits,
        root=None,
        download=False,
        validation=180,
        test=360,
        image_size=8,
        channels=1,
        levels=17,
        crop=None,
        resize="bicubic",
        convert=False,
        upscale=False,
        flip=False,
        cache=str(tmp_path_factory.mktemp("cache")),
        cache_gb=1,
        device_resident=False,
        workers=0,
    )


def made(model, data, n, seed=0):
    model.observe(data)
    images = model.sample(model.latents(n, torch.Generator().manual_seed(seed)))
    return data.to_pixels(images).numpy()


def rows(pixels):
    return {row.tobytes() for row in np.ascontiguousarray(pixels)}


def test_replay_shows_every_training_image_once_before_any_comes_again(digits):
    train = digits.pixels("train")
    pixels = made(Replay(), digits, len(train))
    assert sorted(map(bytes, pixels.reshape(len(train), -1))) == sorted(
        map(bytes, np.ascontiguousarray(train).reshape(len(train), -1))
    )
    assert not np.array_equal(pixels, train)
    assert len(made(Replay(), digits, 2 * len(train) + 5)) == 2 * len(train) + 5


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_replay_shows_the_split_that_is_asked_for(digits, split):
    assert rows(made(Replay(split), digits, 100)) <= rows(digits.pixels(split))


def test_the_end_of_the_latents_range_is_an_image_too(digits):
    model = Replay()
    model.observe(digits)
    ends = digits.to_pixels(model.sample(torch.tensor([[0.0], [1.0], [-1.0], [2.0]]))).numpy()
    train = digits.pixels("train")
    assert np.array_equal(ends, train[[0, -1, 0, -1]])


def test_a_mode_dropper_shows_real_images_but_not_its_largest_kinds(digits):
    model = ModeDrop(kinds=10, dropped=3)
    shown = rows(made(model, digits, 1257))
    train = rows(digits.pixels("train"))
    assert shown < train
    assert 0.3 < 1 - len(shown) / len(train) < 0.7  # 3 of 10, and the largest ones


def test_what_a_mode_dropper_drops_depends_on_its_own_seed_alone(digits):
    torch.manual_seed(0)
    first = made(ModeDrop(), digits, 1257)
    torch.manual_seed(1)
    assert np.array_equal(first, made(ModeDrop(), digits, 1257))


def test_clusters_are_found_where_they_are():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(3).repeat(50)
    points = torch.eye(3)[truth] * 10 + torch.randn(150, 3, generator=generator)
    found = clusters(points, 3, torch.Generator().manual_seed(4))
    pairs = {(int(a), int(b)) for a, b in zip(truth, found, strict=True)}
    assert len(pairs) == 3


def test_a_blurred_point_is_a_gaussian_of_that_width():
    image = torch.zeros(1, 2, 41, 41)
    image[0, 1, 20, 20] = 1
    blurred = gaussian_blur(image, 2.0)[0]
    assert blurred[0].abs().max() == 0  # channels do not mix
    offsets = torch.arange(41.0) - 20
    torch.testing.assert_close(blurred[1].sum(), torch.tensor(1.0))
    for axis in (0, 1):
        variance = (blurred[1].sum(axis) * offsets.square()).sum()
        torch.testing.assert_close(variance, torch.tensor(4.0), rtol=0.01, atol=0)


def test_a_blur_leaves_what_has_no_edges():
    flat = torch.full((2, 1, 8, 8), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 0.5), flat)
    image = torch.rand(1, 1, 8, 8)
    turned = gaussian_blur(image.transpose(2, 3), 0.5).transpose(2, 3)
    torch.testing.assert_close(gaussian_blur(image, 0.5), turned)


def test_a_blurrer_shows_training_images_with_less_detail(digits):
    sharp, dull = Replay(), Blur(width=0.1)
    for model in (sharp, dull):
        model.observe(digits)
    z = sharp.latents(64, torch.Generator().manual_seed(0))
    real, blurred = sharp.sample(z), dull.sample(z)
    assert blurred.abs().max() <= 1
    assert blurred.var() < 0.9 * real.var()
    assert F.mse_loss(blurred, real) < F.mse_loss(blurred.flip(0), real)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: Replay("all"), "'all'"),
        (lambda: Blur(width=0), "width=0"),
        (lambda: ModeDrop(kinds=3, dropped=3), "dropped=3"),
    ],
)
def test_a_known_answer_that_cannot_be_given_is_refused(make, value):
    with pytest.raises(UserMistake, match=value):
        make()


@pytest.mark.parametrize("name", MODELS)
def test_a_known_answer_is_built_from_its_config_and_needs_no_training(name, tmp_path):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(
            "train", [f"model={name}", f"paths.cache={tmp_path}"], return_hydra_config=True
        )
    HydraConfig.instance().set_config(cfg)
    del cfg.hydra
    model, data = loading.build(cfg)
    assert isinstance(model, MODELS[name])
    assert not model.players()
    assert not model.state_dict()
    assert isinstance(instantiate(cfg.model), MODELS[name])
    assert data.name == "digits"
