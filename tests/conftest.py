"""What all tests share: one thread, no settings from outside, no network logins."""

import gc
import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch

# what runs of these tests may name is recorded apart from the user's own; removed at the end
STATE = tempfile.TemporaryDirectory(prefix="genbench-tests-")
os.environ["GENBENCH_STATE"] = STATE.name

import pytest  # noqa: E402

gc.disable()  # while test files import torch and more: see genbench/work.py

pytest.register_assert_rewrite("fixtures")
pytest_plugins = [
    "fixtures.browser",
    "fixtures.comparison",
    "fixtures.composition",
    "fixtures.forks",
    "fixtures.launching",
    "fixtures.loggers",
    "fixtures.postgresql",
    "fixtures.searching",
    "fixtures.training",
]


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    """The user's own settings, and other launchers', must not reach a test."""
    for name in list(os.environ):
        if name.startswith(("GENBENCH_", "WANDB_", "SLURM_", "TORCHELASTIC_", "HYDRA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GENBENCH_STATE", STATE.name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def room(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
