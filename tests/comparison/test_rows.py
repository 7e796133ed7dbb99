"""Rows of the table: which runs share one, and its label."""

import random
from dataclasses import replace
from statistics import mean, stdev

from fixtures.comparison import elbo, fd, make_config, table
from genbench.comparison.rows import make_rows, score_key
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.status import PRUNED


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
