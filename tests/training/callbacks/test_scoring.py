"""Scores at points of the budget: what they are, what they leave alone, and what they cost."""

import time
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fixtures.callbacks import stop
from fixtures.training import go, make, scores
from genbench import train
from genbench.comparison.budgets import parse_at, results_at
from genbench.errors import UserMistake
from genbench.metrics.while_training import ValidationScores
from genbench.runs.history import read_history
from genbench.runs.result import read_result
from genbench.training import loading
from genbench.training.callbacks.scoring import Scoring, points_every
from genbench.training.callbacks.telemetry import Telemetry

SETTINGS = ("model=vae", "budget.images=1920", "trainer.steps_per_batch=1")
CURVES = "trainer.score_every=640"
POINTS = [640.0, 1280.0, 1920.0]


def curve(run, name="validation/fd"):
    return read_history(run)[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, cache):
    """The same run without curves, with them, and with them after it was interrupted."""
    folder = tmp_path_factory.mktemp("curves")
    plain = make(folder, cache, *SETTINGS, run_id="plain")
    curves = make(folder, cache, *SETTINGS, CURVES, run_id="curves")
    stopped = make(folder, cache, *SETTINGS, CURVES, stop(960), run_id="stopped")
    assert (go(plain), go(curves), go(stopped)) == (0, 0, 75)
    assert go(stopped, "--resume") == 0
    return SimpleNamespace(plain=plain, curves=curves, stopped=stopped)


@pytest.mark.slow
def test_they_change_neither_the_training_nor_its_scores(runs):
    assert scores(runs.curves) == scores(runs.plain)
    assert read_result(runs.curves).fingerprint == read_result(runs.plain).fingerprint
    assert not [name for name in read_history(runs.plain) if name == "validation/fd"]


@pytest.mark.slow
def test_there_is_a_point_at_every_interval_and_at_the_end(runs):
    assert [images for images, _ in curve(runs.curves)] == POINTS
    names = {name for name in read_history(runs.curves) if name.startswith("validation/")}
    assert {"validation/fd", "validation/precision", "validation/recall"} <= names
    assert not names & {
        "validation/copy_rate",
        "validation/kid",
        "validation/fd_real",
        "validation/fd_floor",
    }


def test_a_resumed_run_has_the_curve_of_an_undisturbed_one(runs):
    for name in ("validation/fd", "validation/coverage"):
        assert curve(runs.stopped, name) == curve(runs.curves, name)
    assert scores(runs.stopped) == scores(runs.curves)


def test_the_last_point_is_what_an_evaluation_on_the_validation_split_gives(runs):
    model, data, config = loading.load_run(runs.curves)
    protocol = OmegaConf.create({**config["evaluation"], "split": "validation", "likelihoods": {}})
    found = instantiate(protocol)(model, data, torch.device("cpu"))
    expected = {score.quantity: score.value for score in found}
    history = read_history(runs.curves)
    for quantity in ("fd", "fd_heldout", "precision", "recall", "coverage", "is"):
        assert history[f"validation/{quantity}"][-1][1] == pytest.approx(expected[quantity])


def test_the_scores_at_a_budget_are_these(runs):
    result = read_result(runs.curves)
    where = {result.run_id: runs.curves}
    (at,), notes = results_at([result], where, parse_at("images=1280"), ["fd"])
    [score] = [score for score in at.scores if score.name == "validation/fd"]
    assert score.value == curve(runs.curves)[1][1]
    assert score.card["settings"] == {"num_samples": 256, "seed": 0, "pixels": "mean"}
    assert "validation/fd" in notes[0]


def test_their_seconds_are_no_seconds_of_the_training(runs):
    cost = read_result(runs.curves).cost
    assert cost["curve_seconds"] > 0
    assert not read_result(runs.plain).cost["curve_seconds"]
    telemetry = Telemetry(1, 100, None, 1)
    telemetry._last = time.monotonic() - 10, 0
    run = SimpleNamespace(
        trainer=SimpleNamespace(is_global_zero=True, loggers=[]), images_shown=64, model=None
    )
    scoring = Scoring(lambda model: {}, 64, telemetry)
    before = telemetry.seconds_so_far
    scoring.score(run)
    telemetry.leave_out(4)
    assert telemetry.seconds_so_far == pytest.approx(before - 4 - scoring.seconds, abs=0.5)
    other = Scoring(lambda model: {}, 64, telemetry)
    other.load_state_dict(scoring.state_dict())
    assert (other.seconds, other._last) == (scoring.seconds, 64)


def test_a_point_takes_no_more_samples_than_it_needs(runs):
    _, data, config = loading.load_run(runs.plain)
    protocol = OmegaConf.create({**config["evaluation"], "num_samples": 10_000})
    curves = ValidationScores(instantiate(protocol), data)
    assert curves.evaluation.num_samples == 2_000
    assert curves.evaluation.seed not in (0, 1)  # other latents than those that are reported
    assert "copy_rate" not in curves.evaluation.metrics


def test_the_setting_is_a_number_of_images_or_auto():
    def measure(model):
        return {}

    assert points_every(None, 6400, None) is None
    assert points_every("auto", 6400, measure) == 640
    assert points_every("1k", 6400, measure) == 1000
    for wrong in ("often", 0):
        with pytest.raises(UserMistake, match="trainer.score_every"):
            points_every(wrong, 6400, measure)


def test_without_an_evaluation_there_is_nothing_to_score_by(tmp_path, cache, capsys):
    run = make(tmp_path, cache, "model=vae", "evaluation=none", CURVES)
    assert train.main([str(run)]) == 2
    assert "trainer.score_every=640" in capsys.readouterr().err
