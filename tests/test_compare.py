"""The table, made from run directories as they are on disk."""

import csv
import gc
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from genbench.commands.compare import main
from genbench.comparison.pareto import undominated
from genbench.comparison.rows import make_rows, score_key
from genbench.comparison.table import compare
from genbench.errors import GenbenchError, UserMistake
from genbench.runs.config import write_config
from genbench.runs.directory import new_run_directory
from genbench.runs.files import write_json
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.result import Result, read_result, write_result
from genbench.runs.score import Score
from genbench.runs.status import Status, write_status


def make_config(model="vae", dataset="digits", seed=0, **changes):
    config = {
        "seed": seed,
        "study": None,
        "tags": [],
        "choices": {"model": model, "dataset": dataset, "network": "mlp"},
        "network": {"width": 256, "latent_dim": 16},
        "model": {"_target_": f"genbench.models.{model}", "latent_dim": 16, "lr": 0.001},
        "dataset": {"name": dataset, "image_size": 8, "root": "somewhere"},
        "budget": {"images": "128k", "batch_size": 64},
        "trainer": {"precision": "32-true"},
    }
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


def card(name="lenet", n=2000, split="train"):
    return {
        "quantity": "fd",
        "extractor": {"name": name, "sha256": "ab" * 32},
        "fake": {"n": n, "seed": 0, "weights": "raw"},
        "real": {"dataset": "digits", "split": split, "n": 1257},
    }


def fd(value, **changes):
    status = "ok" if value is not None else "nonfinite"
    return Score("fd_lenet", value, "", False, card(**changes), status=status)


def elbo(value, tag="gaussian"):
    likelihood = {
        "quantity": "elbo",
        "likelihood": tag,
        "heldout": {"n": 5, "split": "test"},
    }
    return Score(f"elbo_{tag}", value, "nats", True, likelihood)


@pytest.fixture
def finished(tmp_path):
    """Write a finished run; returns its directory."""

    def finished(scores, run_id=None, images=128_000, **config):
        run = new_run_directory(tmp_path, run_id)
        content = make_config(**config)
        write_config(run, content)
        write_status(run, Status("finished"))
        choices = content["choices"]
        result = Result(
            run_id=run.name,
            study=content["study"],
            tags=[],
            status="finished",
            model=choices["model"],
            dataset=choices["dataset"],
            seed=content["seed"],
            fingerprint=fingerprint(content),
            config=content,
            budget={"images": images, "seconds": 10.0, "generator_steps": 2000},
            cost={"parameters": {"decoder": 86_592, "encoder": 90_656}},
            scores=scores,
            environment={"device": "cpu", "host": "h", "versions": {"genbench": "0", "torch": "0"}},
        )
        write_result(run, result)
        return run

    return finished


@pytest.fixture
def unfinished(tmp_path):
    def unfinished(status, reason, **config):
        run = new_run_directory(tmp_path)
        write_config(run, make_config(**config))
        write_status(run, Status(status, reason, heartbeat=2.0, started=1.0))
        return run

    return unfinished


def table(outputs: Path, *select, **options):
    """The one table of these runs, as text: {row label: {header: text}}."""
    (only,) = compare(load_results(select, outputs), **options)
    heads = [column.header for column in only.columns]
    rows = {row[0].text: {h: c.text for h, c in zip(heads, row, strict=True)} for row in only.rows}
    return rows, only


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

SPREAD = (0.0, 0.4, -0.4, 0.8, -0.8)


def seeds_of(finished, mean, n=5, others=(), **config):
    for seed, off in enumerate(SPREAD[:n]):
        scores = [fd(mean + off), *(replace(s, value=s.value + off) for s in others)]
        finished(scores, seed=seed, **config)


def strong(only):
    """The model and the column of each cell that is marked."""
    heads = [column.header for column in only.columns]
    return [
        (row[0].text, head)
        for row in only.rows
        for head, cell in zip(heads, row, strict=True)
        if cell.strong
    ]


def test_the_best_is_marked_where_it_is_better_than_every_other(tmp_path, finished):
    seeds_of(finished, 10.0, others=[elbo(-80.0)])
    seeds_of(finished, 13.0, model="gan")
    seeds_of(finished, 20.0, model="vae-gan", others=[elbo(-80.2)])
    _, only = table(tmp_path)
    assert strong(only) == [("vae", "FD ↓")]  # ELBOs are not apart
    assert only.rows[0][1].exact["best"]
    assert any("Holm over 2 scores, 5 seeds or more each" in note for note in only.notes)


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
    assert any(note.endswith("without a score of it: blur") for note in only.notes)
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


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, finished):
    for seed in range(3):
        finished([fd(10.0 + seed), elbo(-80.0)], seed=seed, study="a_b")
        finished([fd(5.0 + seed)], seed=seed, model="gan", study="a_b")
    finished([fd(50.0)], dataset="mnist")
    return tmp_path


