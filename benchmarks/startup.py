"""CPU time until genbench answers, against the least that one has to wait: `import torch`.

    python benchmarks/startup.py [--rounds 5] [--json]

S1  `genbench --help`
S2  `genbench train` of one step without scores, its worker included

Every lap is a process of its own; they take turns, and the ratio is the median over the rounds.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import main  # noqa: E402

METRICS = ["frechet", "kernel", "inception_score", "neighbours", "class_balance", "copy_rate"]
TRAIN = [
    "train",
    "trainer=smoke",
    "trainer.samples=0",
    "budget.images=64",
    "budget.batch_size=64",
    "evaluation.num_samples=64",
    *(f"~evaluation.metrics.{name}" for name in METRICS),  # `={}` would change nothing
    "~evaluation.likelihoods.bounds",
    "logger=csv",
]


def cpu(arguments: list[str], outputs: str) -> float:
    """User and system seconds of a command and everything that it starts."""
    paths = {"GENBENCH_OUTPUTS": outputs, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | paths,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(rounds: int) -> list[dict[str, Any]]:
    from benchmarks.memory import peak_mb

    commands = {
        "torch": ["-c", "import torch"],
        "S1": ["-m", "genbench", "--help"],
        "S2": ["-m", "genbench", *TRAIN],
    }
    laps: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as outputs:
        for command in commands.values():  # fills the caches of the disk
            cpu(command, outputs)
        for _ in range(rounds):
            laps.append({name: cpu(command, outputs) for name, command in commands.items()})
        peaks = {
            name: peak_mb(partial(cpu, command, outputs), children=True)
            for name, command in commands.items()
        }
    rows = []
    for name, what, demand in (("S1", "--help", 0.2), ("S2", "train, one step", 2.5)):
        ratios = [lap[name] / lap["torch"] for lap in laps]
        rows.append(
            {
                "id": name,
                "what": f"{what} / import torch",
                "peer_ms": 1e3 * statistics.median(lap["torch"] for lap in laps),
                "genbench_ms": 1e3 * statistics.median(lap[name] for lap in laps),
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "demand": demand,
                "peak_mb": peaks[name],
                "peer_peak_mb": peaks["torch"],
            }
        )
    return rows


if __name__ == "__main__":
    main(__doc__, measure)
