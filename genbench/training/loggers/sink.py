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
    """What Lightning asks of a logger and genbench does not use."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    @property
    def name(self) -> str:
        """The run's id."""
        return self.directory.name

    @property
    def version(self) -> str:
        """There is one of each run."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in config.yaml."""


class Board(Sink, ABC):
    """A logger that shows pictures and final scores too."""

    @abstractmethod
    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Show a PNG under `key`, as it was at `images` images."""

    @abstractmethod
    def log_final(self, scores: Sequence[Score]) -> None:
        """Show the scores of the final weights."""


class Distant(Board):
    """A board on another machine: a thread of its own talks to it, so that training never waits."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._tasks: SimpleQueue[Callable[[Any], object] | None] = SimpleQueue()
        self._sayings: SimpleQueue[str] = SimpleQueue()  # warnings, for the main thread to give
        self._broken = self._ended = False

    def _ask(self, task: Callable[[Any], object]) -> None:
        """Hand a task to the thread."""
        self._speak()
        if not (self._broken or self._ended):
            self._tasks.put(task)

    def _speak(self) -> None:
        while not self._sayings.empty():
            warnings.warn(self._sayings.get(), Notice, stacklevel=4)


def never_raises(method: Callable[P, None]) -> Callable[P, None]:
    """Turn the first exception of a dashboard into one warning, and its later calls into nothing."""

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
            while cause.__cause__:  # Lightning makes of all of TensorBoard's errors a wrong type
                cause = cause.__cause__
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())
            warnings.warn(
                f"{type(self).__name__}: {reason}; training goes on without it",
                Notice,
                stacklevel=2,
            )

    return guarded
