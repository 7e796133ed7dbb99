"""Columns, cells and notes of the table, made from run directories as they are on disk."""

from dataclasses import replace

import pytest

from fixtures.comparison import card, copies, elbo, fd, score, table
from genbench.comparison.table import compare
from genbench.errors import UserMistake
from genbench.runs.files import write_json
from genbench.runs.records import load_results
from genbench.runs.score import Score


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


@pytest.mark.parametrize(("seeds", "said"), [(1, "one seed a row"), (2, ""), (3, "±")])
def test_rows_of_one_seed_are_said_to_have_no_error_bar(tmp_path, finished, seeds, said):
    for seed in range(seeds):
        finished([fd(10.0 + seed)], seed=seed)
    finished([fd(9.0)], model="gan")
    _, only = table(tmp_path)
    found = [note for note in only.notes if note.startswith(("one seed", "±"))]
    assert [note[: len(said)] for note in found] == ([said] if said else [])


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


def searched(value):
    """A score of an evaluation on validation images."""
    one = fd(value)
    return replace(one, name=f"{one.name}_validation", card={**one.card, "split": "validation"})


def test_validation_scores_are_not_shown_beside_those_of_the_test_unless_asked_for(
    tmp_path, finished
):
    finished([fd(10.0), searched(9.0)])
    rows, _ = table(tmp_path)
    assert rows["vae"]["FD ↓"] == "10"
    assert [head for head in rows["vae"] if "FD" in head] == ["FD ↓"]
    rows, only = table(tmp_path, show_all=True)
    assert (rows["vae"]["FD ↓"], rows["vae"]["FD ↓ validation"]) == ("10", "9")
    assert any("validation: scored on the validation split" in note for note in only.notes)
    rows, _ = table(tmp_path, metrics=["fd@validation"])
    assert rows["vae"]["FD ↓ validation"] == "9"


def test_where_there_are_only_validation_scores_they_are_shown_and_labelled(tmp_path, finished):
    finished([searched(9.0)])
    rows, _ = table(tmp_path)
    assert [head for head in rows["vae"] if "FD" in head] == ["FD ↓ validation"]


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


def test_a_row_whose_decoder_is_not_the_networks_is_said_to_be_outside(tmp_path, finished):
    arena = {"_target_": "genbench.networks.mlp.MLPDecoder", "width": 256}
    unet = {"_target_": "genbench.networks.unet.UNet", "width": None}
    for model, own in (("vae", arena), ("flow-matching", unet)):
        config = {"model.decoder": own, "network.decoder": arena}
        finished([fd(5.0)], model=model, **config)
    _, only = table(tmp_path)
    (note,) = (note for note in only.notes if "arena" in note)
    expected = "flow-matching: not in the arena: it makes images by UNet, the others by MLPDecoder"
    assert note.startswith(expected)


def of_pictures(fingerprint, seed=0, values=(10.0, 0.5)):
    """FD and precision of a run on the training pictures of this sha256."""
    real = {"dataset": "cats", "split": "train", "n": 320, "fingerprint": fingerprint * 8}
    return [
        replace(one, card={**one.card, "real": real})
        for one in (fd(values[0]), score("precision", values[1]))
    ]


def test_runs_on_different_pictures_of_one_name_are_named_and_their_columns_have_one_letter(
    tmp_path, finished
):
    pictures = {0: "deadbeef", 1: "0badcafe", 2: "12345678", 3: "0badcafe"}
    for seed, fingerprint in pictures.items():
        finished(of_pictures(fingerprint, values=(seed + 1.0, seed / 8)), seed=seed)
    rows, only = table(tmp_path)
    assert {head: text for head, text in rows["vae"].items() if "[" in head} == {
        "FD ↓ lenet [a]": "1 (n=1)",
        "FD ↓ lenet [b]": "3 (n=2)",
        "FD ↓ lenet [c]": "3 (n=1)",
        "precision ↑ lenet [a]": "0 (n=1)",
        "precision ↑ lenet [b]": "0.25 (n=2)",
        "precision ↑ lenet [c]": "0.25 (n=1)",
    }
    (note,) = (note for note in only.notes if "DIFFERENT pictures" in note)
    assert "seeds 1, 3 on 320 images, sha256 0badcafe; seed 2 on 320 images" in note
    assert "FD ↓ lenet [a]: fd_lenet with real.fingerprint=deadbeef" in only.notes


def test_pictures_of_one_name_in_several_sizes_are_as_many_tables(tmp_path, finished):
    sizes = {"dataset.channels": 3, "dataset.levels": 256}
    for size, model in ((32, "vae"), (24, "vae"), (24, "gan")):
        finished([fd(float(size))], model=model, **{"dataset.image_size": size}, **sizes)
    tables = compare(load_results([], tmp_path))
    found = {one.title: [row[0].text for row in one.rows] for one in tables}
    assert found == {"digits, 24 x 24": ["gan", "vae"], "digits, 32 x 32": ["vae"]}


def test_a_label_accuracy_is_told_beside_what_its_judge_gets_on_real_images(tmp_path, finished):
    own = score("label_accuracy", 0.49)
    judge = score("label_accuracy_heldout", 0.6, None)
    finished([fd(10.0), own, judge])
    assert "label accuracy: its judge gives 0.6 of the real held-out images their label" in (
        table(tmp_path)[1].notes
    )
