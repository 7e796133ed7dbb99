"""What this machine has to share among runs, asked without torch."""

import math
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def visible_gpus() -> list[str]:
    """Ids of the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        names = [name.strip() for name in allowed.split(",")]
        return [name for name in names if name and name != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        query = [program, "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        return [line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit()]
    return []


def available_memory() -> int:
    """Bytes that can still be had, within the container's limit."""
    free = math.inf
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # cgroup v2
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        stat = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        )
        if limit != "max":  # pages of files are given back when somebody needs the room
            free = min(free, int(limit) - used + int(stat.get("file", 0)))
    return 1 << 62 if free == math.inf else max(0, int(free))
