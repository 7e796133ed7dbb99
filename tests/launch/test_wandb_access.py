"""Whether a run logs to wandb, and online or offline."""

import os
import socket
import subprocess
import sys

import pytest

from fixtures.loggers import WANDB
from genbench.launch import wandb_access


@pytest.mark.slow
def test_with_a_key_the_mode_depends_on_whether_the_server_answers(
    monkeypatch, no_login, silent_server
):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    auto = {"wandb": WANDB | {"only_if_logged_in": True}}
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    assert wandb_access.decide_mode(auto) == "online"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    with pytest.warns(UserWarning, match="does not answer"):
        assert wandb_access.decide_mode(auto) == "offline"
    assert "WANDB_SERVICE" not in os.environ  # else the worker would use this process's service


def test_wandb_is_not_used_unless_chosen_or_logged_in(monkeypatch, no_login):
    auto = {"wandb": WANDB | {"only_if_logged_in": True}}
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_access.decide_mode({}) == "none"
    assert wandb_access.decide_mode(auto) == "none"
    assert wandb_access.decide_mode({"wandb": WANDB}) == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_access.decide_mode({"wandb": WANDB}) == "none"


def test_offline_mode_is_kept_with_a_key(monkeypatch, no_login):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_access.decide_mode({"wandb": WANDB}) == "offline"


def test_deciding_imports_neither_torch_nor_wandb():
    code = "import sys; from genbench.launch import wandb_access; wandb_access.decide_mode({}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert not {"torch", "wandb", "pytorch_lightning"} & set(done.stdout.split())
