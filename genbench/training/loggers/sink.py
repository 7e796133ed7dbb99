"""What all loggers share."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ParamSpec

from pytorch_lightning.loggers import Logger

from genbench.errors import Notice
from genbench.runs.score import Score

P = ParamSpec("P")


class Sink(Logger):
    """A logger of one run, without the parts of Lightning's contract that genbench does not use."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self._closed = False

    @property
    def name(self) -> str:
        """The run's id."""
        return self.directory.name

    @property
    def version(self) -> str:
        """There is one of each run."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the config is in config.yaml."""

    def finalize(self, status: str) -> None:
        """Close, once, when the run has ended; Lightning's "success" comes before it is scored."""
        if status == "success" or self._closed:
            return
        self._closed = True
        self.close(status)

    def close(self, status: str) -> None:
        """End the logging of a run with its final status."""


class Dashboard(Sink, ABC):
    """A logger that shows pictures and final scores too."""

    @abstractmethod
    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Show a PNG under `key`, as it was at `images` images."""

    @abstractmethod
    def log_final(self, scores: Sequence[Score]) -> None:
        """Show the scores of the final weights."""


class RemoteDashboard(Dashboard):
    """A dashboard behind a network: a thread of its own talks to it, so that training never waits."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._tasks: SimpleQueue[Callable[[Any], object] | None] = SimpleQueue()
        self._warnings: SimpleQueue[str] = SimpleQueue()  # given by the main thread
        self._broken = False

    def _submit(self, task: Callable[[Any], object]) -> None:
        """Queue a task for the thread."""
        self._warn()
        if not (self._broken or self._closed):
            self._tasks.put(task)

    def _warn(self) -> None:
        while not self._warnings.empty():
            warnings.warn(self._warnings.get(), Notice, stacklevel=4)


def never_raises(method: Callable[P, None]) -> Callable[P, None]:
    """Decorate a method so that the first exception becomes a warning, and later calls do nothing."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        self: Any = args[0]
        if self.broken:
            return
        try:
            method(*args, **kwargs)
        except Exception as error:
            self.broken = True
            cause: BaseException = error
            while cause.__cause__:  # Lightning wraps TensorBoard's errors in a misleading type
                cause = cause.__cause__
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())
            warnings.warn(
                f"{type(self).__name__}: {reason}; training goes on without it",
                Notice,
                stacklevel=2,
            )

    return guarded
