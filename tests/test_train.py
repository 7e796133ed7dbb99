"""A whole run, from a composed config to its record, in this process and as a user starts it."""

import csv
import json
import math
import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest

from fixtures import forks
from fixtures.callbacks import stop_by_parent
from fixtures.places import environment, slow_but
from fixtures.trainers import RARELY
from fixtures.training import SMOKE, genbench, go, make, scores
from genbench import train
from genbench.errors import UserMistake
from genbench.runs.history import PSNR, read_history
from genbench.runs.result import read_result
from genbench.runs.status import read_status


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, cache):
    """A smoke run of a model, which the tests of this file share; returns (directory, code)."""
    outputs, made = tmp_path_factory.mktemp("first"), {}

    def first_run(model: str):
        if model not in made:
            directory = make(outputs, cache, f"model={model}", "study=tests")
            made[model] = directory, go(directory)
        return made[model]

    return first_run


@pytest.mark.parametrize("model", slow_but(["vae", "gan", "vae-gan", "noise"], "vae", "noise"))
def test_a_run_leaves_its_whole_record(first_run, model):
    directory, code = first_run(model)
    assert code == 0
    result = read_result(directory)
    assert (result.status, result.model, result.dataset) == ("finished", model, "digits")
    assert result.study == "tests"
    trained = model != "noise"
    assert result.budget["images"] == (640 if trained else 0)
    assert result.budget["generator_steps"] == (10 if trained else 0)
    assert result.budget["discriminator_steps"] == (10 if "gan" in model else 0)
    assert (result.cost["parameters"].get("decoder") == 86_592) == trained
    names = [score.name for score in result.scores]
    assert "fd_lenet-digits-v1" in names
    assert any(name.startswith("elbo") for name in names) == (model in ("vae", "vae-gan"))
    assert any(name.startswith("bits_per_dim") for name in names) == (model == "vae")
    reconstructed = {"psnr", "ssim", "rfd_lenet-digits-v1"}
    assert reconstructed & set(names) == (reconstructed if model in ("vae", "vae-gan") else set())
    spent = result.cost["scoring_seconds"]
    assert {"sample", "features", "frechet", "copy_rate", "bounds"} <= set(spent)
    assert all(score.card and score.protocol for score in result.scores)
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert {"config.yaml", "status.json", "result.json", "environment.json", "log.txt"} <= files
    assert "checkpoints/final.ckpt" in files
    assert ("walk/decoder.f16" in files) == trained
    assert f"samples/samples-{result.budget['images']:09d}.png" in files
    assert any("reconstructions" in file for file in files) == (model in ("vae", "vae-gan"))
    assert read_status(directory).status == "finished"
    precision = {"asked": "auto", "taken": "32-true", "probes": []}
    assert result.environment["precision"] == precision


def test_history_counts_images_and_names_every_loss(first_run):
    directory, _ = first_run("gan")
    with (directory / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["images"]) for row in rows] == sorted({int(row["images"]) for row in rows})
    assert int(rows[-1]["images"]) == 640
    assert {"loss/generator", "loss/discriminator", "logit/real"} <= set(rows[0])
    assert all(math.isfinite(float(row["loss/generator"])) for row in rows)


@pytest.mark.slow
def test_the_history_of_a_model_with_an_encoder_has_the_psnr_of_validation_images(first_run):
    for model in ("vae", "vae-gan"):
        points = read_history(first_run(model)[0])[PSNR]
        assert points[-1][0] == 640
        assert all(0 < value < 40 for _, value in points)
    assert PSNR not in read_history(first_run("gan")[0])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae-gan", "vae", "gan"])
def test_equal_seeds_give_equal_scores_bit_for_bit_and_other_seeds_others(start, first_run, model):
    first, _ = first_run(model)
    again, _ = start(f"model={model}", "trainer.steps_per_batch=3", *RARELY)
    other, _ = start(f"model={model}", "seed=1")
    assert scores(first) == scores(again)
    assert scores(first) != scores(other)
    results = [read_result(run) for run in (first, again, other)]
    assert len({result.fingerprint for result in results}) == 1
    protocols = [[score.protocol for score in result.scores] for result in results]
    assert protocols[0] == protocols[1] == protocols[2]


@pytest.mark.slow
def test_another_method_has_another_fingerprint(start, first_run):
    runs = [first_run("vae")[0], start("model.beta=2")[0], start("budget.images=128")[0]]
    assert len({read_result(run).fingerprint for run in runs}) == 3


