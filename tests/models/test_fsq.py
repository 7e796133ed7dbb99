"""Finite scalar quantisation: the straight-through gradient, the prior over codes, the bound."""

import copy
import itertools

import pytest
import torch

from fixtures.rows import assert_gradients, build, gradients_of, images_for, train
from genbench.errors import UserMistake
from genbench.losses.quantisation import perplexity, straight_through
from genbench.networks.autoregressive import MaskedPrior


def test_a_gradient_passes_rounding_unchanged():
    values = torch.tensor([0.2, 1.7], requires_grad=True)
    quantised = straight_through(values, values.round())
    assert quantised.tolist() == pytest.approx([0, 2])
    (gradient,) = torch.autograd.grad((quantised * torch.tensor([5.0, 7.0])).sum(), values)
    assert gradient.tolist() == [5, 7]


def test_perplexity_is_that_of_the_shares():
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8).item() == pytest.approx(4)
    assert perplexity(torch.tensor([[5, 5], [5, 5]]), 8).item() == pytest.approx(1)


def test_latents_are_levels_and_both_players_follow_their_losses():
    torch.manual_seed(0)
    model = build("fsq")
    images, before = images_for(model), copy.deepcopy(model)
    levels = torch.linspace(-1, 1, 5)
    z = model.quantise(images)
    assert (z[..., None] - levels).abs().amin(2).max() < 1e-6
    torch.testing.assert_close(levels[model.codes(z)], z)
    (_, _, of_prior), (_, _, of_autoencoder) = train(model, [images]).steps
    codes = before.codes(before.quantise(images))
    log_p = torch.log_softmax(before.prior.logits(codes), 2)
    chosen = torch.nn.functional.one_hot(codes, 5) * log_p
    rate = -chosen.sum((1, 2)).mean()
    assert_gradients(of_prior, gradients_of(rate, before, "prior"))

    # the encoder's gradient is that of the bounded latents at the decoder's gradient by rounded ones
    bounded = 2 * torch.tanh(before.encoder(images))
    z = (bounded.round() / 2).detach().requires_grad_()
    distortion = -before.likelihood.log_prob(images, before.decoder(z)).mean()
    expected = gradients_of(distortion, before, "decoder", "likelihood")
    z = (bounded.round() / 2).detach().requires_grad_()
    distortion = -before.likelihood.log_prob(images, before.decoder(z)).mean()
    (at_codes,) = torch.autograd.grad(distortion, z)
    expected |= gradients_of((bounded / 2 * at_codes).sum(), before, "encoder")
    assert_gradients(of_autoencoder, expected)


def test_the_prior_is_one_over_all_codes_and_its_draws_follow_it():
    torch.manual_seed(0)
    prior = MaskedPrior(3, 4, 16)
    every = torch.tensor([*itertools.product(range(4), repeat=3)])
    share = prior(every).exp()
    torch.testing.assert_close(share.sum(), torch.tensor(1.0))
    drawn = prior.draw(torch.rand(20_000, 3))
    number = (drawn * torch.tensor([16, 4, 1])).sum(1)
    found = torch.bincount(number, minlength=64) / 20_000
    error = (share * (1 - share) / 20_000).sqrt()
    assert ((found - share).abs() < 5 * error).all()


def test_no_code_depends_on_those_behind_it():
    torch.manual_seed(0)
    prior = MaskedPrior(4, 3, 16)
    codes = torch.tensor([[0, 1, 2, 0]])
    base = prior.logits(codes)[0]
    for token in range(4):
        changed = codes.clone()
        changed[0, token] = (changed[0, token] + 1) % 3
        moved = (prior.logits(changed)[0] - base).abs().sum(1) > 0
        assert not moved[: token + 1].any()
        assert moved[token + 1 :].all()


def test_the_bound_is_one_on_the_evidence():
    """log p(x) by summing over all codes of two latents."""
    torch.manual_seed(0)
    model = build("fsq", "arena.latent_dim=2").eval()
    images = images_for(model)
    every = torch.tensor([*itertools.product(range(5), repeat=2)])
    with torch.no_grad():
        terms = [
            model.likelihood.log_prob(images, model.decoder(((own - 2) / 2).expand(12, 2)))
            + model.prior(own[None])
            for own in every
        ]
        rate, distortion = model.elbo(images, torch.zeros(12, 2))
        assert (-(rate + distortion) <= torch.logsumexp(torch.stack(terms), 0) + 1e-4).all()
        codes = model.codes(model.quantise(images))
        torch.testing.assert_close(rate, -model.prior(codes))


def test_an_even_number_of_levels_is_refused():
    with pytest.raises(UserMistake, match="model.levels=4: 0 must be a level"):
        try:
            build("fsq", "model.levels=4")
        except Exception as error:
            raise (error.__cause__ or error) from None
