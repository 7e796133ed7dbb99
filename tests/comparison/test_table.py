"""The table, made from run directories as they are on disk."""

import random
from dataclasses import replace
from statistics import mean, stdev

import pytest

from fixtures.comparison import (
    card,
    copies,
    elbo,
    fd,
    make_config,
    run,
    score,
    seeds_of,
    strong,
    table,
)
from genbench.comparison.pareto import undominated
from genbench.comparison.rows import make_rows, score_key
from genbench.comparison.table import compare
from genbench.errors import UserMistake
from genbench.runs.files import write_json
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.score import Score
from genbench.runs.status import PRUNED

# --- rows -----------------------------------------------------------------------------------------


def test_seeds_of_a_method_share_a_row_with_mean_and_spread(tmp_path, finished):
    values = [10.0, 12.0, 17.0]
    for seed, value in enumerate(values):
        finished([fd(value)], seed=seed)
    rows, only = table(tmp_path)
    assert rows["vae"]["FD ↓"] == f"{mean(values):.4g} ± {stdev(values):.2g}"
    assert rows["vae"]["n"] == "3"
    exact = only.rows[0][1].exact
    assert exact["values"] == values
    assert exact["sd"] == stdev(values)


def test_two_seeds_have_no_spread(tmp_path, finished):
    for seed in range(2):
        finished([fd(10.0 + seed)], seed=seed)
    rows, _ = table(tmp_path)
    assert rows["vae"]["FD ↓"] == "10.5"
    assert rows["vae"]["n"] == "2"


def test_a_run_that_failed_is_counted_and_explained(tmp_path, finished, unfinished):
    finished([fd(10.0)], seed=0)
    unfinished("diverged", "nan in a loss", seed=1, **{"trainer.precision": "auto"})
    unfinished("failed", "out of memory", seed=2, model="gan")
    rows, only = table(tmp_path)
    assert rows["vae"]["n"] == "1 (+1 diverged)"
    assert rows["gan"]["n"] == "0 (+1 failed)"
    assert rows["gan"]["FD ↓"] == ""
    assert any("nan in a loss" in note for note in only.notes)


def test_an_interrupted_try_that_was_made_good_is_no_failure(tmp_path, finished, unfinished):
    unfinished("interrupted", "stopped", seed=0)
    finished([fd(10.0)], seed=0, run_id="29990101-later")
    rows, _ = table(tmp_path)
    assert rows["vae"]["n"] == "1"


def test_a_repeated_seed_counts_once_the_newest_and_it_is_said(tmp_path, finished):
    finished([fd(10.0)], run_id="1")
    finished([fd(20.0)], run_id="2")
    rows, only = table(tmp_path)
    assert (rows["vae"]["FD ↓"], rows["vae"]["n"]) == ("20", "1")
    assert any("1 earlier run" in note for note in only.notes)


def test_methods_of_one_name_are_labelled_by_what_differs(tmp_path, finished):
    finished([fd(10.0)])
    finished([fd(11.0)], **{"network.width": 512, "model.lr": 0.01})
    rows, _ = table(tmp_path)
    assert set(rows) == {
        "vae (model.lr=0.001, network.width=256)",
        "vae (model.lr=0.01, network.width=512)",
    }


def test_what_a_search_tried_is_told_in_four_digits_where_they_suffice(tmp_path, finished):
    for rate in (0.0015676677195506068, 0.007257005721594277):
        lr = {
            "model.generator_optimizer": {"lr": rate},
            "model.discriminator_optimizer": {"lr": rate},
        }
        finished([fd(10.0)], model="gan", **lr)
    assert set(table(tmp_path)[0]) == {
        "gan (model.generator_optimizer.lr=0.001568)",
        "gan (model.generator_optimizer.lr=0.007257)",
    }
    finished([fd(10.0)], **{"model.lr": 0.10000001})
    finished([fd(10.0)], **{"model.lr": 0.10000002})
    labels = set(table(tmp_path, "model=vae")[0])
    assert labels == {"vae (model.lr=0.10000001)", "vae (model.lr=0.10000002)"}


