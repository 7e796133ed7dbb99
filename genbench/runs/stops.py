"""The signals that stop a run, and the one that a process gets when its parent dies."""

import ctypes
import signal
import sys
from collections.abc import Callable

# Ctrl-C as a parent passes it on: of SIGINT Python makes a traceback until its code has taken it over
CTRL_C: signal.Signals = getattr(signal, "SIGUSR2", signal.SIGTERM)


# Ctrl-C; a cluster's or a user's request; what `sbatch --signal=USR1@60` sends before the time is over
STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


def stop_name(number: int) -> str:
    """What a signal of `STOPS` is called in a sentence."""
    by_hand = number in (signal.SIGINT, CTRL_C)
    return "Ctrl-C" if by_hand else signal.Signals(number).name


PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def parent_death_signal() -> Callable[[int], None]:
    """A function `ask(number)`: have Linux send signal `number` to this process if its parent dies.

    Elsewhere it does nothing. Made before a fork and called after it, it loads no library there, as
    Popen's `preexec_fn` requires. Linux counts the end of the thread that forked as the parent's death.
    """
    if sys.platform != "linux":
        return lambda number: None
    prctl = ctypes.CDLL(None).prctl
    return lambda number: prctl(PR_SET_PDEATHSIG, int(number))


def explain_exit(who: str, code: int) -> str:
    """A sentence about the return code of a process that left no message: its signal if negative."""
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"{who} was killed by signal {-code}{hint}"
    return f"{who} ended with code {code} and without an error message"
