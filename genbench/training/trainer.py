"""How a run meets the machine: precision, devices, the Lightning Trainer and its callbacks.

Nothing here knows an algorithm, a dataset or a metric.
"""

import logging
import os
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import Strategy
from torch.amp.grad_scaler import GradScaler

from genbench.data.contract import ImageData
from genbench.device import choose_threads, device_of, resolve_devices
from genbench.errors import Interrupted, UserMistake
from genbench.models.contract import GenerativeModel
from genbench.ranges import number, whole
from genbench.runs.budget import Budget, parse_images
from genbench.runs.heartbeat import Heartbeat
from genbench.training.acceleration import check_changes, check_compile, check_graph, compiling
from genbench.training.alarms import Alarms
from genbench.training.callbacks.averaging import Averaging
from genbench.training.callbacks.checkpoints import Checkpoints
from genbench.training.callbacks.contract import closing
from genbench.training.callbacks.data_wait import Waiting
from genbench.training.callbacks.progress import ProgressBar
from genbench.training.callbacks.samples import Samples
from genbench.training.callbacks.scoring import Measure, Scoring, points_every
from genbench.training.callbacks.selection import Selection
from genbench.training.callbacks.stopping import Stopping
from genbench.training.callbacks.telemetry import Telemetry
from genbench.training.checks import (
    check_batch,
    check_parts,
    check_ranks,
    check_variance,
    clip_of_players,
)
from genbench.training.cuda_graph import Capture
from genbench.training.environment import describe_device, peak_memory
from genbench.training.exchange import BatchNormAcrossRanks, Ranks
from genbench.training.module import Pace, Training
from genbench.training.numerics import check_tf32, computing, prepare_determinism
from genbench.training.precision import HalfPrecision, resolve_for_ranks
from genbench.training.ranks import (
    Watch,
    check_launched,
    check_nodes,
    killable,
    meet_again,
    of_srun,
)
from genbench.training.schedule import Schedule
from genbench.training.workload import Work

SHORT_STEPS = 16 * 64 * 28 * 28  # values in the images of the steps that are taken at once
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")  # the last one for older configs
LOG_ROWS = 200  # of a history that covers the whole budget

log = logging.getLogger("genbench")


