"""Scores under a fitted prior: which, with what card, by how many processes."""

import pytest
import torch
from torch import nn

from fixtures.evaluation import CPU, Squares, make_evaluation, protocols, values
from genbench import evaluate
from genbench.errors import Notice, UserMistake
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics.feature_workers import FeatureWorkers
from genbench.metrics.frechet import FrechetDistance
from genbench.metrics.likelihood import Bounds
from genbench.metrics.under_priors import fits, scores_under
from genbench.models.batch_statistics import recalibrated
from genbench.models.vae import VAE
from genbench.networks.heads import GaussianEncoder
from genbench.networks.mlp import MLPTrunk
from genbench.priors.aggregated import Aggregated
from genbench.priors.fitting import drawing_from, fit
from genbench.priors.truncated import Truncated
from genbench.runs.priors import as_in_training, grid_name, prior_label, prior_of, score_address
from genbench.training.pictures import draw_grids


def make():
    """A VAE with BatchNorm in the decoder, whose posteriors are far from N(0, I)."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Unflatten(1, (1, 8, 8)))
    encoder = GaussianEncoder(MLPTrunk(8, 1, 8, 1), 4)
    with torch.no_grad():
        encoder.head.bias[:4] = 3.0
    return VAE(decoder, encoder, DiscretizedLogistic(17), 4, 1.0, torch.optim.Adam).eval()


def evaluation(folder, **changes):
    bounds = {"bounds": Bounds(posterior_draws=1, importance_draws=0, max_images=None)}
    metrics = {"frechet": FrechetDistance()}
    return make_evaluation(folder, **({"metrics": metrics, "likelihoods": bounds} | changes))


@pytest.fixture(scope="module")
def data():
    return Squares()


def test_samples_alone_are_scored_and_their_card_names_the_prior(tmp_path, data):
    model, scorer = make(), evaluation(tmp_path)
    plain = scorer(model, data, CPU)
    fitted = fit(Aggregated(codes=240), model, data)
    under = scorer(model, data, CPU, prior=fitted)
    names = {score.name for score in under}
    assert "fd_small" in names
    assert not [name for name in names if name.startswith(("elbo", "rate", "psnr"))]
    assert names - {s.name for s in plain} == {"prior_parameters", "prior_seconds"}
    assert values(under)["prior_parameters"] == 240 * 4
    for score in under:
        assert prior_of(score) == fitted.protocol
        assert score.card["fake"]["batch_norm"]["latents"] == "aggregated"
    assert protocols(scorer(model, data, CPU)) == protocols(plain)  # nothing is left behind
    assert values(scorer(model, data, CPU)) == values(plain)
    for score in plain:
        assert prior_of(score) is None
        same = [as_in_training(one).protocol for one in under if one.name == score.name]
        assert same in ([], [score.protocol])


def test_the_decoder_has_the_batch_statistics_of_what_is_scored(data):
    model = make()
    fitted = fit(Aggregated(codes=240), model, data)
    codes = fitted.prior.tensors["codes"]
    with torch.no_grad(), drawing_from(model, fitted), recalibrated(model):
        found = model.decoder[1].running_mean.clone()
        expected = model.decoder[0](codes).mean(0)
        spread = model.decoder[0](codes).std(0)
    assert bool(((found - expected).abs() < 0.2 * spread).all())
    with recalibrated(model):  # of N(0, I)
        assert bool(((model.decoder[1].running_mean - expected).abs() > spread).any())


def test_two_processes_score_what_one_scores(tmp_path, data, monkeypatch):
    model, run = make(), tmp_path / "run"
    run.mkdir()
    scorer = evaluation(tmp_path / "cache", num_samples=90, likelihoods={})
    (fitted,) = fits(scorer, [Truncated(scale=0.5)], model, data, run)
    alone = scores_under(scorer, [fitted], model, data, run)
    with drawing_from(model, fitted):
        images = scorer.generated
        store = scorer.store(CPU, FeatureWorkers())
        with torch.no_grad(), recalibrated(model):
            single, _ = images.features(model, data, store)
    monkeypatch.setattr(evaluate, "die_with_the_first", lambda: None)
    words = ["1/2", str(tmp_path), f"prior={fitted.stem}"]
    evaluate.run_feature_worker(run, scorer, model, data, CPU, words)
    first = scorer.store(CPU, FeatureWorkers(0, 2, tmp_path))
    with torch.no_grad(), drawing_from(model, fitted), recalibrated(model):
        both, _ = images.features(model, data, first)
    assert both.features.equal(single.features)
    assert values(alone)["fd_small"] is not None
    words[2] = "prior=gone"
    with pytest.raises(UserMistake, match="keeps no prior gone for these weights"):
        evaluate.run_feature_worker(run, scorer, model, data, CPU, words)


def test_names_of_scores_and_pictures_tell_the_prior(tmp_path, data):
    model, scorer = make(), evaluation(tmp_path / "cache", likelihoods={})
    (fitted,) = fits(scorer, [Truncated(scale=0.5)], model, data, tmp_path)
    score = scores_under(scorer, [fitted], model, data, None)[0]
    assert prior_label(prior_of(score)) == "truncated prior (scale=0.5)"
    assert score_address(score) == f"final/{score.name}@truncated-scale-0.5"
    draw_grids([fitted], model, data, tmp_path)
    assert (tmp_path / "samples" / grid_name(prior_of(score))).exists()


def test_a_prior_that_cannot_be_fitted_costs_no_other_score(tmp_path, data):
    model = make()
    model.posterior = lambda images: (torch.full((len(images), 4), torch.nan),) * 2
    with pytest.warns(Notice, match="no scores under it: prior=aggregated cannot be fitted"):
        found = fits(
            evaluation(tmp_path),
            [Aggregated(codes=50), Truncated(scale=0.5)],
            model,
            data,
            tmp_path,
        )
    assert [fitted.prior.kind for fitted in found] == ["truncated"]
