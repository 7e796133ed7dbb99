"""Keeps `status.json` up to date from a thread, so that others can tell a live worker from a dead one."""

import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from genbench.runs.status import Status, write_status

SECONDS = 10.0


class Heartbeat:
    """Writes the status `running` on entry and every ten seconds; `finish` writes the final status.

    One process of a run has it, DDP rank 0. If the disk is full or unavailable a write is skipped,
    because that alone must not end the training.
    """

    def __init__(self, directory: Path) -> None:
        now = time.time()
        self.directory = directory
        self.status = Status(
            status="running",
            reason=None,
            heartbeat=now,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=now,
            images=0,
            total_images=0,
            images_per_second=None,
        )
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def progress(self, images: int, total_images: int, images_per_second: float | None) -> None:
        """Set the images shown so far and their speed; written with the next heartbeat."""
        with self._lock:
            self.status = replace(
                self.status,
                images=images,
                total_images=total_images,
                images_per_second=images_per_second,
            )

    def finish(self, status: str, reason: str | None = None) -> None:
        """Write the final status, one of `status.FINAL`, and its reason."""
        self._stop.set()
        with self._lock:
            self.status = replace(self.status, status=status, reason=reason)
        self._write()

    def _beat(self) -> None:
        while not self._stop.wait(SECONDS):
            try:
                self._write()
            except OSError:
                continue

    def _write(self) -> None:
        with self._lock:
            self.status = replace(self.status, heartbeat=time.time())
            write_status(self.directory, self.status)
