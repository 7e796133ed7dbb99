"""Bounds on log p(x) against a model whose log p(x) is known: probabilistic PCA."""

import math

import numpy as np
import pytest
import torch

from fixtures.likelihood import CPU, PCA, D, Given, K, make_vae, make_vae_gan
from genbench.data.subsets import chosen
from genbench.errors import UserMistake
from genbench.losses.likelihood import Bernoulli, DiscretizedLogistic, Gaussian
from genbench.losses.variational import reparameterize
from genbench.metrics.likelihood import (
    Bounds,
    LikelihoodRequest,
    Observer,
    bits_per_dimension,
    elbo,
    fit_images,
    gaussian_log_prob,
    importance_bound,
    posthoc,
)
from genbench.models.contract import HasLikelihood


def observer(model):
    return Observer(model.posterior, model.log_prob)


def noise(draws, n, seed=2, width=K):
    return torch.randn(draws, n, width, generator=torch.Generator().manual_seed(seed))


def test_with_the_exact_posterior_every_bound_is_log_p():
    model = PCA()
    _, images = model.simulate(40)
    exact = model.exact(images)
    for draws in (1, 100):
        bound = importance_bound(observer(model), images, noise(draws, 40), 256)
        torch.testing.assert_close(bound, exact, rtol=0, atol=2e-3)
    parts = elbo(observer(model), images, noise(4000, 40))
    torch.testing.assert_close(-(parts.rate + parts.distortion), exact, rtol=0, atol=0.2)


def test_with_a_spoilt_posterior_the_elbo_is_lower_by_its_divergence():
    model = PCA(shift=0.4, widen=0.5)
    _, images = model.simulate(200)
    parts = elbo(observer(model), images, noise(200, 200))
    expected = model.exact(images).mean() - model.loss_of_the_posterior
    assert float(-(parts.rate + parts.distortion).mean()) == pytest.approx(
        float(expected), abs=0.06
    )


def test_more_draws_bring_the_bound_nearer_from_below():
    model = PCA(shift=0.4, widen=0.5)
    _, images = model.simulate(200)
    exact = float(model.exact(images).mean())
    bounds = [
        float(importance_bound(observer(model), images, noise(draws, 200), 4096).mean())
        for draws in (1, 5, 50, 1000)
    ]
    assert bounds == sorted(bounds)
    assert bounds[-1] < exact + 0.02
    assert exact - bounds[-1] < 0.1 < exact - bounds[0]


def test_the_portions_of_the_stream_do_not_change_the_importance_bound():
    model = PCA(shift=0.4)
    _, images = model.simulate(7)
    whole = importance_bound(observer(model), images, noise(33, 7), 10_000)
    for decoded in (1, 14, 100):
        part = importance_bound(observer(model), images, noise(33, 7), decoded)
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-4)


def test_a_weight_that_no_exponential_holds_is_summed_all_the_same():
    """A posterior far off: weights of exp(-1e5)."""
    model = PCA(shift=1000.0)
    _, images = model.simulate(3)
    bound = importance_bound(observer(model), images, noise(8, 3), 256)
    assert torch.isfinite(bound).all()
    assert (bound < -1e5).all()


def test_the_gaussian_equals_torch_distributions():
    images, means = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    expected = torch.distributions.Normal(means, 0.2**0.5).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_log_prob(images, means, 0.2), expected)


# --- scores ---------------------------------------------------------------------------------------


class Blind(torch.nn.Module):
    """An encoder that looks at nothing: q(z | x) is the prior."""

    def forward(self, images):
        return images.new_zeros(len(images), 4), images.new_zeros(len(images), 4)


def make_bounds(**changes):
    return Bounds(**{"posterior_draws": 2, "importance_draws": 30, "max_images": None} | changes)


def score(model, data, batch_size=16, **changes):
    with torch.no_grad():
        scores = make_bounds(**changes)(LikelihoodRequest(model, data, CPU, 0, batch_size))
    return {one.name: one for one in scores}


@pytest.mark.parametrize("levels", [2, 256])
def test_a_uniform_model_takes_the_bits_of_the_levels_per_dimension(levels):
    """A decoder without an opinion and an encoder that says nothing: every bound is exact."""
    likelihood = Bernoulli(2) if levels == 2 else DiscretizedLogistic(256, scale=0.01)
    model = make_vae(likelihood, Blind())
    if levels == 2:
        model.decoder.layers[-2].weight.data.zero_()
        model.decoder.layers[-2].bias.data.zero_()
    else:
        model.log_prob = lambda images, z: torch.full((len(images),), -D * math.log(256))
    found = score(model, Given(levels))
    tag = model.likelihood.tag
    assert found[f"bits_per_dim_{tag}"].value == pytest.approx(math.log2(levels), abs=1e-6)
    assert found[f"iwae_30_{tag}"].value == pytest.approx(-D * math.log(levels), rel=1e-6)
    assert found[f"rate_{tag}"].value == 0


