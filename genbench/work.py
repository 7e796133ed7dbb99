"""The one entry of a worker process: `python -m genbench.work train|evaluate|sample RUN ...`."""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from genbench.errors import GenbenchError


def main(argv: Sequence[str]) -> int:
    """Import the program that the first argument names, and run it; returns the exit code."""
    # importing torch and Lightning makes no garbage, and looking for it takes 1 s of 3.5
    gc.disable()
    program = import_module(f"genbench.{argv[0]}")
    gc.freeze()  # modules stay: the collector need not look at them again
    gc.enable()
    try:
        code: int = program.main(list(argv[1:]))
        return code
    except GenbenchError as error:
        if os.environ.get("GENBENCH_DEBUG"):
            raise
        print(f"genbench: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
