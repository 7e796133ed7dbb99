"""Warnings of a training that leads nowhere: reconstructions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genbench.models.contract import GenerativeModel
from genbench.runs.score import Score
from genbench.training.alarms import Alarms, nearness

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
    """From the mean image, `share` of the way to the image."""
    return lambda images: mean(images) + share * (images - mean(images))


def other(images):
    return images.roll(1, 0)


def brute_force(images, reconstructions):
    pairs = [[(x - r).square().mean() for r in reconstructions] for x in images]
    table = torch.tensor(pairs)
    return 1 - table.diag().mean() / table.mean()


def test_nearness_is_that_of_all_pairs():
    images = to_images(validation_split())[:20]
    for function in (other, closer(0.3), torch.zeros_like, lambda images: 1 - images):
        rebuilt = function(images)
        assert nearness(images, rebuilt) == pytest.approx(
            float(brute_force(images, rebuilt)), abs=1e-5
        )


def test_perfect_reconstructions_have_1_and_such_as_ignore_the_image_0():
    images = to_images(validation_split())
    generator = torch.Generator().manual_seed(1)
    sharp = images[torch.randperm(IMAGES, generator=generator)]  # images as real ones, at random
    assert nearness(images, images) == 1
    assert nearness(images, mean(images)) == pytest.approx(0, abs=1e-6)
    assert nearness(images, torch.ones_like(images)) == pytest.approx(0, abs=1e-6)
    assert nearness(images, sharp) == pytest.approx(0, abs=0.02)
    # half of the way: 0.25 of the variance between own images, 1.25 of it between all pairs
    assert nearness(images, closer(0.5)(images)) == pytest.approx(1 - 0.25 / 1.25, abs=1e-5)


def test_sharp_reconstructions_with_an_error_above_the_variance_are_still_nearer():
    images = to_images(validation_split())
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    error = noise * 1.2 * images.std(0)
    assert error.square().mean() > images.var(0).mean()
    assert nearness(images, images + error) > 0.3


def test_nearness_has_no_unit_and_does_not_count_pixels():
    images = to_images(validation_split())
    rebuilt = closer(0.5)(images)
    assert nearness(3 * images + 1, 3 * rebuilt + 1) == pytest.approx(0.8, abs=1e-5)
    assert nearness(images[..., :2], rebuilt[..., :2]) == pytest.approx(0.8, abs=1e-5)


def test_images_that_are_all_alike_have_none():
    alike = torch.zeros(5, 1, 8, 8)
    assert np.isnan(nearness(alike, alike))


@pytest.mark.parametrize(
    ("function", "share"),
    [(mean, "0%"), (closer(0.08), "16%"), (lambda images: mean(images).flip(3), "0%")],
    ids=["mean", "below a fifth", "another image"],
)
def test_a_dead_encoder_gets_a_warning_with_what_was_measured(alarms, said, function, share):
    alarms.look_at_reconstructions(Autoencoder(function), TOTAL)
    assert len(said) == 1
    assert f"reconstructions of 200 validation images are {share} nearer" in said[0]
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


class Encoded(Autoencoder):
    """A decoder that does not heed its latents, behind an encoder that knows the image, or nothing."""

    def __init__(self, factor):
        super().__init__(mean)
        self.factor = factor

    def posterior(self, images):
        return self.factor * images.flatten(1)[:, 20:24], torch.full((len(images), 4), -4.0)


def test_the_warning_tells_a_dead_encoder_from_one_that_is_not_heeded(alarms, said):
    alarms.look_at_reconstructions(Encoded(0.0), TOTAL)
    assert "(0 of 4 latents are active, with 0 of at most 5.3 nats" in said[0]
    alarms.warnings.clear()
    alarms.look_at_reconstructions(Encoded(9.0), TOTAL)
    assert "(4 of 4 latents are active, with 5" in said[1]


def of_classes(value, weights="raw", checkpoint="final", latents="prior"):
    card = {"quantity": "class_tv", "fake": {"weights": weights, "latents": latents}}
    return Score("class_tv_x", value, "", False, card, checkpoint=checkpoint)


def test_samples_of_a_few_classes_alone_are_told(alarms, said):
    few = of_classes(0.7)
    alarms.look_at_scores([few], 0)  # untrained
    others = [of_classes(0.7, weights="ema"), of_classes(0.7, checkpoint="best"), of_classes(None)]
    alarms.look_at_scores(
        [of_classes(0.4), *others, of_classes(0.7, latents={"kind": "flow"})], TOTAL
    )
    assert not said
    alarms.look_at_scores([few], TOTAL)
    assert said[0].startswith("warning: 70% of the samples would have to be of other classes")
