"""The adversarial autoencoder's losses by plain autograd: the prior is what is real."""

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


def test_both_players_follow_their_own_losses():
    torch.manual_seed(0)
    model = build("aae", "model.weight=3", "model.r1_gamma=2")
    images, before = images_for(model), copy.deepcopy(model)
    (_, _, d_gradients), (_, middle, ae_gradients) = train(model, [images]).steps
    cross_entropy, ones, zeros = F.binary_cross_entropy_with_logits, torch.ones(12), torch.zeros(12)
    before.draws.begin(0)
    prior, judge = before.noise(12, before.latent_dim), before.discriminator
    loss = cross_entropy(judge(prior), ones) + cross_entropy(judge(before.encoder(images)), zeros)
    loss = loss + 2.0 / 2 * input_gradient_square(judge, prior)
    assert_gradients(d_gradients, gradients_of(loss, before, "discriminator"))

    before.load_state_dict(middle)
    codes = before.encoder(images)
    cost = ((images - torch.tanh(before.decoder(codes))) ** 2).sum((1, 2, 3)).mean()
    adversarial = cross_entropy(before.discriminator(codes), ones)
    expected = gradients_of(cost + 3 * adversarial, before, "encoder")
    codes = before.encoder(images)
    cost = ((images - torch.tanh(before.decoder(codes))) ** 2).sum((1, 2, 3)).mean()
    assert_gradients(ae_gradients, expected | gradients_of(cost, before, "decoder"))
