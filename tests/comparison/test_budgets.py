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


def test_psnr_which_not_every_model_has_is_compared_where_it_is_asked_for(tmp_path, finished):
    log(finished([fd(1.0)]), [12.5, 20.5], "validation/psnr")
    log(finished([fd(2.0)], model="gan"), ["", ""], "selection/fd")
    with pytest.raises(UserMistake, match="train with trainer.score_every=auto"):
        at(tmp_path, 200)  # else every GAN would be a run without a point
    rows, _, _ = at(tmp_path, 200, ["psnr"])
    assert rows["vae"]["PSNR ↑"] == "20.5"


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
    assert "vae, seed 5: failed: out of memory" in notes
    assert strong(only) == []  # of the six seeds one came to nothing before 200 images
    assert "not marked: vae is best in FD among finished runs only, 1 of its runs was lost" in notes


def test_curves_under_other_settings_never_share_a_column(tmp_path, finished):
    log(finished([fd(1.0)], selection=SELECTION | {"checks": 5}), [50])
    log(finished([fd(1.0)], model="gan", selection=SELECTION), [50])
    log(finished([fd(1.0)], model="wgan", selection=SELECTION | {"num_samples": 512}), [50])
    _, notes, only = at(tmp_path, 100)
    assert sum(column.header.startswith("FD") for column in only.columns) == 2
    assert any("settings.num_samples=512" in note for note in notes)


def test_columns_of_the_training_are_shown_only_when_they_are_asked_for(tmp_path, finished):
    log(finished([fd(1.0)]), [-90], name="train/elbo")
    with pytest.raises(
        UserMistake, match=r"train with trainer.score_every=auto.* loss/x, train/elbo"
    ):
        at(tmp_path, 100)
    with pytest.raises(
        UserMistake, match="has a column elbo: .* training with trainer.score_every=auto"
    ):
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
    assert "write images=500k, seconds=60 or flops=1T" in capsys.readouterr().err


# --- at equal cost --------------------------------------------------------------------------------
def log_spent(directory, values, seconds, multiply_adds):
    """Write a history with a point every 100 images, as many seconds and multiply-adds apart."""
    rows = [
        f"{100 * n},{seconds * n},{multiply_adds * n},{value}" for n, value in enumerate(values, 1)
    ]
    head = "images,seconds,multiply_adds,selection/fd"
    (directory / "history.csv").write_text("\n".join([head, *rows, ""]))


def test_runs_are_compared_at_equal_seconds_and_at_equal_flops(tmp_path, finished):
    log_spent(finished([fd(1.0)], selection=SELECTION), [50, 40, 30, 20], 10, 5e9)
    slow = finished([fd(2.0)], model="gan", selection=SELECTION)
    log_spent(slow, [60, 35, 10, 5], 20.5, 10e9)
    rows, notes, only = at(tmp_path, "seconds=41")
    assert {name: (row["FD ↓"], row["images"]) for name, row in rows.items()} == {
        "vae": ("20", "400"), "gan": ("35", "200"),
    }  # fmt: skip
    head = "at 41 seconds, from history.csv: selection/fd; the last points before are at 40 to 41"
    assert notes[0] == head
    assert not any("unequal" in note for note in notes)
    rows, notes, _ = at(tmp_path, "flops=40G")  # two for a multiply-add
    assert {name: row["FD ↓"] for name, row in rows.items()} == {"vae": "20", "gan": "35"}
    assert notes[0] == "at 40G flops, from history.csv: selection/fd"
    rows, notes, _ = at(tmp_path, "seconds=30")  # the last tenth before, and nothing beyond
    assert {name: row["FD ↓"] for name, row in rows.items()} == {"vae": "30", "gan": ""}
    why = "gan, seed 0: without a point: its nearest points are at 20.5 and 41 seconds"
    assert why in notes
    with pytest.raises(
        UserMistake, match=r"--at seconds=3600: .* nearest points are at 40 seconds"
    ):
        at(tmp_path, "seconds=3600")


def test_a_history_without_seconds_is_blank_with_the_reason(tmp_path, finished):
    log(finished([fd(1.0)], selection=SELECTION), [50, 40])
    with pytest.raises(UserMistake, match="--at seconds=20: history.csv has no seconds, which ear"):
        at(tmp_path, "seconds=20")
    log_spent(finished([fd(2.0)], model="gan", selection=SELECTION), [60, 35], 10, 5e9)
    rows, notes, _ = at(tmp_path, "seconds=20")
    assert {name: row["FD ↓"] for name, row in rows.items()} == {"vae": "", "gan": "35"}
    why = "history.csv has no seconds, which earlier versions did not log"
    assert f"vae, seed 0: without a point: {why}" in notes


def test_at_equal_cost_unequal_images_forbid_no_verdict(tmp_path, finished, capsys):
    for seed in range(5):
        own = finished([fd(1.0)], seed=seed, selection=SELECTION)
        log_spent(own, [50 + seed, 40 + seed], 10, 5e9)
        other = finished([fd(1.0)], seed=seed, model="gan", selection=SELECTION)
        log_spent(other, [90 + seed], 20, 5e9)
    _, _, only = at(tmp_path, "seconds=20")
    assert strong(only) == [("vae", "FD ↓")]
    told = run(capsys, "--outputs", str(tmp_path), "--at", "seconds=20", "--versus", "gan")
    assert "at equal seconds (20)" in told


@pytest.mark.parametrize(
    ("text", "axis", "amount"),
    [
        ("images=500k", "images", 500_000),
        ("2_000", "images", 2000),
        ("seconds=1.5", "seconds", 1.5),
        ("flops=1e12", "flops", 1e12),
        ("flops=10G", "flops", 1e10),
        ("flops=1.5T", "flops", 1.5e12),
    ],
)
def test_a_place_is_written_as_an_axis_and_a_number(text, axis, amount):
    assert (parse_at(text).axis, parse_at(text).amount) == (axis, amount)


@pytest.mark.parametrize("text", ["minutes=3", "seconds=", "flops=many", "seconds=0", "=", ""])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(UserMistake, match="write images=500k, seconds=60 or flops=1T"):
        parse_at(text)


# --- cost -----------------------------------------------------------------------------------------
COUNTED = {"decoder_rows": 640_000, "real_images": 640_000, "multiply_adds": 1_250_000_000_000}


def test_the_cost_of_rows_stands_beside_their_scores(tmp_path, finished, capsys):
    finished([fd(1.0)])  # an old run, which counted nothing
    finished([fd(2.0)], model="wgan-gp", counted=COUNTED)
    text = run(capsys, "--outputs", str(tmp_path), "--cost", "--format", "md")
    scores, costs = text.split("**digits: cost**")
    assert "FD" in scores and "FD" not in costs
    assert "| images (steps x batch) | decoder rows | real images | multiply-adds |" in costs
    assert "| 128k | 640k | 640k | 1.25T | 10 |" in costs
    assert "| 128k |  |  |  | 10 |" in costs
    csv = run(capsys, "--outputs", str(tmp_path), "--cost", "--format", "csv")
    assert "decoder_rows" in csv and "1250000000000" in csv and "fd_lenet" not in csv
    wide = run(capsys, "--outputs", str(tmp_path), "--wide")
    assert "budget.multiply_adds" in wide
    with pytest.raises(UserMistake, match="leave out --cost"):
        run(capsys, "--outputs", str(tmp_path), "--cost", "--wide")
