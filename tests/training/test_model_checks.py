"""What every model must pass: those that ship do, and each fault is found by its own check."""

import re
from functools import partial

import pytest
import torch
from torch import nn

from genbench.data.contract import ImageData
from genbench.losses.adversarial import NonSaturating, Wasserstein
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.models.contract import GenerativeModel, Move, Player
from genbench.models.gan import GAN
from genbench.models.vae import VAE
from genbench.models.vae_gan import VAEGAN
from genbench.networks.heads import Discriminator, GaussianEncoder
from genbench.networks.mlp import MLPDecoder, MLPTrunk
from genbench.training.loading import seeded
from genbench.training.model_checks import CHECKS, verdicts

LATENT, SIDE = 3, 4
SGD = partial(torch.optim.SGD, lr=0.01)


class Grey(ImageData):
    """The shape of images, without any."""

    name, image_size, channels, levels = "grey", SIDE, 1, 17

    def pixels(self, split):
        raise AssertionError("no check reads data")

    card = plan = pixels


def decoder() -> MLPDecoder:
    return MLPDecoder(SIDE, 1, LATENT, 8, depth=2)


def trunk() -> MLPTrunk:
    return MLPTrunk(SIDE, 1, 8, depth=2)


class Sound(GenerativeModel):
    """Noise is decoded and compared with images; the mutants below each break one rule of it."""

    counted = "decoder"

    def __init__(self):
        super().__init__()
        self.decoder, self.latent_dim = decoder(), LATENT

    def players(self):
        return {"decoder": Player([self.decoder], SGD)}

    def step(self, images):
        yield Move("decoder", lambda: self.loss(images, self.noise(len(images), LATENT)))

    def loss(self, images, z):
        return (self.sample(z) - images).square().flatten(1).sum(1).mean()

    def sample(self, z):
        return self.decoder(z).tanh()


class Summed(Sound):
    def loss(self, images, z):
        return super().loss(images, z) * len(images)


class Reversed(Sound):
    def loss(self, images, z):
        value = super().loss(images, z)
        return 2 * value.detach() - value


class DrawsForItself(Sound):
    def loss(self, images, z):
        return super().loss(images, torch.randn_like(z))


class Forgetful(Sound):
    steps = 0

    def step(self, images):
        self.steps += 1  # in no buffer
        yield Move("decoder", lambda: self.loss(images * 0.9**self.steps, self.noise(8, LATENT)))


class Fixed(Sound):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)


class Cut(Sound):
    def loss(self, images, z):
        hidden = self.decoder.layers[0](z).detach()
        return (self.decoder.layers[1:](hidden).tanh() - images).square().mean()


class Idle(Sound):
    def __init__(self):
        super().__init__()
        self.critic = Discriminator(trunk())

    def players(self):
        return {**super().players(), "critic": Player([self.critic], SGD)}


class Shared(Idle):
    def players(self):
        return {**super().players(), "critic": Player([self.critic, self.decoder], SGD)}


class Loud(Sound):
    def sample(self, z):
        return 5 * self.decoder(z)


class Mixing(Sound):
    def sample(self, z):
        return self.decoder(z + z.mean(0)).tanh()


class Vector(Sound):
    def loss(self, images, z):
        return (self.sample(z) - images).flatten(1).mean(1)


class Broken(Sound):
    def sample(self, z):
        return self.decoder(z[:, :2])


FAULTS = {
    Summed: {"batch doubling": "the loss of the decoder is .* with every image twice: return a mean"},
    Reversed: {"direction": "a step of the decoder against its gradient does not lower its loss"},
    DrawsForItself: {"seeds": r"another loss after torch\.manual_seed: draw by self\.noise"},
    Forgetful: {"resume": "keep what training changes in parameters and buffers"},
    Fixed: {"seeds": "models of two seeds have the same weights"},
    Cut: {"routing": r"decoder\.layers\.0\.weight of the decoder gets no gradient"},
    Idle: {"routing": "step never yields a move of the critic"},
    Shared: {"parts": "the decoder and the critic have a parameter in common"},
    Loud: {"sampling without data": r"sample gives values from .* within \[-1, 1\]"},
    Mixing: {"sampling without data": "depends on the others of its batch"},
    Vector: {"routing": "must be a finite scalar tensor"},
    Broken: {"parts": "do not fit grey", "sampling without data": "RuntimeError: mat1 and mat2"},
}  # fmt: skip


def checked(kind) -> dict[str, str]:
    def make(seed):
        with seeded(seed):
            return kind()

    return {name: fault for name, fault in verdicts(make, Grey())}


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_a_fault_is_named_by_its_own_check(kind):
    found = checked(kind)
    assert list(found) == list(CHECKS)
    for check, sentence in FAULTS[kind].items():
        assert re.search(sentence, found[check]), found


def vae():
    return VAE(
        decoder(), GaussianEncoder(trunk(), LATENT), DiscretizedLogistic(17), LATENT, 1.0, SGD
    )


def gan(loss=NonSaturating, steps=1, r1=1.0, penalty=0.0):
    critic = Discriminator(trunk())
    return GAN(decoder(), critic, loss(), LATENT, steps, r1, penalty, SGD, SGD)


def vae_gan():
    networks = decoder(), GaussianEncoder(trunk(), LATENT), Discriminator(trunk())
    return VAEGAN(*networks, NonSaturating(), LATENT, 0.1, -1, 1.0, SGD, SGD)


MODELS = {
    "sound": Sound,
    "vae": vae,
    "gan": gan,
    "wgan": partial(gan, Wasserstein, 3, 0.0, 10.0),
    "vae-gan": vae_gan,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_are_in_order_pass(name):
    assert checked(MODELS[name]) == dict.fromkeys(CHECKS, "")
