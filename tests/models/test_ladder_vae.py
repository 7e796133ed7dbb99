"""The ladder VAE: its rates by closed forms, its bounds by quadrature and against AIS."""

import copy
import logging
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fixtures.evaluation import CPU, Squares, make_evaluation, values
from fixtures.rows import assert_gradients, build, gradients_of, images_for, train
from genbench.errors import UserMistake
from genbench.metrics.annealing import Annealer, schedule
from genbench.metrics.latents import LatentHealth
from genbench.metrics.likelihood import DrawnObserver, elbo, importance_bound
from genbench.metrics.reconstruction import Reconstruction
from genbench.models.contract import (
    DrawsPosterior,
    HasBound,
    HasLikelihood,
    HasPosterior,
    draws_standard_normal,
)
from genbench.networks.ladder import LadderPrior, group_sizes
from genbench.priors.fitting import fit
from genbench.priors.mixture import Mixture

TINY = ("arena.latent_dim=2", "likelihood=gaussian-fixed")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def shaken(name, *overrides):
    """A model whose prior is none of noise alone, as it is at first."""
    model = build(name, *overrides).eval()
    with torch.no_grad():
        for p in model.prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def way_down(model, images, noise):
    """Group by group in the words of the papers: prior and posterior of z_g, and z_g."""
    seen, z, found = model.encoder(images), noise[:, :0], []
    for group, own in enumerate(noise.split(model.encoder.sizes, 1)):
        if group:
            mu, logvar = model.prior.layers[group - 1](z).chunk(2, 1)
            prior = Normal(mu, (logvar / 2).exp())
        else:
            prior = Normal(torch.zeros_like(own), torch.ones_like(own))
        m, logs = model.encoder.layers[group](torch.cat([seen, z], 1)).chunk(2, 1)
        posterior = Normal(prior.loc + prior.scale * m, prior.scale * (logs / 2).exp())
        drawn = posterior.loc + posterior.scale * own
        found.append((prior, posterior, drawn))
        z = torch.cat([z, drawn], 1)
    return found, z


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_rate_is_the_sum_of_the_groups_kls(groups):
    model = shaken("ladder-vae", f"model.prior.groups={groups}")
    images, noise = images_for(model), torch.randn(12, model.latent_dim)
    down = model.descend(images, noise)
    found, z = way_down(model, images, noise)
    rates = torch.stack([kl_divergence(q, p).sum(1) for p, q, _ in found], 1)
    ratio = sum((p.log_prob(x) - q.log_prob(x)).sum(1) for p, q, x in found)
    torch.testing.assert_close(down.z, z)
    torch.testing.assert_close(down.rates, rates)
    torch.testing.assert_close(down.log_ratio, ratio, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.prior(down.eps), z)
    bound = model.elbo(images, noise)
    torch.testing.assert_close(bound.rate, rates.sum(1))
    expected = -model.likelihood.log_prob(images, model.decoder(z))
    torch.testing.assert_close(bound.distortion, expected)


@pytest.mark.parametrize(("done", "beta"), [(0, 0.0), (1, 0.5), (2, 1.0)])
def test_its_player_descends_the_bound_with_a_weight_that_rises(done, beta):
    model = build("ladder-vae", "model.warmup=0.3")
    images = images_for(model)
    recorder = train(model, [images] * (done + 1), total=80)  # a batch is 0.15 of it
    _, at, gradients = recorder.steps[-1]
    before = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in before.named_parameters():
            p.copy_(at[name])
    before.draws.begin(done)
    found, z = way_down(before, images, before.noise(12, model.latent_dim))
    rate = sum(kl_divergence(q, p).sum(1) for p, q, _ in found).mean()
    loss = beta * rate - before.likelihood.log_prob(images, before.decoder(z)).mean()
    parts = ("decoder", "encoder", "prior", "likelihood")
    expected = gradients_of(loss, before, *parts)
    assert beta == 0 or expected.keys() == gradients.keys()
    assert_gradients(gradients, expected)


