"""What the wandb logger sends, read back from the files of offline runs."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.loggers import CONFIG, SCORE, WANDB, read, records
from fixtures.wandb_server import WandbServer, serving
from genbench.errors import UserMistake
from genbench.training import loggers
from genbench.training.loggers import wandb


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
    loggers.finish(sinks, [SCORE, replace(SCORE, value=2.5, checkpoint="best")], "finished")

    found = records(tmp_path)
    run = next(r.run for r in found if r.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert run.project == "genbench"
    assert run.run_group == "gan-digits-abc123"
    assert run.job_type == "train"
    assert {"gan", "digits", "first", "mine"} <= set(run.tags)
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
    assert float(final["best/fd_lenet"]) == 2.5
    assert json.loads(json.loads(final["card/final/fd_lenet"])) == SCORE.card
    assert any("scores" in row or "scores/_type" in row for row in rows)
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    table = json.loads(table.read_text())
    card = table["data"][0][table["columns"].index("card")]
    assert json.loads(card) == SCORE.card
    metrics = [r.metric for r in found if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in metrics if m.glob_name}
    assert axes == {"*": "images"}
    assert [a.type for a in logged_artifacts(found) if a.type in ("code", "model")] == []


@pytest.mark.slow
def test_code_and_checkpoints_are_artifacts_of_a_run_that_asks_for_them(
    tmp_path, monkeypatch, no_login
):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    (tmp_path / "checkpoints").mkdir()
    for name in ("final", "last"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").write_bytes(name.encode())
    entry = WANDB | {"artifacts": ["code", "checkpoints"]}
    loggers.finish(loggers.build({"wandb": entry}, tmp_path, CONFIG, "abc123"), [], "finished")
    sent = {
        a.type: {entry.path for entry in a.manifest.contents}
        for a in logged_artifacts(records(tmp_path))
    }
    assert sent["model"] == {"final.ckpt"}
    assert {"training/loggers/wandb.py", "models/vae.py"} <= sent["code"]


def logged_artifacts(found):
    """What a run's file asks the server to keep."""
    asked = [r.request for r in found if r.WhichOneof("record_type") == "request"]
    return [r.artifact for r in found if r.WhichOneof("record_type") == "artifact"] + [
        r.log_artifact.artifact for r in asked if r.WhichOneof("request_type") == "log_artifact"
    ]


def test_an_unknown_artifact_is_refused(tmp_path):
    with pytest.raises(UserMistake, match=r"names weights: there are code, checkpoints"):
        wandb.Wandb(tmp_path, CONFIG, "f", "offline", "p", None, artifacts=["weights"])


def points(directory: Path):
    """What an offline run's file says of each key at each number of images."""
    rows = [r.history.item for r in records(directory) if r.WhichOneof("record_type") == "history"]
    rows = [{(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in r} for r in rows]
    return [(row["images"], row["a"]) for row in rows if "a" in row]


@pytest.mark.slow
def test_a_silent_server_delays_nothing_and_loses_no_data(
    tmp_path, monkeypatch, no_login, silent_server
):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setenv("GENBENCH_LOGGER", "online")
    sinks = loggers.build({"wandb": WANDB | {"init_seconds": 2.0}}, tmp_path, CONFIG, "abc123")
    for step in (64, 128):
        for sink in sinks:
            sink.log_metrics({"a": step / 64}, step=step)
    assert not list(tmp_path.glob("wandb/offline-run-*"))  # logged before wandb was there
    with pytest.warns(UserWarning, match="logging offline"):
        loggers.finish(sinks, [SCORE], "finished")
    assert points(tmp_path) == [(64, 1.0), (128, 2.0)]


@pytest.fixture
def refusing_server():
    """Address of a server to which every key is wrong."""

    class Refusing(WandbServer):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = b'{"errors": [{"message": "unauthorized"}]}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

    with serving(Refusing) as address:
        yield address


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a run whose wandb folder is on a disk of 96 kB."""
    (tmp_path / "wandb").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(tmp_path / "wandb")]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nobody may mount a small disk here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path / "wandb")], check=True)


def logged(directory, steps):
    """What a run in wandb says while it trains and ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sinks = loggers.build({"wandb": WANDB | {"init_seconds": 5.0}}, directory, CONFIG, "abc123")
        for step in range(steps):
            for sink in sinks:
                sink.log_metrics({f"a{i}": step * 0.1 for i in range(20)}, step=step)
        loggers.finish(sinks, [SCORE], "finished")
    return [str(w.message) for w in caught if "wandb" in str(w.message)]


@pytest.mark.slow
def test_a_wrong_key_costs_one_warning_and_no_training(
    tmp_path, monkeypatch, no_login, refusing_server
):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    monkeypatch.setenv("GENBENCH_LOGGER", "online")
    said = logged(tmp_path, 3)
    assert len(said) == 1
    assert "401" in said[0] and "logging offline" in said[0]
    assert len(read(tmp_path)) == 3
    assert list(tmp_path.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_a_full_disk_of_wandb_costs_one_warning_and_no_training(monkeypatch, no_login, small_disk):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    said = logged(small_disk, 400)
    assert len(said) == 1
    assert "No space left on device" in said[0] and "training goes on" in said[0]
    assert len(read(small_disk)) == 400


@pytest.mark.slow
def test_a_dashboard_that_fails_costs_one_warning_and_no_training(tmp_path, monkeypatch, no_login):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    entry = WANDB | {"project": "not/a/project"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sinks = loggers.build({"wandb": entry}, tmp_path, CONFIG, "abc123")
        for step in range(3):
            for sink in sinks:
                sink.log_metrics({"a": 1.0}, step=step)
        loggers.finish(sinks, [SCORE], "finished")
    said = [str(w.message) for w in caught if "wandb" in str(w.message)]
    assert len(said) == 1
    assert "training goes on" in said[0]
    assert len(read(tmp_path)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ["status", "code"], [("finished", 0), ("failed", 1), ("interrupted", 1), ("diverged", 1)]
)
def test_wandb_records_how_a_run_ended(tmp_path, monkeypatch, no_login, status, code):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    sinks = loggers.build({"wandb": WANDB}, tmp_path, CONFIG, "abc123")
    for _ in range(2):  # Lightning says it too
        loggers.finish(sinks, [], status)
    exits = [r.exit for r in records(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert [e.exit_code for e in exits] == [code]


@pytest.mark.slow
def test_a_run_that_ends_without_a_status_has_failed_in_wandb(tmp_path, no_login):
    code = f"""
import time
from pathlib import Path
from genbench.training import loggers
sinks = loggers.build({ {"wandb": WANDB} }, Path({str(tmp_path)!r}), {CONFIG}, "abc123")
for sink in sinks:
    sink.log_metrics({ {"a": 1.0} }, step=64)
while not sinks[1]._tasks.empty():  # the thread has begun on it
    time.sleep(0.05)
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=dict(os.environ, GENBENCH_LOGGER="offline")
    )
    exits = [r.exit for r in records(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert [e.exit_code for e in exits] == [1]
    assert points(tmp_path) == [(64, 1.0)]


@pytest.mark.slow
def test_a_tag_too_long_for_wandb_is_cut_and_duplicates_are_dropped(
    tmp_path, monkeypatch, no_login
):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    config = CONFIG | {"tags": ["gan", "t" * 100]}
    loggers.finish(loggers.build({"wandb": WANDB}, tmp_path, config, "abc123"), [], "finished")
    run = next(r.run for r in records(tmp_path) if r.WhichOneof("record_type") == "run")
    assert sorted(run.tags) == sorted(["gan", "digits", "first", "t" * 64])