def test_bounds_do_not_depend_on_the_batch_and_the_importance_bound_is_the_higher_one():
    model, data = make_vae(DiscretizedLogistic(256)), Given()
    reference = score(model, data)
    tag = model.likelihood.tag
    assert reference[f"iwae_30_{tag}"].value > reference[f"elbo_{tag}"].value
    for batch_size in (1, 7, 500):
        found = score(model, data, batch_size=batch_size)
        for name, one in reference.items():
            assert found[name].value == pytest.approx(one.value, rel=1e-5)
            assert found[name].protocol == one.protocol


def test_fewer_images_are_a_subset_under_a_protocol_of_its_own():
    model, data = make_vae(DiscretizedLogistic(256)), Given()
    name = f"iwae_30_{model.likelihood.tag}"
    few, all_of_them = score(model, data, max_images=20)[name], score(model, data)[name]
    assert few.protocol != all_of_them.protocol
    assert few.card["heldout"]["subset"]["n"] == 20
    assert "subset" not in all_of_them.card["heldout"]
    assert few.value != all_of_them.value


def test_beside_the_importance_bound_stands_the_elbo_of_the_same_images():
    model, data = make_vae(DiscretizedLogistic(256)), Given()
    tag = model.likelihood.tag
    found = score(model, data, max_images=20)
    which = chosen(data, "test", 20)
    same = Given()
    same.splits["test"] = data.splits["test"][which]
    noise = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))[:, which]
    with torch.no_grad():
        images = same.to_images(torch.from_numpy(same.pixels("test")))
        parts = elbo(observer(model), images, noise)
    expected = -float((parts.rate + parts.distortion).mean())
    subset = found[f"elbo_subset_{tag}"]
    assert subset.value == pytest.approx(expected, rel=1e-6)
    assert subset.card["heldout"] == found[f"iwae_30_{tag}"].card["heldout"]
    assert subset.value < found[f"iwae_30_{tag}"].value
    assert f"elbo_subset_{tag}" not in score(model, data)  # of the whole split, `elbo` is the same


def test_a_subset_of_sorted_images_has_every_class():
    """As a folder with subfolders by class is: the first tenth would be of one class."""
    data = Given(test=1000)
    labels = np.arange(1000) // 100
    for count in (50, 100, 500):
        assert set(labels[chosen(data, "test", count)]) == set(range(10))
    larger = chosen(data, "test", 100)
    assert set(chosen(data, "test", 50)) == set(larger[:50])
    assert np.array_equal(np.sort(chosen(data, "test", 2000)), np.arange(1000))


class Seen(Given):
    """Sorted by class: the grey value of an image is its class."""

    def __init__(self):
        super().__init__(test=500)
        for split in ("validation", "test", "train"):
            count = 500 if split != "validation" else 100
            grey = np.arange(count) // (count // 10) * 20
            self.splits[split] = np.broadcast_to(
                grey.astype(np.uint8)[:, None, None, None], (count, 1, 8, 8)
            ).copy()


