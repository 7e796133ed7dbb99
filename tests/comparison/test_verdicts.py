"""`genbench compare --versus`: what is said of two methods, and what is not."""

import csv
import io
import json
from dataclasses import replace
from statistics import mean

import pytest

from fixtures.comparison import copies, elbo, fd, run, score, seeds_of
from genbench.comparison.significance import holm, welch
from genbench.comparison.table import arenas, compare
from genbench.comparison.verdicts import find_versus, standings
from genbench.errors import UserMistake
from genbench.runs.records import load_results


def found_standings(outputs, versus="gan", chosen_by_score=False, **shown):
    """Each other row's standing, by its label, dataset after dataset."""
    found = arenas(load_results((), outputs), **shown)
    rows = find_versus([row for arena in found for row in arena.rows], versus)
    return {
        one.row.label: one
        for arena, row in zip(found, rows, strict=True)
        for one in standings(arena.rows, arena.columns, row, chosen_by_score)
    }


def sentences(outputs, versus="gan"):
    return {label: one.sentence for label, one in found_standings(outputs, versus).items()}


def test_a_verdict_names_scores_sizes_budgets_seeds_and_failures(tmp_path, finished, unfinished):
    seeds_of(finished, 10.0, others=[elbo(-90.0)], model="vae-gan")
    seeds_of(finished, 16.1, others=[elbo(-80.0)], model="gan")
    unfinished("interrupted", "stopped", model="vae-gan", seed=9)
    unfinished("failed", "killed", model="gan", seed=0)
    interval = welch([10, 10.4, 9.6, 10.8, 9.2], [16.1, 16.5, 15.7, 16.9, 15.3])
    low, high = -interval.high, -interval.low
    assert sentences(tmp_path)["vae-gan"] == (
        f"vae-gan against gan: better on FD by 6.1 [{low:.3g}, {high:.3g}]; "
        f"worse on ELBO by 10 [{10 - (high - low) / 2:.3g}, {10 + (high - low) / 2:.3g}] nats; "
        "at equal images (128k); 5 seeds each; "
        "1 of 6 runs of vae-gan interrupted (can be resumed: does not count as lost); "
        "1 of 6 runs of gan failed (its seed was run again: does not count as lost)"
    )


def test_a_verdict_and_a_mark_say_who_saw_more_real_images(tmp_path, finished):
    """Steps x batch are equal, and a step of several moves takes several batches."""
    for seed in range(5):
        off = 0.1 * seed
        finished([fd(10.0 + off)], model="wgan-gp", seed=seed, counted={"real_images": 640_000})
        finished([fd(16.0 + off)], model="gan", seed=seed, counted={"real_images": 128_000})
        finished([fd(17.0 + off)], model="vae", seed=seed, counted={"real_images": 128_000})
    more = "wgan-gp saw 640k real images, others as few as 128k"
    said = sentences(tmp_path)
    assert f"; at equal images (128k); {more}; 5 seeds each" in said["wgan-gp"]
    assert "real images" not in said["vae"]
    (shown,) = compare(load_results((), tmp_path))
    assert f"budgets are equal in steps x batch; {more}" in shown.notes


def test_lost_runs_are_counted_against_the_row_that_would_be_better(tmp_path, finished, unfinished):
    seeds_of(finished, 10.0, others=[elbo(-90.0)], model="vae-gan")
    seeds_of(finished, 16.1, others=[elbo(-80.0)], model="gan")
    unfinished("failed", "out of memory", model="vae-gan", seed=9)
    said = sentences(tmp_path)["vae-gan"]
    assert "better on " not in said
    assert "worse on ELBO by 10" in said
    assert "better only if lost runs are left out: FD by 6.1 [" in said
    assert said.endswith("1 of 6 runs of vae-gan failed")
    unfinished("diverged", "nan", model="gan", seed=9)
    assert "worse only if lost runs are left out: ELBO by 10" in (sentences(tmp_path)["vae-gan"])


