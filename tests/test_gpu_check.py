"""`make gpu-check`, as far as a CPU can try it."""

import json
import subprocess
import sys

import pytest
import torch

from fixtures.launching import runs
from fixtures.places import ROOT, environment
from genbench.launch import task
from genbench.runs.config import read_config

WAITS_FOR_ALL = """
import os, sys, time
from pathlib import Path
from genbench.runs.status import Status, write_status
run, end = Path(sys.argv[1]), time.monotonic() + 20
(run / "began").touch()
while len(list(run.parent.glob("*/began"))) < int(os.environ["AT_ONCE"]):
    assert time.monotonic() < end
    time.sleep(0.02)
write_status(run, Status("finished"))
"""
FEW = ["tf32", "penalties", "data_path", "graph", "one_rank_over_nccl"]


@pytest.mark.slow
def test_the_checks_of_a_gpu_run_on_a_cpu(tmp_path):
    """From anywhere, without installation."""
    report = tmp_path / "check.json"
    program = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py")]
    done = subprocess.run(
        [*program, "--device", "cpu", "--only", ",".join(FEW), "--json", str(report)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(report.read_text())["checks"]
    states = {row["check"]: row["state"] for row in rows}
    assert states == dict.fromkeys(FEW, "ok") | {"graph": "skipped"}
    assert "4 of 5 checks of `make gpu-check` hold" in done.stdout


@pytest.mark.slow
def test_a_check_that_fails_is_told_and_the_others_go_on(tmp_path):
    code = (
        "import sys; sys.argv = ['gpu_check', '--device', 'cpu', '--only', 'bad,worse,fine',\n"
        f"  '--json', {str(tmp_path / 'x.json')!r}, '--jobs', '1']\n"
        f"sys.path[:0] = [{str(ROOT / 'benchmarks')!r}, {str(ROOT)!r}]\n"
        "import gpu_check\n"
        "from benchmarks.gpu_checks.common import check, demand\n"
        "@check()\n"
        "def bad(folder): demand(False, 'it is too far')\n"
        "@check(aside=True)\n"
        "def worse(folder): raise KeyError('missing')\n"
        "@check()\n"
        "def fine(folder): return 'near'\n"
        "sys.exit(gpu_check.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    rows = json.loads((tmp_path / "x.json").read_text())["checks"]
    assert {r["check"]: (r["state"], r["found"]) for r in rows} == {
        "bad": ("FAILED", "it is too far"),
        "worse": ("BROKEN", "KeyError: 'missing'"),
        "fine": ("ok", "near"),
    }
    assert "KeyError" in done.stderr and "Traceback" in done.stderr


@pytest.mark.slow
def test_a_captured_run_that_leaves_out_a_step_would_be_found(tmp_path):
    """Eager steps stand for captured ones: equal ones are not off the way, one step less is."""
    program = (
        "from pathlib import Path\n"
        "from benchmarks.gpu_checks import common, graphs\n"
        "common.choose('cpu')\n"
        "for steps in (40, 39):\n"
        f"    print(graphs.off_the_way(Path({str(tmp_path)!r}), 'bf16-mixed', 'gan', graph=False, steps=steps))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    equal, short = map(float, done.stdout.split())
    assert equal == 0
    assert 0.025 < short < 0.1


@pytest.mark.slow
def test_the_speeds_of_a_gpu_run_at_a_toy_size_and_their_rows_are_read(tmp_path):
    """Whatever the peers draw on the terminal: the rows alone are on stdout."""
    program = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "G1", "G2"]
    done = subprocess.run(
        [*program, "--rounds", "1", "--json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["id"], row["ratio"]) for row in rows] == [("G1", None), ("G2", None)]
    assert "d_loss" in done.stderr  # the peer's progress bar


@pytest.mark.parametrize("cuda", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_runs_that_share_a_gpu_are_ones_that_genbench_takes(room, monkeypatch, cuda):
    """Of G3, with a worker that trains nothing; on an imagined GPU as many at once as it says."""
    from benchmarks import gpu

    (room / "stub_worker.py").write_text(WAITS_FOR_ALL)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if cuda else "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    verb, *arguments = gpu.packed_arguments(4, "640")
    assert verb == "train"
    monkeypatch.setenv("AT_ONCE", "4" if cuda else "2")
    assert task.train(arguments, worker="stub_worker") == 0
    configs = [read_config(run) for run in runs()]
    assert [c["seed"] for c in sorted(configs, key=lambda c: c["seed"])] == [
        *range(4 if cuda else 2)
    ]
    assert {c["trainer"]["accelerator"] for c in configs} == {"gpu" if cuda else "cpu"}
