"""Where the numbers of a run go, read back from what the loggers left on disk."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from wandb_server import WandbServer, serving

from genbench.commands import doctor
from genbench.errors import UserMistake
from genbench.launch import wandb_access
from genbench.runs.history import read_history
from genbench.runs.score import Score
from genbench.training import loggers
from genbench.training.loggers import history as history_module
from genbench.training.loggers import wandb

CONFIG = {
    "seed": 3,
    "study": "first",
    "tags": ["mine"],
    "choices": {"model": "gan", "dataset": "digits"},
    "budget": {"images": 640},
    "model": {"_target_": "nothing.that.exists"},  # a config names classes; a logger makes none
    "logger": {"wandb": {"_target_": "genbench.training.loggers.wandb.Wandb"}},
}
SCORE = Score("fd_lenet", 4.5, "", False, {"quantity": "fd"})
WANDB = {"_target_": "genbench.training.loggers.wandb.Wandb", "project": "genbench", "entity": None}
TENSORBOARD = {"_target_": "genbench.training.loggers.tensorboard.TensorBoard"}


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
    history = history_module.History(tmp_path)
    history.log_metrics({"a": 1.0}, step=64)
    history.log_metrics({"a": 2.0, "b": 0.5}, step=128)
    rows = read(tmp_path)
    assert [row["images"] for row in rows] == ["64", "128"]
    assert [row["b"] for row in rows] == ["", "0.5"]
    assert read_history(tmp_path) == {"a": [(64, 1.0), (128, 2.0)], "b": [(128, 0.5)]}


def test_a_resumed_history_forgets_what_comes_after_the_checkpoint(tmp_path):
    history = history_module.History(tmp_path)
    for images in (64, 128, 192):
        history.log_metrics({"a": float(images)}, step=images)
    again = history_module.History(tmp_path)
    loggers.rewind([again], images=128)
    again.log_metrics({"a": 7.0}, step=192)
    assert [row["a"] for row in read(tmp_path)] == ["64.0", "128.0", "7.0"]


@pytest.mark.parametrize("cut", ["192", "192,0.", "192,0.5,1"])
def test_a_line_that_a_power_cut_left_unfinished_is_dropped(tmp_path, cut):
    history = history_module.History(tmp_path)
    history.log_metrics({"a": 1.0, "b": 3.0}, step=64)
    with (tmp_path / "history.csv").open("a") as file:
        file.write(cut)
    assert read_history(tmp_path) == {"a": [(64, 1.0)], "b": [(64, 3.0)]}
    history_module.History(tmp_path).log_metrics({"a": 2.0}, step=128)
    assert [(row["images"], row["a"]) for row in read(tmp_path)] == [("64", "1.0"), ("128", "2.0")]


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
    assert {"wandb.py", "models/vae.py"} <= sent["code"]


def logged_artifacts(found):
    """What a run's file asks the server to keep."""
    asked = [r.request for r in found if r.WhichOneof("record_type") == "request"]
    return [r.artifact for r in found if r.WhichOneof("record_type") == "artifact"] + [
        r.log_artifact.artifact for r in asked if r.WhichOneof("request_type") == "log_artifact"
    ]


def test_an_artifact_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(UserMistake, match=r"names weights: there are code, checkpoints"):
        wandb.Wandb(tmp_path, CONFIG, "f", "offline", "p", None, artifacts=["weights"])


