"""`genbench compare --best-of K`: what a search of K trials finds, against counting every draw."""

from dataclasses import replace
from itertools import combinations
from math import inf
from statistics import mean

import pytest

from fixtures.comparison import elbo, fd, run
from genbench.comparison.best_of_k import best_of_tables, chances, expected_best
from genbench.comparison.table import arenas
from genbench.errors import UserMistake
from genbench.runs.records import load_results
from genbench.runs.status import PRUNED


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("failed", [0, 2, 4])
@pytest.mark.parametrize("values", [[3.0, 1.0, 4.0, 1.0, 5.0, 9.0], [2.0, 2.0], [7.0]])
def test_the_closed_form_is_the_mean_over_every_draw(values, failed, k):
    if k > len(values) + failed:
        with pytest.raises(ValueError, match="cannot draw"):
            chances(values, k, failed)
        return
    draws = list(combinations([*values, *[inf] * failed], k))
    lowest = [min(draw) for draw in draws if min(draw) < inf]
    assert expected_best(values, k, False, failed) == pytest.approx(mean(lowest))
    highest = [max(v for v in draw if v < inf) for draw in draws if min(draw) < inf]
    assert expected_best(values, k, True, failed) == pytest.approx(mean(highest))
    assert sum(chances(values, k, failed)) == pytest.approx(1)


def test_more_trials_find_no_worse_and_all_of_them_find_the_best():
    values = [float(i * i % 101) for i in range(100)]
    curve = [expected_best(values, k, False) for k in range(1, 101)]
    assert curve[0] == pytest.approx(mean(values))
    assert curve == sorted(curve, reverse=True)
    assert curve[-1] == min(values)


def best_of(outputs, k, by=None):
    (only,) = best_of_tables(arenas(load_results((), outputs)), k, by)
    heads = [column.header for column in only.columns]
    rows = {row[0].text: {h: c.text for h, c in zip(heads, row, strict=True)} for row in only.rows}
    return rows, only.notes


@pytest.fixture
def search(tmp_path, finished, unfinished):
    """A GAN of four trials, two failed and one not at its end, against a VAE of one with two seeds."""
    for rate, value in ((0.1, 10.0), (0.2, 30.0), (0.3, 20.0), (0.4, 40.0)):
        scores = [fd(value), elbo(-value * value)]
        finished(scores, model="gan", **{"model.lr": rate, "trainer.precision": "32-true"})
    unfinished("diverged", "nan", model="gan", **{"model.lr": 0.5})
    unfinished("interrupted", PRUNED, model="gan", **{"model.lr": 0.6})
    unfinished("interrupted", "Ctrl-C", model="gan", **{"model.lr": 0.7})
    for seed, value in enumerate((14.0, 18.0)):
        finished([fd(value), elbo(-5.0)], seed=seed)
    finished([fd(900.0)], images=0, model="noise", **{"budget.images": 0})
    return tmp_path


def test_a_failed_trial_takes_its_place_and_an_open_one_does_not(search):
    rows, notes = best_of(search, 1)
    assert (rows["gan"]["trials"], rows["gan"]["failed"]) == ("6", "2")
    assert (rows["gan"]["FD ↓"], rows["vae"]["FD ↓"]) == ("25", "16")
    assert list(rows) == ["vae", "gan"]  # floors are no trials
    assert any(note.startswith("gan: 1 not counted") for note in notes)


def test_other_scores_are_those_of_the_trial_that_was_chosen(search):
    rows, notes = best_of(search, 2)
    draws = [d for d in combinations([10.0, 20.0, 30.0, 40.0, inf, inf], 2) if min(d) < inf]
    chosen = [min(draw) for draw in draws]
    assert rows["gan"]["FD ↓"] == f"{mean(chosen):.4g}"
    assert rows["gan"]["ELBO ↑"] == f"{mean(-v * v for v in chosen):.4g}"
    assert rows["vae"]["FD ↓"] == ""
    assert "vae: 1 trial, 0 failed: too few for 2" in notes
    rows, _ = best_of(search, 6, by="elbo")
    assert (rows["gan"]["ELBO ↑"], rows["gan"]["FD ↓"]) == ("-100", "10")


def test_unequal_budgets_and_what_cannot_be_asked_are_said(search, finished, capsys):
    finished([fd(9.0)], images=640_000, model="gan", **{"budget.images": "640k"})
    assert "the trials were trained for UNEQUAL numbers of images" in best_of(search, 1)[1]
    with pytest.raises(UserMistake, match="--best-of 0: give the number of trials"):
        best_of(search, 0)
    with pytest.raises(UserMistake, match="--best-of makes a table of its own: leave out --versus"):
        run(capsys, "--outputs", str(search), "--best-of", "2", "--versus", "gan")
    text = run(capsys, "--outputs", str(search), "--best-of", "2", "--format", "csv")
    assert text.splitlines()[0] == "table,model,fd_lenet,elbo_gaussian,trials,failed"


def test_a_doubtful_value_is_a_trial_that_came_to_nothing(tmp_path, finished):
    finished([fd(10.0)])
    finished([replace(fd(1.0), status="a doubt")], **{"model.lr": 0.1})
    rows, _ = best_of(tmp_path, 2)
    assert (rows["vae"]["FD ↓"], rows["vae"]["failed"]) == ("10", "1")
