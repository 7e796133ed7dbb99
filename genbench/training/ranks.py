"""Several DDP ranks that train one model: what happens when one dies.

A collective waits half an hour for a rank that is gone. So rank 0 watches the processes that were
started for it, and every rank writes its error into the run directory before it exits. Ranks that srun
has started, on several machines perhaps, look there: srun itself ends none because another has failed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from genbench.errors import DONE, FAILED, Diverged, GenbenchError, Interrupted, UserMistake
from genbench.runs import ended_ranks
from genbench.runs.stops import STOPS, explain_exit, parent_death_signal


def is_first_rank() -> bool:
    """Whether this process writes the record; asked before there is a process group."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def check_nodes(num_nodes: int) -> None:
    """Refuse several nodes where nobody starts the ranks on the others: the first would wait for ever."""
    started = "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if not isinstance(num_nodes, int) or num_nodes < 1:
        raise UserMistake(f"trainer.num_nodes={num_nodes}: give 1 or more")
    if num_nodes > 1 and not started:
        raise UserMistake(
            f"trainer.num_nodes={num_nodes}, but nothing has started genbench on the other nodes: use "
            "srun or torchrun (docs/gpus.md), or choose trainer.num_nodes=1"
        )


def check_launched(devices: int, num_nodes: int) -> None:
    """Refuse more or fewer processes of torchrun or srun than the run has ranks.

    Each of those that are too many would train the whole run, into one directory.
    """
    name, count = _launched()
    if count and count != devices * num_nodes:
        raise UserMistake(
            f"{name} has started {count} processes for this run, and trainer.devices={devices} with "
            f"trainer.num_nodes={num_nodes} makes {devices * num_nodes}: choose trainer.devices and "
            "trainer.num_nodes to fit (a task that srun has bound to its GPU sees no other: ask for "
            "--gpus-per-node), or start one process"
        )


def _launched() -> tuple[str, int]:
    """Who has started the ranks of this run, and how many; 0 if nobody has but this process."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun", int(os.environ.get("WORLD_SIZE", "0"))
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))  # workers of others do not get to see it
    return "srun", tasks if tasks > 1 else 0


def _under_srun() -> bool:
    return _launched()[0] == "srun" and _launched()[1] > 1


def of_srun() -> list[SLURMEnvironment]:
    """What tells Lightning that this process is a task of srun, if it is one of several.

    Left to itself it sees none in a job called `interactive`, as those of salloc are, and starts ranks of
    each task. Its port is that of the job, so that two runs in one job would meet each other: here each
    step has its own, and the address of its own first node. Raises UserMistake.
    """
    if not _under_srun():
        return []
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserMistake(
            "srun has several tasks without --ntasks-per-node: give that, and trainer.devices as many"
        )
    job, step = (os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    numbers = [int(number) if number.isdigit() else 0 for number in (job, step)]
    port = 15_000 + (61 * numbers[0] + numbers[1]) % 17_000  # below those that Linux gives away
    os.environ.setdefault("MASTER_PORT", str(port))
    if nodes := os.environ.get("SLURM_STEP_NODELIST"):
        first = SLURMEnvironment.resolve_root_node_address(nodes)
        os.environ.setdefault("MASTER_ADDR", first)
    return [SLURMEnvironment()]


def agree(what: str, value: str) -> None:
    """Refuse ranks that have come to different values: they would train different things."""
    if not torch.distributed.is_initialized():
        return
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    if len({*found}) > 1:
        each = ", ".join(f"rank {rank} {one}" for rank, one in enumerate(found))
        raise UserMistake(
            f"the ranks have chosen different {what} ({each}): their GPUs are unlike, so choose one"
        )


@contextmanager
def killable() -> Iterator[None]:
    """Within: a signal ends the process at once, until training handles it.

    While ranks wait for each other, Python cannot run a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def meet_again(device: torch.device) -> None:
    """After torchrun has restarted its ranks: make their process group under keys of this attempt.

    The agent's store keeps the addresses of the ranks that died, and a fast rank would be given one of
    those. Lightning uses a process group that exists already.
    """
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if count == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    stores: Any = torch.distributed  # its types do not name them
    agent = stores.TCPStore(address, port, world_size, is_master=False)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=stores.PrefixStore(f"genbench-attempt-{count}", agent),
        rank=rank,
        world_size=world_size,
    )


POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0  # between two looks at a folder that may be another machine's
GRACE_SECONDS = 3.0  # for a rank to write its error, once a collective has broken


def follow(directory: Path, work: Callable[[], None], explain: Callable[..., GenbenchError]) -> int:
    """Do the work of a rank above 0; returns its exit code.

    Errors are written to `ranks/<rank>.txt`, and their traces to the run's log.txt.

    Interrupted and Diverged are decided by all ranks together, and rank 0 reports them.
    """
    die_with_the_first()
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ["SLURM_PROCID"]
    if _under_srun():
        threading.Thread(
            target=end_with_others, args=[directory], name="ranks", daemon=True
        ).start()
    try:
        work()
    except (Interrupted, Diverged):
        return DONE
    except BaseException as raised:
        with suppress(OSError), (directory / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"rank {rank}: {traceback.format_exc()}")
        ended_ranks.leave_word(directory, rank, str(explain(raised)))
        if os.environ.get("GENBENCH_DEBUG"):
            raise
        return FAILED
    return DONE


def tell_others(directory: Path, error: GenbenchError) -> None:
    """In the first rank: why it fails, to those whom srun has started; torchrun ends them itself."""
    if _under_srun() and not isinstance(error, Interrupted | Diverged):
        ended_ranks.leave_word(directory, 0, str(error))


def end_with_others(directory: Path) -> None:
    """End this process when another rank has failed: it may be in a collective that never returns."""
    before = ended_ranks.stamps(directory)
    while not ended_ranks.stamps(directory) - before:
        time.sleep(LOOK_SECONDS)
    time.sleep(2 * GRACE_SECONDS)  # for its own error
    os._exit(FAILED)


def die_with_the_first() -> None:
    """On Linux: get SIGKILL when the process that started this one dies; not under torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        parent_death_signal()(signal.SIGKILL)


class Watch:
    """A context in which a rank that dies ends the run, and all other ranks, with its error.

    `started` returns the processes of the ranks 1, 2, ... of this machine, none if another launcher
    started them; `tell` records why the run failed.
    """

    def __init__(
        self,
        directory: Path,
        started: Callable[[], Sequence["subprocess.Popen[bytes]"]],
        tell: Callable[[str], None],
    ) -> None:
        self.directory, self.started, self.tell = directory, started, tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ranks", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        broken = error is not None and not isinstance(error, GenbenchError)
        end = time.monotonic() + (GRACE_SECONDS if broken else 0)
        while time.monotonic() < end:  # a collective breaks before its cause is known
            time.sleep(POLL_SECONDS)
            words = ended_ranks.words(self.directory)
            if words and not self.started():
                self._over.set()
                raise GenbenchError(words) from error
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS if self.started() else LOOK_SECONDS):
            codes = [process.poll() for process in self.started()]
            dead = [(rank, code) for rank, code in enumerate(codes, 1) if code]
            words = ended_ranks.words(self.directory) if dead or _under_srun() else ""
            if dead:
                self._end(words or explain_exit(f"rank {dead[0][0]}", dead[0][1]))
            elif words and not self._over.wait(GRACE_SECONDS):  # the main thread has no error
                self._end(words)

    def _end(self, reason: str) -> None:
        self.tell(reason)
        print(f"genbench: {reason}", file=sys.stderr, flush=True)
        for process in self.started():
            process.kill()
        os._exit(FAILED)  # the main thread may be in a collective that never returns
