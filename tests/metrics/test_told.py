"""A model that is told labels gets those of the images before it, wherever a score asks it."""

import numpy as np
import pytest
import torch
from torch import nn

from fixtures.evaluation import CPU, Squares, make_evaluation
from genbench.losses.likelihood import Gaussian
from genbench.metrics.latents import LatentHealth
from genbench.metrics.likelihood import Bounds
from genbench.metrics.reconstruction import Reconstruction
from genbench.models.batch_statistics import BATCH_SIZE, BATCHES, SEED, recalibrated
from genbench.models.condition import condition_of
from genbench.models.contract import Elbo, GenerativeModel

KINDS = 17  # levels of an image's first pixel, which is its class


class Marked(Squares):
    """Images that show their class: it is the level of the first pixel."""

    class_names = tuple(map(str, range(KINDS)))

    def __init__(self):
        super().__init__()
        draws = np.random.default_rng(1)
        for pixels in self.splits.values():
            pixels[:, 0, 0, 0] = draws.integers(0, KINDS, len(pixels))

    def labels(self, split):
        return self.splits[split][:, 0, 0, 0].astype(np.int64)


class Codes(GenerativeModel):
    """Compares every label that it gets with the image that it gets it for. Its posterior is all on one code."""

    latent_dim = 3

    def __init__(self, data):
        super().__init__()
        torch.manual_seed(0)
        self.decoder = nn.Sequential(
            nn.Linear(3, 64), nn.BatchNorm1d(64), nn.Unflatten(1, (1, 8, 8))
        )
        self.encoder, self.likelihood = nn.Linear(64, 6), Gaussian(0.5)
        self.condition, self.seen, self.told = condition_of("class", 0.0, data), set(), []

    def players(self):
        return {}

    def step(self, images, labels=None):
        yield from ()

    def see(self, what, images, labels):
        shown = ((images[:, 0, 0, 0] + 1) / 2 * (KINDS - 1)).round().long()
        assert torch.equal(shown, labels), what
        self.seen.add(what)

    def sample(self, z, labels):
        assert len(z) == len(labels)
        self.told.append(labels)
        return torch.tanh(self.decoder(z))

    def elbo(self, images, noise, labels):
        self.see("elbo", images, labels)
        code = self.encoder(images.flatten(1))[:, :3]
        distortion = -self.likelihood.log_prob(images, self.decoder(code))
        return Elbo(torch.ones_like(distortion), distortion)

    def reconstruct(self, images, labels):
        self.see("reconstruct", images, labels)
        return self.sample(self.encoder(images.flatten(1))[:, :3], labels)


class Gaussians(Codes):
    """The same with a Gaussian posterior."""

    def posterior(self, images, labels):
        self.see("posterior", images, labels)
        mu, logvar = self.encoder(images.flatten(1)).chunk(2, 1)
        return mu, logvar

    def log_prob(self, images, z, labels):
        self.see("log_prob", images, labels)
        return self.likelihood.log_prob(images, self.decoder(z))


@pytest.fixture(scope="module")
def data():
    return Marked()


@pytest.mark.parametrize(
    ("kind", "asked", "quantities"),
    [
        (
            Gaussians,
            {"posterior", "log_prob", "reconstruct"},
            {"elbo", "iwae", "elbo_posthoc", "posthoc_variance", "psnr", "active_units"},
        ),
        (Codes, {"elbo", "reconstruct"}, {"elbo", "psnr"}),
    ],
)
def test_whatever_encodes_gets_the_labels_of_its_images(kind, asked, quantities, data, tmp_path):
    model = kind(data).eval()
    wanted = {"bounds": Bounds(posterior_draws=2, importance_draws=5, max_images=20)}
    scores = make_evaluation(
        tmp_path,
        metrics={},
        likelihoods=wanted,
        reconstruction=Reconstruction(max_images=20),
        latents=LatentHealth(max_images=20),
    )(model, data, CPU)
    assert quantities <= {score.quantity for score in scores}
    assert model.seen == asked


def test_statistics_of_samples_are_of_labels_as_training_images_have_them(data):
    model = Codes(data).eval()
    with recalibrated(model):
        told = torch.cat(model.told)
    assert torch.equal(told, model.condition.draw(BATCHES * BATCH_SIZE, SEED))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_samples_have_labels_by_the_seed_of_their_card(split, data, tmp_path):
    """Validation scores have latents, and so labels, of their own."""
    model, evaluation = Codes(data).eval(), make_evaluation(tmp_path, seed=5, split=split)
    card = evaluation.generated.card(model, data, None)
    assert card["labels"]["seed"] == card["seed"] == evaluation.seed
    own = model.condition.draw(evaluation.num_samples, evaluation.seed)
    assert torch.equal(evaluation.generated.labels(model), own)