@pytest.mark.slow
def test_the_bounds_are_below_the_evidence_and_meet_it_as_ais_does():
    """Two latents, one a group: log p(x) by quadrature over their noise."""
    model = shaken("ladder-vae", *TINY)
    images, draws = images_for(model)[:4], torch.Generator().manual_seed(1)
    axis = torch.linspace(-6, 6, 121)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_prior = -0.5 * grid.square().sum(1) - math.log(2 * math.pi)
        terms = [model.log_prob(one.expand(len(grid), 1, 8, 8), grid) for one in images]
        exact = torch.logsumexp(torch.stack(terms) + log_prior, 1) + 2 * math.log(0.1)
        observer = DrawnObserver(model.elbo, model.draw_posterior, model.log_prob)
        rate, distortion = elbo(observer, images, torch.randn(500, 4, 2, generator=draws))
        noise = torch.randn(10_000, 4, 2, generator=draws)
        tighter = importance_bound(observer, images, noise, 4_000)
    below = -(rate + distortion)
    assert (below < exact + 0.05).all()
    torch.testing.assert_close(tighter.float(), exact, rtol=0, atol=0.05)

    annealer = Annealer(
        decode=lambda eps: model.decoder(model.prior(eps)).flatten(1),
        latent_dim=2,
        variance=1.0,  # that of gaussian-fixed
        leapfrogs=5,
        betas=schedule(100),
        chains=64,
        pilot_chains=4,
        decoded_at_once=4096,
        device=CPU,
        on_move=lambda: None,
    )
    flat = images.flatten(1)
    annealed = annealer.forward(flat, annealer.steps(flat, draws), draws)
    torch.testing.assert_close(annealed.float(), exact, rtol=0, atol=0.1)
    assert (below < annealed + 0.1).all()


def test_its_latents_are_noise_and_its_posterior_has_no_mean_and_variance():
    model = build("ladder-vae")
    assert draws_standard_normal(model)
    assert isinstance(model, HasBound) and isinstance(model, DrawsPosterior)
    assert not isinstance(model, HasPosterior) and not isinstance(model, HasLikelihood)


def test_the_scores_that_it_has_and_the_words_for_those_that_it_lacks(tmp_path, caplog):
    model = shaken("ladder-vae")
    parts = {"latents": LatentHealth(), "reconstruction": Reconstruction()}
    with caplog.at_level(logging.INFO, "genbench"):
        scores = values(make_evaluation(tmp_path, **parts)(model, Squares(), CPU))
    tag = model.likelihood.tag
    bounds = {f"{name}_{tag}" for name in ("elbo", "rate", "distortion", "bits_per_dim", "iwae_20")}
    bounds |= {f"{n}_posthoc_gaussian-posthoc" for n in ("elbo", "rate", "distortion")}
    assert bounds <= scores.keys() and "psnr" in scores
    assert scores[f"iwae_20_{tag}"] > scores[f"elbo_subset_{tag}"]
    assert not {"active_units", "mutual_information"} & scores.keys()
    assert "that of LadderVAE has draws alone" in caplog.text


def test_its_codes_are_draws_of_its_posterior():
    model, data = shaken("ladder-vae"), Squares()
    found = fit(Mixture([1], codes=1200), model, data)  # ten draws of each training image
    images = data.to_images(torch.from_numpy(data.pixels("train"))).repeat(200, 1, 1, 1)
    with torch.no_grad():
        z = model.draw_posterior(images, torch.randn(len(images), 16)).z
    drawn = found.prior.draw(20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.15)
    torch.testing.assert_close(drawn.std(0), z.std(0), rtol=0, atol=0.15)


def test_a_prior_that_has_learned_nothing_is_its_noise():
    eps = torch.randn(5, 7)
    assert torch.equal(LadderPrior(7, 3, 16)(eps), eps)
    assert group_sizes(7, 3) == [3, 2, 2]
    with pytest.raises(UserMistake, match=r"groups=3 cannot share arena.latent_dim=2"):
        group_sizes(2, 3)
