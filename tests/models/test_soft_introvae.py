"""Soft-IntroVAE: its expectations by plain autograd, from the formulas of Daniel and Tamar 2021."""

import copy

import torch

from fixtures.rows import assert_gradients, build, gradients_of, images_for, train

REC, KL, NEG = 2.0, 0.5, 3.0
SETTINGS = (f"model.beta_rec={REC}", f"model.beta_kl={KL}", f"model.beta_neg={NEG}")


def encode(model, images, noise):
    mu, logvar = model.encoder(images)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    return mu + (logvar / 2).exp() * noise, kl


def decode(model, z):
    return torch.tanh(model.decoder(z))


def error(images, rebuilt):
    return REC * 0.5 * ((images - rebuilt) ** 2).sum((1, 2, 3))


def draw(model):
    model.draws.begin(0)
    return [model.noise(12, model.latent_dim) for _ in range(4)]


def test_both_players_follow_their_three_expectations():
    torch.manual_seed(0)
    model = build("soft-introvae", *SETTINGS)
    images, before = images_for(model), copy.deepcopy(model)
    (_, _, of_encoder), (_, middle, of_decoder) = train(model, [images]).steps
    own, prior, *of_fakes = draw(before)

    z, kl = encode(before, images, own)
    bound_of_images = (error(images, decode(before, z)) + KL * kl).mean() / 64
    penalties = []
    for source, noise in zip((z, prior), of_fakes, strict=True):
        fake = decode(before, source).detach()
        again, fake_kl = encode(before, fake, noise)
        exponent = -2 / 64 * (error(fake, decode(before, again)) + NEG * fake_kl)
        penalties.append(exponent.exp().mean())
    loss = bound_of_images + (penalties[0] + penalties[1]) / 4
    assert_gradients(of_encoder, gradients_of(loss, before, "encoder"))

    before.load_state_dict(middle)
    z = encode(before, images, own)[0].detach()
    rebuilt, made = decode(before, z), decode(before, prior)
    rates = [
        encode(before, fake, noise)[1]
        for fake, noise in zip((rebuilt, made), of_fakes, strict=True)
    ]
    loss = (
        error(images, rebuilt) + KL * (rates[0] + rates[1]) / 2
    ).mean() / 64  # less 1e-8 of an error
    assert_gradients(of_decoder, gradients_of(loss, before, "decoder"))


def test_where_the_fakes_are_the_reconstructions_both_penalties_are_one():
    torch.manual_seed(0)
    model = build("soft-introvae", *SETTINGS)
    images = images_for(model)
    own, _, noise, _ = draw(model)
    z, _ = encode(model, images, own)
    alike = model.encoder_loss(images, own, z.detach(), noise, noise)
    one_sided = model.encoder_loss(images, own, 100 + z.detach(), noise, noise)
    fake = decode(model, z).detach()
    again, kl = encode(model, fake, noise)
    penalty = (-2 / 64 * (error(fake, decode(model, again)) + NEG * kl)).exp().mean()
    _, kl_real = encode(model, images, own)
    bound = (error(images, decode(model, z)) + KL * kl_real).mean() / 64
    torch.testing.assert_close(alike, bound + penalty / 2)
    assert not torch.equal(alike, one_sided)
