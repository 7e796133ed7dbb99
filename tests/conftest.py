"""What all tests share: one thread, no settings from outside, no network logins."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    """The user's own settings, and other launchers', must not reach a test."""
    for name in list(os.environ):
        if name.startswith(("GENBENCH_", "WANDB_", "SLURM_", "TORCHELASTIC_", "HYDRA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def room(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def postgresql():
    """URL of a server of these tests' own, which is gone afterwards."""
    if not all(shutil.which(program) for program in ("initdb", "pg_ctl", "postgres")):
        pytest.skip("no PostgreSQL on this machine")
    pytest.importorskip("psycopg")
    room = Path(tempfile.mkdtemp(prefix="gb-pg-"))  # a socket's path must be short
    prefix = []
    if os.geteuid() == 0:  # PostgreSQL refuses root
        if not shutil.which("setpriv"):
            pytest.skip("PostgreSQL refuses root, and there is no setpriv to be somebody else")
        os.chown(room, 65534, 65534)
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    data = room / "data"

    def call(*command):
        return subprocess.run(
            [*prefix, *command], capture_output=True, text=True, cwd=room,
            env={**os.environ, "HOME": str(room)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    made = call("initdb", "-D", str(data), "-U", "gb", "-A", "trust", "--no-sync")
    assert made.returncode == 0, made.stderr
    options = f"-k {room} -c listen_addresses='' -c fsync=off"
    log = room / "log"
    started = call("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(log), "start")
    assert started.returncode == 0, log.read_text()
    yield f"postgresql+psycopg://gb@/postgres?host={room}"
    call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    shutil.rmtree(room, ignore_errors=True)
