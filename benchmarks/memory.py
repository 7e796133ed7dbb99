"""Peak memory of one side of a comparison."""

import os
import resource
from collections.abc import Callable
from typing import Any


def peak_mb(work: Callable[[], Any], *, children: bool = False) -> float:
    """Largest resident memory in MB of a copy of this process that does `work`, modules included.

    `children`: not its own, but that of the largest process that it starts.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
            os.write(writing, str(resource.getrusage(who).ru_maxrss).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as answer:
        kilobytes = answer.read()
    os.waitpid(child, 0)
    if not kilobytes:
        raise RuntimeError("the side ended before it could tell its memory")
    return int(kilobytes) * 1024 / 1e6
