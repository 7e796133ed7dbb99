"""The prior over tokens that is fitted to a quantised autoencoder, and the bound under it."""

import itertools

import pytest
import torch

from fixtures.evaluation import CPU, Squares
from fixtures.priors import Linear
from fixtures.rows import build, images_for
from genbench.errors import UserMistake
from genbench.metrics.likelihood import Bounds, LikelihoodRequest
from genbench.models.contract import HasTokens
from genbench.priors.autoregressive import Autoregressive, numbers_of
from genbench.priors.contract import CannotBeFitted
from genbench.priors.fitting import check_priors, drawing_from, fit, keep, read_fit
from genbench.priors.mixture import Mixture

FIRST = torch.tensor([0.5, 0.3, 0.2])
SAME = 0.8  # of the second token: the first one again
ALPHABET = torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]])


def small(**changes):
    return Autoregressive(**({"codes": 60, "width": 16, "steps": 30, "batch_size": 16} | changes))


@pytest.fixture(scope="module")
def fitted():
    """To 4000 pairs of which all is known; the pairs, and their probabilities (3, 3)."""
    generator = torch.Generator().manual_seed(0)
    second = torch.full((3, 3), (1 - SAME) / 2).fill_diagonal_(SAME)
    share = FIRST[:, None] * second
    pairs = torch.multinomial(share.flatten(), 4000, True, generator=generator)
    tokens = torch.stack([pairs // 3, pairs % 3], 1)
    prior = Autoregressive(width=32, steps=400, lr=1e-2)
    prior.alphabet = ALPHABET
    prior.fit(ALPHABET[tokens].flatten(1), torch.Generator().manual_seed(1))
    return prior, tokens, share


def test_it_finds_the_distribution_and_says_what_held_out_codes_cost(fitted):
    prior, _, share = fitted
    every = torch.tensor([*itertools.product(range(3), repeat=2)])
    found = prior.log_p(every).exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(found.view(3, 3), share, rtol=0, atol=0.04)
    entropy = -torch.xlogy(share, share).sum().item()
    assert prior.found["held_out_rate"] == pytest.approx(entropy, abs=0.1)
    assert prior.parameters == sum(p.numel() for n, p in prior.tensors.items() if n != "alphabet")


def test_its_draws_spell_tokens_as_often_as_it_says(fitted):
    prior = fitted[0]
    share = prior.log_p(torch.tensor([*itertools.product(range(3), repeat=2)])).exp()
    z = prior.draw(20_000, torch.Generator().manual_seed(2))
    tokens = numbers_of(z, ALPHABET)
    assert torch.equal(ALPHABET[tokens].flatten(1), z)
    found = torch.bincount(tokens[:, 0] * 3 + tokens[:, 1], minlength=9) / 20_000
    torch.testing.assert_close(found, share, rtol=0, atol=0.015)
    assert torch.equal(z, prior.draw(20_000, torch.Generator().manual_seed(2)))


def test_it_stops_where_held_out_codes_say_so():
    """Random codes: whatever is learned of some is wrong of others."""
    torch.manual_seed(0)
    prior = Autoregressive(width=128, steps=400, batch_size=64)
    prior.alphabet = torch.arange(8.0)[:, None]
    prior.fit(torch.randint(8, (100, 6)).float(), torch.Generator().manual_seed(0))
    assert prior.found["step"] < 100


@pytest.mark.parametrize("name", ["vq", "fsq"])
def test_tokens_spell_the_latents_of_a_model(name):
    torch.manual_seed(0)
    model = build(name).eval()
    assert isinstance(model, HasTokens)
    images = images_for(model)
    tokens = model.tokens(images)
    z = model.alphabet[tokens].flatten(1)
    torch.testing.assert_close(model.sample(z), model.reconstruct(images))
    assert torch.equal(numbers_of(z, model.alphabet), tokens)
    latents = model.latents(5, torch.Generator().manual_seed(0))
    own = model.alphabet[numbers_of(latents, model.alphabet)].flatten(1)
    torch.testing.assert_close(own, latents)


@pytest.mark.parametrize("name", ["vq", "fsq"])
def test_the_bound_under_it_has_its_rate_and_the_models_distortion(name, tmp_path):
    torch.manual_seed(0)
    model, data = build(name).eval(), Squares()
    found = fit(small(), model, data)
    keep(found, tmp_path)
    kept = read_fit(tmp_path, found.stem, model)
    again = kept.prior.draw(7, torch.Generator().manual_seed(0))
    assert torch.equal(again, found.prior.draw(7, torch.Generator().manual_seed(0)))
    bounds = Bounds(posterior_draws=1, importance_draws=20, max_images=None)
    request = LikelihoodRequest(model, data, CPU, 0, 16)
    with torch.no_grad(), drawing_from(model, found):
        own = {score.name: score for score in bounds(request)}
        under = {score.name: score for score in bounds(request._replace(prior=kept))}
        images = data.to_images(torch.from_numpy(data.pixels("test")))
        rate = -found.prior.log_p(model.tokens(images)).mean().item()
    assert own.keys() == under.keys()
    tag = model.likelihood.tag
    assert under[f"rate_{tag}"].value == pytest.approx(rate, rel=1e-5)
    assert under[f"distortion_{tag}"].value == own[f"distortion_{tag}"].value
    assert under[f"rate_{tag}"].value != own[f"rate_{tag}"].value
    assert under[f"elbo_{tag}"].card["prior"] == found.protocol
    assert found.protocol["codes"]["draws"] == 1


def test_what_has_no_tokens_has_no_such_prior():
    data = Squares()
    with pytest.raises(
        UserMistake, match="over the tokens of a quantised autoencoder, and VAE has"
    ):
        check_priors([small()], build("vae"), data)
    with pytest.raises(UserMistake, match="those of VQVAE are tokens: choose prior=autoregressive"):
        check_priors([Mixture([1], codes=60)], build("vq"), data)
    with pytest.raises(CannotBeFitted, match="single code"):
        prior = small()
        prior.alphabet = ALPHABET
        prior.fit(torch.zeros(1, 4), torch.Generator())
    check_priors([small()], build("fsq"), data)
    with pytest.raises(UserMistake, match="fitted to the codes of all labels together"):
        check_priors([small()], build("fsq", "arena.condition=class"), data)
    with pytest.raises(UserMistake, match=r"prior.autoregressive.steps=0"):
        Autoregressive(steps=0)


def test_a_bound_of_continuous_latents_is_not_taken_again_under_a_prior():
    torch.manual_seed(0)
    model, data = build("vae").eval(), Squares()
    found = fit(Mixture([1], codes=60), model, data)
    bounds = Bounds(posterior_draws=1, importance_draws=0, max_images=None)
    assert bounds(LikelihoodRequest(model, data, CPU, 0, 16, prior=found)) == []
    assert not isinstance(Linear(), HasTokens)
