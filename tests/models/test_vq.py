"""VQ-VAE: the straight-through gradient, the commitment, the codebook of means, its usage."""

import copy
import itertools
import math

import pytest
import torch

from fixtures.evaluation import Squares
from fixtures.rows import assert_gradients, build, gradients_of, images_for, train
from genbench.metrics.likelihood import Bounds, LikelihoodRequest
from genbench.models.contract import Draws
from genbench.networks.codebook import SMOOTHING, Codebook


def test_the_nearest_code_is_that_of_all_distances():
    torch.manual_seed(0)
    book, values = Codebook(7, 3, 0.9), torch.randn(5, 2, 3)
    expected = torch.cdist(values.flatten(0, 1), book.vectors).argmin(1).view(5, 2)
    assert torch.equal(book.nearest(values), expected)
    assert torch.equal(book(expected), book.vectors[expected])


def test_a_code_is_the_exponential_mean_of_what_it_replaces():
    torch.manual_seed(0)
    book = Codebook(3, 2, 0.9)
    before = book.sums.clone()
    values = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    book.follow(values, torch.tensor([0, 0, 2]))
    counts = 0.9 * torch.ones(3) + 0.1 * torch.tensor([2.0, 0.0, 1.0])
    sums = 0.9 * before + 0.1 * torch.tensor([[4.0, 0.0], [0.0, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(book.counts, counts)
    smoothed = (counts + SMOOTHING) * counts.sum() / (counts.sum() + 3 * SMOOTHING)
    torch.testing.assert_close(book.vectors, sums / smoothed[:, None])


def test_usage_counts_the_codes_that_are_taken():
    book = Codebook(4, 2, 0.5)
    for _ in range(40):
        book.follow(torch.zeros(6, 2), torch.tensor([0, 0, 0, 1, 1, 1]))
    used, perplexity = book.usage()
    assert (used.item(), perplexity.item()) == (0.5, pytest.approx(2, abs=1e-4))


def test_a_latent_by_hand():
    """Codes (0, 0) and (3, 0): (1, 0) is the first, at distance 1; the gradient (5, 7) passes to it."""
    model = build("vq", "arena.latent_dim=2", "model.prior.tokens=1", "model.codebook.codes=2")
    model.codebook.vectors.copy_(torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    values = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    codes = model.codebook.nearest(values)
    assert codes.item() == 0
    model.commitment = 0.25
    model.likelihood.log_prob = lambda images, output: -output.squeeze(1)
    model.decoder = torch.nn.Linear(2, 1, bias=False)
    model.decoder.weight.data = torch.tensor([[5.0, 7.0]])
    loss = model.autoencoder_loss(torch.zeros(1), values, codes)
    assert loss.item() == pytest.approx(0.25)
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.tolist() == [[[5.5, 7.0]]]


def test_both_players_follow_their_losses_and_the_codebook_follows_the_batch():
    torch.manual_seed(0)
    model = build("vq", "model.commitment=0.3")
    images, before = images_for(model), copy.deepcopy(model)
    (_, _, of_prior), (_, _, of_autoencoder) = train(model, [images]).steps
    values = before.encoder(images).view(12, 8, 2)
    codes = torch.cdist(values.flatten(0, 1), before.codebook.vectors).argmin(1).view(12, 8)
    vectors = before.codebook.vectors[codes]
    rate = -before.prior(codes).mean()
    assert_gradients(of_prior, gradients_of(rate, before, "prior"))
    z = vectors.flatten(1).clone().requires_grad_()
    distortion = -before.likelihood.log_prob(images, before.decoder(z)).mean()
    (at_codes,) = torch.autograd.grad(distortion, z, retain_graph=True)
    expected = gradients_of(distortion, before, "decoder", "likelihood")
    commitment = 0.3 * (values - vectors).square().sum((1, 2)).mean()
    passed = (values.flatten(1) * at_codes).sum()
    expected |= gradients_of(passed + commitment, before, "encoder")
    assert_gradients(of_autoencoder, expected)
    assert not torch.equal(model.codebook.counts, before.codebook.counts)


def test_it_stays_outside_of_training():
    """As in the trial step that is taken before a run."""
    model = build("vq").eval()
    kept = model.codebook.vectors.clone()
    model.draws = Draws(0)
    assert [move.player for move in model.step(images_for(model))] == ["prior", "autoencoder"]
    assert torch.equal(model.codebook.vectors, kept)


def test_tokens_must_divide_the_latents():
    with pytest.raises(Exception, match="model.prior.tokens=3 does not divide arena.latent_dim=16"):
        build("vq", "model.prior.tokens=3")


def test_the_bound_is_one_on_the_evidence():
    """log p(x) by summing over both codes of four."""
    torch.manual_seed(0)
    tiny = ("model.prior.tokens=2", "model.codebook.codes=4", "arena.latent_dim=2")
    model = build("vq", *tiny).eval()
    images = images_for(model)
    with torch.no_grad():
        terms = []
        for codes in itertools.product(range(4), repeat=2):
            numbers = torch.tensor([codes])
            z = model.codebook(numbers).flatten(1).expand(12, 2)
            log_p = model.likelihood.log_prob(images, model.decoder(z))
            terms.append(log_p + model.prior(numbers))
        rate, distortion = model.elbo(images, torch.zeros(12, 2))
    assert (-(rate + distortion) <= torch.logsumexp(torch.stack(terms), 0) + 1e-4).all()


@pytest.mark.parametrize("name", ["vq", "fsq"])
def test_its_bound_is_a_score_in_bits_per_dimension(name):
    torch.manual_seed(0)
    model, data = build(name).eval(), Squares()
    bounds = Bounds(posterior_draws=2, importance_draws=20, max_images=None)
    with torch.no_grad():
        found = bounds(LikelihoodRequest(model, data, torch.device("cpu"), 0, 16))
        images = data.to_images(torch.from_numpy(data.pixels("test")))
        rate, distortion = model.elbo(images, torch.zeros(60, 16))
    scores = {score.name: score.value for score in found}
    tag = model.likelihood.tag
    assert scores.keys() == {
        f"{part}_{tag}" for part in ("elbo", "rate", "distortion", "bits_per_dim")
    }
    nats = (rate + distortion).mean().item()
    assert scores[f"elbo_{tag}"] == pytest.approx(-nats, rel=1e-5)
    assert scores[f"rate_{tag}"] == pytest.approx(rate.mean().item(), rel=1e-5)
    assert scores[f"bits_per_dim_{tag}"] == pytest.approx(nats / 64 / math.log(2), rel=1e-5)
