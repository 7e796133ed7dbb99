"""All benchmarks, one table: python -m benchmarks [NAME...] [--data FOLDER] [--rounds 5] [--json]

NAME is input, training, ranks, metrics, startup, index or gpu; without one, all of them. `--write` puts the figures
into this processor's column of docs/performance.md; those of other processors stay.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.page import Table, merged, put, read, written  # noqa: E402
from genbench.runs.machine import processor  # noqa: E402

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "performance.md"
NAMES = ["input", "training", "ranks", "metrics", "startup", "index", "gpu"]
TAKE_DATA = ("input", "training")
# of five rounds on the two cores of docs/performance.md; index writes 100 000 runs, whatever the rounds
LENGTHS = {
    "input": "20 s",
    "training": "9 min",
    "metrics": "4 min",
    "startup": "1 min",
    "index": "4 min",
    "gpu": "not timed, needs one",
}


def run(name: str, data: Path | None, rounds: int) -> list[dict[str, Any]]:
    """Rows of one benchmark, which is a process of its own."""
    arguments = ["--json", "--rounds", str(rounds)]
    if data and name in TAKE_DATA:
        arguments += ["--data", str(data)]
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def circumstances(rounds: int) -> str:
    """How they were measured."""
    from importlib.metadata import version

    of = f"{os.cpu_count()} cores, {platform.system()}, torch {version('torch')}"
    return f"{of}; {datetime.now(UTC):%Y-%m-%d}; {rounds} rounds"


def lengths() -> str:
    """How long each part takes."""
    parts = (f"{name} {LENGTHS.get(name, 'not timed')}" for name in NAMES)
    return f"Without a NAME all parts, one after another. About: {'; '.join(parts)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=lengths())
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path, help="a folder with torchvision's MNIST")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    rows = [
        row
        for name in arguments.names or NAMES
        for row in run(name, arguments.data, arguments.rounds)
    ]
    name, told = processor(), circumstances(arguments.rounds)
    if arguments.json:
        machine = f"{name}, {told}"
        json.dump({"machine": machine, "rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    print(written(merged(Table({}, {}), name, told, rows)))
    if arguments.write:
        put(PAGE, merged(read(PAGE.read_text(encoding="utf-8")), name, told, rows))


if __name__ == "__main__":
    main()
