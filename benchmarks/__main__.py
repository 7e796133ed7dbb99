"""All benchmarks, one table: python -m benchmarks [NAME...] [--data FOLDER] [--rounds 5] [--json]

NAME is input, training, ranks, metrics, startup, index or gpu; without one, all of them. `--write` puts the table
into docs/performance.md, between its two marks.
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

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "performance.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
NAMES = ["input", "training", "ranks", "metrics", "startup", "index", "gpu"]
TAKE_DATA = ("input", "training")
# of five rounds on the two cores of docs/performance.md; index writes 100 000 runs, whatever the rounds
LENGTHS = {
    "input": "20 s",
    "training": "4 min",
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


def machine() -> str:
    """Name what the figures were measured on."""
    from importlib.metadata import version

    from genbench.training.environment import _processor

    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, torch {version('torch')}"


def line(row: dict[str, Any]) -> list[str]:
    """A row of the table as words."""
    what = row.get("what") or row.get("set") or f"against {row.get('peer', '')}"
    if row["ratio"] is None:
        return [row["id"], what, "", "", f"{row['demand']}", row["note"], ""]
    at_least = row.get("at_least", row["id"] in ("I1", "I2"))
    spread = f"{row['low']:.3g} - {row['high']:.3g}" if "low" in row else ""
    memory = f"{row['peak_mb']:.0f} / {row['peer_peak_mb']:.0f}" if "peak_mb" in row else ""
    known = [row["id"], what, f"{row['ratio']:.3g}", spread]
    if row["demand"] is None:
        return [*known, "", "", memory]
    met = row["ratio"] >= row["demand"] if at_least else row["ratio"] <= row["demand"]
    demand = f"{'>=' if at_least else '<='} {row['demand']}"
    return [*known, demand, "" if met else "missed", memory]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    heads = ["", "what", "ratio", "range", "demand", "", "peak MB, own / peer"]
    lines = [heads, ["---"] * len(heads), *(line(row) for row in rows)]
    return "\n".join("| " + " | ".join(words) + " |" for words in lines)


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
    if arguments.json:
        json.dump({"machine": machine(), "rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    told = f"{machine()}; {datetime.now(UTC):%Y-%m-%d}; {arguments.rounds} rounds.\n\n{table(rows)}"
    print(told)
    if arguments.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{told}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
