"""SAN: which part of the discriminator follows which loss."""

import copy

import torch
from torch.nn import functional as F

from fixtures.rows import (
    assert_gradients,
    build,
    gradients_of,
    images_for,
    input_gradient_square,
    train,
)
from genbench.networks.heads import Discriminator


def test_features_follow_the_hinge_and_the_direction_follows_wasserstein():
    """Takida et al. 2024, eq. 14, of the two parts as functions of their own."""
    torch.manual_seed(0)
    model = build("gan-san", "model.r1_gamma=0")
    images, before = images_for(model), copy.deepcopy(model)
    (_, _, found), (_, middle, of_generator) = train(model, [images]).steps
    before.draws.begin(0)
    fake = torch.tanh(before.decoder(before.noise(12, before.latent_dim)))
    head, trunk = before.discriminator.head, before.discriminator.trunk
    unit = head.weight[0] / head.weight[0].norm()
    size = head.weight[0].norm()

    def logits(x, h_fixed, omega_fixed):
        h = trunk(x) * size + 0.0
        h, bias = (h.detach(), head.bias.detach()) if h_fixed else (h, head.bias)
        return h @ (unit.detach() if omega_fixed else unit) + bias

    hinge = F.relu(1 - logits(images, False, True)).mean()
    hinge = hinge + F.relu(1 + logits(fake.detach(), False, True)).mean()
    direction = logits(fake.detach(), True, False).mean() - logits(images, True, False).mean()
    expected = gradients_of(hinge, before, "discriminator")
    omega = torch.autograd.grad(direction, head.weight)[0]
    torch.testing.assert_close((omega * head.weight).sum(), torch.tensor(0.0))  # it turns, no more
    expected["discriminator.head.weight"] = expected["discriminator.head.weight"] + omega
    assert_gradients(found, expected)

    before.load_state_dict(middle)
    before.draws.begin(0)
    fake = torch.tanh(before.decoder(before.noise(12, before.latent_dim)))
    assert_gradients(
        of_generator, gradients_of(-before.discriminator(fake).mean(), before, "decoder")
    )


def test_its_logit_is_that_of_the_plain_discriminator_and_both_halves_have_its_value():
    torch.manual_seed(0)
    model = build("gan-san")
    own, images = model.discriminator, images_for(model)
    plain = Discriminator(own.trunk)
    plain.head.load_state_dict(own.head.state_dict())
    torch.testing.assert_close(own(images), plain(images))
    features, direction = own.apart(images)
    torch.testing.assert_close(features, own(images))
    torch.testing.assert_close(direction + own.head.bias, own(images))


def test_r1_is_that_of_the_logit():
    torch.manual_seed(0)
    with_r1, without = build("gan-san"), build("gan-san", "model.r1_gamma=0")
    without.load_state_dict(with_r1.state_dict())
    images = images_for(with_r1)
    fake = images.flip(0)
    penalty = with_r1.discriminator_loss(images, fake) - without.discriminator_loss(images, fake)
    expected = 0.5 * input_gradient_square(with_r1.discriminator, images)
    torch.testing.assert_close(penalty, expected)
