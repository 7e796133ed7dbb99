"""Seconds to read many runs, their folder read for the first time and again (`genbench.runs.index`).

    python benchmarks/index.py [--rounds 5] [--json]

X1, X2  load_results of 10 000 and of 100 000 runs, warm
X3      `genbench runs --format csv` of 10 000 runs, the whole process, warm
X4      `genbench compare` of 10 000 runs, the whole process, warm

The records are written here, in a folder that is removed: 13 scores each, 100 methods, every tenth run
without a result. The demand is in seconds, so the table's ratio is seconds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import main  # noqa: E402
from genbench.runs.method import fingerprint  # noqa: E402
from genbench.runs.records import load_results  # noqa: E402
from genbench.runs.result import Result  # noqa: E402
from genbench.runs.score import Score  # noqa: E402

NAMES = [f"{name}_lenet-digits-v1" for name in (
    "fd", "fd_bc", "fd_heldout", "fd_floor", "kid", "is", "precision", "recall", "density",
    "coverage", "copy_rate", "class_balance", "elbo",
)]  # fmt: skip
SECTION = {
    "image_size": 32,
    "channels": 3,
    "width": 256,
    "depth": 2,
    "latent_dim": 16,
    "scale": 0.3,
}


def config_of(number: int) -> dict[str, Any]:
    """Of the size of a real one, about 3 kB."""
    return {
        "seed": number // 100,
        "study": f"study-{number % 7}",
        "tags": [],
        "choices": {"model": f"model-{number % 5}", "dataset": "digits", "network": "mlp"},
        "model": {"_target_": "m", "lr": number % 100 / 1000, "decoder": SECTION, "trunk": SECTION},
        "network": {"latent_dim": 16, "decoder": {"_target_": "d"} | SECTION, "trunk": SECTION},
        "dataset": {"name": "digits", "source": {"_target_": "s"}} | SECTION,
        "budget": {"images": 128_000, "batch_size": 64},
        "evaluation": {"metrics": {name: SECTION for name in NAMES}},
        "trainer": {"precision": "32-true", "devices": 1} | SECTION,
    }


def write(outputs: Path, number: int) -> None:
    """Write a run as a worker leaves it, without waiting for the disk."""
    run = outputs / f"20260101-{number:06d}-abcdef"
    run.mkdir()
    config = config_of(number)
    status = {"status": "finished", "heartbeat": 2.0, "started": 1.0, "images": 128_000}
    if number % 10 == 9:
        status |= {"status": "failed", "reason": "no memory"}
    else:
        cards = [{"quantity": name.split("_lenet")[0], "extractor": SECTION, "real": {"n": 1257}} for name in NAMES]  # fmt: skip
        scores = [Score(name, number / 7 + place, "", False, cards[place], number / 9, number / 5) for place, name in enumerate(NAMES)]  # fmt: skip
        result = Result(
            run.name, config["study"], [], "finished", config["choices"]["model"], "digits",
            config["seed"], fingerprint(config), config,
            {"images": 128_000, "seconds": number / 3}, {"parameters": {"decoder": 86_592}},
            scores, {"command": "genbench train", "versions": SECTION},
        )  # fmt: skip
        (run / "result.json").write_text(json.dumps(result.to_dict()))
    (run / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (run / "status.json").write_text(json.dumps(status))
    for file in run.iterdir():  # a run of today is read anew for two seconds
        os.utime(file, (1e9, 1e9))


def seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def command(*arguments: str) -> Callable[[], Any]:
    call = [sys.executable, "-m", "genbench", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return lambda: subprocess.run(call, env=environment, check=True, stdout=subprocess.DEVNULL)


def measure(rounds: int, sizes: Sequence[int] = (10_000, 100_000)) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as room:
        os.environ["GENBENCH_CACHE"] = f"{room}/cache"
        outputs, made = Path(room) / "outputs", 0
        outputs.mkdir()
        for size, demand in zip(sizes, (2.0, 5.0), strict=True):
            for number in range(made, size):
                write(outputs, number)
            new, made = size - made, size
            cold = seconds(lambda: load_results((), outputs)) / new * size
            acts = {
                f"X{1 + sizes.index(size)}": (lambda: load_results((), outputs), "load_results")
            }
            if size == sizes[0]:
                own = ("--outputs", str(outputs))
                acts["X3"] = command("runs", "--format", "csv", *own), "genbench runs"
                acts["X4"] = command("compare", "--format", "csv", *own), "genbench compare"
            for name, (act, what) in acts.items():
                laps = [seconds(act) for _ in range(rounds)]
                rows.append(
                    {
                        "id": name,
                        "what": f"{what} of {size:,} runs, warm, seconds (cold {cold:.0f} s)",
                        "ratio": statistics.median(laps),
                        "low": min(laps),
                        "high": max(laps),
                        "demand": demand,
                        "cold": cold,
                    }
                )
    return sorted(rows, key=lambda row: row["id"])


if __name__ == "__main__":
    main(__doc__, measure)