def quieten_lightning() -> None:
    """Leave the terminal to genbench; Lightning's hints go against what is done on purpose."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torchmetrics)\.")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@dataclass(frozen=True)
class Brief:
    """What an engine is to train, and for whom: all that does not depend on the machine."""

    model: GenerativeModel
    data: ImageData
    directory: Path  # of the run
    budget: Budget
    seed: int
    method: Callable[[str], Mapping[str, Any]]  # what defines the run, by the precision taken
    trainer: Mapping[str, Any]  # the settings of the engine, as the record shows them
    schedule: Schedule | None = None
    clip: float | Mapping[str, float] | None = None  # largest gradient norm, of all or by player
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()
    heartbeat: Heartbeat | None = None  # only the process that writes the record has one
    say: Callable[[str], None] = log.warning  # is given each warning of the training
    work: Work = field(default_factory=dict)  # of a step, as `measure` finds it
    score: Measure | None = None  # of the validation split, at points of the budget


class Engine:
    """The Lightning Trainer of one run and the callbacks that its record needs."""

    def __init__(
        self,
        brief: Brief,
        *,
        accelerator: str,  # cpu, gpu, or auto: a GPU if there is one
        devices: int,  # on each node; -1 for all
        num_nodes: int,
        strategy: str,  # auto or ddp, which are the same
        precision: str,  # 32-true, bf16-mixed, 16-mixed, or auto
        steps_per_batch: int | str,  # in a loader's batch, or auto: the shorter the more
        checkpoint_minutes: float,  # between two of last.ckpt
        log_every_images: int | str,  # between two rows of the history, or auto: 200 rows
        samples: int,  # grids over training
        progress: bool,  # a bar on the terminal
        accumulate: int = 1,  # parts in which a batch is taken
        max_skipped: int = 50,  # steps in a row without a finite gradient, then the run has diverged
        cuda_graph: bool = False,
        compile: bool = False,
        tf32: bool | str = "auto",  # float32 rounded by a GPU: see `numerics`
        deterministic: bool = False,  # equal bits on equal GPUs
        score_every: int | str | None = None,  # images between two points of curves, or auto
    ) -> None:
        self.brief, self._compile = brief, compile
        _check_ranges(samples, max_skipped, checkpoint_minutes, steps_per_batch)
        self._computing = partial(computing, check_tf32(tf32), deterministic)
        prepare_determinism(deterministic)
        self.device = device_of(accelerator)
        self.resolved = resolve_for_ranks(precision, self.device)
        self.precision = self.resolved.taken
        self.peak_memory: int | None = None  # bytes, of the training; see `peak_memory`
        check_nodes(num_nodes)
        devices = resolve_devices(devices, self.device)
        check_launched(devices, num_nodes)
        self.world_size = devices * num_nodes
        self.training = Training(
            brief.model, brief.data, self._pace(accumulate, compile, cuda_graph)
        )
        every = _log_every(log_every_images, self.total_images)
        points = points_every(score_every, self.total_images, brief.score)
        stops = [every, *self._intervals(samples), *([points] if points else [])]
        self._plan(steps_per_batch, stops)
        directory, total = brief.directory, self.total_images
        self.alarms = Alarms(brief.data, total, brief.say)
        self.telemetry = Telemetry(every, total, brief.heartbeat, max_skipped, self.alarms)
        card = trainer_card(brief.trainer, self.precision, self.world_size, self.device)
        method, asked = brief.method(self.precision), precision != "auto"
        self.checkpoints = Checkpoints(
            directory / "checkpoints", checkpoint_minutes, method, card, precision_asked=asked
        )
        self.stopping = Stopping(self.checkpoints, self.telemetry, brief.budget.seconds)
        event = torch.cuda.Event() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.waiting = Waiting(self.telemetry, self.alarms, event=event)
        self.samples = Samples(directory / "samples", brief.data, samples, total, self.alarms)
        self.scoring = Scoring(brief.score, points, self.telemetry) if points else None
        curves = [self.scoring] if self.scoring else []
        bar = [ProgressBar(total)] if progress and self.steps else []
        own = [self.checkpoints, self.stopping, self.waiting]
        callbacks = [self.telemetry, self.samples, *bar, *brief.callbacks, *curves, *own]
        self.trainer = self._trainer(devices, num_nodes, strategy, callbacks)

    def _pace(self, accumulate: int, compile: bool, cuda_graph: bool) -> Pace:
        """Check what cannot go together, and say how steps are taken."""
        brief, model, batch_size = self.brief, self.brief.model, self.brief.budget.batch_size
        check_batch(batch_size, self.world_size, accumulate)
        check_variance(model, batch_size)
        images = len(brief.data.pixels("train"))
        pieces = model.discriminator_steps
        self.steps = brief.budget.steps(images, pieces) if model.players() else 0
        self.total_images = self.steps * batch_size
        if self.world_size > 1:
            check_ranks(model)
        if accumulate > 1:
            check_parts(model)
        schedule = brief.schedule if brief.schedule and brief.schedule.moves else None
        if compile:
            check_compile(model, self.world_size)
        if cuda_graph:
            check_graph(
                self.device, self.world_size, accumulate, self.precision, schedule is not None
            )
            check_changes(model)
        # the layout in which convolutions are fastest; nothing to do where there are none
        model.to(memory_format=torch.channels_last)
        choose_threads(model, batch_size)
        return Pace(
            batch_size=batch_size,
            seed=brief.seed,
            rate=partial(schedule.factor, batch_size=batch_size, total=self.total_images)
            if schedule
            else None,
            clip=clip_of_players(brief.clip, model),
            parts=accumulate,
            make_scaler=partial(GradScaler, self.device.type)
            if self.precision == "16-mixed"
            else None,
            capture=Capture() if cuda_graph else None,
            work=brief.work,
            total=self.total_images,
        )

    def _intervals(self, samples: int) -> list[int]:
        """Images between two looks of the callbacks that look some number of times."""
        checks = [c.checks for c in self.brief.callbacks if isinstance(c, Selection)]
        return [max(1, self.total_images // number) for number in (samples, *checks) if number]

    def _plan(self, steps_per_batch: int | str, stops: Sequence[int]) -> None:
        """Fix the order of the data; what is looked at, and when, ends a batch: see `stops`."""
        data, batch_size = self.brief.data, self.brief.budget.batch_size
        data.plan(
            seed=self.brief.seed,
            batch_size=batch_size,
            pieces=self.brief.model.discriminator_steps,
            steps=self.steps,
            steps_per_batch=_steps_per_batch(steps_per_batch, data, batch_size),
            stops=stops,
        )

    def _trainer(
        self, devices: int, num_nodes: int, strategy: str, callbacks: list[Callback]
    ) -> Trainer:
        return Trainer(
            accelerator="cpu" if self.device.type == "cpu" else "gpu",
            devices=devices,
            num_nodes=num_nodes,
            strategy=_strategy(strategy, self.world_size),
            **_precision_and_plugins(self.precision, self.device, self.world_size),
            max_epochs=1,  # the loader's one epoch is the whole budget
            logger=list(self.brief.loggers),
            callbacks=callbacks,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=self.brief.directory,
        )

    def fit(self, resume: bool) -> None:
        """Train to the end of the budget, from the last checkpoint if there is one to resume.

        A run that has its final weights already is not trained again. Raises Interrupted, Diverged.
        """
        last, final = (self.checkpoints.directory / f"{name}.ckpt" for name in ("last", "final"))
        if resume and final.exists():
            self._load(final)
        elif self.steps:
            ckpt_path = last if resume and last.exists() else None
            if self.world_size > 1:
                meet_again(self.device)
            # Lightning sets it; every optimizer's step asks for a GPU, and would look for NVML's file
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            networks = compiling(self.brief.model, self._compile)
            waiting = killable() if self.world_size > 1 else nullcontext()
            callbacks = closing(self.trainer.callbacks)  # type: ignore[attr-defined]
            watched = _watched(self.brief, self.trainer)
            with waiting, watched, self._computing(), networks, callbacks:
                self.trainer.fit(self.training, ckpt_path=ckpt_path)
            self.peak_memory = peak_memory(self.device)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # for the scores, and for other runs on this GPU
        elif self.trainer.is_global_zero:
            self.trainer.strategy.connect(self.training)
            self.training.trainer = self.trainer
            self.samples.draw(self.training)
            self.checkpoints.save(self.trainer, "final.ckpt")
        if self.stopping.asked:  # too late to stop the training
            raise Interrupted(
                f"stopped by {self.stopping.asked} before it was scored; `genbench resume` does that"
            )

    def _load(self, path: Path) -> None:
        """Take weights, position and time from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.training.load_state_dict(state["state_dict"])
        self.training.on_load_checkpoint(state)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if callback.state_key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.state_key])
            if isinstance(callback, Averaging):
                callback.begin(self.training)
        # no step follows: what trained it is what it was trained with
        self.checkpoints.method = state["callbacks"][self.checkpoints.state_key]["method"]

    @property
    def images_per_second(self) -> float | None:
        """Images of the clock, steps x batch size, per second of training."""
        seconds = self.telemetry.seconds
        return self.training.images_shown / seconds if seconds else None


