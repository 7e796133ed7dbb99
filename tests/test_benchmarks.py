"""The sides of `benchmarks/training.py` still run: nothing else calls the loops that genbench is held against."""

import json
import subprocess
import sys

import pytest

from fixtures.places import ROOT, environment

LAPS = """
import json, sys, warnings
from importlib.util import find_spec
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
from benchmarks import sides, training
sides.STEPS = {kind: 2 for kind in sides.STEPS} | {"empty": 400}
wanted = {side for row in training.ROWS for side in row[2:4]}
assert wanted == set(sides.SIDES)
answers, sys.stdout = sys.stdout, sys.stderr
spent = {name: side(None)() for name, side in sides.SIDES.items() if "pythae" not in name or find_spec("pythae")}
json.dump(spent, answers)
"""


@pytest.mark.slow
def test_every_side_of_the_training_benchmark_takes_its_steps(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LAPS, str(ROOT)],
        env=environment() | {"GENBENCH_BENCH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    spent = json.loads(done.stdout)
    assert {"gan/bare", "vae/naive", "dcgan/naive", "empty/genbench"} <= set(spent)
    assert all(cpu > 0 and wall > 0 for cpu, wall in spent.values())