def run(capsys, *argv):
    assert main([*argv]) == 0
    return capsys.readouterr().out


def test_json_is_exact_and_complete(study, capsys):
    tables = json.loads(run(capsys, "--outputs", str(study), "--format", "json"))
    assert [t["title"] for t in tables] == ["digits", "mnist"]
    gan = tables[0]["rows"][0]
    assert gan["model"]["label"] == "gan"
    assert gan["fd_lenet"]["values"] == [5.0, 6.0, 7.0]
    assert gan["fd_lenet"]["sd"] == 1.0
    assert len(gan["fd_lenet"]["runs"]) == 3
    assert gan["fd_lenet"]["card"]["fake"]["n"] == 2000
    assert gan["elbo_gaussian"] is None


def test_csv_has_a_line_per_row_and_exact_numbers(study, capsys):
    text = run(capsys, "--outputs", str(study), "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(one["table"], one["model"]) for one in lines] == [
        ("digits", "gan"),
        ("digits", "vae"),
        ("mnist", "vae"),
    ]
    assert float(lines[0]["fd_lenet"]) == 6.0
    assert float(lines[0]["fd_lenet sd"]) == 1.0
    assert lines[0]["elbo_gaussian"] == ""


def test_latex_is_escaped_and_uses_booktabs(study, capsys):
    text = run(capsys, "--outputs", str(study), "--format", "tex", "dataset=digits")
    assert r"\toprule" in text
    assert r"$\pm$" in text
    assert r"$\downarrow$" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert "↓" not in "".join(body)
    assert len({line.count("&") for line in body if line.endswith("\\\\")}) == 1


@pytest.mark.parametrize("form", ["table", "md", "html"])
def test_every_readable_format_has_every_row(study, capsys, form):
    text = run(capsys, "--outputs", str(study), "--format", form)
    for word in ("gan", "vae", "mnist", "digits", "6 ± 1", "-80"):
        assert word in text


