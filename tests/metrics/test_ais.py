"""Annealed importance sampling against models whose log p(x) is known."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from fixtures.likelihood import CPU, PCA, Given, K, make_vae, make_vae_gan
from genbench.errors import UserMistake
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics import ais, annealing
from genbench.metrics.ais import AnnealedImportance, unit_means
from genbench.metrics.annealing import (
    Annealer,
    Chains,
    anneal,
    fit_variance,
    mean_in_logs,
    schedule,
    simulate,
)
from genbench.metrics.likelihood import LikelihoodRequest
from genbench.models.gan import GAN
from genbench.models.noise import Noise
from genbench.networks.mlp import MLPDecoder


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def decode(model, z):
    return model.sample(z).flatten(1)


def make_setting(model, temperatures, **changes):
    setting = Annealer(
        decode=partial(decode, model),
        latent_dim=model.latent_dim,
        variance=0.01,
        leapfrogs=10,
        betas=schedule(temperatures),
        chains=16,
        pilot_chains=4,
        decoded_at_once=4096,
        device=CPU,
        on_move=lambda: None,
    )
    return setting._replace(**changes)


def errors(model, temperatures, images):
    """Both estimates less the exact log p(x)."""
    setting = make_setting(model, temperatures)
    draws = generator(3)
    z, x = simulate(setting, images, draws)
    steps = setting.steps(x, draws)
    exact = model.exact(x)
    below = setting.forward(x, steps, draws) - exact
    above = setting.backward(x, z, steps, draws) - exact
    return float(below.mean()), float(above.mean())


def test_the_schedule_runs_from_prior_to_posterior_as_a_sigmoid():
    betas = schedule(101)
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    assert betas == sorted(betas)
    edge = 1 / (1 + math.exp(4))
    expected = (1 / (1 + math.exp(4 * 0.5)) - edge) / (1 - 2 * edge)
    assert betas[25] == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_moves_leave_the_tempered_posterior_as_it_is(beta):
    """Of a linear model it is Gaussian: chains that start in it stay in it."""
    model = PCA()
    model.W = model.W / 5  # so that one step size suits all directions
    _, images = model.simulate(1)
    precision = 1 + beta * model.W.square().sum(0) / 0.01
    mean = beta * (images.flatten(1) - model.b) @ model.W / 0.01 / precision
    draws = generator(1)
    each = 20_000
    z = mean + torch.randn(each, K, generator=draws) / precision.sqrt()
    chains = make_setting(model, 2).start(images.flatten(1), z, draws)
    accepted = [float(chains.move(beta, torch.tensor([0.08])).mean()) for _ in range(5)]
    assert not torch.equal(chains.z, z)
    assert 0.5 < sum(accepted) / 5 <= 1
    standard = (chains.z - mean) * precision.sqrt()
    assert standard.mean(0).abs().max() < 4.5 / each**0.5
    assert standard.var(0).sub(1).abs().max() < 4.5 * (2 / each) ** 0.5


def test_weights_are_unbiased_in_both_directions_even_with_two_temperatures():
    """E[w] = p(x) whatever the number of temperatures and however bad the steps."""
    model = PCA()
    model.W = model.W[:, :2] / 20
    model.latent_dim = 2
    z, x = model_draws(model, 1)
    setting = make_setting(model, 4, leapfrogs=2)
    steps = torch.full((4, 1), 0.3)
    forward = anneal(setting.prior(x, 40_000, generator(5)), setting.betas, steps, setting.on_move)
    exact = float(model.exact(x))
    assert float(mean_in_logs(forward)) == pytest.approx(exact, abs=0.05)

    precision = 1 + model.W.square().sum(0) / 0.01
    mean = (x - model.b) @ model.W / 0.01 / precision
    posterior = mean + torch.randn(40_000, 2, generator=generator(6)) / precision.sqrt()
    chains = setting.start(x, posterior, generator(7))
    backward = anneal(chains, setting.betas[::-1], steps, setting.on_move)
    assert -float(mean_in_logs(backward)) == pytest.approx(exact, abs=0.05)


def model_draws(model, n):
    draws = generator(4)
    z = torch.randn(n, model.latent_dim, generator=draws)
    return z, decode(model, z) + 0.1 * torch.randn(n, 64, generator=draws)


@pytest.mark.slow
def test_the_truth_lies_between_both_directions():
    below, above = errors(PCA(), 200, 16)
    assert -8 < below < 0 < above < 8


@pytest.mark.slow
def test_a_thousand_temperatures_are_within_two_nats_of_the_truth_on_both_sides():
    below, above = errors(PCA(), 1000, 16)
    assert -1.0 < below < 0 < above < 1.9
    assert above - below < 2.5


def test_the_variance_that_suits_the_images_is_found():
    model = PCA()
    _, images = model.simulate(50)  # of variance 0.01
    found = fit_variance(make_setting(model, 2), images.flatten(1), generator())
    assert found == pytest.approx(0.01, rel=0.15)


def test_how_many_are_decoded_at_once_changes_nothing():
    model = PCA()
    _, images = model.simulate(3)
    found = []
    for size in (1, 7, 1000):
        setting = make_setting(model, 20, chains=4, decoded_at_once=size)
        found.append(setting.forward(images.flatten(1), torch.full((20, 3), 0.05), generator()))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0.05)


def test_a_chain_that_runs_off_to_infinity_is_called_back():
    model = PCA()
    _, images = model.simulate(2)
    chains = make_setting(model, 2).prior(images.flatten(1), 3, generator())
    before = chains.z.clone()
    acceptance = chains.move(1.0, torch.tensor([1e30, 1e30]))
    assert torch.equal(chains.z, before)
    assert acceptance.max() == 0
    assert isinstance(chains, Chains)


# --- scores ---------------------------------------------------------------------------------------


def make_gan():
    torch.manual_seed(0)
    optimizer = torch.optim.Adam
    decoder = MLPDecoder(8, 1, 4, 16, 1)
    return GAN(decoder, torch.nn.Identity(), None, 4, 1, 1.0, 0.0, optimizer, optimizer).eval()


def make_metric(**changes):
    arguments = {
        "enabled": True,
        "images": 6,
        "simulated": 4,
        "chains": 3,
        "pilot_chains": 2,
        "temperatures": 10,
        "leapfrogs": 3,
        "variance": 0.02,
    }
    return AnnealedImportance(**arguments | changes)


def score(model, data=None, folder=None, metric=None):
    task = LikelihoodRequest(model, data or Given(), CPU, 0, 256, directory=folder)
    with torch.no_grad():
        scores = (metric or make_metric())(task)
    return {one.name: one for one in scores}


@pytest.mark.slow
def test_the_score_is_the_density_of_dequantised_images_on_the_unit_interval():
    """A linear decoder: the exact value is a Gaussian's, worked out on that scale."""
    model, data = PCA(), Given()
    model.W, model.b = model.W / 10, model.b / 10
    metric = make_metric(
        images=10, simulated=10, temperatures=100, leapfrogs=10, chains=8, variance=0.02
    )
    found = score(model, data, metric=metric)
    scale = 255 / 256 / 2
    W, b = model.W.double() * scale, (model.b.double() + 1) * scale + 0.5 / 256
    covariance = W @ W.T + 0.02 * torch.eye(64, dtype=torch.float64)
    draws = ais._generator(0, "test 0")
    images = ais._dequantised(data, "test", range(10), draws)
    exact = -float(MultivariateNormal(b, covariance).log_prob(images.double()).mean())
    value, gap = found["nll_ais"].value, found["ais_gap"].value
    assert exact - 0.1 < value < exact + 0.5
    assert abs(gap) < 0.5  # a decoder as easy as this leaves hardly any
    assert found["nll_ais"].status == "ok"


