"""Signals at any moment, SIGKILL, and what may not change when a run is resumed."""

import csv
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.callbacks import stop
from fixtures.processes import wait_for
from fixtures.training import go, make, scores
from genbench.runs import trust
from genbench.runs.config import read_config, write_config
from genbench.runs.result import read_result
from genbench.runs.status import read_status

WALL_TIME = {"images_per_second", "seconds"}


@pytest.fixture
def begin(tmp_path, cache):
    def begin(*overrides: str) -> Path:
        return make(tmp_path, cache, *overrides)

    return begin


def final(directory: Path):
    return torch.load(directory / "checkpoints" / "final.ckpt", weights_only=True)


def assert_same(one, other, path=""):
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def history(directory: Path) -> list[dict[str, str]]:
    with (directory / "history.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k not in WALL_TIME} for row in csv.DictReader(file)
        ]


def state_of(directory: Path):
    """The final checkpoint without wall time and Lightning's own counters."""
    state = final(directory)
    wanted = ["state_dict", "optimizer_states", "global_step"]
    wanted += ["genbench_steps", "genbench_means", "genbench_skipped"]
    random_states = next(s["random"] for s in state["callbacks"].values() if "random" in s)
    return {name: state[name] for name in wanted} | {"random": random_states}


@pytest.mark.slow
def test_a_run_stopped_in_every_batch_equals_an_uninterrupted_one(begin):
    settings = ["model=gan", "budget.images=256", "trainer.steps_per_batch=1"]
    whole, parts = begin(*settings), begin(*settings, "trainer.checkpoint_minutes=0")
    assert go(whole) == 0
    config = read_config(parts)
    for images in (64, 128, 192, 256):
        config["callbacks"] = {"stop": {"_target_": "fixtures.callbacks.Stop", "images": images}}
        write_config(parts, config)
        trust.remember(parts)
        assert go(parts, "--resume") == 75
    # a thread that is left would warn of a missing batch, in a process that has long done with the run
    wait_for(lambda: not any(t.name == "waiting for data" for t in threading.enumerate()))
    assert go(parts, "--resume") == 0
    assert scores(whole) == scores(parts)
    assert history(whole) == history(parts)


@pytest.mark.slow
def test_a_resumed_run_restores_the_global_random_states(begin):
    settings = ["model=gan", "trainer.steps_per_batch=1"]
    whole, parts = begin(*settings, stop(10**9)), begin(*settings, stop(192))
    assert go(whole) == 0
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    assert go(parts) == 75
    assert go(parts, "--resume") == 0
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn


@pytest.mark.slow
def test_a_changed_method_is_refused_with_the_difference(begin, capsys):
    directory = begin("model=gan", stop(192))
    assert go(directory) == 75
    assert "stopped by SIGTERM after 192 " in read_status(directory).reason
    config = read_config(directory)
    config["model"]["r1_gamma"] = 2.0
    write_config(directory, config)
    trust.remember(directory)
    assert go(directory, "--resume") == 2
    assert "model.r1_gamma: 2.5 -> 2.0" in capsys.readouterr().err
    assert read_status(directory).status == "interrupted"
    config["model"]["r1_gamma"] = 2.5
    config["trainer"]["steps_per_batch"] = 2
    write_config(directory, config)
    trust.remember(directory)
    assert go(directory, "--resume") == 0


@pytest.mark.slow
def test_a_resumed_run_that_was_trained_is_only_scored(begin):
    whole = begin("model=gan", "ema=standard")
    assert go(whole) == 0
    expected, before = scores(whole), read_result(whole).budget
    stamp = (whole / "checkpoints" / "final.ckpt").stat().st_mtime_ns
    (whole / "result.json").unlink()
    assert go(whole, "--resume") == 0
    assert scores(whole) == expected
    assert read_result(whole).budget == before
    assert (whole / "checkpoints" / "final.ckpt").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("kind", "trained"),
    [
        pytest.param("StopAtEnd", True, marks=pytest.mark.slow),
        pytest.param("StopAtStart", False, marks=pytest.mark.slow),
    ],
)
def test_a_signal_before_or_after_the_steps_interrupts(begin, kind, trained):
    whole = begin("model=gan")
    assert go(whole) == 0
    directory = begin("model=gan", f"+callbacks.stop._target_=fixtures.callbacks.{kind}")
    before = signal.getsignal(signal.SIGTERM)
    assert go(directory) == 75
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_status(directory).status == "interrupted"
    assert (directory / "checkpoints" / "final.ckpt").exists() == trained
    config = read_config(directory)
    config["callbacks"] = {}
    write_config(directory, config)
    trust.remember(directory)
    assert go(directory, "--resume") == 0
    assert scores(directory) == scores(whole)


def test_a_run_killed_after_its_result_keeps_it_and_becomes_finished(begin):
    directory = begin("model=noise")
    assert go(directory) == 0
    written = (directory / "result.json").read_bytes()
    assert go(directory, "--resume") == 0
    assert (directory / "result.json").read_bytes() == written
    assert read_status(directory).status == "finished"


# --- kill -9 --------------------------------------------------------------------------------------


def killed(directory: Path, seconds: float, trained: bool) -> bool:
    """Resume a run in a child process and SIGKILL it after `seconds`; False if it ended before.

    If `trained`, the seconds are counted from its first checkpoint.
    """
    last = directory / "checkpoints" / "last.ckpt"
    before = last.stat().st_mtime_ns if last.exists() else 0
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        os._exit(go(directory, "--resume"))
    end = None if trained else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if end is None and last.exists() and last.stat().st_mtime_ns != before:
            end = time.monotonic() + seconds
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


@pytest.mark.slow
def test_ten_kills_change_no_score(begin):
    settings = ["model=vae-gan", "budget.images=48000", "trainer.log_every_images=640"]
    settings += ["trainer.checkpoint_minutes=0.0005", "trainer.steps_per_batch=2"]
    whole, parts = begin(*settings), begin(*settings)
    assert go(whole) == 0
    chance, positions = random.Random(0), []
    last = parts / "checkpoints" / "last.ckpt"
    for kill in range(10):
        assert killed(parts, chance.uniform(0, 0.05), trained=kill % 5 != 0)
        if last.exists():  # always a whole file
            positions.append(torch.load(last, weights_only=True)["genbench_steps"])
    assert positions == sorted(positions)
    assert len(set(positions)) > 5
    assert go(parts, "--resume") == 0
    assert scores(whole) == scores(parts)
    assert history(whole) == history(parts)
    assert_same(state_of(whole), state_of(parts))
