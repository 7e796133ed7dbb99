"""`genbench doctor`: what works on this machine, and the remedy for what does not."""

import json
import socket

import pytest
import torch

from genbench.cli import main
from genbench.commands import doctor


def found(capsys):
    code = main(["doctor", "--format", "json"])
    return code, {finding["topic"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_doctor_says_that_digits_can_be_trained_here(room, capsys):
    code, findings = found(capsys)
    assert code == 0
    assert findings["torchvision"]["found"].endswith("fits this torch")
    assert findings["dataset digits"]["state"] == "ok"
    assert all(finding["state"] != "broken" for finding in findings.values())
    assert not list(room.iterdir())


def test_doctor_says_so_if_there_are_gpus_that_pytorch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    first = next(iter(doctor._devices()))
    assert first.state == "missing"
    assert "sees none of the GPUs 0, 1" in first.found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert next(iter(doctor._devices())).state == "ok"


def test_doctor_fails_where_nothing_can_be_written(room, monkeypatch, capsys):
    (room / "file").write_text("")
    monkeypatch.setenv("GENBENCH_OUTPUTS", "file/outputs")
    code, findings = found(capsys)
    assert code == 1
    assert findings["outputs"]["state"] == "broken"
    assert main(["doctor"]) == 1
    assert "set GENBENCH_OUTPUTS" in capsys.readouterr().out


@pytest.mark.slow
def test_doctor_distinguishes_an_unreachable_server_from_a_missing_login(monkeypatch, no_login):
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
