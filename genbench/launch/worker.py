"""The process that does the work, seen from the one that started it. Imports no torch.

A worker gets a session of its own, so that the terminal's Ctrl-C reaches only the parent, which
passes it on once, as a signal that ends a process without a traceback also before Python code has
taken it over. When the parent dies, even by kill -9, Linux sends the worker SIGTERM
(PR_SET_PDEATHSIG): it writes its checkpoint and goes. On other systems the worker of a killed parent ends its run by itself.

`python -m` puts the working directory on the worker's path, so that a config may name a class in a
file of the user's that lies there.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from genbench.runs.stops import CTRL_C, STOPS

# what another launcher would say to the processes that it starts
LAUNCHER_VARIABLES = [
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "ROLE_NAME",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_USE_AGENT_STORE",
    "PL_GLOBAL_SEED",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
]


PR_SET_PDEATHSIG = 1


def run_worker(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    checkpoint: bool = True,
) -> tuple[int, bool]:
    """Run `python -m module arguments` to its end: (its return code, was it asked to stop?).

    The first Ctrl-C or SIGTERM asks the worker to stop, the second one asks again, the third one
    kills it and everything that it started. `checkpoint`: it has something to write before it goes.
    """
    relay = _Relay(checkpoint)
    with handled_signals(relay):
        process = start_worker(module, arguments, environment)
        relay.attach(process)
        code = process.wait()
    if code < 0:
        kill(process)
    return code, relay.asked > 0


def start_worker(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python -m module arguments` in a session of its own; it says what it says to `output`.

    Only from the main thread: Linux takes a worker's parent for dead when the thread ends.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=dict(environment),
        stdin=None if output is None else subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(),
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker and what it started: ranks and loaders would wait for it for ever."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def passed_on(number: int) -> int:
    """Which signal tells a worker of one that its parent was sent."""
    return CTRL_C if number == signal.SIGINT else number


class _Relay:
    """Passes the parent's signals on to the worker, harder each time."""

    def __init__(self, checkpoint: bool) -> None:
        self.asked, self.checkpoint = 0, checkpoint
        self._number: int = signal.SIGTERM
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        if self.asked:  # it came while the process was being made
            self._send()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        self._number = passed_on(number)
        self._send()

    def _send(self) -> None:
        if self._process is None:
            return
        if self.asked < 3:
            print(f"\ngenbench: stopping{self._note()}", file=sys.stderr, flush=True)
            self._process.send_signal(self._number)
        else:
            kill(self._process)

    def _note(self) -> str:
        if self.asked == 1:
            return ", waiting for the checkpoint" if self.checkpoint else ""
        without = " without a checkpoint" if self.checkpoint else ""
        return f", asked once more; the next Ctrl-C ends it{without}"


@contextmanager
def handled_signals(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Let `handler` have Ctrl-C and the other signals of a stop for a while."""
    if threading.current_thread() is not threading.main_thread():  # Python allows it only there
        yield
        return
    before: dict[int, Any] = {n: signal.signal(n, handler) for n in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask_the_kernel


# --- the worker's environment -------------------------------------------------------------------
def worker_environment(command: str, processes: int = 1, external: bool = False) -> dict[str, str]:
    """Environment of a run started with `command`, whose cores `processes` ranks share.

    What another launcher has set stays only if the launch is its own (`external`). Thread settings
    are the user's where there are any: with fewer free cores than threads, spinning OpenMP threads
    make a step up to sixty times slower.
    """
    environment = dict(os.environ)
    if not external:
        for name in LAUNCHER_VARIABLES:
            environment.pop(name, None)
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("OMP_NUM_THREADS", str(max(1, physical_cores() // max(1, processes))))
    environment["GENBENCH_COMMAND"] = command
    return environment


def physical_cores() -> int:
    """Cores this process may use: its affinity, without hyper-threads, within the cgroup's limit."""
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
    """CPUs that the container may use; infinite if nobody limits it."""
    with suppress(OSError, ValueError):  # cgroup v2
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):  # cgroup v1
        quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
        period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


def external_launch() -> dict[str, Any] | None:
    """Say who else launched us, once per rank: {"rank", "name", "run_id"}; None if nobody did.

    torchrun sets TORCHELASTIC_RUN_ID; srun sets SLURM_STEP_ID and a number of tasks.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env and "RANK" in env:
        name = env["TORCHELASTIC_RUN_ID"]
        return {
            "rank": int(env["RANK"]),
            "name": "torchrun",
            "run_id": None if name == "none" else name,
        }
    if "SLURM_STEP_ID" in env and int(env.get("SLURM_NTASKS", "1")) > 1:
        run_id = f"slurm-{env.get('SLURM_JOB_ID', '0')}-{env['SLURM_STEP_ID']}"
        return {"rank": int(env.get("SLURM_PROCID", "0")), "name": "srun", "run_id": run_id}
    return None
