"""How the seconds of an evaluation were spent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds of this process by what they were spent on: `sample`, `features`, each metric; no overlaps.

    Work on a GPU counts where its result is waited for.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = 0.0  # of parts within the one that is timed

    def add(self, what: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere, within the part that is timed or outside."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds
        self._inner += seconds

    def rounded(self) -> dict[str, float]:
        """The seconds so far, to a millisecond."""
        return {what: round(spent, 3) for what, spent in self.seconds.items()}

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Count the seconds within, without those of parts that are timed inside."""
        outer, self._inner = self._inner, 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            whole = time.perf_counter() - began
            self.seconds[what] = self.seconds.get(what, 0.0) + whole - self._inner
            self._inner = outer + whole
