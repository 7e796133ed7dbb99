"""`genbench compare --at images=N`: scores at an equal budget, from histories as they are on disk."""

import pytest

from fixtures.comparison import fd, run, strong
from genbench.comparison.budgets import parse_at, results_at
from genbench.comparison.table import compare
from genbench.errors import UserMistake
from genbench.runs.directory import iter_runs
from genbench.runs.records import load_results

SELECTION = {"_target_": "x", "checks": 10, "num_samples": 256, "seed": 1}


def log(directory, values, name="selection/fd"):
    """Write a history with a point every 100 images."""
    rows = [f"{100 * (place + 1)},0.5,{value}" for place, value in enumerate(values)]
    (directory / "history.csv").write_text("\n".join([f"images,loss/x,{name}", *rows, ""]))


def at(outputs, images, wanted=()):
    place = parse_at(f"images={images}") if isinstance(images, int) else parse_at(images)
    directories = {path.name: path for path in iter_runs(outputs)}
    results, notes = results_at(load_results((), outputs), directories, place, wanted)
    (only,) = compare(results, show_all=True)
    heads = [column.header for column in only.columns]
    rows = {row[0].text: {h: c.text for h, c in zip(heads, row, strict=True)} for row in only.rows}
    return rows, [*notes, *only.notes], only


def test_the_last_point_at_or_before_counts_and_none_beyond(tmp_path, finished):
    log(finished([fd(1.0)], selection=SELECTION), [50, 40, 30, 20])
    log(finished([fd(2.0)], model="gan", selection=SELECTION), [60, "", 10, 5])
    rows, notes, _ = at(tmp_path, 310)
    assert [row["FD ↓"] for row in (rows["vae"], rows["gan"])] == ["30", "10"]
    assert (
        notes[0]
        == "at 310 images, from history.csv: selection/fd; the last points before are at 300"
    )
    assert "310 images (steps x batch) each" in notes[1]
    rows, notes, _ = at(tmp_path, 200)
    assert [row["FD ↓"] for row in (rows["vae"], rows["gan"])] == ["40", ""]
    assert any(
        "gan, seed 0: without a point: its nearest points are at 100 and 300" in n for n in notes
    )
    with pytest.raises(UserMistake, match="nearest points are at 400 images"):
        at(tmp_path, 1000)  # nothing is extrapolated


def test_what_came_of_a_run_later_does_not_count(tmp_path, finished, unfinished):
    for seed in range(4):
        log(finished([fd(1.0)], seed=seed, selection=SELECTION), [50 + seed, 40 + seed])
    late = {"seed": 4, "selection": SELECTION, "trainer.precision": "auto"}
    log(unfinished("diverged", "nan", **late), [54, 44])
    early = {"seed": 5, "selection": SELECTION, "trainer.precision": "auto"}
    log(unfinished("failed", "out of memory", **early), [55])
    for seed in range(5):
        log(finished([fd(1.0)], seed=seed, model="gan", selection=SELECTION), [90, 80 - seed])
    rows, notes, only = at(tmp_path, 200)
    assert rows["vae"] == {"model": "vae", "FD ↓": "42 ± 1.6", "n": "5 (+1 failed)"}
    assert strong(only) == [("vae", "FD ↓")]
    assert "vae, seed 5: failed: out of memory" in notes


def test_curves_under_other_settings_never_share_a_column(tmp_path, finished):
    log(finished([fd(1.0)], selection=SELECTION | {"checks": 5}), [50])
    log(finished([fd(1.0)], model="gan", selection=SELECTION), [50])
    log(finished([fd(1.0)], model="wgan", selection=SELECTION | {"num_samples": 512}), [50])
    _, notes, only = at(tmp_path, 100)
    assert sum(column.header.startswith("FD") for column in only.columns) == 2
    assert any("settings.num_samples=512" in note for note in notes)


def test_columns_of_the_training_are_shown_only_when_they_are_asked_for(tmp_path, finished):
    log(finished([fd(1.0)]), [-90], name="train/elbo")
    with pytest.raises(UserMistake, match=r"train with selection=fd.* loss/x, train/elbo"):
        at(tmp_path, 100)
    with pytest.raises(UserMistake, match="has a column elbo: .* training with selection=fd"):
        at(tmp_path, 100, ["elbo"])
    rows, _, _ = at(tmp_path, 100, ["train/elbo"])
    assert rows["vae"]["ELBO ↑"] == "-90"


def test_a_run_without_a_curve_is_told_what_gives_one(tmp_path, finished):
    log(finished([fd(1.0)], selection=SELECTION), [50, 40])
    log(finished([fd(1.0)], model="gan"), [-90, -80], name="train/elbo")
    rows, notes, _ = at(tmp_path, 200)
    assert rows["gan"]["FD ↓"] == ""
    why = "its history.csv has no selection/fd, it was trained without selection=fd"
    assert f"gan, seed 0: without a point: {why}" in notes
    with pytest.raises(UserMistake, match="has a column kid: there are [^;]*$"):
        at(tmp_path, 200, ["kid"])  # no training logs that


def test_the_command_compares_at_equal_images(tmp_path, finished, capsys):
    log(finished([fd(1.0)]), [50, 40])
    text = run(capsys, "--outputs", str(tmp_path), "--at", "images=0.2k", "--format", "md")
    assert "| vae | 40 | 1 |" in text
    with pytest.raises(SystemExit):
        run(capsys, "--outputs", str(tmp_path), "--at", "images=many")
    assert "write images=500k" in capsys.readouterr().err