def test_what_most_rows_have_is_not_repeated_in_their_labels(tmp_path, finished):
    finished([fd(10.0)])
    finished([fd(11.0)], **{"budget.batch_size": 32})
    finished([fd(12.0)], **{"model.lr": 0.01})
    rows, _ = table(tmp_path)
    assert set(rows) == {"vae", "vae (budget.batch_size=32)", "vae (model.lr=0.01)"}


def test_untrained_weights_say_so_and_come_last(tmp_path, finished):
    finished([fd(1.0)], images=0, **{"budget.images": 0})
    finished([fd(10.0)])
    rows, _ = table(tmp_path)
    assert list(rows) == ["vae", "vae (untrained)"]


def test_another_precision_is_another_row(tmp_path, finished):
    finished([fd(10.0)])
    finished([fd(10.0)], **{"trainer.precision": "bf16-mixed"})
    rows, _ = table(tmp_path)
    assert len(rows) == 2
    assert any("bf16-mixed" in label for label in rows)


def test_the_data_folder_is_not_part_of_a_method():
    here, there = make_config(), make_config(**{"dataset.root": "elsewhere", "seed": 7})
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) == fingerprint(make_config(**{"budget.images": 128_000}))
    assert fingerprint(here) != fingerprint(make_config(**{"budget.images": "129k"}))


def test_labels_say_nothing_that_is_no_part_of_the_method(tmp_path, finished):
    finished([fd(10.0)], **{"dataset.root": "/a", "dataset.workers": 1})
    wide = {"network.width": 512, "model.decoder": {"width": 512}}
    finished([fd(11.0)], **{"dataset.root": "/b", "dataset.workers": 2} | wide)
    rows, _ = table(tmp_path)
    assert set(rows) == {"vae (network.width=256)", "vae (network.width=512)"}


def test_another_kind_is_named_by_its_config_not_by_all_it_consists_of(tmp_path, finished):
    logistic = {"_target_": "genbench.losses.DiscretizedLogistic", "levels": 17}
    gaussian = {"_target_": "genbench.losses.Gaussian", "sigma": 1.0, "learned": True}
    conv = {"latent_dim": 16, "norm": "batch", "decoder": {"_target_": "genbench.ConvDecoder"}}
    for changes in (
        {},
        {"network": conv, "model.decoder": conv},
        {"network": conv | {"norm": "group"}, "model.decoder": conv | {"norm": "group"}},
    ):
        if "network" in changes:
            changes["choices"] = {"model": "vae", "dataset": "digits", "network": "conv"}
        finished([fd(1.0)], **{"likelihood": logistic, "model.likelihood": logistic} | changes)
    finished([fd(1.0)], **{"likelihood": gaussian, "model.likelihood": gaussian})
    rows, _ = table(tmp_path)
    assert set(rows) == {
        "vae (network=mlp)",
        "vae (likelihood=gaussian, network=mlp)",
        "vae (network=conv, network.norm=batch)",
        "vae (network=conv, network.norm=group)",
    }


def test_a_setting_that_a_method_lacks_is_told_from_the_usual(tmp_path, finished):
    for value in (1, 2):
        finished([fd(1.0)], **{"model.steps": 3, "model.beta": value})
    finished([fd(1.0)], **{"model.beta": 1})
    rows, _ = table(tmp_path)
    assert set(rows) == {"vae", "vae (model.beta=2)", "vae (no model.steps)"}


def test_a_failed_run_of_another_precision_is_not_in_this_row(tmp_path, finished, unfinished):
    finished([fd(10.0)])
    unfinished("diverged", "nan", seed=1, **{"trainer.precision": "bf16-mixed"})
    rows, _ = table(tmp_path)
    counts = {label: row["n"] for label, row in rows.items()}
    assert counts == {
        "vae (trainer.precision=32-true)": "1",
        "vae (trainer.precision=bf16-mixed)": "0 (+1 diverged)",
    }


# --- what is best ---------------------------------------------------------------------------------


