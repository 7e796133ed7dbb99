"""The command line of a benchmark whose rows are ratios with a demand that they stay below."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]  # id, what, ratio, low, high, demand; of a ratio of times also genbench_ms


def main(told: str, measure: Callable[[int], Sequence[Row]]) -> None:
    """Measure in so many rounds and print a line per row, or JSON; `told` begins with what it is."""
    parser = argparse.ArgumentParser(description=told.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    if arguments.json:
        json.dump({"rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    width = max(len(row["what"]) for row in rows)
    for row in rows:
        print(line(row, width))


def line(row: Row, width: int = 0) -> str:
    """A row in words: `S1  --help / import torch     30 ms  0.016 (0.013 - 0.019) <= 0.2`."""
    own = f"{row['genbench_ms']:8.0f} ms" if "genbench_ms" in row else ""
    spread = f"{row['ratio']:.3f} ({row['low']:.3f} - {row['high']:.3f})"
    return f"{row['id']}  {row['what']:<{width}} {own}  {spread} <= {row['demand']}"
