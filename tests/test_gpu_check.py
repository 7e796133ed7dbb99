"""`make gpu-check`, as far as a CPU can try it."""

import json
import subprocess
import sys

import pytest

from fixtures.places import ROOT, environment

FEW = ["tf32", "penalties", "data_path", "graph"]


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
    assert "3 of 4 checks of `make gpu-check` hold" in done.stdout


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