def test_the_best_is_marked_where_it_is_better_than_every_other(tmp_path, finished):
    seeds_of(finished, 10.0, others=[elbo(-80.0)])
    seeds_of(finished, 13.0, model="gan")
    seeds_of(finished, 20.0, model="vae-gan", others=[elbo(-80.2)])
    _, only = table(tmp_path)
    assert strong(only) == [("vae", "FD ↓")]  # ELBOs are not apart
    assert only.rows[0][1].exact["best"]
    assert any("Holm over 2 scores, shown or not, 5 seeds or more" in n for n in only.notes)


def test_a_mark_does_not_depend_on_the_columns_that_are_shown(tmp_path, finished):
    noise = [0.0, 0.5, -0.3, 0.2, -0.4]
    for model, off in (("vae", 0.0), ("gan", 1.05)):
        others = [score(name, noise[i], name != "kid") for i, name in enumerate(("kid", "recall"))]
        best = [replace(fd(9.0 + i / 9), checkpoint="best") for i in range(2)]
        seeds_of(finished, 10.0 + off, others=[*others, best[model == "gan"]], model=model)
    shown = ({}, {"metrics": ["fd@final"]}, {"show_all": True})
    marks = [strong(table(tmp_path, **options)[1]) for options in shown]
    assert marks == [[], [], []]  # the FD alone would be: p = 0.03


def test_a_row_that_lost_runs_is_not_the_best_and_it_is_said(tmp_path, finished, unfinished):
    seeds_of(finished, 10.0, model="gan")
    seeds_of(finished, 13.0)
    for seed in range(5, 20):
        unfinished("diverged", "nan", model="gan", seed=seed)
    _, only = table(tmp_path)
    assert strong(only) == []
    assert "not marked: gan is best in FD among finished runs only, 15 of its runs were lost" in (
        only.notes
    )
    assert not any(cell.exact.get("best") for row in only.rows for cell in row)


def test_which_runs_are_lost(tmp_path, finished, unfinished):
    for seed in range(2):
        finished([fd(10.0)], seed=seed)
    for status, reason, seed in (
        ("failed", "disk full", 0),  # run again
        ("diverged", "nan", 1),  # finished at another try, which chance may have made
        ("failed", "out of memory", 2),
        ("failed", "out of memory", 2),
        ("interrupted", "stopped", 3),
        ("interrupted", PRUNED, 4),
    ):
        unfinished(status, reason, seed=seed)
    [row] = make_rows(load_results((), tmp_path))
    assert [(run.seed, run.status) for run in row.lost] == [
        (1, "diverged"),
        (2, "failed"),
        (4, "interrupted"),
    ]


@pytest.mark.parametrize("changes", [{"n": 4}, {"images": 64_000}, {"mean": 10.1}])
def test_few_seeds_unequal_budgets_and_chance_mark_nothing(tmp_path, finished, changes):
    seeds_of(finished, 10.0)
    seeds_of(finished, **{"mean": 13.0, "model": "gan"} | changes)
    _, only = table(tmp_path)
    assert strong(only) == []
    assert any("no best is marked" in note for note in only.notes) == ("n" not in changes)


def test_floors_and_values_in_brackets_are_not_the_best_and_stop_no_other(tmp_path, finished):
    seeds_of(finished, 10.0)
    seeds_of(finished, 13.0, model="gan")
    finished([fd(1.0)], images=0, model="replay", **{"budget.images": 0})
    finished([replace(fd(2.0), status="too few images")], model="vae-gan")
    _, only = table(tmp_path)
    assert strong(only) == [("vae", "FD ↓")]


def test_a_mark_is_bold_or_a_star_in_every_readable_format(tmp_path, finished, capsys):
    low = Score("nll_ais", -330.0, "nats", False, {"quantity": "nll_ais"})
    seeds_of(finished, 13.0, others=[replace(low, value=-200.0)])
    seeds_of(finished, 10.0, model="gan", others=[low])
    for form, fd_text, nll_text in (
        ("table", "10 ± 0.63 *", "-330 ± 0.63 *"),
        ("md", "**10 ± 0.63**", "**-330 ± 0.63**"),
        ("html", "<strong>10 ± 0.63</strong>", "<strong>-330 ± 0.63</strong>"),
        ("tex", r"\textbf{10 $\pm$ 0.63}", r"\textbf{$-$330 $\pm$ 0.63}"),
    ):
        text = run(capsys, "--outputs", str(tmp_path), "--format", form)
        assert fd_text in text
        assert nll_text in text
        assert f"{fd_text[:2]}13" not in text


