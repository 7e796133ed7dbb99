"""`status.json`: whether a run is running, how far it is, or how it ended. Imports no torch."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from genbench.runs.files import first_line, write_json

FINAL = ("finished", "interrupted", "diverged", "failed")
STALE_SECONDS = 60.0  # six heartbeats
PRUNED = "stopped by the search: worse than half of the trials at this point"


@dataclass(frozen=True)
class Status:
    """State and progress of a run: times in seconds since 1970, `images` of `total_images` done."""

    status: str
    reason: str | None = None
    heartbeat: float = 0.0
    pid: int | None = None
    host: str | None = None
    started: float | None = None
    images: int = 0
    total_images: int = 0
    images_per_second: float | None = None


def read_status(run: Path) -> Status:
    """The state of a run now; `running` becomes `interrupted` if its process is gone."""
    return as_of_now(run, read_written_status(run))


def read_written_status(run: Path) -> Status:
    """The status in the file, which stays `running` if the process was killed."""
    path = run / "status.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Status)}
        return Status(**{key: value for key, value in content.items() if key in known})
    except FileNotFoundError:
        return Status("running", heartbeat=_modified(run / "config.yaml"))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return Status("failed", f"status.json cannot be read: {first_line(error)}")


def as_of_now(run: Path, status: Status) -> Status:
    """A status from the file, with `running` replaced by `interrupted` if the process is gone."""
    if status.status != "running" or _is_alive(run, status):
        return status
    return replace(status, status="interrupted", reason="its process ended without a message")


def _is_alive(run: Path, status: Status) -> bool:
    """A recent heartbeat, or on this machine a worker that is merely suspended or slow."""
    if time.time() - status.heartbeat <= STALE_SECONDS:
        return True
    return status.host == socket.gethostname() and _is_worker(status.pid, run)


def _is_worker(pid: int | None, run: Path) -> bool:
    """Whether the process is the run's worker, and not a later process with the same id."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return run.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path(
            "/proc/self"
        ).exists()  # without /proc, a process with this id is taken for it


def write_status(run: Path, status: Status) -> None:
    """Write `status.json` atomically."""
    write_json(run / "status.json", asdict(status))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