def points(directory: Path):
    """What an offline run's file says of each key at each number of images."""
    rows = [r.history.item for r in records(directory) if r.WhichOneof("record_type") == "history"]
    rows = [{(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in r} for r in rows]
    return [(row["images"], row["a"]) for row in rows if "a" in row]


@pytest.fixture
def silent_server():
    """Address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_server_that_does_not_answer_holds_nothing_up_and_loses_nothing(
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
def test_a_full_disk_of_wandbs_costs_one_warning_and_no_training(monkeypatch, no_login, small_disk):
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
def test_a_dashboard_is_told_how_a_run_ended(tmp_path, monkeypatch, no_login, status, code):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    sinks = loggers.build({"wandb": WANDB}, tmp_path, CONFIG, "abc123")
    for _ in range(2):  # Lightning says it too
        loggers.finish(sinks, [], status)
    exits = [r.exit for r in records(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert [e.exit_code for e in exits] == [code]


@pytest.mark.slow
def test_a_run_that_ends_without_a_word_has_failed_in_the_dashboard(tmp_path, no_login):
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
def test_a_tag_that_is_too_long_for_wandb_is_cut_and_none_comes_twice(
    tmp_path, monkeypatch, no_login
):
    monkeypatch.setenv("GENBENCH_LOGGER", "offline")
    config = CONFIG | {"tags": ["gan", "t" * 100]}
    loggers.finish(loggers.build({"wandb": WANDB}, tmp_path, config, "abc123"), [], "finished")
    run = next(r.run for r in records(tmp_path) if r.WhichOneof("record_type") == "run")
    assert sorted(run.tags) == sorted(["gan", "digits", "first", "t" * 64])


@pytest.mark.slow
def test_with_a_key_the_address_of_the_server_decides(monkeypatch, no_login, silent_server):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    auto = {"wandb": WANDB | {"only_if_logged_in": True}}
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    assert wandb_access.decide(auto) == "online"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    with pytest.warns(UserWarning, match="does not answer"):
        assert wandb_access.decide(auto) == "offline"
    assert "WANDB_SERVICE" not in os.environ  # else the worker would use this process's service


def test_wandb_is_left_alone_unless_asked_for_or_logged_in(monkeypatch, no_login):
    auto = {"wandb": WANDB | {"only_if_logged_in": True}}
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_access.decide({}) == "none"
    assert wandb_access.decide(auto) == "none"
    assert wandb_access.decide({"wandb": WANDB}) == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_access.decide({"wandb": WANDB}) == "none"


@pytest.mark.slow
def test_doctor_tells_a_server_that_does_not_answer_from_a_missing_login(monkeypatch, no_login):
    def found():
        (finding,) = doctor._wandb()
        return finding.found, finding.remedy

    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert found()[0].endswith("nobody is logged in")
    assert found()[1] == "optional: wandb login"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", address)
    assert found()[0].endswith(f"there is a key, but {address} does not answer")
    assert "genbench wandb sync" in found()[1]
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert found()[0].endswith("kept offline by WANDB_MODE")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert found()[0].endswith("switched off by WANDB_MODE")


def test_a_key_and_offline_mode_stay_offline(monkeypatch, no_login):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_access.decide({"wandb": WANDB}) == "offline"


def test_the_question_about_wandb_is_asked_without_torch_and_without_wandb():
    code = "import sys; from genbench.launch import wandb_access; wandb_access.decide({}); print(*sys.modules)"
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
    assert [(e.step, e.value) for e in events.Scalars("final/fd_lenet")] == [(64, 4.5)]
    assert events.Images("samples")[0].step == 64


# --- Visdom ---------------------------------------------------------------------------------------

# `python -m visdom.server` fetches its scripts from the network first; what it starts then is this
SERVE = """
import sys
from visdom.server.run_server import start_server
start_server(port=int(sys.argv[1]), hostname="127.0.0.1", base_url="", env_path=sys.argv[2])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def visdom_server(tmp_path):
    """A real server; (port, folder where it keeps its environments, process)."""
    pytest.importorskip("visdom", reason="visdom is not installed")
    port, kept = free_port(), tmp_path / "kept"
    kept.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port), str(kept)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not answers(port):
            assert server.poll() is None, "visdom's server ended"
            assert time.monotonic() < end, "visdom's server does not answer"
            time.sleep(0.1)
        yield port, kept, server
    finally:
        server.kill()
        server.wait()


def visdom_of(directory: Path, port: int, seconds: float = 20.0):
    entry = {
        "_target_": "genbench.training.loggers.visdom.Visdom",
        "server": "http://127.0.0.1",
        "port": port,
    }
    directory.mkdir(exist_ok=True)
    built = loggers.build({"visdom": entry | {"seconds": seconds}}, directory, CONFIG, "f00d")
    return [logger for logger in built if not isinstance(logger, history_module.History)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # visdom's
def test_a_visdom_server_has_curves_pictures_and_scores(tmp_path, picture, visdom_server):
    port, kept, _ = visdom_server
    boards = visdom_of(tmp_path / "run", port)
    for images in (64, 128):
        boards[0].log_metrics({"loss/one": images / 64}, step=images)
    loggers.log_images(boards, "samples", picture, 128)
    loggers.finish(boards, [SCORE], "finished")
    windows = json.loads((kept / "genbench_run.json").read_text())["jsons"]
    curve = windows["loss/one"]["content"]["data"][0]
    assert (curve["x"], curve["y"]) == ([64, 128], [1.0, 2.0])
    assert "samples" in windows
    assert "final/fd_lenet" in windows["scores"]["content"]


@pytest.mark.slow
def test_a_visdom_server_that_goes_away_ends_nothing(tmp_path, picture, visdom_server):
    port, _, server = visdom_server
    boards = visdom_of(tmp_path / "run", port)
    server.kill()
    server.wait()
    with pytest.warns(UserWarning, match="visdom: .*training goes on without it") as told:
        boards[0].log_metrics({"loss/one": 1.0}, step=64)
        loggers.finish(boards, [SCORE], "finished")
        boards[0].log_metrics({"loss/one": 1.0}, step=128)
    assert len(told) == 1


def test_without_the_package_visdom_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", None)
    with pytest.raises(Exception, match="logger=visdom needs the package visdom"):
        visdom_of(tmp_path / "run", 1)