def test_the_pareto_set_of_two_scores_is_told(tmp_path, finished):
    copies = Score("copy_rate_lenet", 0.0, "", False, {"quantity": "copy_rate"})
    for model, distance, rate in (
        ("vae", 20.0, 0.1), ("gan", 10.0, 0.5), ("wgan-gp", 10.0, 0.6), ("vae-gan", 15.0, 0.3),
    ):  # fmt: skip
        finished([fd(distance), replace(copies, value=rate)], model=model)
    finished([fd(1.0)], model="blur")
    rows, only = table(tmp_path, pareto=["fd", "copy_rate"])
    assert [label for label, row in rows.items() if row["Pareto"]] == ["gan", "vae-gan", "vae"]
    assert "Pareto set of FD ↓ and copy rate ↓, by means: gan, vae-gan, vae" in only.notes
    assert any(note.endswith("without one of its scores: blur") for note in only.notes)
    with pytest.raises(UserMistake, match="--pareto fd,recall: no run has a score recall"):
        table(tmp_path, pareto=["fd", "recall"])


def test_a_pareto_set_is_what_is_left_when_the_beaten_are_struck_out():
    points = [(1, 5), (2, 2), (2, 2), (3, 1), (3, 2), (1, 6), (4, 0.5)]
    assert undominated(points) == [0, 1, 2, 3, 6]
    assert undominated([]) == []


def test_final_weights_come_first_and_the_best_ones_can_be_asked_for(tmp_path, finished):
    for model, final, best in (("vae", 10.0, 9.0), ("gan", 11.0, 8.0)):
        finished([replace(fd(best), checkpoint="best"), fd(final)], model=model)
    rows, only = table(tmp_path)
    assert [c.header for c in only.columns][1:3] == ["FD ↓", "FD ↓ best"]
    assert list(rows) == ["vae", "gan"]
    assert not any(note.startswith("FD ↓") for note in only.notes)  # one protocol for both
    rows, _ = table(tmp_path, sort="fd@best")
    assert list(rows) == ["gan", "vae"]
    rows, only = table(tmp_path, metrics=["fd@best"])
    assert [c.header for c in only.columns][:2] == ["model", "FD ↓ best"]


def test_rows_are_ranked_by_any_score_the_better_way_first(tmp_path, finished):
    high = Score("recall_lenet", 0.5, "", True, {"quantity": "recall"})
    finished([fd(10.0), replace(high, value=0.2)])
    finished([fd(11.0), replace(high, value=0.9)], model="gan")
    rows, only = table(tmp_path, sort="recall")
    assert list(rows) == ["gan", "vae"]
    assert "recall ↑" in [column.header for column in only.columns]


# --- copies ---------------------------------------------------------------------------------------


def test_the_default_table_shows_variety_and_copies(tmp_path, finished):
    names = ("coverage", "recall", "is", "precision", "kid", "class_tv", "density")
    finished([fd(10.0), *(score(name, 0.5) for name in names), copies(0.0), elbo(-80.0)])
    _, only = table(tmp_path)
    assert [column.key.split("_")[0] for column in only.columns[:-1]] == [
        "model", "fd", "kid", "is", "precision", "recall", "coverage", "copy", "elbo", "seconds",
    ]  # fmt: skip


def test_it_is_said_that_a_row_copies_training_images_whatever_is_shown(tmp_path, finished):
    finished([fd(0.2), copies(0.98)], model="replay", images=0, **{"budget.images": 0})
    finished([fd(5.0), copies(0.004)])
    finished([fd(6.0), copies(0.04)], model="gan")
    said = "replay (untrained): copies training images: copy rate 0.98, of new images 0.01"
    for metrics in ((), ("fd",)):
        _, only = table(tmp_path, metrics=metrics)
        assert [note for note in only.notes if "copies training" in note] == [said]