def test_a_finished_run_whose_score_is_nan_is_lost_too(tmp_path, finished):
    seeds_of(finished, 10.0)
    finished([fd(None)], seed=9)
    seeds_of(finished, 16.1, model="gan")
    assert found_standings(tmp_path)["vae"].differences[0].verdict == "better in finished runs"


# --- the family of tests --------------------------------------------------------------------------


def many_scores(finished):
    """Three rows with scores that differ a little; four quantities, two of them not shown by default."""
    for model, off in (("vae", 0.0), ("gan", 1.0), ("vae-gan", 1.4)):
        others = [
            score("kid", 5.0 - off / 2, False),
            score("class_tv", 0.3 + off / 9, False),
            replace(score("fd", 8.0 + off, False), checkpoint="best"),
        ]
        seeds_of(finished, 20.0 + off, others=others, model=model)


def test_a_verdict_is_corrected_over_rows_and_scores_and_does_not_depend_on_the_columns(
    tmp_path, finished
):
    many_scores(finished)
    shown = ({}, {"show_all": True}, {"metrics": ["fd"]}, {"metrics": ["class_tv"]})
    found = [found_standings(tmp_path, **options) for options in shown]
    every = [one for standing in found[1].values() for one in standing.differences]
    assert len(every) == 8
    assert [one.holm_p for one in every] == pytest.approx(holm([one.p for one in every]))
    by_score = {(one.a, one.metric): one for one in every}
    for part in (found[0], found[2], found[3]):
        for standing in part.values():
            assert all(by_score[one.a, one.metric] == one for one in standing.differences)
    assert [len(part["vae"].differences) for part in found] == [3, 4, 2, 1]


def test_a_row_that_was_chosen_by_its_scores_is_corrected_over_all_pairs(tmp_path, finished):
    many_scores(finished)

    def asked(versus, chosen_by_score):
        found = found_standings(tmp_path, versus, chosen_by_score, show_all=True)
        return [one for standing in found.values() for one in standing.differences]

    against_gan, chosen = asked("gan", False), asked("gan", True)
    other_pair = [one for one in asked("vae", False) if one.a == "vae-gan"]
    p_values = [one.p for one in (*chosen, *other_pair)]
    assert len(p_values) == 12
    assert [one.p for one in chosen] == [one.p for one in against_gan]
    assert [one.holm_p for one in chosen] == pytest.approx(holm(p_values)[:8])


def test_what_cannot_differ_is_not_tested(tmp_path, finished):
    constants = [
        score("coverage", 0.5),  # the same in all runs
        score("fd_floor", 4.0, False),
        score("ais_gap", 2.0, False),
        score("density", 0.9, None),
    ]
    images = {"quantity": "is_limit", "heldout": {"n": 360}}
    for model, off in (("vae", 0.0), ("gan", 3.0)):
        for seed in range(5):
            values = [replace(one, value=one.value + 0.1 * seed) for one in constants[1:]]
            own = [constants[0], *values, replace(values[0], name="is_limit", card=images)]
            finished([fd(10.0 + off + 0.1 * seed), *own], seed=seed, model=model)
    standing = found_standings(tmp_path, show_all=True)["vae"]
    verdicts = {one.metric: one.verdict for one in standing.differences}
    assert verdicts.pop("fd_lenet") == "better"
    assert len(verdicts) == 5
    assert set(verdicts.values()) == {"not tested"}
    fd_alone = standing.differences[0]
    assert fd_alone.holm_p == fd_alone.p
    assert "density" not in standing.sentence


def test_copy_rates_below_that_of_new_images_are_equal(tmp_path, finished):
    for model, rates in (("vae", (0.004, 0.005)), ("gan", (0.0, 0.0)), ("wgan", (0.4, 0.5))):
        for seed in range(5):
            finished([copies(rates[seed % 2])], seed=seed, model=model)
    verdicts = {
        label: [one.verdict for one in standing.differences]
        for label, standing in found_standings(tmp_path).items()
    }
    assert verdicts == {"vae": ["undecided"], "wgan": ["worse"]}


# --- words and forms ------------------------------------------------------------------------------


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
