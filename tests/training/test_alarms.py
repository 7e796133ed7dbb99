"""Warnings of a training that leads nowhere: reconstructions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genbench.models.contract import GenerativeModel
from genbench.training.alarms import Alarms, explained

IMAGES, TOTAL = 200, 640  # validation images; of the budget


def validation_split() -> torch.Tensor:
    """Images whose variance between each other is smaller than that within each."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randint(4, 12, (1, 3, 8, 8), generator=generator)
    return common + torch.randint(-3, 4, (IMAGES, 3, 8, 8), generator=generator)


class Autoencoder(GenerativeModel):
    """Reconstructs by a given function of the images."""

    def __init__(self, function):
        super().__init__()
        self.function, self.modes = function, []

    def players(self):
        return {}

    def step(self, images):
        yield from ()

    def sample(self, z):
        return z

    def reconstruct(self, images):
        self.modes.append(self.training)
        return self.function(images)


def to_images(pixels):
    return pixels.float() / 8 - 1


@pytest.fixture
def said():
    return []


@pytest.fixture
def alarms(said):
    pixels = validation_split().numpy().astype(np.uint8)
    data = SimpleNamespace(pixels=lambda split: {"validation": pixels}[split], to_images=to_images)
    return Alarms(data, TOTAL, said.append)


def mean(images):
    return to_images(validation_split()).mean(0).expand_as(images)


def closer(share):
    """Reconstructions whose error is `1 - share` of the variance."""
    return lambda images: images + (1 - share) ** 0.5 * (mean(images) - images)


def test_the_mean_image_explains_nothing_and_the_images_themselves_explain_all():
    images = to_images(validation_split())
    assert explained(images, mean(images)) == pytest.approx(0, abs=1e-6)
    assert explained(images, images) == 1
    assert explained(images, closer(0.3)(images)) == pytest.approx(0.3, abs=1e-6)
    # the error of another image is the variance of a difference: twice that of an image
    other = torch.stack([images.roll(shift, 0) for shift in range(1, IMAGES)])
    expected = 1 - 2 * IMAGES / (IMAGES - 1)
    assert explained(images.expand_as(other).flatten(0, 1), other.flatten(0, 1)) == pytest.approx(
        expected, abs=1e-4
    )


def test_the_share_has_no_unit_and_does_not_count_pixels():
    images = to_images(validation_split())
    rebuilt = closer(0.6)(images)
    assert explained(3 * images + 1, 3 * rebuilt + 1) == pytest.approx(0.6, abs=1e-5)
    assert explained(images[..., :2], rebuilt[..., :2]) == pytest.approx(0.6, abs=1e-5)


def test_images_that_are_all_alike_have_no_share():
    alike = torch.zeros(5, 1, 8, 8)
    assert np.isnan(explained(alike, alike)) and np.isnan(explained(alike, alike + 1))


@pytest.mark.parametrize(
    ("function", "share"),
    [
        (mean, "0%"),
        (closer(0.08), "8%"),
        (lambda images: to_images(validation_split())[: len(images)].roll(7, 0), "-"),
        (torch.zeros_like, "-"),
    ],
    ids=["mean", "below a tenth", "other images", "grey"],
)
def test_a_dead_encoder_gets_a_warning_with_what_was_measured(alarms, said, function, share):
    alarms.look_at_reconstructions(Autoencoder(function), TOTAL)
    assert len(said) == 1
    assert f"reconstructions explain {share}" in said[0] and "200 validation images" in said[0]
    assert [*alarms.warnings] == ["reconstructions"]


@pytest.mark.parametrize("share", [0.12, 0.5, 1.0])
def test_a_live_encoder_gets_none(alarms, said, share):
    model = Autoencoder(closer(share)).train()
    alarms.look_at_reconstructions(model, TOTAL)
    assert not said
    assert model.training and not any(model.modes) and model.modes


def test_only_final_weights_of_a_trained_model_with_an_encoder_are_judged(alarms, said):
    alarms.look_at_reconstructions(Autoencoder(mean), 0)
    alarms.look_at_reconstructions(Autoencoder(mean), TOTAL - 64)
    alarms.look_at_reconstructions(SimpleNamespace(), TOTAL)
    assert not said
