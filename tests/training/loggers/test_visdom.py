"""Visdom, with a server of its own."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.loggers import CONFIG, SCORE
from genbench.training import loggers
from genbench.training.loggers import history as history_module

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
def test_a_visdom_server_that_stops_does_not_end_the_training(tmp_path, picture, visdom_server):
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
