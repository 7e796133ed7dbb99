"""How a run ends before its time: signals, and errors as a sentence with a status and an exit code."""

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from genbench.device import gpu_failure
from genbench.errors import GenbenchError, Interrupted, UserMistake
from genbench.runs.files import first_line
from genbench.runs.heartbeat import Heartbeat
from genbench.runs.stops import STOPS, stop_name
from genbench.training.ranks import tell_others

log = logging.getLogger("genbench")


@contextmanager
def stoppable() -> Iterator[None]:
    """Let signals of `STOPS` end at once what is not training: nothing of it would be lost."""

    def stop(number: int, frame: Any) -> None:
        ignore_signals()  # one is enough
        raise Interrupted(
            f"stopped by {stop_name(number)} outside training; `genbench resume` goes on "
            "from the last checkpoint"
        )

    if threading.current_thread() is not threading.main_thread():  # Python allows it only there
        yield
        return
    before = {n: signal.signal(n, stop) for n in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore further signals: the record is being written."""
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)


def explain(error: BaseException, cfg: DictConfig) -> GenbenchError:
    """Turn any end of a run into an error with a sentence, a status and an exit code."""
    if isinstance(error, GenbenchError):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, GenbenchError) else None
    if cause:
        return cause
    missing = _missing_module(error)
    if missing.startswith("genbench."):
        return UserMistake(
            f"a file of yours imports {missing}, which is not there: what a model must offer is in "
            "genbench.models.contract, data in genbench.data.contract, metrics in "
            "genbench.metrics.contract (docs/adding-a-model.md)"
        )
    if isinstance(error, InstantiationException):
        if not isinstance(_root(error), OSError):
            return UserMistake(_unmade(error))
        error = _root(error)
    if isinstance(error, OSError) and error.errno is not None:
        return GenbenchError(
            f"{os.strerror(error.errno).lower()} while writing to {cfg.paths.outputs}. What was "
            "recorded before is kept; make room or permit writing, then `genbench resume`"
        )
    trace = "the trace is in log.txt; GENBENCH_DEBUG=1 prints it"
    if failure := gpu_failure(error):
        return GenbenchError(
            f"the GPU reports {failure!r}: is it lost, or do others use it (nvidia-smi)? What was trained until "
            "the last checkpoint is kept, and `genbench resume` goes on from there, on another GPU with "
            f"CUDA_VISIBLE_DEVICES ({trace})"
        )
    return GenbenchError(f"{type(error).__name__}: {error} ({trace})")


def _root(error: BaseException) -> BaseException:
    """What was raised first; an import that fails has several causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _unmade(error: InstantiationException) -> str:
    """A sentence about a class that refuses its settings; Hydra's own text has it over several lines."""
    lines = str(error).splitlines()
    target = re.search(r"'([\w.]+)'", lines[0])
    key = next((x.partition(": ")[2] for x in lines if x.startswith("full_key: ")), "")
    cause = _root(error)
    why = lines[0] if cause is error else f"{type(cause).__name__}: {first_line(cause)}"
    where = f"{key}: " if key else ""
    return f"{where}{target[1] if target else 'a class'} cannot be made of its settings ({why}); correct them"


def _missing_module(error: BaseException | None) -> str:
    """Name of the module whose import is behind an error; empty if there is none."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return error.name or ""
        error = error.__cause__ or error.__context__
    return ""


def record_failure(
    heartbeat: Heartbeat, status: str, error: GenbenchError, raised: BaseException
) -> None:
    """Write why a run ended, even on a full disk: removing an unfinished file makes room for it.

    Ranks of another launcher are told too.
    """
    for unfinished in heartbeat.directory.rglob("*.partial"):
        unfinished.unlink(missing_ok=True)
    with suppress(OSError):  # if nothing can be written, the parent still has the exit code
        heartbeat.finish(status, str(error))
    tell_others(heartbeat.directory, error)
    log.error(str(error), exc_info=raised)