def _watched(brief: Brief, trainer: Trainer) -> AbstractContextManager[None]:
    """The first of several ranks watches over the others."""
    heartbeat, launcher = brief.heartbeat, trainer.strategy.launcher
    if trainer.world_size == 1 or heartbeat is None:
        return nullcontext()
    return Watch(
        brief.directory,
        lambda: getattr(launcher, "procs", []),
        partial(heartbeat.finish, "failed"),
    )


def _check_ranges(
    samples: int, max_skipped: int, checkpoint_minutes: float, steps_per_batch: int | str
) -> None:
    whole("trainer.samples", samples, 0)
    whole("trainer.max_skipped", max_skipped)
    number("trainer.checkpoint_minutes", checkpoint_minutes)
    if steps_per_batch != "auto":
        whole("trainer.steps_per_batch", steps_per_batch)


def _log_every(images: int | str, total: int) -> int:
    """Images between two rows of the history."""
    if images == "auto":
        return max(1, total // LOG_ROWS)
    every = parse_images(images, "trainer.log_every_images")
    whole("trainer.log_every_images", every)
    return every


def _strategy(strategy: str, world_size: int) -> str | Strategy:
    if strategy not in STRATEGIES:
        raise UserMistake(
            f"trainer.strategy={strategy} is not one of auto, ddp: every rank holds the whole model"
        )
    return "auto" if world_size == 1 else Ranks()


def _precision_and_plugins(precision: str, device: torch.device, world_size: int) -> dict[str, Any]:
    """Say it to a Trainer: 16-mixed without a loss scale, for each player has its own."""
    half = precision == "16-mixed"
    plugins: list[Any] = [HalfPrecision(device.type)] if half else []
    plugins += [BatchNormAcrossRanks(), *of_srun()] if world_size > 1 else []
    return ({} if half else {"precision": precision}) | ({"plugins": plugins} if plugins else {})


def trainer_card(
    settings: Mapping[str, Any], precision: str, processes: int, device: torch.device
) -> dict[str, Any]:
    """What trains, as it was asked for and as it is here."""
    asked = {k: v for k, v in settings.items() if not k.startswith("_")}
    return asked | {
        "precision": precision,
        "processes": processes,
        "device": describe_device(device),
        "host": platform.node(),
    }


def _steps_per_batch(requested: int | str, data: ImageData, batch_size: int) -> int:
    """Spread the loop's own cost over several steps, as many as are small."""
    if requested != "auto":
        return int(requested)
    values = batch_size * data.channels * data.image_size**2
    return max(1, min(16, SHORT_STEPS // values))
