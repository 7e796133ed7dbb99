"""The generated set: pixels that are drawn from p(x|z), and cards that say what is compared."""

import pytest
import torch

from fixtures.evaluation import (
    CPU,
    Squares,
    cached_files,
    make_evaluation,
    make_vae,
    protocols,
    run,
    values,
)
from fixtures.likelihood import PCA
from genbench.errors import UserMistake
from genbench.losses.likelihood import DiscretizedLogistic, Likelihood
from genbench.metrics.feature_workers import ALONE


def drawn_features(folder, model, **changes):
    evaluation = make_evaluation(folder, pixels="sample", **changes)
    store = evaluation.store(CPU, ALONE)
    with torch.no_grad():
        return evaluation.generated.features(model, Squares(), store)[0].features


def test_pixels_are_drawn_by_the_seed_whatever_the_batch_size(tmp_path):
    model = make_vae(DiscretizedLogistic(17))
    first = drawn_features(tmp_path, model, batch_size=100)
    for size in (1, 7, 64):
        torch.testing.assert_close(drawn_features(tmp_path, model, batch_size=size), first)
    assert not torch.allclose(drawn_features(tmp_path, model, seed=1), first)
    means = values(run(tmp_path, model))["fd_small"]
    scores = run(tmp_path, model, pixels="sample")
    assert scores[0].card["fake"]["pixels"] == "sample"
    assert scores[0].value != means


def test_a_model_without_a_likelihood_has_one_image_a_latent_under_both_protocols(tmp_path):
    mean, drawn = run(tmp_path), run(tmp_path, pixels="sample")
    assert values(mean) == values(drawn)
    assert protocols(mean)["fd_small"] != protocols(drawn)["fd_small"]


def test_a_likelihood_that_cannot_be_drawn_from_is_refused(tmp_path):
    class Mute(DiscretizedLogistic):
        draw = Likelihood.draw

    with pytest.raises(UserMistake, match="Mute has no method `draw`"):
        run(tmp_path, make_vae(Mute(17)), pixels="sample")
    with pytest.raises(UserMistake, match="PCA has a likelihood but no method `draw`"):
        run(tmp_path, PCA(), pixels="sample", num_samples=20)
    with pytest.raises(UserMistake, match="evaluation.pixels='mode'"):
        make_evaluation(tmp_path, pixels="mode")


def test_the_card_says_that_real_images_are_not_mirrored_where_training_mirrors_them(tmp_path):
    data = Squares()
    assert "mirrored" not in run(tmp_path, data=data)[0].card["real"]
    data.flip = True
    card = run(tmp_path, data=data)[0].card
    assert card["real"]["mirrored"] is False
    assert len(cached_files(tmp_path)) == 2  # the features of both splits are as before
