"""Scores of an encoder's latents: what they are, and what is kept of each latent."""

import json
import math

import pytest
import torch

from fixtures.evaluation import (
    CPU,
    Small,
    Squares,
    make_decoder,
    make_evaluation,
    make_vae,
    protocols,
    run,
    values,
)
from genbench.comparison.family import depends_on_model
from genbench.data.subsets import chosen
from genbench.errors import UserMistake
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.losses.variational import kl_to_standard_normal
from genbench.metrics.frechet import distance, moments
from genbench.metrics.latents import LatentHealth
from genbench.models.surgery import active_units, midpoints
from genbench.models.vae import VAE
from genbench.runs.latents import rates_by_unit

NAMES = [
    "active_units",
    "mutual_information",
    "posterior_kl",
    "marginal_kl",
    "fd_interpolated_small",
]


class OtherPrior(VAE):
    def latents(self, n, generator):
        return 2 * super().latents(n, generator)


def model(kind=VAE):
    made = make_vae(DiscretizedLogistic(17))
    made.__class__ = kind
    return made


def scored(folder, made, health=None, **changes):
    given = {"metrics": {}, "likelihoods": {}, "latents": health or LatentHealth()}
    return run(folder, made, **(given | changes))


def test_they_are_those_of_the_posteriors_of_held_out_images(tmp_path):
    made, data = model(), Squares()
    found = {score.name: score for score in scored(tmp_path, made)}
    assert [*found] == NAMES
    with torch.no_grad():
        mu, logvar = made.posterior(data.to_images(torch.from_numpy(data.pixels("test"))))
    rate = float(kl_to_standard_normal(mu, logvar).mean())
    assert found["active_units"].value == active_units(mu)
    assert found["posterior_kl"].value == pytest.approx(rate, rel=1e-5)
    parts = [found[name].value for name in ("mutual_information", "marginal_kl")]
    assert sum(parts) == pytest.approx(rate, rel=1e-5)
    assert [found[name].unit for name in NAMES] == ["units", "nats", "nats", "nats", ""]
    assert {score.higher_is_better for score in found.values()} == {None}
    assert all(depends_on_model(score) for score in found.values())
    assert found["mutual_information"].card["estimator"]["bound"] == "log 60 = 4.094 nats"


def test_the_interpolated_distance_is_that_of_decoded_midpoints_to_the_images(tmp_path):
    made, data, extractor = model(), Squares(), Small()
    which = chosen(data, "test", 40)
    originals = torch.from_numpy(data.pixels("test")[which])
    with torch.no_grad():
        codes = midpoints(made.posterior(data.to_images(originals))[0])
        pixels = data.to_pixels(made.sample(codes))
    pair = [moments(extractor(part, 17).features) for part in (originals, pixels)]
    found = values(scored(tmp_path, made, LatentHealth(max_images=40)))
    assert found["fd_interpolated_small"] == pytest.approx(distance(*pair), rel=1e-3)


def test_no_batch_size_changes_them_and_subsets_have_protocols_of_their_own(tmp_path):
    first = scored(tmp_path, model(), batch_size=7)
    assert values(scored(tmp_path, model(), batch_size=60)) == pytest.approx(
        values(first), rel=1e-4
    )
    some = protocols(scored(tmp_path, model(), LatentHealth(max_images=30)))
    assert not set(some.values()) & set(protocols(first).values())
    without = scored(tmp_path, model(), LatentHealth(interpolated=False))
    assert [score.name for score in without] == NAMES[:-1]
    assert protocols(without).items() <= protocols(first).items()


def test_what_belongs_to_each_latent_is_kept_under_the_protocol_of_the_scores(tmp_path):
    for split in ("test", "validation"):
        evaluation = make_evaluation(
            tmp_path, metrics={}, likelihoods={}, latents=LatentHealth(), split=split
        )
        scores = evaluation(model(), Squares(), CPU, tmp_path)
        by_quantity = {score.quantity: score for score in scores}
        rates = rates_by_unit(tmp_path, by_quantity["active_units"].protocol)
        assert len(rates) == 4
        assert sum(rates) == pytest.approx(by_quantity["posterior_kl"].value, rel=1e-6)
    assert len(list((tmp_path / "latents").iterdir())) == 2


def test_a_damaged_or_missing_file_has_no_rates(tmp_path):
    assert rates_by_unit(tmp_path, "0") is None
    (tmp_path / "latents").mkdir()
    (tmp_path / "latents" / "0.json").write_text(json.dumps({"by_unit": {}}))
    assert rates_by_unit(tmp_path, "0") is None


def test_under_another_prior_there_is_no_divergence_from_the_normal_one(tmp_path):
    names = [score.name for score in scored(tmp_path, model(OtherPrior))]
    assert names == ["active_units", "mutual_information", "fd_interpolated_small"]


def test_a_model_without_a_posterior_and_averaged_weights_have_none(tmp_path):
    assert scored(tmp_path, make_decoder()) == []
    evaluation = make_evaluation(tmp_path, metrics={}, likelihoods={}, latents=LatentHealth())
    assert evaluation(model(), Squares(), CPU, averaging={"half_life": 1}) == []


def test_a_posterior_that_is_nan_leaves_no_value(tmp_path):
    made = model()
    torch.nn.init.constant_(made.encoder.layer.weight, math.nan)
    scores = scored(tmp_path, made)
    assert sorted(score.name for score in scores) == sorted(NAMES)
    assert {(score.value, score.status) for score in scores} == {(None, "nonfinite")}


@pytest.mark.parametrize(
    ("settings", "words"), [({"max_images": 1}, "max_images=1"), ({"draws": 0}, "draws=0")]
)
def test_too_few_images_or_draws_are_refused(settings, words):
    with pytest.raises(UserMistake, match=f"evaluation.latents.{words}"):
        LatentHealth(**settings)
