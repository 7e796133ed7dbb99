"""BatchNorm where a model decodes what its encoder gives: the statistics of posterior draws."""

import pytest
import torch
from torch import nn

from fixtures.evaluation import CPU, Squares, make_evaluation, values
from fixtures.rows import build
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.losses.variational import reparameterize
from genbench.metrics.likelihood import Bounds
from genbench.models.batch_statistics import BATCH_SIZE, recalibrated
from genbench.models.reconstruction import decoding_posterior, reconstructing
from genbench.models.vae import VAE
from genbench.networks.heads import GaussianEncoder
from genbench.networks.mlp import MLPTrunk


def make(posterior_mean=3.0):
    """A VAE with BatchNorm in the decoder, whose posteriors are far from the prior."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Unflatten(1, (1, 8, 8)))
    encoder = GaussianEncoder(MLPTrunk(8, 1, 8, 1), 4)
    with torch.no_grad():
        encoder.head.bias[:4] = posterior_mean
    return VAE(decoder, encoder, DiscretizedLogistic(17), 4, 1.0, torch.optim.Adam)


def test_the_statistics_are_those_of_posterior_draws_of_training_images():
    model, data = make().eval(), Squares()
    images = data.to_images(torch.from_numpy(data.pixels("train")))
    assert len(images) <= BATCH_SIZE  # one batch, so that its order does not matter for the mean
    with torch.no_grad(), decoding_posterior(model, data):
        found = model.decoder[1].running_mean.clone()
    mu, logvar = model.posterior(images)
    expected = model.decoder[0](mu).mean(0)
    spread = (model.decoder[0].weight.square() @ logvar.exp().mean(0)).sqrt()
    tolerance = 5 * spread / len(images) ** 0.5
    assert bool(((found - expected).abs() < tolerance).all())
    with recalibrated(model):
        assert bool(((model.decoder[1].running_mean - expected).abs() > tolerance).any())


def test_a_bound_decodes_by_them_and_its_card_says_so(tmp_path):
    model, data = make().eval(), Squares()
    bounds = {"bounds": Bounds(posterior_draws=1, importance_draws=0, max_images=None)}
    scores = make_evaluation(tmp_path, metrics={}, likelihoods=bounds)(model, data, CPU)
    card = next(s.card for s in scores if s.name.startswith("elbo_discretized"))
    assert card["batch_norm"]["rule"] == "recalibrated on posterior draws"
    images = data.to_images(torch.from_numpy(data.pixels("test")))
    noise = torch.randn(1, len(images), 4, generator=torch.Generator().manual_seed(0))[0]
    with torch.no_grad(), decoding_posterior(model, data):
        z = reparameterize(*model.posterior(images), noise)
        expected = float(-model.log_prob(images, z).mean())
    found = next(v for n, v in values(scores).items() if n.startswith("distortion_discretized"))
    assert abs(found - expected) < 1e-4 * abs(expected)


@pytest.mark.parametrize("name", ["vq", "fsq"])
def test_a_bound_of_codes_decodes_by_those_of_images_codes(name, tmp_path):
    model = build(name, "network=conv", "network.width=4").eval()
    bounds = {"bounds": Bounds(posterior_draws=1, importance_draws=0, max_images=None)}
    data = Squares()
    scores = make_evaluation(tmp_path, metrics={}, likelihoods=bounds)(model, data, CPU)
    found = next(v for n, v in values(scores).items() if n.startswith("distortion"))
    images = data.to_images(torch.from_numpy(data.pixels("test")))

    def distortion():
        with torch.no_grad():
            return float(model.elbo(images, images.new_zeros(())).distortion.mean())

    with reconstructing(model, data):
        expected = distortion()
    assert found == pytest.approx(expected, rel=1e-5)
    with recalibrated(model):
        assert abs(distortion() - expected) > 1e-3 * expected