def test_what_a_spread_covers_is_said_where_there_is_one(tmp_path, finished):
    for seed in range(3):
        assert not any(n.startswith("±") for n in table(tmp_path)[1].notes) if seed else True
        finished([fd(10.0 + seed)], seed=seed)
    notes = table(tmp_path)[1].notes
    assert any(n.startswith("±: standard deviation over training seeds") for n in notes)


# --- columns --------------------------------------------------------------------------------------


def test_scores_under_different_protocols_never_share_a_column(tmp_path, finished):
    finished([fd(10.0, n=2000), fd(8.0, n=10_000)])
    finished([fd(9.0, n=2000)], model="gan")
    rows, only = table(tmp_path)
    heads = [column.header for column in only.columns if column.header.startswith("FD")]
    assert len(heads) == 2
    assert sorted(text for text in (rows["gan"][head] for head in heads)) == ["", "9"]
    assert any("fake.n=10000" in note for note in only.notes)
    assert any("fake.n=2000" in note for note in only.notes)


def test_likelihoods_of_different_tags_never_share_a_column(tmp_path, finished):
    finished([elbo(-80.0)])
    finished([elbo(30.0, tag="gaussian-learned")], model="gan")
    rows, only = table(tmp_path)
    heads = [column.header for column in only.columns if column.header.startswith("ELBO")]
    assert heads == ["ELBO ↑ gaussian", "ELBO ↑ gaussian-learned"]
    assert [rows["vae"][head] for head in heads] == ["-80", ""]
    assert [rows["gan"][head] for head in heads] == ["", "30"]


def test_a_value_that_is_not_to_be_compared_stands_in_brackets_with_its_reason(tmp_path, finished):
    card = {"quantity": "nll_ais", "likelihood": "gaussian-ais"}
    finished([Score("nll_ais", -300.0, "nats", False, card)])
    doubtful = Score("nll_ais", -200.0, "nats", False, card, status="gap of 9.0 nats")
    finished([doubtful], model="gan")
    rows, only = table(tmp_path)
    assert rows["vae"]["NLL (AIS) ↓"] == "-300"
    assert rows["gan"]["NLL (AIS) ↓"] == "(-200)"
    assert "gan, seed 0: NLL (AIS) (nats) in brackets, gap of 9.0 nats" in only.notes


def test_what_is_not_defined_is_blank(tmp_path, finished):
    finished([fd(10.0), elbo(-80.0)])
    finished([fd(9.0)], model="gan")
    finished([fd(None)], model="noise")
    rows, only = table(tmp_path)
    assert rows["vae"]["ELBO ↑"] == "-80"
    assert rows["gan"]["ELBO ↑"] == ""
    assert rows["noise"]["FD ↓"] == ""
    assert list(rows) == ["gan", "vae", "noise"]


def test_a_score_is_chosen_by_quantity_or_name_and_sorts(tmp_path, finished):
    finished([fd(10.0), elbo(-80.0)])
    finished([fd(9.0), elbo(-90.0)], model="vae-gan")
    rows, only = table(tmp_path, metrics=["elbo"])
    assert [c.header for c in only.columns][:3] == ["model", "ELBO ↑", "seconds"]
    assert list(rows) == ["vae", "vae-gan"]
    rows, _ = table(tmp_path, sort="fd_lenet")
    assert list(rows) == ["vae-gan", "vae"]
    with pytest.raises(UserMistake, match="no run has a score recall"):
        table(tmp_path, metrics=["recall"])
    with pytest.raises(UserMistake, match="--sort recall"):
        table(tmp_path, sort="recall")


def test_what_is_equal_for_all_rows_is_said_once(tmp_path, finished):
    finished([fd(10.0)])
    finished([fd(9.0)], model="gan")
    _, only = table(tmp_path)
    assert "one decoder for all, 86,592 parameters" in only.notes[0]
    assert "128k images" in only.notes[0]


def test_the_ceiling_of_coverage_is_said(tmp_path, finished):
    protocol = card() | {"quantity": "coverage", "estimator": {"k": 5, "max_images": 10_000}}
    finished([Score("coverage_lenet", 0.8, "", True, protocol)])
    _, only = table(tmp_path)
    assert any("coverage is 0.969" in note for note in only.notes)


