"""Searches score on the validation split, and on the test split only where both settings ask for it."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from fixtures.launching import runs
from fixtures.searching import SPACE, trials
from genbench.errors import UserMistake
from genbench.launch import search_study, search_trials
from genbench.runs.config import read_config
from genbench.runs.score import Score

ON_TEST = ("evaluation.split=test", "hydra.sweeper.on_test=true")


@pytest.mark.slow
def test_trials_are_scored_on_validation_images_unless_the_user_asks_for_others(find, capfd):
    assert find(SPACE, "hydra.sweeper.n_trials=1") == 0
    (run,) = runs()
    assert read_config(run)["evaluation"]["split"] == "validation"
    assert read_config(run)["search"] is None
    assert "selected on validation scores" in capfd.readouterr().out


@pytest.mark.slow
def test_a_search_on_test_scores_is_marked_in_its_study_its_runs_and_its_summary(find, capfd):
    assert find(SPACE, "hydra.sweeper.n_trials=1", *ON_TEST) == 0
    (run,) = runs()
    assert read_config(run)["evaluation"]["split"] == "test"
    assert read_config(run)["search"] == {"split": "test"}
    storage = search_study.open_storage(None, Path("outputs"), "s")
    assert optuna.load_study(study_name="s", storage=storage).user_attrs["split"] == "test"
    assert "selected on test scores: better than on new images" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["evaluation.split=test"], "or add hydra.sweeper.on_test=true"),
        (["hydra.sweeper.on_test=true"], "or add evaluation.split=test"),
        (["evaluation.split=validation", "hydra.sweeper.on_test=true"], "on the validation split"),
        (["evaluation=none"], "evaluation=none computes none"),
        (["evaluation.split=validation,test"], "a search compares scores of one split"),
        (
            ["+hydra.sweeper.also=x"],
            "also is no setting of this sweeper",
        ),
    ],
)
def test_what_would_select_on_the_test_by_accident_is_refused(find, argv, sentence):
    with pytest.raises(UserMistake) as mistake:
        find(SPACE, *argv)
    assert sentence in str(mistake.value)
    assert runs() == []


def begun_before():
    """A study of searches that scored on the test split and wrote nothing about it."""
    storage = search_study.open_storage(None, Path("outputs"), "s")
    study = optuna.create_study(study_name="s", storage=storage)
    study.set_user_attr("plan", {"objectives": ["fd"], "fixed": ["study=s", "seed=3"]})
    distributions = {"model.beta": FloatDistribution(1e-2, 1e2, log=True)}
    study.add_trial(
        optuna.trial.create_trial(
            params={"model.beta": 2.0}, distributions=distributions, value=0.5
        )
    )


@pytest.mark.slow
def test_a_study_on_test_scores_of_before_goes_on_only_as_one(find, capfd):
    begun_before()
    with pytest.raises(UserMistake, match="were scored on the test split, not on the validation"):
        find(SPACE, "seed=3", "hydra.sweeper.n_trials=2")
    assert find(SPACE, "seed=3", "hydra.sweeper.n_trials=2", *ON_TEST) == 0
    assert len(trials()) == 2
    assert "selected on test scores" in capfd.readouterr().out
    with pytest.raises(UserMistake, match="were scored on the test split"):
        find(SPACE, "seed=3", "hydra.sweeper.n_trials=2")


@pytest.mark.parametrize(
    ("objective", "value"),
    [("fd", 1.0), ("fd_x", 1.0), ("fd_x_validation", 1.0), ("fd@ema", 2.0), ("kid", None)],
)
def test_an_objective_is_of_the_raw_weights_and_of_the_split_that_is_searched_on(objective, value):
    def score(number, weights, split, checkpoint="final"):
        card = {"quantity": "fd", "fake": {"weights": weights}}
        name = "fd_x" if split == "test" else f"fd_x_{split}"
        card |= {} if split == "test" else {"split": split}
        return Score(name, number, "", False, card, checkpoint=checkpoint)

    scores = [
        score(3.0, "raw", "test"), score(4.0, "raw", "validation", "best"),
        score(2.0, "ema", "validation"), score(1.0, "raw", "validation"),
    ]  # fmt: skip
    found = search_trials.find_score(scores, objective, "validation")
    assert (found and found.value) == value