def test_the_error_over_images_and_the_gap_of_the_chains_stand_apart():
    model, data, metric = make_gan(), Given(), make_metric()
    with torch.no_grad():
        parts = metric.estimate(LikelihoodRequest(model, data, CPU, 0, 256), 6, {})
    found = score(model, data, metric=metric)
    one, gap = found["nll_ais"], found["ais_gap"]
    error = 1.96 * float(parts.test.std()) / math.sqrt(6)
    assert one.value == pytest.approx(-float(parts.test.mean()))
    assert (one.low, one.high) == pytest.approx((one.value - error, one.value + error))
    error = 1.96 * float((parts.above - parts.below).std()) / math.sqrt(4)
    assert (gap.low, gap.high) == pytest.approx((gap.value - error, gap.value + error))
    assert "held-out images" in one.interval
    assert "simulated images" in gap.interval
    single = score(model, data, metric=make_metric(images=1, simulated=1))
    assert single["nll_ais"].value is not None
    assert single["nll_ais"].low is None


def test_all_classes_of_a_sorted_split_are_scored():
    data = Given(test=500)
    grey = (np.arange(500) // 50 * 20).astype(np.uint8)
    data.splits["test"] = np.broadcast_to(grey[:, None, None, None], (500, 1, 8, 8)).copy()
    images = ais._dequantised(data, "test", range(50), generator())
    assert set((images[:, 0] * 256 / 20).floor().long().tolist()) == set(range(10))


def test_means_of_the_darkest_and_brightest_pixel_are_the_middles_of_their_levels():
    class Ends(Noise):
        def sample(self, z):
            return z

    means = unit_means(Ends(), 17)(torch.tensor([[-1.0, 1.0]]))
    torch.testing.assert_close(means, torch.tensor([[0.5 / 17, 16.5 / 17]]))


@pytest.mark.slow
def test_every_decoder_is_scored_under_one_protocol():
    models = [make_gan(), make_vae_gan(), make_vae(DiscretizedLogistic(256))]
    found = [score(model, metric=make_metric(variance=None)) for model in models]
    for scores in found:
        assert set(scores) == {"nll_ais", "ais_gap", "ais_variance"}
    assert len({scores["nll_ais"].protocol for scores in found}) == 1
    assert found[0]["ais_variance"].value != found[2]["ais_variance"].value


def test_where_validation_images_are_scored_the_variance_is_fitted_to_training_images(monkeypatch):
    monkeypatch.setattr(annealing, "FIT_ROUNDS", 10)
    data = Given()
    request = LikelihoodRequest(make_gan(), data, CPU, 0, 256, "validation")
    with torch.no_grad():
        before = {one.name: one for one in make_metric(variance=None)(request)}
        for split in ("validation", "test"):
            data.splits[split] = 255 - data.splits[split]
        after = {one.name: one for one in make_metric(variance=None)(request)}
    assert before["nll_ais"].card["heldout"]["split"] == "validation"
    assert before["nll_ais"].card["estimator"]["variance"] == "train"
    assert after["ais_variance"].value == before["ais_variance"].value
    assert after["nll_ais"].value != before["nll_ais"].value


def test_a_model_without_a_normal_prior_has_no_such_score():
    model = Noise()
    model.observe(Given())
    assert score(model) == {}
    assert score(make_gan(), metric=make_metric(enabled=False)) == {}


def test_a_gap_that_is_too_wide_is_said_in_the_status():
    found = score(make_gan(), metric=make_metric(temperatures=2, variance=1e-4))
    assert found["ais_gap"].value > ais.WIDEST_GAP
    assert "too wide to compare" in found["nll_ais"].status
    assert found["nll_ais"].value is not None


def test_a_decoder_that_is_not_finite_has_no_value():
    model = make_gan()
    torch.nn.init.constant_(model.decoder.layers[0].weight, torch.nan)
    found = score(model)
    assert found["nll_ais"].value is None
    assert found["nll_ais"].status == "nonfinite"


def test_the_cost_is_told_beforehand(capsys):
    score(make_gan())
    told = capsys.readouterr().err
    # 9 moves of 3 leapfrogs: 6 images by 3 + 2 chains, 4 simulated ones by twice 3 + 2
    assert f"{9 * 3 * (6 * 5 + 4 * 8):.2g} decodings with gradient, about" in told
    assert "on cpu" in told


def test_what_is_computed_is_not_computed_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ais, "BLOCK", 4)
    model = make_gan()
    whole = score(model, folder=tmp_path)
    capsys.readouterr()
    (path,) = (tmp_path / "ais").glob("*.json")
    content = json.loads(path.read_text())
    assert {"test 0", "test 4", "simulated 0"} < set(content)

    del content["test 4"]  # as after an interruption
    path.write_text(json.dumps(content))
    assert values(score(model, folder=tmp_path)) == values(whole)
    assert "2 of 3 parts are there already" in capsys.readouterr().err
    assert values(score(model, folder=tmp_path)) == values(whole)
    assert capsys.readouterr().err == ""

    path.write_text("{")
    assert values(score(model, folder=tmp_path)) == values(whole)


