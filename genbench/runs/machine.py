"""The machine that something was computed on. Imports no torch."""

import platform
from pathlib import Path


def processor() -> str:
    """The name of the processor, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
