"""A run's sign of life: `status.json`, refreshed by a thread while the worker lives."""

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
    """Writes `running` on entry and every ten seconds; `finish` writes the last word.

    Only one process of a run may hold it. A disk that is full or gone must not end a training that
    is well, so a beat that cannot be written is skipped.
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
        self._lock, self._over = threading.Lock(), threading.Event()
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
        self._over.set()
        self._thread.join()

    def progress(self, images: int, total_images: int, images_per_second: float | None) -> None:
        """Note how far the run is; written with the next beat."""
        with self._lock:
            self.status = replace(
                self.status,
                images=images,
                total_images=total_images,
                images_per_second=images_per_second,
            )

    def finish(self, status: str, reason: str | None = None) -> None:
        """Write how the run ended."""
        self._over.set()
        with self._lock:
            self.status = replace(self.status, status=status, reason=reason)
        self._write()

    def _beat(self) -> None:
        while not self._over.wait(SECONDS):
            try:
                self._write()
            except OSError:
                continue

    def _write(self) -> None:
        with self._lock:
            self.status = replace(self.status, heartbeat=time.time())
            write_status(self.directory, self.status)
