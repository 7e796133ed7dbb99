"""Many runs on one machine: a worker process each, as many at once as cores, GPUs and memory allow.

One loop in the main thread starts the workers, polls them and writes the final status of those that have
ended. The live table is read from the run directories.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import IO, Any

from hydra.core.utils import JobReturn, JobStatus

from genbench.errors import DONE, GenbenchError, UserMistake
from genbench.launch.host import available_memory, only_gpus, physical_cores, visible_gpus
from genbench.launch.hydra_internals import run_in_this_process
from genbench.launch.live_table import LiveTable
from genbench.launch.run import (
    RunPlan,
    earlier_exit_code,
    finish_status,
    make_directory,
    processes,
    run_arguments,
    run_environment,
)
from genbench.launch.task import EndedRun, StopSweep, Task, refused
from genbench.launch.worker import handled_signals, kill, passed_on, start_worker

MEMORY_PER_RUN = 2 << 30  # bytes; a worker with torch and a small dataset takes about a quarter
POLL_SECONDS = 0.1
GRACE_SECONDS = 60.0  # that running workers have for their checkpoints when the pool itself fails
CONSOLE = "console.txt"  # stdout and stderr of a worker in a sweep
Overrides = Sequence[str]


@dataclass
class Running:
    """A run whose worker is running."""

    key: Any  # the caller's name for it, passed to `on_end` and `tick`
    plan: RunPlan
    directory: Path
    process: subprocess.Popen[bytes]
    slot: "Slot"
    console: IO[bytes]
    began: float = field(default_factory=time.monotonic)
    asked_to_stop: bool = False


@dataclass
class Slot:
    """Room for one run: some GPUs, or a share of the cores."""

    gpus: Sequence[str]  # ids; empty on a CPU
    busy: bool = False


@dataclass(frozen=True)
class PoolSettings:
    """How many runs are trained at once; whether the first failure stops all (hydra/launcher=pool)."""

    slots: int | str = "auto"
    gpus_per_job: int | str = "auto"
    jobs_per_gpu: int = 1
    fail_fast: bool = False

    def __post_init__(self) -> None:
        for name in ("slots", "gpus_per_job", "jobs_per_gpu"):
            value = getattr(self, name)
            if not (value == "auto" and name != "jobs_per_gpu") and not (
                isinstance(value, int) and value > 0
            ):
                raise UserMistake(f"hydra.launcher.{name}={value} is not a number above 0")


# --- slots --------------------------------------------------------------------------------------
def make_slots(settings: PoolSettings, config: Any, jobs: int) -> list[Slot]:
    """Divide this machine among runs like `config`, at most `jobs` of them.

    GPUs: `gpus_per_job` for each run, or `jobs_per_gpu` runs on each. CPU: a run per core, as far as
    memory allows, because a second thread only slows down the steps of small models.
    UserMistake if the settings do not fit this machine.
    """
    devices = processes(config)
    gpus = [] if config["trainer"]["accelerator"] == "cpu" else visible_gpus()
    if gpus:
        slots = _gpu_slots(settings, gpus, devices)
    else:
        if settings.gpus_per_job != "auto":
            raise UserMistake(
                f"hydra.launcher.gpus_per_job={settings.gpus_per_job}, but no GPU is used here: "
                "leave it out, or choose another trainer"
            )
        room = min(physical_cores() // devices, available_memory() // (MEMORY_PER_RUN * devices))
        wanted = settings.slots if isinstance(settings.slots, int) else max(1, room)
        slots = [Slot(()) for _ in range(wanted)]
    if isinstance(settings.slots, int):
        slots = slots[: settings.slots]
    return slots[: max(1, jobs)]


def _gpu_slots(settings: PoolSettings, gpus: Sequence[str], devices: int) -> list[Slot]:
    each = settings.gpus_per_job if isinstance(settings.gpus_per_job, int) else devices
    if each > len(gpus):
        raise UserMistake(
            f"a run is to have {each} GPUs, but this machine has {len(gpus)}: "
            "choose a smaller trainer.devices or hydra.launcher.gpus_per_job"
        )
    if each > 1 and settings.jobs_per_gpu > 1:
        raise UserMistake("several GPUs per job and several jobs per GPU exclude each other")
    groups = [tuple(gpus[i : i + each]) for i in range(0, len(gpus) - each + 1, each)]
    return [Slot(group) for _ in range(settings.jobs_per_gpu) for group in groups]


def fits(slot: Slot, at_work: Sequence[Slot], settings: PoolSettings) -> bool:
    """Whether a slot has room beside those at work, which may have its GPUs among more or fewer."""
    alike = [other for other in at_work if bool(other.gpus) == bool(slot.gpus)]
    if slot.busy or len(alike) == settings.slots:
        return False
    runs = Counter(gpu for other in alike for gpu in other.gpus)
    return all(runs[gpu] < settings.jobs_per_gpu for gpu in slot.gpus)


def at_once(slot: Slot, lists: Iterable[Sequence[Slot]]) -> int:
    """Runs that may share the cores with one in this slot, itself included: of its list, and elsewhere."""
    return sum(
        len(own)
        for own in lists
        if len(own[0].gpus) == len(slot.gpus) or bool(own[0].gpus) != bool(slot.gpus)
    )


# --- the loop -----------------------------------------------------------------------------------
_NO_MORE: Any = object()  # plans have come to their end


class Pool:
    """Runs plans in order, as many at once as there are slots.

    `on_end(key, ended run)` is called for each; `tick(key, running run)` about once a second for every
    running one, and may call `request_stop` on it. `common` are overrides that all runs share.
    """

    def __init__(
        self,
        worker: str,
        settings: PoolSettings,
        total: int,
        on_end: Callable[[Any, EndedRun], None],
        tick: Callable[[Any, Running], None] | None = None,
        common: Sequence[str] = (),
    ) -> None:
        self.worker, self.settings, self.total = worker, settings, total
        self.on_end, self.tick = on_end, tick
        self.slots: dict[int, list[Slot]] = {}  # by the number of GPUs in each; 0 on the CPU
        self.kinds: dict[
            tuple[bool, str], int
        ] = {}  # keys of `slots`, by (on the CPU?, trainer.devices)
        self._waiting: tuple[Any, RunPlan] | None = None  # the next one, if its kind has no room
        self.running: list[Running] = []
        self.signals = 0
        self.stopping = False  # no new run is started
        self.table = LiveTable(total, common)

    def run(self, plans: Iterator[tuple[Any, Callable[[], RunPlan]] | None]) -> None:
        """Run all `plans`: pairs of a key and a function that makes the plan, called when a slot is free.

        None among them: the next one waits for the end of a run.
        """
        with handled_signals(self._signalled), self.table:
            try:
                self._loop(plans)
            finally:
                self._stop_all()

    def _loop(self, plans: Iterator[tuple[Any, Callable[[], RunPlan]] | None]) -> None:
        more, ticked = True, 0.0
        while more or self.running or self._waiting:
            if self._waiting is not None and not self.stopping:
                (key, plan), self._waiting = self._waiting, None
                self._start_or_wait(key, plan)
            while more and not self.stopping and self._waiting is None and self._has_room():
                following = next(plans, _NO_MORE)
                if following is None:
                    break
                if following is _NO_MORE:
                    more = False
                else:
                    self._begin(*following)
            if self.stopping and not self.running:
                return
            self._collect_ended()
            if time.monotonic() - ticked > 1:
                ticked = time.monotonic()
                self._tick()
            time.sleep(POLL_SECONDS if self.running else 0)

    def _stop_all(self) -> None:
        """If an exception ends the loop: stop the workers; those that exceed GRACE_SECONDS are killed."""
        for run in self.running:
            request_stop(run)
        for run in self.running:
            try:
                run.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                kill(run.process)
                run.process.wait()
            run.console.close()

    def _has_room(self) -> bool:
        """Whether some kind has a free slot; which kind the next run needs, its plan tells."""
        return not self.slots or any(map(self._is_free, chain(*self.slots.values())))

    def _slots_for(self, config: Any) -> list[Slot]:
        """Those for runs on as many GPUs as this one; on a CPU its first run decides how many there are."""
        trainer = config["trainer"]
        asked = trainer["accelerator"] == "cpu", str(trainer.get("devices"))
        if asked not in self.kinds:
            made = make_slots(self.settings, config, self.total)
            self.kinds[asked] = len(made[0].gpus)
            self.slots.setdefault(self.kinds[asked], made)
        return self.slots[self.kinds[asked]]

    def _is_free(self, slot: Slot) -> bool:
        return fits(slot, [run.slot for run in self.running], self.settings)

    def _start_or_wait(self, key: Any, plan: RunPlan) -> None:
        """Start a run, or keep it until its kind has room."""
        try:
            free = next(filter(self._is_free, self._slots_for(plan.config)), None)
            if free is None:
                self._waiting = key, plan
            else:
                self._start(key, plan, free)
        except GenbenchError as error:
            self._end(key, refused(plan.overrides, error))

    def _begin(self, key: Any, make: Callable[[], RunPlan]) -> None:
        overrides: Overrides = []
        try:
            plan = make()
            overrides = plan.overrides
            if self.stopping:  # Ctrl-C while the plan was made
                return
            if plan.complete:
                assert plan.earlier is not None
                code = earlier_exit_code(plan.earlier)
                self._end(key, EndedRun(overrides, plan.earlier, code, False, 0.0, existed=True))
                return
        except GenbenchError as error:
            self._end(key, refused(overrides, error))
        else:
            self._start_or_wait(key, plan)

    def _start(self, key: Any, plan: RunPlan, slot: Slot) -> None:
        directory = make_directory(plan)
        environment = run_environment(
            plan.config, plan.command, runs=at_once(slot, self.slots.values())
        )
        if slot.gpus:
            environment |= only_gpus(slot.gpus)
            environment["GENBENCH_JOBS_PER_GPU"] = str(self.settings.jobs_per_gpu)
        console = (directory / CONSOLE).open("ab")
        arguments = run_arguments(directory, plan.earlier is not None)
        process = start_worker(self.worker, arguments, environment, console)
        slot.busy = True
        run = Running(key, plan, directory, process, slot, console)
        self.running.append(run)
        if self.stopping:
            request_stop(run)
        self.table.began(directory, plan.overrides)

    def _collect_ended(self) -> None:
        for run in list(self.running):
            code = run.process.poll()
            if code is None:
                continue
            if code < 0:
                kill(run.process)
            self.running.remove(run)
            run.slot.busy = False
            run.console.close()
            message = last_message(run.directory / CONSOLE)
            code = finish_status(
                run.directory, code, run.asked_to_stop, run.plan.earlier is not None
            )
            seconds = time.monotonic() - run.began
            kept = run.directory if run.directory.exists() else None
            if kept is None:
                self.table.print_line(
                    message or f"genbench: {' '.join(run.plan.overrides)} was refused"
                )
            self.table.ended(run.directory)
            self._end(run.key, EndedRun(run.plan.overrides, kept, code, run.asked_to_stop, seconds))

    def _end(self, key: Any, job: EndedRun) -> None:
        self.table.add(job)
        self.on_end(key, job)
        if job.exit_code != DONE and not job.asked_to_stop and self.settings.fail_fast:
            if not self.stopping:
                self.table.print_line("genbench: fail_fast: stopping the others, with checkpoints")
            self.stop()

    def _tick(self) -> None:
        if self.tick is not None:
            for run in self.running:
                self.tick(run.key, run)
        self.table.refresh()

    def stop(self) -> None:
        """Start no new run, and ask the running ones to write their checkpoints and exit."""
        self.stopping = True
        for run in self.running:
            request_stop(run)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        self.stopping = True
        notes = {
            1: f"stopping, waiting for {len(self.running)} checkpoints",
            2: "still waiting; the next Ctrl-C kills them without checkpoints",
        }
        if self.signals in notes:
            os.write(2, f"\ngenbench: {notes[self.signals]}\n".encode())
        for run in self.running:
            if self.signals < 3:
                request_stop(run, passed_on(number))
            else:
                kill(run.process)


def request_stop(run: Running, number: int = signal.SIGTERM) -> None:
    """Send a run the signal to write its checkpoint and exit."""
    run.asked_to_stop = True
    with contextlib.suppress(ProcessLookupError):
        run.process.send_signal(number)


def last_message(console: Path) -> str:
    """The last line of a worker's console file that begins with `genbench: `; empty if there is none."""
    with contextlib.suppress(OSError):
        lines = console.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.startswith("genbench: ")), "")
    return ""


