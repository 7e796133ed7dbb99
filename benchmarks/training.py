"""CPU time of training: genbench against loops that its users would write or call.

    python benchmarks/training.py [ROW...] [--data FOLDER] [--rounds 5] [--json]

L1  against a bare loop over the same networks with the same tricks (MLP GAN, convolutional VAE)
L2  against the usual Lightning module: toggled optimizers, fakes made twice, a log in every step
L3  an empty step: the Trainer as genbench sets it up against a barebones Trainer
T1  a VAE on 28 x 28 images against pythae's trainer; T2 the same in bf16
T3  DCGAN on 32 x 32 colour images against a plain loop that makes its fakes twice; again in bf16
T4  wall time of T3's step with two threads against one while two other processes are busy: above 1
    is faster

Every side is a process of its own in every round, with one thread and batches of 64; they take turns, and
the ratio is the median over the rounds of CPU times (T4: of wall times). Peak memory is the process's. The
peers get batches that are ready to use; genbench reads, moves and scales its own.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.sides import SIDES, STEPS, pictures  # noqa: E402

# row, what, genbench's side, its peer, the demand
ROWS = [
    ("L1", "MLP GAN", "gan/genbench", "gan/bare", 1.03),
    ("L1", "conv VAE", "vae/genbench", "vae/bare", 1.03),
    ("L2", "MLP GAN", "gan/genbench", "gan/naive", 0.80),
    ("L2", "conv VAE", "vae/genbench", "vae/naive", 0.92),
    ("L3", "empty step", "empty/genbench", "empty/barebones", 2.0),
    ("T1", "conv VAE", "vae/genbench", "vae/pythae", 0.85),
    ("T2", "conv VAE, bf16", "vae/genbench-bf16", "vae/pythae", 0.60),
    ("T3", "DCGAN 32 x 32", "dcgan/genbench", "dcgan/naive", 0.72),
    ("T3", "DCGAN 32 x 32, bf16", "dcgan/genbench-bf16", "dcgan/naive", 0.46),
]


# --- taking turns -------------------------------------------------------------------------------


def serve(side: str, data: Path | None) -> None:
    """Run a lap for every line on stdin; answer with its times and the peak memory so far."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    lap = SIDES[side](data)
    lap()  # warms up
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        cpu, wall = lap()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([cpu, wall, memory]), file=answers, flush=True)


class Side:
    """A process that waits for its turn."""

    def __init__(self, side: str, data: Path | None, threads: int = 1) -> None:
        arguments = ["--serve", side, *(["--data", str(data)] if data else [])]
        self.steps = STEPS[side.split("/")[0]]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended: run it alone to see why")
        return line

    def lap(self) -> tuple[float, float, int]:
        """Seconds per step of CPU and of the wall, peak bytes."""
        assert self.process.stdin
        print("go", file=self.process.stdin, flush=True)
        cpu, wall, memory = json.loads(self._answer())
        return cpu / self.steps, wall / self.steps, memory

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def take_turns(names: list[str], data: Path | None) -> dict[str, tuple[float, float, int]]:
    """Two laps of every side, each in a new process: how memory falls out makes 5 % for its life."""
    sides = {name: Side(name, data) for name in names}
    laps = [{name: side.lap() for name, side in sides.items()} for _ in range(2)]
    for side in sides.values():
        side.close()
    return {
        name: ((one[0] + two[0]) / 2, (one[1] + two[1]) / 2, two[2])
        for name, one, two in ((name, *(lap[name] for lap in laps)) for name in names)
    }


def measure(wanted: list[str], data: Path | None, rounds: int) -> list[dict[str, Any]]:
    rows = [row for row in ROWS if not wanted or row[0] in wanted]
    found: list[dict[str, Any]] = []
    for kind in dict.fromkeys(row[2].split("/")[0] for row in rows):  # few processes at a time
        here = [row for row in rows if row[2].startswith(kind)]
        names = dict.fromkeys(name for row in here for name in row[2:4])
        laps = [take_turns(list(names), data) for _ in range(rounds)]
        for identity, what, own, peer, demand in here:
            ratios = [lap[own][0] / lap[peer][0] for lap in laps]
            found.append(
                {
                    "id": identity,
                    "what": f"{what}, {own.split('/')[1]} / {peer.split('/')[1]}",
                    "peer_ms": 1e3 * statistics.median(lap[peer][0] for lap in laps),
                    "genbench_ms": 1e3 * statistics.median(lap[own][0] for lap in laps),
                    "ratio": statistics.median(ratios),
                    "low": min(ratios),
                    "high": max(ratios),
                    "demand": demand,
                    "peak_mb": laps[-1][own][2] / 1e6,
                    "peer_peak_mb": laps[-1][peer][2] / 1e6,
                }
            )
    if not wanted or "T4" in wanted:
        found.append(crowded(data, rounds))
    return found


def crowded(data: Path | None, rounds: int) -> dict[str, Any]:
    """T4: the step of T3 with two threads and with one, beside two busy processes."""
    sides = [Side("dcgan/genbench", data, threads) for threads in (1, 2)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        walls = [[side.lap() for side in sides] for _ in range(rounds)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    for side in sides:
        side.close()
    ratios = [one[1] / two[1] for one, two in walls]
    return {
        "id": "T4",
        "what": "DCGAN 32 x 32, speed with 2 threads / with 1",
        "peer_ms": 1e3 * statistics.median(one[1] for one, _ in walls),
        "genbench_ms": 1e3 * statistics.median(two[1] for _, two in walls),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "demand": 0.8,
        "at_least": True,
        "peak_mb": walls[-1][1][2] / 1e6,
        "peer_peak_mb": walls[-1][0][2] / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.data)
        return
    pictures_once(arguments.data)
    rows = measure(arguments.rows, arguments.data, arguments.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if arguments.json:
        json.dump({"machine": machine, "rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    for row in rows:
        sign = ">=" if row.get("at_least") else "<="
        print(
            f"{row['id']}  {row['what']:<48} {row['peer_ms']:9.2f} {row['genbench_ms']:9.2f} ms"
            f"  {row['ratio']:.3f} ({row['low']:.3f} - {row['high']:.3f}) {sign} {row['demand']}"
            f"  {row['peak_mb']:.0f} / {row['peer_peak_mb']:.0f} MB"
        )


def pictures_once(data: Path | None) -> None:
    """Make the images before two processes would at once."""
    for kind in ("gan", "dcgan"):
        pictures(kind, data)


if __name__ == "__main__":
    main()
