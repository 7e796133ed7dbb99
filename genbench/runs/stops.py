"""The signals that stop a run. Imports no torch."""

import signal

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
