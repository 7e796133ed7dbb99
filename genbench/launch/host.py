"""GPUs, memory and cores of this machine that runs can share, found without torch."""

import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, for `only_gpus`; may be empty.

    Numbers, or UUIDs of GPUs and of their MIG slices, if the environment names them so. Without it NVIDIA's
    by nvidia-smi, or by the driver's files where that is missing or fails; AMD's by the kernel's.
    """
    for name in (HIP, CUDA):  # of both AMD's runtime takes the first
        if name in os.environ:
            return _listed(os.environ[name])
    if ROCR in os.environ:  # HIP counts anew among those: https://rocm.docs.amd.com (GPU isolation)
        return [str(number) for number in range(len(_listed(os.environ[ROCR])))]
    program = shutil.which("nvidia-smi")
    return (_gpus_of(program) if program else []) or _gpus_of_driver()


def only_gpus(ids: Sequence[str]) -> dict[str, str]:
    """Environment in which a process sees these of `visible_gpus` alone."""
    names = [CUDA, *([HIP] if HIP in os.environ or ROCR in os.environ else [])]
    return dict.fromkeys(names, ",".join(ids))


def _listed(text: str) -> list[str]:
    """Entries of a list of GPUs up to the first that names none, as CUDA reads it: -1, SLURM's NoDevFiles."""
    names = (name.strip() for name in text.split(","))
    return [*takewhile(lambda name: name.isdigit() or name.startswith(("GPU-", "MIG-")), names)]


def _gpus_of_driver(root: Path = Path("/")) -> list[str]:
    """Numbers of the GPUs that the system's files name: NVIDIA's, else AMD's."""
    count = len([*root.glob("proc/driver/nvidia/gpus/*")]) or len([*root.glob("dev/nvidia[0-9]*")])
    if not count and (root / "dev/kfd").exists():  # a node with gpu_id 0 is a processor
        nodes = root.glob("sys/class/kfd/kfd/topology/nodes/*/gpu_id")
        with suppress(OSError):
            count = sum(path.read_text().strip() not in ("", "0") for path in nodes)
    return [str(number) for number in range(count)]


def _gpus_of(program: str) -> list[str]:
    with suppress(OSError, subprocess.SubprocessError):
        query = [program, "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
        return [line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit()]
    return []


def available_memory() -> int:
    """Bytes of memory that are free, within the container's limit; 2^62 if unknown."""
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
        if limit != "max":  # the page cache (`file`) can be reclaimed
            free = min(free, int(limit) - used + int(stat.get("file", 0)))
    return 1 << 62 if free == math.inf else max(0, int(free))


# --- cores --------------------------------------------------------------------------------------
def physical_cores() -> int:
    """Cores this process may use: its affinity, without hyper-threads, within the cgroup's limit.

    joblib.cpu_count(only_physical_cores=True) counts hyper-threads wherever an affinity or a limit is
    set, rounds a limit of 1.5 up, and takes 0.16 s to import before every run.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus: set[int] = os.sched_getaffinity(0)
    else:
        cpus = set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in cpus}
    return max(1, math.floor(min(len(cores), _cgroup_limit())))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_limit() -> float:
    """CPUs that the container may use; infinity without a limit."""
    with suppress(OSError, ValueError):  # cgroup v2
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):  # cgroup v1
        quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
        period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf
