"""Where the numbers of a run go, read back from what the loggers left on disk."""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from genbench import dashboard, loggers
from genbench.score import Score

CONFIG = {
    "seed": 3,
    "study": "first",
    "tags": ["mine"],
    "choices": {"model": "gan", "dataset": "digits"},
    "budget": {"images": 640},
}
SCORE = Score("fd_lenet", 4.5, "", False, {"quantity": "fd"})
WANDB = {"_target_": "genbench.loggers.Wandb", "project": "genbench", "entity": None}
TENSORBOARD = {"_target_": "genbench.loggers.TensorBoard"}


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "grid.png"
    Image.new("L", (8, 8), 200).save(path)
    return path


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


# --- history.csv ----------------------------------------------------------------------------------


def read(directory: Path):
    with (directory / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_history_counts_images_and_takes_columns_as_they_come(tmp_path):
    history = loggers.History(tmp_path)
    history.log_metrics({"a": 1.0}, step=64)
    history.log_metrics({"a": 2.0, "b": 0.5}, step=128)
    rows = read(tmp_path)
    assert [row["images"] for row in rows] == ["64", "128"]
    assert [row["b"] for row in rows] == ["", "0.5"]
    assert loggers.read_history(tmp_path) == {"a": [(64, 1.0), (128, 2.0)], "b": [(128, 0.5)]}


def test_a_resumed_history_forgets_what_comes_after_the_checkpoint(tmp_path):
    history = loggers.History(tmp_path)
    for images in (64, 128, 192):
        history.log_metrics({"a": float(images)}, step=images)
    again = loggers.History(tmp_path)
    loggers.rewind([again], images=128)
    again.log_metrics({"a": 7.0}, step=192)
    assert [row["a"] for row in read(tmp_path)] == ["64.0", "128.0", "7.0"]


# --- wandb ----------------------------------------------------------------------------------------


def chunks(content: bytes):
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    position, block, whole = 7, 32_768, b""
    while position + 7 <= len(content):
        left = block - position % block
        if left < 7:  # a header is never split over blocks
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]  # 1 whole, 2 first, 3 middle, 4 last
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def records(directory: Path):
    """Everything in an offline run's file, as it would be uploaded."""
    from wandb.proto import wandb_internal_pb2

    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    return [wandb_internal_pb2.Record.FromString(data) for data in chunks(path.read_bytes())]


@pytest.mark.slow
def test_wandb_offline_holds_config_history_pictures_and_final_scores(
    tmp_path, picture, monkeypatch, no_login
):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    sinks = loggers.build({"wandb": WANDB}, tmp_path, CONFIG, "abc123")
    assert [type(sink).__name__ for sink in sinks] == ["History", "Wandb"]
    for sink in sinks:
        sink.log_metrics({"loss/generator": 0.7}, step=64)
    loggers.log_images(sinks, "samples", picture, 64)
    for sink in sinks:
        sink.finalize("success")  # as Lightning does after the fit: more is to come
    loggers.finish(sinks, [SCORE], "finished")

    found = records(tmp_path)
    run = next(r.run for r in found if r.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert run.project == "genbench"
    assert run.run_group == "gan-digits-abc123"
    assert run.job_type == "train"
    assert {"gan", "digits", "mine"} <= set(run.tags)
    assert (config["model"], config["dataset"], config["seed"]) == ("gan", "digits", 3)
    assert config["study"] == "first"
    assert config["cfg"]["budget"] == {"images": 640}

    def items(record):
        return {
            (i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item
        }

    rows = [items(r) for r in found if r.WhichOneof("record_type") == "history"]
    assert any(row.get("loss/generator") == 0.7 and row["images"] == 64 for row in rows)
    assert any(key.startswith("samples") for row in rows for key in row)
    summaries = [r.summary for r in found if r.WhichOneof("record_type") == "summary"]
    final = {(i.key or "/".join(i.nested_key)): i.value_json for s in summaries for i in s.update}
    assert float(final["final/fd_lenet"]) == 4.5


def test_a_dashboard_that_fails_costs_one_warning_and_no_training(tmp_path):
    class Broken:
        def log(self, *_):
            raise ConnectionError("no network")

    sink = loggers.Wandb.__new__(loggers.Wandb)
    loggers._Sink.__init__(sink, tmp_path)
    sink.broken, sink._run = False, Broken()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            sink.log_metrics({"a": 1.0}, step=step)
    assert len(caught) == 1
    assert "training goes on" in str(caught[0].message)


def test_wandb_is_left_alone_unless_asked_for_or_logged_in(monkeypatch, no_login):
    auto = {"wandb": WANDB | {"only_if_logged_in": True}}
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert dashboard.decide({}) == "none"
    assert dashboard.decide(auto) == "none"
    assert dashboard.decide({"wandb": WANDB}) == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert dashboard.decide({"wandb": WANDB}) == "none"


def test_a_key_and_offline_mode_stay_offline(monkeypatch, no_login):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert dashboard.decide({"wandb": WANDB}) == "offline"


def test_the_question_about_wandb_is_asked_without_torch_and_without_wandb():
    code = "import sys; from genbench import dashboard; dashboard.decide({}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert not {"torch", "wandb", "pytorch_lightning"} & set(done.stdout.split())


# --- tensorboard ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_tensorboard_holds_scalars_and_pictures_on_the_axis_of_images(tmp_path, picture):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra"
    )
    sinks = loggers.build({"tensorboard": TENSORBOARD}, tmp_path, CONFIG, "abc123")
    for sink in sinks:
        sink.log_metrics({"loss": 0.7}, step=64)
    loggers.log_images(sinks, "samples", picture, 64)
    loggers.finish(sinks, [SCORE], "finished")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [(64, 0.7)]
    assert events.Scalars("final/fd_lenet")[0].value == 4.5
    assert events.Images("samples")[0].step == 64
