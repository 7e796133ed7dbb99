"""Entry point of every worker process: `python -m genbench.work train|evaluate|sample RUN ...`."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from genbench.errors import GenbenchError
from genbench.runs.files import explain_os_error

SIGNAL = "scipy.signal"


@contextmanager
def signal_processing_left_out() -> Iterator[None]:
    """Within, scipy.signal is imported when something of it is asked for; afterwards as ever.

    Lightning imports torchmetrics, which imports it for one thing only: to add the window `hamming` where
    that is missing, for a metric of speech. It is a tenth of the CPU time of a run of one step.
    """
    if SIGNAL in sys.modules or find_spec("scipy") is None:
        yield
        return
    import scipy

    def loaded(name: str) -> Any:
        if name.startswith("__"):  # of a look through all modules, as `inspect` has
            raise AttributeError(name)
        if sys.modules.get(SIGNAL) is later:
            del sys.modules[SIGNAL]
        return getattr(import_module(SIGNAL), name)

    later = ModuleType(SIGNAL)
    vars(later).update(hamming=None, __getattr__=loaded)
    sys.modules[SIGNAL] = scipy.signal = later
    try:
        yield
    finally:
        if sys.modules.get(SIGNAL) is later:
            del sys.modules[SIGNAL], scipy.signal


def main(argv: Sequence[str]) -> int:
    """Import the program that the first argument names, and run it; returns the exit code."""
    # with the cyclic garbage collector on, importing torch and Lightning takes 3.5 s instead of 2.5
    gc.disable()
    with signal_processing_left_out():
        program = import_module(f"genbench.{argv[0]}")
    gc.freeze()  # imported modules live to the end: the collector skips them
    gc.enable()
    try:
        code: int = program.main(list(argv[1:]))
        return code
    except Exception as error:
        if os.environ.get("GENBENCH_DEBUG"):
            raise
        known = explained(error)
        print(f"genbench: {known}", file=sys.stderr)
        return known.exit_code


def explained(error: BaseException) -> GenbenchError:
    """The error as a sentence; Hydra wraps what a class says of its settings in one of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GenbenchError):
            return cause
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        why = explain_os_error(error)
        return GenbenchError(f"{error.filename}: {why}; make room there, or permit it")
    return GenbenchError(f"{type(error).__name__}: {error} (GENBENCH_DEBUG=1 prints the traceback)")


def leak_reports_left_out() -> None:
    """Drop what is written to stderr after all exit handlers, where Triton was imported and no one debugs.

    Frozen modules outlive the interpreter, which saves a second of CPU time at the end. The nanobind in
    Triton 3.9 reports that as 35 lines of leaked types, and cannot be told not to.
    """
    sys.stderr.flush()
    if "triton" in sys.modules and not os.environ.get("GENBENCH_DEBUG"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if __name__ == "__main__":
    atexit.register(leak_reports_left_out)  # the first to be registered is the last to be called
    sys.exit(main(sys.argv[1:]))
