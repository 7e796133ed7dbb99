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
peers get batches that are ready to use; genbench reads, moves and scales its own. L1, whose demand is finer than what
two processes differ by, is measured a second time with both sides in one process, a new one in every round.
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

Times = tuple[float, float, int]  # seconds per step of CPU and of the wall, peak bytes
Row = tuple[str, str, str, str, float]  # row, what, genbench's side, its peer, the demand
ROWS: list[Row] = [
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
TOGETHER = ["L1"]


# --- taking turns -------------------------------------------------------------------------------


def serve(names: list[str], data: Path | None) -> None:
    """Run a lap of the side that each line on stdin names; answer with its times and the peak memory so far."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    laps = {name: SIDES[name](data) for name in names}
    for lap in laps.values():
        lap()  # warms up
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        cpu, wall = laps[line.strip()]()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([cpu, wall, memory]), file=answers, flush=True)


class Served:
    """A process with some sides, of which each waits for its turn."""

    def __init__(self, names: list[str], data: Path | None, threads: int = 1) -> None:
        arguments = ["--serve", ",".join(names), *(["--data", str(data)] if data else [])]
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
            raise RuntimeError(f"{self.process.args!r} ended: run it alone to see why")
        return line

    def lap(self, name: str) -> Times:
        """A lap of one of its sides."""
        assert self.process.stdin
        print(name, file=self.process.stdin, flush=True)
        cpu, wall, memory = json.loads(self._answer())
        steps = STEPS[name.split("/")[0]]
        return cpu / steps, wall / steps, memory

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def take_turns(names: list[str], data: Path | None) -> dict[str, Times]:
    """Two laps of every side, each in a new process: how memory falls out makes 5 % for its life."""
    processes = {name: Served([name], data) for name in names}
    laps = [{name: process.lap(name) for name, process in processes.items()} for _ in range(2)]
    for process in processes.values():
        process.close()
    return {name: mean([lap[name] for lap in laps]) for name in names}


def together(names: list[str], data: Path | None) -> dict[str, Times]:
    """Four laps of every side, all in one new process."""
    process = Served(names, data)
    laps = [{name: process.lap(name) for name in names} for _ in range(4)]
    process.close()
    return {name: mean([lap[name] for lap in laps]) for name in names}


def mean(laps: list[Times]) -> Times:
    """Of times; the memory is the last one's."""
    cpu, wall, memory = zip(*laps, strict=True)
    return statistics.mean(cpu), statistics.mean(wall), memory[-1]


def row_of(row: Row, laps: list[dict[str, Times]], how: str = "") -> dict[str, Any]:
    """A row's figures from all rounds."""
    identity, what, own, peer, demand = row
    ratios = [lap[own][0] / lap[peer][0] for lap in laps]
    return {
        "id": identity,
        "what": f"{what}, {own.split('/')[1]} / {peer.split('/')[1]}{how}",
        "peer_ms": 1e3 * statistics.median(lap[peer][0] for lap in laps),
        "genbench_ms": 1e3 * statistics.median(lap[own][0] for lap in laps),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "demand": demand,
        "peak_mb": laps[-1][own][2] / 1e6,
        "peer_peak_mb": laps[-1][peer][2] / 1e6,
    }


def measure(wanted: list[str], data: Path | None, rounds: int) -> list[dict[str, Any]]:
    rows = [row for row in ROWS if not wanted or row[0] in wanted]
    found: list[dict[str, Any]] = []
    for kind in dict.fromkeys(row[2].split("/")[0] for row in rows):  # few processes at a time
        here = [row for row in rows if row[2].startswith(kind)]
        names = dict.fromkeys(name for row in here for name in row[2:4])
        laps = [take_turns(list(names), data) for _ in range(rounds)]
        for row in here:
            found.append(row_of(row, laps))
            if row[0] in TOGETHER:
                pairs = [together(list(row[2:4]), data) for _ in range(rounds)]
                found.append(row_of(row, pairs, ", in one process"))
    if not wanted or "T4" in wanted:
        found.append(crowded(data, rounds))
    return found


def crowded(data: Path | None, rounds: int) -> dict[str, Any]:
    """T4: the step of T3 with two threads and with one, beside two busy processes."""
    sides = [Served(["dcgan/genbench"], data, threads) for threads in (1, 2)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        walls = [[side.lap("dcgan/genbench") for side in sides] for _ in range(rounds)]
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
        serve(arguments.serve.split(","), arguments.data)
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
