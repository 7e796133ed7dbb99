"""Starts and stops worker processes, which train, evaluate and sample.

A worker has a session of its own, so that the terminal's Ctrl-C reaches only the parent. The parent
passes it on as SIGUSR2, whose default action prints no traceback while Python is still importing. When
the parent dies, even by SIGKILL, Linux sends the worker SIGTERM: it writes its checkpoint and exits. On
other systems the worker of a killed parent trains to its end.

`python -m` puts the working directory on the worker's `sys.path`, so that a config may name a class in
a file of the user's in that directory.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, Any

from genbench.launch.host import physical_cores
from genbench.runs.stops import CTRL_C, STOPS, parent_death_signal

# set by other launchers for the processes that they start; a worker must not inherit them
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


def run_worker(
    worker: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    checkpoint: bool = True,
) -> tuple[int, bool]:
    """Run `python -m <worker> <arguments>` until it exits: (return code, whether it was asked to stop).

    The first and second Ctrl-C or SIGTERM are passed on to the worker; the third kills it and every
    process that it started. `checkpoint`: the worker writes one when asked to stop.
    """
    relay = _Relay(checkpoint)
    with handled_signals(relay):
        process = start_worker(worker, arguments, environment)
        relay.attach(process)
        code = process.wait()
    if code < 0:
        kill(process)
    return code, relay.asked > 0


def start_worker(
    worker: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `python -m <worker> <arguments>` in a session of its own, with stdout and stderr in `output`.

    Call it in the main thread only: Linux sends the parent-death signal when the calling thread ends.
    """
    return subprocess.Popen(
        [sys.executable, "-m", *worker.split(), *arguments],
        env=dict(environment),
        stdin=None if output is None else subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(),
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and its child processes: DDP ranks and data loaders would wait for it forever."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def passed_on(number: int) -> int:
    """The signal that the parent sends to a worker when it receives signal `number`."""
    return CTRL_C if number == signal.SIGINT else number


class _Relay:
    """Signal handler of the parent: passes signals on to the worker, and kills it on the third."""

    def __init__(self, checkpoint: bool) -> None:
        self.asked, self.checkpoint = 0, checkpoint
        self._number: int = signal.SIGTERM
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        if self.asked:  # the signal came while the process was being started
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
        return f", still waiting; the next Ctrl-C kills it{without}"


@contextmanager
def handled_signals(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Context in which `handler` handles the signals in STOPS; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers only there
        yield
        return
    before: dict[int, Any] = {n: signal.signal(n, handler) for n in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":  # without preexec_fn Popen can use vfork
        return None
    ask, parent = parent_death_signal(), os.getpid()

    def in_the_child() -> None:
        ask(signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the request
            os._exit(1)

    return in_the_child


# --- the worker's environment -------------------------------------------------------------------
def worker_environment(command: str, processes: int = 1, external: bool = False) -> dict[str, str]:
    """Environment of a worker that `command` started; `processes` processes share this machine's cores.

    Variables of other launchers are kept only if one started this process (`external`). Thread
    settings of the user are kept. By default each process gets its share of the cores: with more
    threads than free cores, spinning OpenMP threads make a step up to sixty times slower.
    """
    environment = dict(os.environ)
    if not external:
        for name in LAUNCHER_VARIABLES:
            environment.pop(name, None)
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("OMP_NUM_THREADS", str(max(1, physical_cores() // max(1, processes))))
    environment["GENBENCH_COMMAND"] = command
    return environment


def external_launch() -> dict[str, Any] | None:
    """The launcher that started a process for each rank: {"rank", "name", "run_id"}; None without one.

    torchrun is recognised by TORCHELASTIC_RUN_ID, srun by SLURM_STEP_ID and more than one task.
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