def values(scores):
    return {name: one.value for name, one in scores.items()}


def test_other_weights_and_other_protocols_have_states_of_their_own(tmp_path):
    model = make_gan()
    score(model, folder=tmp_path)
    score(model, folder=tmp_path, metric=make_metric(temperatures=11))
    with torch.no_grad():
        model.decoder.layers[0].bias += 0.1
    score(model, folder=tmp_path)
    assert len(list((tmp_path / "ais").glob("*.json"))) == 3


def test_estimates_of_the_first_images_do_not_depend_on_how_many_there_are(monkeypatch):
    monkeypatch.setattr(ais, "BLOCK", 3)
    task = LikelihoodRequest(make_gan(), Given(), CPU, 0, 16)
    with torch.no_grad():
        few = make_metric(images=3).estimate(task, 3, {})
        more = make_metric(images=9).estimate(task, 9, {})
    assert torch.equal(few.test, more.test[:3])
    assert len(more.test) == 9


@pytest.mark.parametrize(
    "change",
    [
        {"temperatures": 1},
        {"chains": 0},
        {"leapfrogs": 0},
        {"simulated": 0},
        {"variance": 0.0},
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change):
    with pytest.raises(UserMistake, match=f"ais.{next(iter(change))}="):
        make_metric(**change)