def test_later_evaluations_are_in_the_table(tmp_path, finished):
    run = finished([fd(10.0)])
    later = {"scores": [fd(8.0, n=5000).to_dict()]}
    (run / "evaluations").mkdir()
    write_json(run / "evaluations" / "x.json", later)
    _, only = table(tmp_path)
    assert sum(column.header.startswith("FD") for column in only.columns) == 2


def score_again(run, name, *scores):
    (run / "evaluations").mkdir(exist_ok=True)
    content = {"scores": [score.to_dict() for score in scores]}
    write_json(run / "evaluations" / f"{name}.json", content)


def test_a_seed_that_is_scored_again_is_still_one_seed(tmp_path, finished):
    run = finished([fd(10.0)])
    for name in ("1", "2"):
        score_again(run, name, fd(10.5))
    rows, only = table(tmp_path)
    assert rows["vae"]["FD ↓"] == "10.5"
    assert only.rows[0][1].exact["values"] == [10.5]
    assert only.rows[0][1].exact["runs"] == [run.name]


def test_a_row_has_of_each_run_the_newest_score_of_a_key(finished, tmp_path):
    draw = random.Random(0)
    for seed in range(8):
        kinds = draw.choices(("fd", "fd of 50", "elbo", "none", "best"), k=draw.randrange(12))
        own = [draw.random() for _ in kinds]
        made = {
            "fd": fd,
            "fd of 50": lambda value: fd(value, n=50),
            "elbo": elbo,
            "none": lambda _: fd(None),
            "best": lambda value: replace(fd(value), checkpoint="best"),
        }
        finished([made[kind](value) for kind, value in zip(kinds, own, strict=True)], seed=seed)
    [row] = make_rows(load_results((), tmp_path))
    keys = {score_key(score) for run in row.runs for score in run.scores}
    assert len(keys) == 4
    assert set(row.examples) == keys
    for key in keys:
        alike = [[s for s in run.scores if score_key(s) == key] for run in row.runs]
        newest = [(run, own[-1]) for run, own in zip(row.runs, alike, strict=True) if own]
        assert list(row.scores(key)) == newest
        assert row.values(key) == {r.run_id: s.value for r, s in newest if s.value is not None}
    assert list(row.scores(("fd_other", "final", ""))) == []


def test_a_score_that_some_seeds_lack_says_over_how_many_it_is(tmp_path, finished):
    runs = [finished([fd(10.0 + seed if seed else None)], seed=seed) for seed in range(4)]
    rows, only = table(tmp_path)
    assert rows["vae"]["FD ↓"] == "12 ± 1 (n=3)"
    assert only.rows[0][1].exact["runs"] == [run.name for run in runs[1:]]
    assert "vae, seed 0: no FD, nonfinite" in only.notes


def test_the_notes_say_how_many_runs_and_what_each_column_is(tmp_path, finished):
    finished([fd(10.0), elbo(-80.0)])
    _, only = table(tmp_path)
    assert only.notes[0].startswith("1 run;")
    assert only.notes[1:] == [
        "FD: features lenet@abababab, 2,000 samples (raw weights, seed 0) against "
        "1,257 images of the train split",
        "ELBO (nats): likelihood gaussian, 5 images of the test split",
    ]


def test_a_reason_of_several_lines_stays_in_its_comment(tmp_path, finished, unfinished):
    finished([fd(10.0)])
    unfinished("failed", "first\nsecond", seed=1)
    _, only = table(tmp_path)
    assert "vae, seed 1: failed: first second" in only.notes


def test_a_metric_that_one_dataset_lacks_is_shown_for_the_other(tmp_path, finished):
    finished([fd(10.0), elbo(-80.0)])
    finished([fd(10.0)], dataset="mnist", model="gan")
    digits, mnist = compare(load_results((), tmp_path), ["elbo"], sort="elbo")
    assert "ELBO ↑" in [column.header for column in digits.columns]
    assert "ELBO ↑" not in [column.header for column in mnist.columns]
