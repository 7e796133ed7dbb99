"""`genbench compare --versus`: what is said of two methods, and what is not."""

import csv
import io
import json
from dataclasses import replace
from statistics import mean

import pytest

from fixtures.comparison import elbo, fd, run, seeds_of
from genbench.comparison.significance import welch
from genbench.comparison.table import arenas
from genbench.comparison.verdicts import find_versus, standings
from genbench.errors import UserMistake
from genbench.runs.records import load_results


def sentences(outputs, versus="gan"):
    """What is said of each other row, by its label, dataset after dataset."""
    found = arenas(load_results((), outputs))
    rows = find_versus([row for arena in found for row in arena.rows], versus)
    return {
        one.row.label: one.sentence
        for arena, row in zip(found, rows, strict=True)
        for one in standings(arena.rows, arena.columns, row)
    }


def test_a_verdict_names_scores_sizes_budgets_seeds_and_failures(tmp_path, finished, unfinished):
    seeds_of(finished, 10.0, others=[elbo(-90.0)], model="vae-gan")
    seeds_of(finished, 16.1, others=[elbo(-80.0)], model="gan")
    unfinished("diverged", "nan", model="vae-gan", seed=9)
    interval = welch([10, 10.4, 9.6, 10.8, 9.2], [16.1, 16.5, 15.7, 16.9, 15.3])
    low, high = -interval.high, -interval.low
    assert sentences(tmp_path)["vae-gan"] == (
        f"vae-gan against gan: better on FD by 6.1 [{low:.3g}, {high:.3g}]; "
        f"worse on ELBO by 10 [{10 - (high - low) / 2:.3g}, {10 + (high - low) / 2:.3g}] nats; "
        "at equal images (128k); 5 seeds each; 1 of 6 runs of vae-gan diverged"
    )


def test_what_chance_may_have_made_is_not_told_apart(tmp_path, finished):
    seeds_of(finished, 10.0)
    seeds_of(finished, 10.3, model="gan")
    assert "not told apart on FD; at equal" in sentences(tmp_path)["vae"]


def test_too_few_seeds_are_given_no_verdict(tmp_path, finished):
    seeds_of(finished, 10.0, n=4)
    seeds_of(finished, 20.0, model="gan")
    said = sentences(tmp_path)["vae"]
    assert "too few seeds for a verdict (it takes 5 each)" in said
    assert "4 and 5 seeds" in said
    assert "better" not in said


def test_unequal_budgets_are_said(tmp_path, finished):
    seeds_of(finished, 10.0, images=640_000)
    seeds_of(finished, 20.0, model="gan")
    assert "at UNEQUAL images (640k against 128k)" in sentences(tmp_path)["vae"]


def test_scores_under_other_protocols_are_not_compared_and_it_is_said(tmp_path, finished):
    seeds_of(finished, 10.0, others=[elbo(-80.0)])
    for seed in range(5):
        scores = [fd(20.0 + seed, n=10_000), elbo(-70.0, tag="gaussian-learned")]
        finished(scores, seed=seed, model="gan")
    assert sentences(tmp_path)["vae"] == (
        "vae against gan: no score in common; at equal images (128k); "
        "fd not compared: fake.n=2000 against fake.n=10000; "
        "elbo not compared: likelihood=gaussian against likelihood=gaussian-learned"
    )


def test_values_in_brackets_are_not_compared(tmp_path, finished):
    for seed in range(5):
        finished([replace(fd(10.0 + seed), status="a doubt")], seed=seed)
    seeds_of(finished, 20.0, model="gan")
    assert "no score in common; " in (said := sentences(tmp_path)["vae"])
    assert "in brackets, not compared: FD" in said


def test_the_other_row_is_found_by_model_label_or_fingerprint(tmp_path, finished):
    seeds_of(finished, 20.0, model="gan")
    assert sentences(tmp_path) == {}
    seeds_of(finished, 21.0, model="gan", **{"model.lr": 0.1})
    seeds_of(finished, 10.0, model="vae")
    with pytest.raises(UserMistake, match=r"--versus gan is 2 rows on digits: .*model\.lr=0\.1"):
        sentences(tmp_path)
    with pytest.raises(UserMistake, match="--versus wgan is no row of the table: there are"):
        sentences(tmp_path, "wgan")
    slow = next(r for r in load_results((), tmp_path) if r.config["model"]["lr"] == 0.1)
    for name in ("gan (model.lr=0.1)", slow.fingerprint):
        assert set(sentences(tmp_path, name)) == {"gan (model.lr=0.001)", "vae"}


def test_floors_are_not_compared(tmp_path, finished):
    seeds_of(finished, 20.0, model="gan")
    finished([fd(99.0)], images=0, model="noise", **{"budget.images": 0})
    seeds_of(finished, 10.0)
    assert set(sentences(tmp_path)) == {"vae"}


def test_differences_are_exact_in_json_and_csv_and_below_the_table_elsewhere(
    tmp_path,
    finished,
    capsys,
):
    seeds_of(finished, 10.0, others=[elbo(-80.0)])
    seeds_of(finished, 20.0, model="gan")
    options = ("--outputs", str(tmp_path), "--versus", "gan", "--format")
    (line,) = csv.DictReader(io.StringIO(run(capsys, *options, "csv")))
    assert (line["model"], line["score"], line["verdict"]) == ("vae", "fd_lenet", "better")
    assert float(line["delta"]) == pytest.approx(-10)
    assert float(line["low"]) < -10 < float(line["high"]) < 0
    main, differences = json.loads(run(capsys, *options, "json"))
    assert mean(main["rows"][0]["fd_lenet"]["values"]) == 10
    cell = differences["rows"][0]["holm_p"]
    assert cell["value"] == cell["uncorrected"] == float(line["holm_p"]) < 0.05
    for form in ("table", "md", "tex", "html"):
        text = run(capsys, *options, form)
        assert "vae against gan: better on FD by 10 [9.08, 10.9]; at equal images" in text
