"""Stamps: texts by which a change of a run's files is noticed without reading them. No torch."""

import os
import re
import time
from contextlib import suppress

CLOCK_TICK = 2_000_000_000  # ns: the coarsest time stamps of a file system still in use


def run_stamp(run: str) -> str | None:
    """A text that changes whenever a file of a run's record does; None if this is no run.

    It holds modification time, size and inode of each file. Of a run with a result, config.yaml is left
    out, because the result contains the config.
    """
    result = file_stamp(f"{run}/result.json")
    first = result or file_stamp(f"{run}/config.yaml")
    if first is None:
        return None
    kind = "r" if result else "c"
    status = file_stamp(f"{run}/status.json") or ""
    stamp = f"{kind}{first} {status}"
    if os.access(f"{run}/tags.json", os.F_OK):
        stamp += f" t{file_stamp(f'{run}/tags.json')}"
    if os.access(f"{run}/evaluations", os.F_OK):
        with suppress(OSError):
            names = sorted(os.listdir(f"{run}/evaluations"))
            files = (f"{file_stamp(f'{run}/evaluations/{name}')}" for name in names)
            stamp += f" e{' '.join(files)}"
    return stamp


def is_settled(stamp: str) -> bool:
    """Whether a later change of these files would change the stamp.

    A change within one clock tick of the last one may leave the modification time as it is.
    """
    now = time.time_ns()
    times = (int(part) for part in re.findall(r"(\d+)/", stamp))
    return all(abs(now - moment) > CLOCK_TICK for moment in times)


def file_stamp(path: str) -> str | None:
    """Modification time in ns, size in bytes and inode of a file; None if there is none."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return f"{state.st_mtime_ns}/{state.st_size}/{state.st_ino}"