def test_all_classes_of_a_sorted_split_are_in_every_subset():
    seen = set()

    def watch(images, z):
        seen.update(((images[:, 0, 0, 0] + 1) / 2 * 255 / 20).round().long().tolist())
        return model.likelihood.log_prob(images, model.decoder(z))

    model, data = make_vae(DiscretizedLogistic(256)), Seen()
    request = LikelihoodRequest(model, data, CPU, 0, 64)
    with torch.no_grad():
        metric = make_bounds(max_images=60)
        metric._importance(request, Observer(model.posterior, watch), metric._subset(request))
    assert seen == set(range(10))
    fitted = fit_images(request._replace(split="validation"))
    assert len(fitted) == 100
    assert {int(n) // 50 for n in fitted} == set(range(10))


def test_another_number_of_draws_is_another_score():
    model, data = make_vae(DiscretizedLogistic(256)), Given()
    found = score(model, data, importance_draws=5)
    assert f"iwae_5_{model.likelihood.tag}" in found
    assert not any(name.startswith("iwae") for name in score(model, data, importance_draws=0))


def test_likelihoods_of_different_tags_have_no_name_and_no_protocol_in_common():
    data = Given()
    makes = [
        lambda: make_vae(DiscretizedLogistic(256)),
        lambda: make_vae(Gaussian(1.0, learned=False)),
        lambda: make_vae(Gaussian(0.5, learned=False)),
        lambda: make_vae(Gaussian(0.5, learned=True)),
    ]
    found = [own(score(make(), data)) for make in makes] + [score(make_vae_gan(), data)]
    for attribute in ("name", "protocol"):
        seen = [{getattr(one, attribute) for one in scores.values()} for scores in found]
        assert len(set.union(*seen)) == sum(map(len, seen))


def own(scores):
    """Without those under the likelihood that all models with an encoder share."""
    return {name: one for name, one in scores.items() if "posthoc" not in name}


def test_a_vae_and_a_vae_gan_share_a_likelihood_under_one_protocol():
    data = Given()
    vae, vae_gan = score(make_vae(DiscretizedLogistic(256)), data), score(make_vae_gan(), data)
    shared = [f"{name}_posthoc_gaussian-posthoc" for name in ("elbo", "rate", "distortion")]
    for name in shared:
        assert vae[name].protocol == vae_gan[name].protocol
    model = make_vae(Gaussian(1.0, learned=False))
    model.decoder.layers[-2].weight.data.mul_(0.1)  # so that no mean is clamped
    variance = score(model, data)["posthoc_variance"].value
    model.likelihood.log_sigma.data.fill_(0.5 * math.log(variance))
    same = score(model, data)
    assert same["elbo_gaussian-1"].value == pytest.approx(
        same["elbo_posthoc_gaussian-posthoc"].value, rel=1e-5
    )


def test_a_model_whose_error_is_measured_elsewhere_is_bounded_under_its_validation_error():
    model, data = make_vae_gan(), Given()
    assert not isinstance(model, HasLikelihood)
    found = score(model, data)
    assert set(found) == {
        *(f"{name}_posthoc_gaussian-posthoc" for name in ("elbo", "rate", "distortion")),
        "iwae_posthoc_30_gaussian-posthoc",
        "posthoc_variance",
    }
    assert found["elbo_posthoc_gaussian-posthoc"].card["likelihood"] == "gaussian-posthoc"
    assert "variance" not in str(found["elbo_posthoc_gaussian-posthoc"].card)  # each has its own
    bound = found["elbo_posthoc_gaussian-posthoc"].value
    assert bound < found["iwae_posthoc_30_gaussian-posthoc"].value


def test_the_posthoc_variance_is_the_one_that_fits_the_validation_images_best():
    model, data = make_vae_gan(), Given()
    task = LikelihoodRequest(model, data, CPU, 0, 16)
    with torch.no_grad():
        _, variance = posthoc(task, model)
        images = data.to_images(torch.from_numpy(data.pixels("validation")))
        draws = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
        means = model.sample(reparameterize(*model.posterior(images), draws))

        def fit(value):
            return float(gaussian_log_prob(images, means, value).sum())

        assert fit(variance) > fit(variance * 1.01)
        assert fit(variance) > fit(variance * 0.99)


def test_where_validation_images_are_scored_the_variance_is_fitted_to_training_images():
    model, data = make_vae_gan(), Given(train=60)
    request = LikelihoodRequest(model, data, CPU, 0, 16, "validation")
    with torch.no_grad():
        _, variance = posthoc(request, model)
        found = {one.name: one for one in make_bounds()(request)}
    for split in ("validation", "test"):
        data.splits[split] = 255 - data.splits[split]
    with torch.no_grad():
        assert posthoc(request, model)[1] == variance
    assert found["posthoc_variance"].card["train"]["split"] == "train"
    assert "validation" not in found["posthoc_variance"].card


def test_a_mean_over_images_stands_within_its_standard_errors():
    one = score(make_vae(DiscretizedLogistic(256)), Given())["rate_discretized-logistic-256"]
    assert one.low < one.value < one.high
    four = score(make_vae(DiscretizedLogistic(256)), Given(test=200))
    wide = four["rate_discretized-logistic-256"]
    ratio = (one.high - one.low) / (wide.high - wide.low)
    assert ratio == pytest.approx(2, rel=0.25)


def test_bits_are_of_a_dimension_of_all_channels():
    """A bound of as many bits as all three channels have levels, whatever the pixels are."""
    data, tag = Given(), "discretized-logistic-256"
    data.channels = 3
    data.splits = {split: pixels.repeat(3, 1) for split, pixels in data.splits.items()}
    model = make_vae(DiscretizedLogistic(256), Blind())
    model.log_prob = lambda images, z: torch.full((len(images),), -3 * D * math.log(256))
    model.sample = lambda z: torch.zeros(len(z), 3, 8, 8)
    found = score(model, data, importance_draws=0)
    assert found[f"bits_per_dim_{tag}"].value == pytest.approx(8.0, rel=1e-6)


@pytest.mark.parametrize(
    "change", [{"posterior_draws": 0}, {"importance_draws": -1}, {"max_images": 0}]
)
def test_draws_that_cannot_be_are_refused(change):
    with pytest.raises(UserMistake, match=next(iter(change))):
        score(make_vae(Gaussian()), Given(), **change)


def test_a_uniform_image_of_256_levels_takes_eight_bits_per_dimension():
    assert bits_per_dimension(3 * 64 * math.log(256), 3 * 64) == pytest.approx(8.0, rel=1e-12)