# --- for Hydra ----------------------------------------------------------------------------------
def launch(
    launcher: Any, job_overrides: Sequence[Overrides], initial_job_idx: int
) -> Sequence[JobReturn]:
    """Run a batch of Hydra jobs until all have ended; a result for each. Raises StopSweep on Ctrl-C."""
    task = launcher.task
    if not isinstance(task, Task):
        raise UserMistake("hydra/launcher=pool launches only runs of genbench")
    returns: list[JobReturn] = []

    def on_end(overrides: Overrides, job: EndedRun) -> None:
        job = replace(job, overrides=overrides)
        task.add(job)
        back = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        back.return_value = job
        returns.append(back)

    total = len(job_overrides)
    common = set.intersection(*map(set, job_overrides)) if total > 1 else ()
    pool = Pool(task.worker, PoolSettings(**launcher.settings), total, on_end, common=[*common])
    numbered = enumerate(job_overrides, initial_job_idx)
    pool.run((o, partial(compose, launcher, o, n)) for n, o in numbered)
    if pool.stopping:
        raise StopSweep
    return returns


def compose(launcher: Any, overrides: Overrides, number: int) -> RunPlan:
    """The plan of one job of a sweep, composed by Hydra in this process; nothing is run."""
    plan = run_in_this_process(
        launcher.task.plan, launcher.hydra_context, launcher.config, overrides, number
    )
    assert isinstance(plan, RunPlan)
    return plan
