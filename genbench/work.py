"""Entry point of every worker process: `python -m genbench.work train|evaluate|sample RUN ...`."""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from genbench.errors import GenbenchError


def main(argv: Sequence[str]) -> int:
    """Import the program that the first argument names, and run it; returns the exit code."""
    # with the cyclic garbage collector on, importing torch and Lightning takes 3.5 s instead of 2.5
    gc.disable()
    program = import_module(f"genbench.{argv[0]}")
    gc.freeze()  # imported modules live to the end: the collector skips them
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
