"""Everything that runs differently on a GPU, tried once: python benchmarks/gpu_check.py, or make gpu-check.

    python benchmarks/gpu_check.py [--only CHECK,...] [--device cuda|cpu] [--seconds 540] [--json FILE] [--speed]

Needs no network and no installation: a checkout, PyTorch, Lightning, torchmetrics, and hydra-core, omegaconf and
antlr4-python3-runtime somewhere on PYTHONPATH (0.4 MB of wheels). `--device cpu` tries the checks
themselves. Each is one line: what was found, or what was not as demanded; the others go on. `--speed`
runs G1 to G3 (benchmarks/gpu.py) at the end. Exit code 1 if a check failed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("WANDB_MODE", "disabled")

import torch  # noqa: E402

from benchmarks.gpu_checks import commands, graphs, numbers, processes, speeds  # noqa: E402, F401
from benchmarks.gpu_checks.common import CHECKS, Check, Failed, Skipped, choose  # noqa: E402

WIDTH = max(map(len, CHECKS))
LAST = "speeds"  # while nothing else runs
Row = dict[str, Any]


def made(check: Check, end: float) -> Row:
    """Make one check, print its line, and return what the JSON file says of it."""
    start, trace = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="genbench-gpu-check-") as folder:
        try:
            if start > end:
                raise Skipped("no time is left")
            state, found = "ok", check.work(Path(folder))
        except Skipped as error:
            state, found = "skipped", str(error)
        except Failed as error:
            state, found = "FAILED", str(error)
        except Exception as error:
            state, found, trace = (
                "BROKEN",
                f"{type(error).__name__}: {error}",
                traceback.format_exc(),
            )
    row = {"check": check.name, "state": state, "found": found, "trace": trace}
    row["seconds"] = round(time.monotonic() - start, 1)
    first = " ".join(found.split())[:300]
    print(f"{state:<8} {check.name:<{WIDTH}} {row['seconds']:6.1f} s  {first}", flush=True)
    if trace:
        print(trace, file=sys.stderr, flush=True)
    return row


def machine() -> Row:
    """What was checked, and by which versions."""
    cuda = torch.cuda.is_available()
    return {
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def write(path: Path | None, rows: list[Row], speed: list[Row]) -> None:
    if path:
        content = {"machine": machine(), "checks": rows, "speed": speed}
        path.write_text(json.dumps(content, indent=1))


def measured() -> Iterator[list[Row]]:
    """G1 to G3, each in a process of its own: the rows of each when it has ended."""
    for name in ("G1", "G2", "G3"):
        program = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), name, "--json"]
        # four runs of 500k images, one after the other, would take five minutes
        program += ["--rounds", "1", "--images", "200k"] if name == "G3" else ["--rounds", "2"]
        done = subprocess.run(program, capture_output=True, text=True)
        try:
            found = json.loads(done.stdout)["rows"]
        except ValueError:
            found = [{"id": name, "what": done.stderr[-2000:], "ratio": None, "note": "failed"}]
        for row in found:
            ratio = row.get("note") or f"{row['ratio']:.2f}x"
            print(f"{row['id']}  {row['what']}  {ratio}", flush=True)
        yield found


def paragraph(rows: list[Row], speed: list[Row]) -> str:
    """For docs/performance.md."""
    what = machine()
    name = what["gpus"][0] if what["gpus"] else platform.processor() or platform.machine()
    count = {
        s: sum(row["state"] == s for row in rows) for s in ("ok", "FAILED", "BROKEN", "skipped")
    }
    told = next((row["found"] for row in rows if row["check"] == LAST and row["state"] == "ok"), "")
    ratios = "; ".join(f"{r['id']} {r['what']} {r['ratio']:.2f}x" for r in speed if r["ratio"])
    return (
        f"On {name} (torch {what['torch']}, CUDA {what['cuda']}, {what['cores']} cores) "
        f"{count['ok']} of {len(rows)} checks of `make gpu-check` hold, "
        f"{count['FAILED'] + count['BROKEN']} do not and {count['skipped']} were left out. "
        + (f"Images/s, whole trainings: {told}. " if told else "")
        + (f"{ratios}." if ratios else "")
    ).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help=f"some of: {', '.join(CHECKS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=540, help="begin no check after these")
    parser.add_argument("--jobs", type=int, default=0, help="checks beside each other (by cores)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--speed", action="store_true", help="G1 to G3 too")
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name] or [*CHECKS]
    if unknown := set(names) - set(CHECKS):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(CHECKS)}")
    choose(arguments.device)
    torch.set_num_threads(1)
    jobs = arguments.jobs or min(4, (os.cpu_count() or 1) // 3)
    end, rows = time.monotonic() + arguments.seconds, []
    here = [CHECKS[n] for n in names if n != LAST and not (jobs > 0 and CHECKS[n].aside)]
    aside = [CHECKS[n] for n in names if CHECKS[n] not in here and n != LAST]
    speed: list[Row] = []
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        begun: list[Future[Row]] = [pool.submit(made, check, end) for check in aside]
        for check in here:
            rows.append(made(check, end))
            write(arguments.json, rows, speed)
        for future in begun:
            rows.append(future.result())
            write(arguments.json, rows, speed)
    if LAST in names:
        rows.append(made(CHECKS[LAST], end))
    if arguments.speed:
        for found in measured():
            speed += found
            write(arguments.json, rows, speed)  # what there is, should time run out
    write(arguments.json, rows, speed)
    print(f"\n{paragraph(rows, speed)}")
    return int(any(row["state"] in ("FAILED", "BROKEN") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
