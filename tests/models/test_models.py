"""The gradients of VAE, GAN and VAE-GAN against their papers, and what is special to each."""

import copy
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from fixtures.rows import (
    assert_gradients,
    build,
    gradients_of,
    input_gradient_square,
    parameters,
    train,
)
from genbench.losses.adversarial import NonSaturating
from genbench.losses.likelihood import DiscretizedLogistic, FeatureGaussian
from genbench.models import contract
from genbench.models.contract import HasLikelihood, Reconstructs
from genbench.models.gan import GAN
from genbench.models.noise import Noise
from genbench.models.vae import VAE
from genbench.models.vae_gan import VAEGAN
from genbench.networks.heads import Discriminator, GaussianEncoder
from genbench.networks.mlp import MLPDecoder, MLPTrunk

LATENT, WIDTH, SIZE = 3, 16, 8
SGD = partial(torch.optim.SGD, lr=0.01)


def decoder():
    return MLPDecoder(SIZE, 1, LATENT, WIDTH, depth=2)


def trunk():
    return MLPTrunk(SIZE, 1, WIDTH, depth=2)


def make_vae(**changes):
    likelihood = DiscretizedLogistic(17)
    arguments = dict(latent_dim=LATENT, beta=1.0, optimizer=SGD) | changes
    return VAE(decoder(), GaussianEncoder(trunk(), LATENT), likelihood, **arguments)


def make_gan(**changes):
    arguments = dict(
        adversarial_loss=NonSaturating(),
        latent_dim=LATENT,
        discriminator_steps=1,
        r1_gamma=1.0,
        gradient_penalty=0.0,
        generator_optimizer=SGD,
        discriminator_optimizer=SGD,
    )
    return GAN(decoder(), Discriminator(trunk()), **arguments | changes)


def make_vae_gan(**changes):
    arguments = dict(
        adversarial_loss=NonSaturating(),
        latent_dim=LATENT,
        gamma=0.1,
        feature_stage=-1,
        r1_gamma=1.0,
        autoencoder_optimizer=SGD,
        discriminator_optimizer=SGD,
    )
    encoder = GaussianEncoder(trunk(), LATENT)
    return VAEGAN(decoder(), encoder, Discriminator(trunk()), **arguments | changes)


