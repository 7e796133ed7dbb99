"""Several DDP ranks that train one model: what happens when one dies.

A collective waits half an hour for a rank that is gone. So rank 0 watches the processes that were
started for it, and the others write their error into the run directory before they exit.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from genbench.errors import DONE, FAILED, Diverged, GenbenchError, Interrupted, UserMistake
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
GRACE_SECONDS = 3.0  # for a rank to write its error, once a collective has broken


def follow(directory: Path, work: Callable[[], None], explain: Callable[..., GenbenchError]) -> int:
    """Do the work of a rank above 0; returns its exit code. Errors are written to `ranks/<rank>.txt`.

    Interrupted and Diverged are decided by all ranks together, and rank 0 reports them.
    """
    die_with_the_first()
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ["SLURM_PROCID"]
    try:
        work()
    except (Interrupted, Diverged):
        return DONE
    except BaseException as raised:
        word = directory / "ranks" / f"{rank}.txt"
        with suppress(OSError):
            word.parent.mkdir(exist_ok=True)
            word.write_text(str(explain(raised)), encoding="utf-8")
        if os.environ.get("GENBENCH_DEBUG"):
            raise
        return FAILED
    return DONE


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
        for word in self.directory.glob("ranks/*.txt"):
            word.unlink()
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
            words = self._words()
            if words and not self.started():
                self._over.set()
                raise GenbenchError(words) from error
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            codes = [process.poll() for process in self.started()]
            dead = [(rank, code) for rank, code in enumerate(codes, 1) if code]
            if dead:
                reason = self._words() or explain_exit(f"rank {dead[0][0]}", dead[0][1])
                self.tell(reason)
                print(f"genbench: {reason}", file=sys.stderr, flush=True)
                for process in self.started():
                    process.kill()
                os._exit(FAILED)  # the main thread may be in a collective that never returns

    def _words(self) -> str:
        words = {p.stem: p.read_text(encoding="utf-8") for p in self.directory.glob("ranks/*.txt")}
        return "; ".join(f"rank {rank}: {word}" for rank, word in sorted(words.items()))
