"""Signals that stop a run, and how processes end: at their parent's death, and by which code."""

import ctypes
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # from linux/prctl.h

# sent to workers for Ctrl-C: its default action kills silently, SIGINT during imports prints a traceback
CTRL_C: signal.Signals = getattr(signal, "SIGUSR2", signal.SIGTERM)

# SIGINT: Ctrl-C; SIGTERM: a cluster or user; SIGUSR1: `sbatch --signal=USR1@60` before the time limit
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


def stop_name(number: int) -> str:
    """Name of a signal of `STOPS` for messages: `Ctrl-C` or `SIGTERM`."""
    by_hand = number in (signal.SIGINT, CTRL_C)
    return "Ctrl-C" if by_hand else signal.Signals(number).name


def parent_death_signal() -> Callable[[int], None]:
    """Return a function that makes Linux send signal `number` to the calling process if its parent dies.

    On other systems it does nothing. libc is loaded here, so that the function is safe in Popen's
    `preexec_fn`. Linux takes the end of the thread that forked for the death of the parent.
    """
    if sys.platform != "linux":
        return lambda number: None
    prctl = ctypes.CDLL(None).prctl
    return lambda number: prctl(PR_SET_PDEATHSIG, int(number))


def explain_exit(who: str, code: int) -> str:
    """A sentence about a process that ended with return code `code` (negative: a signal) and no message."""
    if code < 0:
        hint = ""
        if code == -signal.SIGKILL:
            hint = " (out of memory?); if it has a checkpoint, `genbench resume` goes on from there"
        return f"{who} was killed by signal {-code}{hint}"
    return f"{who} ended with code {code} and without an error message"