@pytest.fixture
def images():
    levels = torch.linspace(-1, 1, 17)
    pixels = torch.randint(17, (12, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    return levels[pixels]


def test_the_vae_climbs_its_bound(images):
    model, reference = make_vae(beta=3.0), None
    reference = copy.deepcopy(model)
    ((_, _, gradients),) = train(model, [images]).steps
    reference.draws.begin(0)
    mu, logvar = reference.encoder(images)
    z = mu + reference.noise(len(images), LATENT) * (logvar / 2).exp()
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()
    likelihood = reference.likelihood.log_prob(images, reference.decoder(z)).mean()
    expected = gradients_of(3.0 * kl - likelihood, reference, "encoder", "decoder", "likelihood")
    assert_gradients(gradients, expected)


def test_each_gan_player_follows_its_own_loss(images):
    model = make_gan(r1_gamma=2.0)
    before = copy.deepcopy(model)
    (_, _, d_gradients), (_, middle, g_gradients) = train(model, [images]).steps
    before.draws.begin(0)
    fake = torch.tanh(before.decoder(before.noise(len(images), LATENT)))
    real_logits, fake_logits = before.discriminator(images), before.discriminator(fake)
    cross_entropy = F.binary_cross_entropy_with_logits
    d_loss = (
        cross_entropy(real_logits, torch.ones(12))
        + cross_entropy(fake_logits, torch.zeros(12))
        + 2.0 / 2 * input_gradient_square(before.discriminator, images)
    )
    assert_gradients(d_gradients, gradients_of(d_loss, before, "discriminator"))
    before.load_state_dict(middle)  # the generator meets the discriminator that has just moved
    before.draws.begin(0)
    fake = torch.tanh(before.decoder(before.noise(len(images), LATENT)))
    g_loss = cross_entropy(before.discriminator(fake), torch.ones(12))
    assert_gradients(g_gradients, gradients_of(g_loss, before, "decoder"))


def l_llike(model, images, recoded, fitted):
    """Equation 7, for features of the last stage, by its definition."""
    target = model.discriminator.features(images)[-1].detach()
    error = (model.discriminator.features(recoded)[-1] - target).square()
    if not fitted:
        return 0.5 * error.sum(1).mean()
    log_sigma = model.feature_likelihood.pace * model.feature_likelihood.scaled_log_sigma
    return (0.5 * error / (2 * log_sigma).exp() + log_sigma).sum(1).mean()


@pytest.mark.parametrize(
    ("fitted", "kinds"), [(False, 2), (True, 1)], ids=["as published", "as shipped"]
)
def test_each_vae_gan_player_follows_the_gradients_of_larsen(images, fitted, kinds):
    """L_prior + L_llike for the encoder, gamma L_llike - L_GAN for the decoder, -L_GAN for the other."""
    gamma = 0.1
    model = make_vae_gan(
        gamma=gamma,
        feature_likelihood=FeatureGaussian() if fitted else None,
        discriminate_reconstructions=kinds == 2,
    )
    before = copy.deepcopy(model)
    (_, _, d_gradients), (_, middle, ae_gradients) = train(model, [images]).steps
    cross_entropy, ones, zeros = F.binary_cross_entropy_with_logits, torch.ones(12), torch.zeros(12)

    def draw(model):
        model.draws.begin(0)
        mu, logvar = model.encoder(images)
        z = mu + model.noise(12, LATENT) * (logvar / 2).exp()
        prior = torch.tanh(model.decoder(model.noise(12, LATENT)))
        return mu, logvar, torch.tanh(model.decoder(z)), prior

    _, _, recoded, prior = draw(before)
    real, fakes = before.discriminator(images), (prior, recoded)[:kinds]
    d_loss = (
        cross_entropy(real, ones)
        + sum(cross_entropy(before.discriminator(fake), zeros) for fake in fakes) / kinds
        + 1.0 / 2 * input_gradient_square(before.discriminator, images)
    )
    assert_gradients(d_gradients, gradients_of(d_loss, before, "discriminator"))

    before.load_state_dict(middle)
    mu, logvar, recoded, prior = draw(before)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()
    own = ("encoder", "feature_likelihood") if fitted else ("encoder",)
    encoder = gradients_of(kl + l_llike(before, images, recoded, fitted), before, *own)
    _, _, recoded, prior = draw(before)
    fakes = (prior, recoded)[:kinds]
    adversarial = sum(cross_entropy(before.discriminator(f), ones) for f in fakes) / kinds
    reconstruction = l_llike(before, images, recoded, fitted)
    larsen = gradients_of(gamma * reconstruction + adversarial, before, "decoder")
    assert_gradients(ae_gradients, encoder | {name: g / gamma for name, g in larsen.items()})


def test_reconstructions_are_fakes_only_where_they_are_wanted(images):
    tracked: dict[str, torch.Tensor] = {}
    for wanted in (True, False):
        model = make_vae_gan(discriminate_reconstructions=wanted)
        tracked.clear()
        model.track = tracked.__setitem__
        for move in model.step(images):
            move.loss()
        assert ("logit/reconstruction" in tracked) == wanted
        assert {"logit/real", "logit/prior"} < tracked.keys()


@pytest.mark.parametrize("make", [make_gan, make_vae_gan], ids=["gan", "vae-gan"])
def test_small_steps_lower_the_loss_of_the_player_that_takes_them(make, images):
    """Direction: the discriminator learns to tell fakes, the generator to pass for real."""
    model = make()
    z = torch.randn(64, LATENT, generator=torch.Generator().manual_seed(1))
    recorder = train(model, [images] * 3)
    probe = copy.deepcopy(model)

    def fake_logit(state):
        probe.load_state_dict(state)
        return probe.discriminator(probe.sample(z)).mean().item()

    states = [before for _, before, _ in recorder.steps] + [parameters(model)]
    for (player, _, _), before, after in zip(recorder.steps, states, states[1:], strict=False):
        if player == "discriminator":
            assert gap(probe, after, images, z) > gap(probe, before, images, z)
        else:
            assert fake_logit(after) > fake_logit(before)


def gap(probe, state, images, z):
    probe.load_state_dict(state)
    return (probe.discriminator(images).mean() - probe.discriminator(probe.sample(z)).mean()).item()


@pytest.mark.parametrize("likelihood", [None, FeatureGaussian()], ids=["unit", "fitted"])
def test_a_loss_does_not_change_when_its_batch_is_doubled(images, likelihood):
    model = make_vae_gan(feature_likelihood=likelihood)
    mu, logvar = model.encoder(images)
    fakes = {"reconstruction": model.sample(mu), "prior": model.sample(mu + 1)}
    twice, mu2, logvar2 = (torch.cat([a, a]) for a in (images, mu, logvar))
    doubled = {kind: torch.cat([fake, fake]) for kind, fake in fakes.items()}
    torch.testing.assert_close(
        model.autoencoder_loss(images, mu, logvar, mu, fakes),
        model.autoencoder_loss(twice, mu2, logvar2, mu2, doubled),
    )
    torch.testing.assert_close(
        model.discriminator_loss(images, fakes), model.discriminator_loss(twice, doubled)
    )


def test_the_feature_distance_of_an_image_to_itself_is_zero(images):
    assert make_vae_gan().feature_distance(images, images).abs().max() == 0


def test_several_steps_in_one_batch_are_the_same_steps(images):
    torch.manual_seed(0)
    apart = make_gan()
    together = copy.deepcopy(apart)
    one = train(apart, [images[:4], images[4:8], images[8:]]).training
    other = train(together, [images], batch_size=4).training
    assert one.steps == other.steps == 3
    for one, other in zip(apart.parameters(), together.parameters(), strict=True):
        assert torch.equal(one, other)


def test_drawing_elsewhere_does_not_change_a_run(images):
    torch.manual_seed(0)
    quiet = make_vae()
    disturbed = copy.deepcopy(quiet)
    train(quiet, [images, images])

    train(disturbed, [images, images], disturb=True)
    for one, other in zip(quiet.parameters(), disturbed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_capabilities_are_what_a_model_defines():
    assert isinstance(make_vae(), HasLikelihood)
    assert isinstance(make_vae(), Reconstructs)
    assert isinstance(make_vae_gan(), Reconstructs)
    assert not isinstance(make_vae_gan(), HasLikelihood)
    assert not isinstance(make_gan(), Reconstructs)
    assert not isinstance(Noise(), HasLikelihood)


def test_no_capability_hangs_on_a_module_that_a_model_keeps():
    """From Python 3.12 on isinstance looks without `__getattr__`, by which nn.Module finds modules: no VAE had an ELBO."""
    kinds = [
        kind for kind in vars(contract).values() if getattr(kind, "_is_runtime_protocol", False)
    ]
    assert HasLikelihood in kinds
    kept = {name for kind in kinds for name in vars(kind).get("__annotations__", {})}
    assert kept == {"evaluations"}  # a number


def test_the_elbo_is_at_beta_one_whatever_was_trained(images):
    torch.manual_seed(0)
    plain = make_vae(beta=1.0)
    heavy = make_vae(beta=10.0)
    heavy.load_state_dict(plain.state_dict())
    noise = torch.randn(len(images), LATENT)
    for one, other in zip(plain.elbo(images, noise), heavy.elbo(images, noise), strict=True):
        torch.testing.assert_close(one, other)


def test_fakes_that_the_discriminator_alone_sees_are_made_without_a_graph():
    model, graphs = build("wgan-gp"), []
    model.decoder.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    model.draws.begin(0)
    list(model.step(torch.zeros(5 * 4, 1, 8, 8)))
    assert graphs == [False] * 4 + [True]