def test_a_diverged_run_says_so_and_why(start, capsys):
    directory, code = start("model=vae", "model.optimizer.lr=1e30")
    assert code == 1
    status = read_status(directory)
    assert status.status == "diverged"
    assert "is NaN or infinite" in status.reason
    assert "learning rate" in capsys.readouterr().err
    assert not (directory / "result.json").exists()
    assert read_result(directory).status == "diverged"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("budget.images=ten", "not a number of images"),
        ("trainer.precision=64", "not one of auto"),
        ("likelihood=bernoulli", "not 17"),
        ("trainer=gpu", "no GPU"),
        ("network.latent_dim=32 model.latent_dim=16", "latent"),
        ("model=ae-kl extractor=random-conv-v1", "what it was trained on"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(start, capsys, override, sentence):
    if override == "trainer=gpu":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    _, code = start(*override.split())
    assert code in (1, 2)
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence(tmp_path, cache, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        directory = make(disk, cache, "model=vae")
        assert train.main([str(directory)]) == 1
        status = read_status(directory)
        assert status.status == "failed"
        assert "no space left on device" in status.reason
        assert "Traceback" not in capsys.readouterr().err
        assert not (directory / "result.json").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_untrained_weights_can_be_scored(start):
    directory, code = start("model=gan", "budget.images=0")
    assert code == 0
    assert read_result(directory).budget["images"] == 0


@pytest.mark.slow
def test_a_user_trains_scores_again_samples_and_compares(tmp_path, cache):
    done = genbench("train", *SMOKE, "study=first", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    done = forks.genbench("train", "-m", *SMOKE, "model=gan,vae-gan", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs finished" in done.stdout

    runs = json.loads(forks.genbench("runs", "--format", "json", cwd=tmp_path, cache=cache).stdout)
    assert sorted(run["model"] for run in runs) == ["gan", "vae", "vae-gan"]
    done = forks.genbench("compare", "--format", "json", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)

    done = forks.genbench(
        "evaluate", "latest", "evaluation.num_samples=300", cwd=tmp_path, cache=cache
    )
    assert done.returncode == 0, done.stderr
    done = forks.genbench(
        "sample", "latest", "--num", "9", "--out", "g.png", cwd=tmp_path, cache=cache
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    done = forks.genbench("show", "latest", cwd=tmp_path, cache=cache)
    assert "decoder" in done.stdout


@pytest.mark.slow
def test_a_terminal_with_a_progress_bar_shows_a_loggers_warning_once(tmp_path, cache):
    directory = make(tmp_path, cache, "trainer.progress=true", "logger=tensorboard")
    (directory / "tensorboard").write_text("no folder")
    ours, theirs = pty.openpty()
    worker = subprocess.Popen(
        [sys.executable, "-m", "genbench.work", "train", str(directory)],
        env=environment(GENBENCH_CACHE=str(cache)) | {"COLUMNS": "300", "TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # Linux's word for the end of a terminal
        while part := os.read(ours, 65536):
            seen += part
    os.close(ours)
    assert worker.wait(60) == 0
    shown = seen.decode()
    assert "training" in shown and "640/640" in shown  # the bar
    lines = [line for line in shown.splitlines() if "training goes on without it" in line]
    assert len(lines) == 1
    assert "warning: TensorBoard: FileExistsError" in lines[0]
    assert ".py" not in lines[0]  # the sentence alone
    assert (directory / "log.txt").read_text().count("training goes on without it") == 1


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_checkpoint(tmp_path, cache):
    interrupted = stop_by_parent(tmp_path / "marker", "SIGINT")
    done = genbench(
        "train", *SMOKE, "model=vae", "run_id=x", *interrupted, cwd=tmp_path, cache=cache
    )
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert "genbench: stopped by Ctrl-C after 64 " in done.stderr
    directory = tmp_path / "outputs" / "x"
    assert (directory / "checkpoints" / "last.ckpt").exists()
    assert not list((directory / "checkpoints").glob("*.partial"))
    assert read_status(directory).status == "interrupted"


def test_an_evaluation_on_more_gpus_than_there_are_is_refused_before_training(
    tmp_path, cache, monkeypatch
):
    asked = []

    def check(devices, device):
        asked.append(devices)
        raise UserMistake("there are fewer")

    monkeypatch.setattr(train, "check_extracting", check)
    directory = make(tmp_path, cache, "evaluation.devices=8")
    assert go(directory) == 2
    assert asked == [8]
    assert not (directory / "checkpoints").exists()