def test_markdown_and_html_read_back_as_the_same_cells(study, capsys):
    from html.parser import HTMLParser

    select = ("--outputs", str(study), "dataset=digits")
    lines = [x for x in run(capsys, *select, "--format", "md").splitlines() if x.startswith("|")]
    markdown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells: list[list[str]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "tr":
                cells.append([])
            elif tag in ("td", "th"):
                cells[-1].append("")

        def handle_data(self, data):
            if self.get_starttag_text()[:3] in ("<td", "<th") and data.strip():
                cells[-1][-1] += data

    Reader().feed(run(capsys, *select, "--format", "html"))
    assert [markdown[0], *markdown[2:]] == cells
    assert cells[1] == ["gan", "6 ± 1", "", "10", "3"]


def test_a_wide_csv_has_a_line_per_run_with_every_choice_score_and_cost(
    tmp_path, finished, unfinished, capsys
):
    first = finished([fd(10.0), replace(fd(9.0), checkpoint="best")], run_id="1", study="a,b")
    betas = {"model.betas": [0.5, 0.99]}
    finished([fd(None), fd(8.0, n=5000)], run_id="2", model="gan", **betas)
    unfinished("failed", "out of memory\nat once", seed=3)
    text = run(capsys, "--outputs", str(tmp_path), "--wide")
    vae, gan, lost = csv.DictReader(io.StringIO(text))
    protocols = [fd(0.0).protocol, fd(0.0, n=5000).protocol]
    assert (vae["run"], vae["study"], vae["status"]) == (first.name, "a,b", "finished")
    assert vae["fingerprint"] == read_result(first).fingerprint
    assert (vae[f"fd_lenet [{protocols[0]}]"], vae["fd_lenet@best"]) == ("10.0", "9.0")
    assert gan[f"fd_lenet [{protocols[0]}]"] == vae[f"fd_lenet [{protocols[1]}]"] == ""
    assert gan[f"fd_lenet [{protocols[0]}] status"] == "nonfinite"
    assert gan[f"fd_lenet [{protocols[1]}]"] == "8.0"
    assert (vae["config.model.lr"], gan["config.model.betas"]) == ("0.001", "[0.5, 0.99]")
    assert (vae["config.choices.network"], vae["cost.parameters.encoder"]) == ("mlp", "90656")
    assert (vae["budget.images"], lost["budget.seconds"]) == ("128000", "1.0")
    assert (lost["status"], lost["reason"], lost["seed"]) == (
        "failed",
        "out of memory\nat once",
        "3",
    )
    whole = json.loads(run(capsys, "--outputs", str(tmp_path), "--wide", "--format", "json"))
    assert whole[0]["rows"][0]["seed"] == {"value": 0}
    with pytest.raises(UserMistake, match="--wide makes a table of its own: leave out --best-of"):
        run(capsys, "--outputs", str(tmp_path), "--wide", "--best-of", "2")


def test_csv_counts_what_did_not_finish(study, capsys, unfinished):
    unfinished("failed", "out of memory", seed=9, model="gan")
    text = run(capsys, "--outputs", str(study), "--format", "csv", "dataset=digits")
    gan, vae = csv.DictReader(io.StringIO(text))
    assert (gan["runs"], gan["failed"]) == ("3", "1")
    assert (vae["runs"], vae["failed"]) == ("3", "0")


def test_datasets_can_be_columns(study, capsys):
    text = run(capsys, "--outputs", str(study), "--columns", "dataset", "--format", "json")
    tables = {t["title"]: t["rows"] for t in json.loads(text)}
    vae = next(row for row in tables["fd_lenet"] if row["model"]["label"] == "vae")
    assert (vae["digits"]["mean"], vae["mnist"]["mean"]) == (11.0, 50.0)
    assert (vae["n digits"], vae["n mnist"]) == ({"finished": 3}, {"finished": 1})
    assert any("mnist: FD: features" in note for note in json.loads(text)[-1]["notes"])


def test_a_wide_table_is_folded_and_no_digit_is_lost(tmp_path, finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"measure_number_{i}" for i in range(20)]
    scores = [Score(n, 1000.5 + i, "", False, {"quantity": n}) for i, n in enumerate(names)]
    finished(scores)
    text = run(capsys, "--outputs", str(tmp_path), "--all")
    for i in range(20):
        assert f"measure number {i} ↓" in text
    assert max(len(line) for line in text.splitlines()[:-2]) <= 80
    assert text.count(" vae") == text.count("digits\n")


def test_protocols_of_one_name_keep_their_letters_on_a_terminal(tmp_path, finished, capsys):
    finished([fd(10.0), fd(8.0, n=5000)])
    text = run(capsys, "--outputs", str(tmp_path))
    for letter in "ab":
        assert f"FD ↓ lenet [{letter}]: fd_lenet with fake.n=" in text
        assert text.count(f"[{letter}]") == 3  # the column, its protocol, what differs


def test_selections_and_options_mix(study, capsys):
    text = run(
        capsys, "model=gan", "--outputs", str(study), "seed=0", "--format", "json", "study=a_b"
    )
    assert json.loads(text)[0]["rows"][0]["fd_lenet"]["values"] == [5.0]
    assert run(capsys, "--outputs", str(study), "network.width=256,512", "model=gan")


def test_runs_are_selected(study, capsys):
    text = run(capsys, "--outputs", str(study), "--format", "json", "model=gan", "seed=0,1")
    assert json.loads(text)[0]["rows"][0]["fd_lenet"]["values"] == [5.0, 6.0]


def test_garbage_is_collected_again_after_a_table(study, capsys):
    assert main(["--outputs", str(study)]) == 0
    assert gc.isenabled()
    with pytest.raises(UserMistake):
        main(["--outputs", str(study), "--metric", "no such score"])
    assert gc.isenabled()


def test_a_table_can_go_to_a_file(study, capsys):
    assert (
        run(capsys, "--outputs", str(study), "--out", str(study / "t.md"), "--format", "md") == ""
    )
    assert "| model |" in (study / "t.md").read_text()


def test_pictures_of_every_trained_row_go_side_by_side(study, capsys):
    from PIL import Image

    for each in study.iterdir():
        (each / "samples").mkdir()
        Image.new("L", (30, 30), 99).save(each / "samples" / "samples-000128000.png")
    run(capsys, "--outputs", str(study), "--pictures", str(study / "p.png"))
    sheet = Image.open(study / "p.png")
    assert sheet.width > 3 * 30
    colours = sheet.getcolors(1 << 20)
    assert sum(count for count, colour in colours if colour == (99, 99, 99)) >= 3 * 30 * 30


def test_what_cannot_be_written_is_a_sentence(study):
    (study / "file").write_text("")
    for option in ("--out", "--pictures"):
        with pytest.raises(UserMistake, match=f"cannot write {option}"):
            main(["--outputs", str(study), option, str(study / "file" / "x.png")])
    with pytest.raises(UserMistake, match="the name of a .png file"):
        main(["--outputs", str(study), "--pictures", str(study / "p.xyz")])
    assert main(["--outputs", str(study), "--out", str(study / "new" / "t.md")]) == 0
    assert "vae" in (study / "new" / "t.md").read_text()


def test_no_runs_is_a_sentence_with_a_remedy(tmp_path):
    with pytest.raises(UserMistake, match="genbench train"):
        main(["--outputs", str(tmp_path)])


# --- records --------------------------------------------------------------------------------------


def test_a_result_is_written_once_and_reads_back_equal(finished):
    run = finished([fd(10.0), elbo(-80.0)])
    result = read_result(run)
    assert [score.value for score in result.scores] == [10.0, -80.0]
    with pytest.raises(GenbenchError, match="written once"):
        write_result(run, result)


def test_a_broken_record_is_named(finished):
    run = finished([fd(10.0)])
    (run / "result.json").write_text("{")
    with pytest.raises(UserMistake, match=r"result\.json is not a result"):
        read_result(run)
