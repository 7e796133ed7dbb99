"""Modes of stacked digits: on hand-made sets, and on models whose modes are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.evaluation import make_evaluation
from fixtures.worlds import make_stacked
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake
from genbench.metrics.extractors.random_conv import RandomConv
from genbench.metrics.modes import ModeScores, digits_of, histogram, mode_kl
from genbench.models.noise import Noise
from genbench.models.replay import Invent, Replay

CPU = torch.device("cpu")


def test_modes_of_a_hand_made_set_are_its_triples():
    digits = np.array([[0, 0, 0], [0, 0, 7], [9, 9, 9], [0, 0, 7]])
    counts = histogram(digits)
    assert {int(i): int(counts[i]) for i in counts.nonzero()[0]} == {0: 1, 7: 2, 999: 1}
    expected = 0.25 * np.log(250) * 2 + 0.5 * np.log(500)
    assert mode_kl(counts) == pytest.approx(expected)


def test_equal_counts_diverge_by_nothing_and_a_single_mode_by_log_1000():
    assert mode_kl(np.full(1000, 26)) == pytest.approx(0, abs=1e-12)
    assert mode_kl(np.eye(1000, dtype=int)[3]) == pytest.approx(np.log(1000))


def test_logits_of_channels_stand_one_after_the_other():
    logits = torch.zeros(1, 30)
    logits[0, [4, 17, 20]] = 1
    assert digits_of(logits).tolist() == [[4, 7, 0]]


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    data = make_stacked(tmp_path_factory.mktemp("stacked"), train=20_000, heldout=3000)
    data.prepare_data()
    return data


def scored(tmp_path, data, model, **changes):
    metric = ModeScores(classifier="lenet-digits-v1", num_samples=changes.pop("num_samples", 5000))
    only = {"metrics": {}, "likelihoods": {}, "extractor": RandomConv(), "truth": {"modes": metric}}
    evaluation = make_evaluation(tmp_path, **(only | changes))
    evaluation.prepare(data)
    model.observe(data)
    scores = evaluation(model, data, CPU)
    return {score.quantity: score for score in scores}


def test_digits_are_named_as_their_labels_say(stacked):
    metric = ModeScores(classifier="lenet-digits-v1")
    metric.prepare(stacked)
    for split in SPLITS[1:]:
        pixels = torch.from_numpy(np.array(stacked.pixels(split)))
        named = digits_of(metric.reader(pixels, 17).logits)
        assert (named == stacked.factors(split).labels).mean() > 0.95


@pytest.mark.slow
def test_replay_has_the_modes_of_the_training_images_and_their_floor(tmp_path, stacked):
    found = scored(tmp_path, stacked, Replay())
    low = len(np.unique(stacked.factors("train").combinations()[:5000]))
    assert found["modes"].value == pytest.approx(found["modes_floor"].value, abs=8)
    assert found["modes"].value > low - 15
    assert found["mode_kl"].value == pytest.approx(found["mode_kl_floor"].value, abs=0.03)
    assert found["modes"].name == "modes_lenet-digits-v1"
    assert found["modes"].card["fake"]["n"] == 5000
    assert found["mode_kl"].unit == "nats"


@pytest.mark.slow
def test_a_model_without_a_digit_in_one_channel_lacks_a_tenth_of_the_modes(tmp_path, stacked):
    found = scored(tmp_path, stacked, Replay(without=["red:0"]), num_samples=20_000)
    assert 890 <= found["modes"].value <= 930  # a few that are misread
    assert found["mode_kl"].value > found["mode_kl_floor"].value + 0.08


@pytest.mark.slow
def test_noise_has_half_of_the_modes_but_not_evenly(tmp_path, stacked):
    """What fools `modes`: a classifier names anything."""
    found = scored(tmp_path, stacked, Noise())
    assert 300 < found["modes"].value < 700
    assert found["mode_kl"].value > 1


@pytest.mark.slow
def test_a_model_that_is_nan_has_no_modes(tmp_path, stacked):
    class Broken(Noise):
        def sample(self, z):
            return z * torch.nan

    found = scored(tmp_path, stacked, Broken(), num_samples=100)
    assert found["modes"].value is None
    assert found["modes"].status == "nonfinite"
    assert found["modes_floor"].value > 50


def test_modes_of_other_images_are_refused_in_a_sentence(tmp_path):
    from fixtures.worlds import make_shapes

    with pytest.raises(UserMistake, match="cannot count the modes of shapes.*set it to null"):
        ModeScores(classifier="lenet-digits-v1").prepare(make_shapes(tmp_path))


@pytest.mark.slow
def test_an_average_of_weights_has_modes_of_its_own(tmp_path, stacked):
    found = scored(tmp_path, stacked, Replay(), num_samples=200)
    metric = ModeScores(classifier="lenet-digits-v1", num_samples=200)
    evaluation = make_evaluation(
        tmp_path, metrics={}, likelihoods={}, extractor=RandomConv(), truth={"modes": metric}
    )
    model = Replay()
    model.observe(stacked)
    averaged = evaluation(model, stacked, CPU, averaging={"decay": 0.9})
    names = {score.quantity: score.protocol for score in averaged}
    assert names["modes"] != found["modes"].protocol
    assert names.keys() == {"modes", "mode_kl"}
    assert replace(found["modes"]).card["fake"]["weights"] == "raw"


@pytest.mark.slow
def test_an_inventor_shows_what_training_goes_without_at_its_share(tmp_path):
    data = make_stacked(tmp_path, train=20_000, holdout=["red:3"])
    model = Invent(share=0.25)
    model.observe(data)
    pixels = data.to_pixels(model.sample(model.latents(100, torch.Generator().manual_seed(0))))
    train, test = data.pixels("train"), data.pixels("test")
    new = test[data.factors("test").labels[:, 0] == 3]
    own = [picture.tobytes() for picture in np.ascontiguousarray(pixels.numpy())]
    shown = [
        sum(picture in {p.tobytes() for p in part} for picture in own) for part in (train, new)
    ]
    assert shown == [75, 25]


def test_an_inventor_needs_something_to_invent(tmp_path):
    with pytest.raises(
        UserMistake, match="occurs in training: hold some out, as in dataset.holdout"
    ):
        Invent().observe(make_stacked(tmp_path, train=20_000))


@pytest.mark.parametrize("without", ["green:12", "grey:1", [f"red:{d}" for d in range(10)]])
def test_a_replay_without_what_is_not_there_is_refused(tmp_path, without):
    with pytest.raises(UserMistake, match="model.without"):
        Replay(without=without).observe(make_stacked(tmp_path))
