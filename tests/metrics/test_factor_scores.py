"""What generated pictures of a world show: on hand-made factors, and on models whose fault is known."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from fixtures.evaluation import make_evaluation
from fixtures.worlds import make_shapes, make_stacked
from genbench.data.factors import Factors
from genbench.errors import UserMistake
from genbench.metrics.disentanglement import Disentanglement
from genbench.metrics.extractors.factors import FactorReader
from genbench.metrics.extractors.random_conv import RandomConv
from genbench.metrics.factor_scores import FactorScores, compared, total_variation
from genbench.models.replay import Blur, Invent, Replay

CPU = torch.device("cpu")

READER = "factors-shapes-v1"


def made(*labels):
    return Factors(("a", "b"), (("x", "y"), ("p", "q", "r")), np.array(labels))


def test_total_variation_is_half_the_difference_of_frequencies():
    one, other = made([0, 0], [0, 1], [1, 1], [1, 2]), made([0, 0], [0, 0], [0, 0], [1, 2])
    assert total_variation(one, other, (0,)) == pytest.approx(0.25)
    assert total_variation(one, other, (1,)) == pytest.approx(0.5)
    assert total_variation(one, other, (0, 1)) == pytest.approx(0.5)


def test_marginals_may_agree_where_pairs_do_not():
    trained = made(*product(range(2), range(3)))
    shown = made(
        [0, 0],
        [1, 1],
        [0, 2],
        [1, 0],
        [0, 1],
        [1, 2],
        [0, 0],
        [1, 1],
        [0, 2],
        [1, 0],
        [0, 1],
        [1, 2],
    )
    found = compared(shown, trained)
    assert found["factor_tv"] == pytest.approx(0)
    assert found["pair_tv"] == pytest.approx(0)
    half = made([0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2])
    assert compared(half, trained)["combinations_covered"] == 1
    same = made([0, 0], [0, 0], [1, 1], [1, 1])
    assert compared(same, made([0, 0], [0, 1], [1, 0], [1, 1]))["factor_tv"] == pytest.approx(0)
    assert compared(same, made([0, 0], [0, 1], [1, 0], [1, 1]))["pair_tv"] == pytest.approx(0.5)


def test_covered_is_of_training_and_invented_is_of_what_is_shown():
    found = compared(made([0, 0], [0, 0], [1, 2], [1, 1]), made([0, 0], [0, 1], [1, 0], [1, 1]))
    assert found["combinations_covered"] == 0.5
    assert found["invented"] == 0.25


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Large enough that most combinations which may occur do."""
    held = ["shape:square+colour:red", "shape:cross+background:white"]
    data = make_shapes(tmp_path_factory.mktemp("world"), pictures=6000, holdout=held)
    data.prepare_data()
    return data


@pytest.mark.slow
def test_the_shipped_reader_is_right_of_98_of_100_held_out_pictures_in_every_factor(tmp_path):
    data = make_shapes(tmp_path, pictures=30_000, validation=2000, test=10_000)
    reader = FactorReader(READER)
    reader.prepare()
    numbers = data.source.split("test")[:1500]
    pixels = np.stack([data.source.picture(int(n)) for n in numbers]).transpose(0, 3, 1, 2)
    found = reader.read(reader(torch.from_numpy(np.ascontiguousarray(pixels)), 256).logits)
    right = (found.numpy() == data.source.factors().labels[numbers]).mean(0)
    assert (right >= 0.98).all()
    card = json.loads(reader.path.with_suffix(".json").read_text())
    assert reader.path.stat().st_size < 1 << 20
    assert [factor["name"] for factor in card["factors"]] == list(data.source.factors().names)
    for name, share in zip(reader.names, right, strict=True):
        assert card["errors"]["test"][name] <= 0.02
        assert 1 - share == pytest.approx(card["errors"]["test"][name], abs=0.01)


def scored(tmp_path, data, model, n=1500):
    truth = {
        "factors": FactorScores(reader=READER),
        "disentanglement": Disentanglement(enabled=True),
    }
    evaluation = make_evaluation(
        tmp_path, num_samples=n, metrics={}, likelihoods={}, extractor=RandomConv(), truth=truth
    )
    evaluation.prepare(data)
    model.observe(data)
    return {score.quantity: score for score in evaluation(model, data, CPU)}


@pytest.mark.slow
def test_new_pictures_get_the_floor_and_replay_invents_nothing(tmp_path, world):
    found = scored(tmp_path, world, Replay())
    errors = FactorReader(READER).described["errors"]["test"]["any"]
    assert found["invented"].value <= errors + 0.01
    assert found["invented_floor"].value <= errors + 0.05  # and combinations that chance left out
    assert found["combinations_covered"].value > found["combinations_covered_floor"].value - 0.05
    assert found["factor_tv"].value < 0.03
    assert found["unread"].value < 0.02
    assert found["invented"].higher_is_better is None
    assert found["invented"].card["reader_errors"].keys() == {*FactorReader(READER).names, "any"}
    assert "mig" not in found  # no encoder


@pytest.mark.slow
def test_an_inventor_is_seen_at_its_share(tmp_path, world):
    found = scored(tmp_path, world, Invent(share=0.4))
    assert found["invented"].value == pytest.approx(0.4, abs=0.03)


@pytest.mark.slow
def test_what_is_left_out_is_missing_in_its_factor_alone(tmp_path, world):
    found = scored(tmp_path, world, Replay(without="position:upper-left"))
    assert found["factor_tv_position"].value == pytest.approx(0.25, abs=0.03)
    for name in ("shape", "colour", "size", "rotation", "background"):
        assert found[f"factor_tv_{name}"].value < 0.05
    assert found["combinations_covered"].value < 0.75


@pytest.mark.slow
def test_strong_blur_is_not_read(tmp_path, world):
    found = scored(tmp_path, world, Blur(width=0.15), n=300)
    assert found["unread"].value > 0.3


def test_other_pictures_than_the_readers_are_refused_in_a_sentence(tmp_path):
    for data in (make_stacked(tmp_path), make_shapes(tmp_path, image_size=16)):
        with pytest.raises(UserMistake, match="reads the factors of other pictures.*null"):
            FactorScores(reader=READER).prepare(data)
    with pytest.raises(UserMistake, match="evaluation.truth.factors.reader"):
        FactorScores(reader=str(tmp_path / "none.safetensors")).prepare(make_shapes(tmp_path))


def test_a_world_of_one_factor_has_no_disentanglement(tmp_path):
    from fixtures.data import make_digits

    with pytest.raises(UserMistake, match="needs two known factors, and some has 1"):
        Disentanglement(enabled=True).prepare(make_digits(tmp_path))
    Disentanglement().prepare(make_digits(tmp_path))  # not asked for


@pytest.mark.slow
def test_the_configs_of_worlds_bring_their_scores_and_no_other_dataset_does():
    from test_configs import configure

    from genbench.launch.task import resolve

    for dataset, names in (
        ("shapes", {"factors", "disentanglement"}),
        ("stacked-digits", {"modes"}),
        ("stacked-mnist", {"modes"}),
    ):
        for protocol in ("quick", "full"):
            cfg = configure(f"dataset={dataset}", f"evaluation={protocol}")
            evaluation = instantiate(resolve(cfg)["evaluation"])
            assert evaluation.truth.keys() == names
        assert resolve(configure(f"dataset={dataset}", "evaluation=none"))["evaluation"] == {}
    assert "truth" not in resolve(configure("dataset=digits"))["evaluation"]
    assert (
        not instantiate(resolve(configure("dataset=shapes"))["evaluation"])
        .truth["disentanglement"]
        .enabled
    )
