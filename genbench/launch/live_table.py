"""The live table of a sweep, read from its run directories; without a terminal, a line per event."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from genbench.errors import DONE, INTERRUPTED
from genbench.launch.task import shown
from genbench.runs.history import SPENT, last_row
from genbench.runs.status import Status, read_status

COLORS = {
    "finished": "green", "failed": "bold red", "diverged": "red", "interrupted": "yellow",
    "refused": "bold red",
}  # fmt: skip
ENDED_ROWS = 8  # of the runs that have ended, as many of the latest are shown


class LiveTable:
    """Progress of running runs, and the result of those that have ended.

    On a terminal a table that is redrawn every second; elsewhere a line per event.
    """

    def __init__(self, total: int, common: Sequence[str] = ()) -> None:
        self.common = set(common)  # settings that all runs share; they are not shown
        self.total, self.count, self.failed = total, 0, 0
        self.console = Console(stderr=True)
        self._running: dict[Path, Sequence[str]] = {}
        self._ended_rows: list[tuple[str, str, str, str]] = []
        self._live: Live | None = None
        self._began = time.monotonic()

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, refresh_per_second=1, get_renderable=self.draw,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None

    def print_line(self, line: str) -> None:
        """Print a line above the table, or on stderr."""
        if self._live is not None:
            self.console.print(Text(line))
        else:
            print(line, file=sys.stderr, flush=True)

    def began(self, directory: Path, overrides: Sequence[str]) -> None:
        """Add a run that has started."""
        self._running[directory] = self._own(overrides)
        if self._live is None:
            self.print_line(f"genbench: {directory.name} begins: {' '.join(self._own(overrides))}")

    def _own(self, overrides: Sequence[str]) -> list[str]:
        return [setting for setting in shown(overrides) if setting not in self.common]

    def ended(self, directory: Path) -> None:
        """Remove a run from the running ones."""
        self._running.pop(directory, None)

    def add(self, job: Any) -> None:
        """Count a run that has ended or existed before; print a failure at once with its reason."""
        self.count += 1
        status = read_status(job.directory) if job.directory else None
        state = status.status if status else _state(job.exit_code)
        name = job.directory.name if job.directory else "-"
        settings, score = " ".join(self._own(job.overrides)), last_score(job.directory)
        self.failed += state in ("failed", "diverged", "refused")
        self._ended_rows.append((state, name, settings, score))
        counted = f"{self.count}" + (f"/{self.total}" if self.total else "")
        if state in ("failed", "diverged"):
            reason = f": {status.reason}" if status and status.reason else ""
            self.print_line(f"genbench: {counted} {state} {name} ({settings}){reason}")
        elif self._live is None:
            took = "there already" if job.existed else f"{job.seconds:.0f} s"
            self.print_line(
                f"genbench: {counted} {state} {name} ({settings}) {took} {score}".rstrip()
            )

    def refresh(self) -> None:
        """Redraw the table, if there is one."""
        if self._live is not None:
            self._live.refresh()

    def draw(self) -> Group:
        """The table as it is now."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("state", "run", "images/s", "last score", "left", "settings"):
            right = column in ("images/s", "left")
            table.add_column(
                column,
                justify="right" if right else "left",
                no_wrap=column != "settings",
            )
        for state, name, settings, score in self._ended_rows[-ENDED_ROWS:]:
            table.add_row(Text(state, COLORS.get(state, "")), name, "", score, "", settings)
        for directory, overrides in self._running.items():
            table.add_row(*running_row(directory, overrides))
        done = f"{self.count} of {self.total or '?'} runs"
        failed = f", {self.failed} failed" if self.failed else ""
        minutes = (time.monotonic() - self._began) / 60
        return Group(table, Text(f"{done}{failed}, {minutes:.0f} min", "dim"))


def running_row(directory: Path, overrides: Sequence[str]) -> Sequence[Any]:
    """Cells of a running run: state, name, images/s, last score, time left (min:s), settings."""
    status = read_status(directory)
    speed = f"{status.images_per_second:,.0f}" if status.images_per_second else ""
    share = f" {status.images / status.total_images:.0%}" if status.total_images else ""
    state = Text(f"{status.status}{share}", COLORS.get(status.status, "cyan"))
    left = seconds_left(status)
    shown = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d}"
    return state, directory.name, speed, last_score(directory), shown, " ".join(overrides)


def seconds_left(status: Status) -> float | None:
    """Seconds of training left at the speed of the last heartbeat; None while it is unknown."""
    if not status.images_per_second or not status.total_images:
        return None
    return max(0.0, (status.total_images - status.images) / status.images_per_second)


def last_score(directory: Path | None) -> str:
    """The first score of a finished run, or the latest value that a running one logged; or empty."""
    if directory is None:
        return ""
    with suppress(OSError, ValueError, KeyError, IndexError):
        scores = json.loads((directory / "result.json").read_text())["scores"]
        scores = [s for s in scores if s["value"] is not None]
        return f"{scores[0]['name']} {scores[0]['value']:.4g}"
    with suppress(OSError, ValueError):
        return _logged(directory)
    return ""


def _logged(run: Path) -> str:
    """A value in the last row of history.csv: a score if there is one, else a loss."""
    row = last_row(run)
    no_score = ("images", "images_per_second", "epoch", *SPENT)
    names = [n for n, v in row.items() if v and n not in no_score]
    if not names:
        return ""
    name = ([n for n in names if n.startswith(("validation", "score"))] or names)[0]
    return f"{name} {float(row[name]):.4g}"


def _state(code: int) -> str:
    return {DONE: "finished", INTERRUPTED: "interrupted"}.get(code, "refused")
