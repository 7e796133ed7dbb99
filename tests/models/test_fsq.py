"""Finite scalar quantisation: the straight-through gradient, the prior over codes, the bound."""

import copy
import itertools

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fixtures.rows import assert_gradients, build, composed, gradients_of, images_for, train
from genbench.errors import UserMistake
from genbench.losses.quantisation import perplexity, straight_through
from genbench.networks.autoregressive import MaskedPrior
from genbench.training.checks import check_parts, check_ranks, check_variance


def test_a_gradient_passes_rounding_unchanged():
    values = torch.tensor([0.2, 1.7], requires_grad=True)
    quantised = straight_through(values, values.round())
    assert quantised.tolist() == pytest.approx([0, 2])
    (gradient,) = torch.autograd.grad((quantised * torch.tensor([5.0, 7.0])).sum(), values)
    assert gradient.tolist() == [5, 7]


def test_perplexity_is_that_of_the_shares():
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8).item() == pytest.approx(4)
    assert perplexity(torch.tensor([[5, 5], [5, 5]]), 8).item() == pytest.approx(1)


def bounded(model, images, batch_norm):
    """What is rounded, from -2 to 2, by plain operations."""
    outputs = model.encoder(images)
    if batch_norm:
        var, mean = torch.var_mean(outputs, 0, correction=0)
        outputs = (outputs - mean) / (var + 1e-5).sqrt()
    return 2 * torch.tanh(outputs)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_latents_are_levels_and_both_players_follow_their_losses(batch_norm):
    torch.manual_seed(0)
    model = build("fsq", f"model.batch_norm={batch_norm}")
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
    passed = bounded(before, images, batch_norm)
    z = (passed.round() / 2).detach().requires_grad_()
    distortion = -before.likelihood.log_prob(images, before.decoder(z)).mean()
    expected = gradients_of(distortion, before, "decoder", "likelihood")
    z = (passed.round() / 2).detach().requires_grad_()
    distortion = -before.likelihood.log_prob(images, before.decoder(z)).mean()
    (at_codes,) = torch.autograd.grad(distortion, z)
    expected |= gradients_of((passed / 2 * at_codes).sum(), before, "encoder")
    assert_gradients(of_autoencoder, expected)


def test_without_the_argument_it_is_the_model_of_before():
    """As old configs have it: the same weights, draws and codes to the bit, and nothing beside them."""
    plain = OmegaConf.to_container(composed("fsq").model, resolve=True)
    old = {key: value for key, value in plain.items() if key != "batch_norm"}
    models = []
    for config in (old, plain):
        torch.manual_seed(0)
        models.append(instantiate(OmegaConf.create(config)))
    model, normed = models
    new = normed.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in model.state_dict().items())
    beside = new.keys() - model.state_dict().keys()
    assert {name.partition(".")[0] for name in beside} == {"norm"}
    images = images_for(model)
    inside = 2 * torch.tanh(model.encoder(images))
    assert torch.equal(model.quantise(images), straight_through(inside, inside.round()) / 2)


def saturated(batch_norm):
    """A model whose encoder has drifted: all its outputs are near 6, where tanh is flat."""
    model = build("fsq", f"model.batch_norm={batch_norm}")
    with torch.no_grad():
        model.encoder.head.bias.fill_(6)
    return model


@pytest.mark.parametrize("batch_norm", [True, False])
def test_levels_stay_in_use_where_the_encoder_has_drifted(batch_norm):
    torch.manual_seed(0)
    model = saturated(batch_norm)
    images = images_for(model, 64)
    (_, _, _), (_, _, of_autoencoder), *_ = train(model, [images] * 5).steps
    codes = model.codes(model.quantise(images))
    used = torch.stack([perplexity(own, 5) for own in codes.unbind(1)])
    steep = of_autoencoder["encoder.head.weight"].norm()
    if batch_norm:
        assert used.min() > 4
        assert steep > 0.1
    else:
        assert used.max() == 1
        assert steep < 1e-3


def test_standardised_outputs_have_the_perplexity_of_a_gaussian_whatever_its_place_and_width():
    model = build("fsq")
    outputs = 10 + 0.1 * torch.randn(50_000, 16, generator=torch.Generator().manual_seed(0))
    model.encoder = torch.nn.Identity()
    ends = torch.tensor([-torch.inf, -0.75, -0.25, 0.25, 0.75, torch.inf]).clamp(-1, 1).atanh()
    share = torch.special.ndtr(ends).diff()
    expected = (-torch.xlogy(share, share).sum()).exp()
    assert expected > 4.8
    found = perplexity(model.codes(model.quantise(outputs)), 5)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_evaluation_takes_the_running_statistics_of_training():
    torch.manual_seed(0)
    model = build("fsq")
    images = images_for(model, 64)
    outputs = model.encoder(images)
    train(model, [images])
    var, mean = torch.var_mean(outputs, 0)
    torch.testing.assert_close(model.norm.running_mean, 0.5 * mean)
    torch.testing.assert_close(model.norm.running_var, 0.5 + 0.5 * var)
    model.eval()
    alone = torch.cat([model.quantise(one[None]) for one in images[:8]])
    torch.testing.assert_close(alone, model.quantise(images)[:8])


def test_what_would_split_or_shrink_its_batch_is_refused():
    with pytest.raises(
        UserMistake,
        match=r"^FSQ normalises .* choose model.batch_norm=false, or trainer.accumulate=1",
    ):
        check_parts(build("fsq"))
    with pytest.raises(UserMistake, match=r"budget.batch_size=1: FSQ normalises over its batch"):
        check_variance(build("fsq"), 1)
    check_variance(build("fsq"), 2)
    check_variance(build("fsq", "model.batch_norm=false"), 1)
    check_parts(build("fsq", "model.batch_norm=false"))
    check_ranks(build("fsq"))


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
