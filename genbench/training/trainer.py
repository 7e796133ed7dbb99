"""How a run meets the machine: seeds, precision, devices, the Lightning Trainer, the checkpoint.

Nothing here knows an algorithm, a dataset or a metric.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger

from genbench.data.contract import ImageData
from genbench.device import choose_threads, device_of, resolve_devices
from genbench.errors import Interrupted
from genbench.models.contract import GenerativeModel
from genbench.runs.budget import Budget, parse_images
from genbench.runs.heartbeat import Heartbeat
from genbench.training.acceleration import check_compile, check_graph, compiling
from genbench.training.accumulation import Accumulation
from genbench.training.alarms import Alarms
from genbench.training.callbacks.averaging import Averaging
from genbench.training.callbacks.checkpoints import Checkpoints
from genbench.training.callbacks.data_wait import Waiting
from genbench.training.callbacks.progress import ProgressBar
from genbench.training.callbacks.samples import Samples
from genbench.training.callbacks.selection import Selection
from genbench.training.callbacks.stopping import Stopping
from genbench.training.callbacks.telemetry import Telemetry
from genbench.training.checks import check_batch, check_parts, check_ranks, clip_of_players
from genbench.training.cuda_graph import Capture
from genbench.training.precision import resolve
from genbench.training.ranks import Watch, meet_again
from genbench.training.scaling import PlayerScaling
from genbench.training.schedule import Schedule

SHORT_STEPS = 16 * 64 * 28 * 28  # values in the images of the steps that are taken at once


LOG_ROWS = 200  # of a history that covers the whole budget


def quieten_lightning() -> None:
    """Leave the terminal to genbench; Lightning's hints go against what is done on purpose."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torchmetrics)\.")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class Engine:
    """The Lightning Trainer of one run and the callbacks that the record needs."""

    def __init__(
        self,
        model: GenerativeModel,
        data: ImageData,
        directory: Path,
        loggers: Sequence[Logger],
        budget: Budget,
        heartbeat: Heartbeat | None,
        callbacks: Sequence[Callback],
        schedule: Schedule | None = None,
        clip: float | Mapping[str, float] | None = None,
        *,
        accelerator: str,
        devices: int,
        num_nodes: int,
        strategy: str,
        precision: str,
        steps_per_batch: int | str,
        checkpoint_minutes: float,
        log_every_images: int | str,
        samples: int,
        progress: bool,
        accumulate: int = 1,
        max_skipped: int = 50,
        cuda_graph: bool = False,
        compile: bool = False,
    ) -> None:
        self.model, self.data = model, data
        self._directory, self._heartbeat = directory, heartbeat
        self.device = device_of(accelerator)
        self.resolved = resolve(precision, self.device)
        self.precision = self.resolved.taken
        devices = resolve_devices(devices, self.device)
        self.world_size = devices * num_nodes
        check_batch(budget.batch_size, self.world_size, accumulate)
        self.steps = budget.steps(len(data.pixels("train"))) if model.players() else 0
        self.total_images = self.steps * budget.batch_size
        model.batch_size = budget.batch_size
        if self.world_size > 1:
            check_ranks(model, self.device)
        if accumulate > 1:
            check_parts(model)
            model.accumulation = Accumulation(accumulate)
        model.clip = clip_of_players(clip, model)
        if schedule and schedule.moves:
            model.rate = partial(
                schedule.factor, batch_size=budget.batch_size, total=self.total_images
            )
        if compile:
            check_compile(model, self.world_size)
        if cuda_graph:
            check_graph(model, self.device, self.world_size, accumulate, self.precision)
            model.capture = Capture()
        self._compile = compile
        # the layout in which convolutions are fastest; nothing to do where there are none
        model.to(memory_format=torch.channels_last)
        choose_threads(model, budget.batch_size)
        every = max(1, self.total_images // LOG_ROWS)
        every = every if log_every_images == "auto" else parse_images(log_every_images)
        data.plan(
            seed=model.seed,
            batch_size=budget.batch_size,
            pieces=model.discriminator_steps,
            steps=self.steps,
            steps_per_batch=_steps_per_batch(steps_per_batch, data, budget.batch_size),
            # what is looked at, and when, must not depend on how many steps are taken at once
            stops=[
                every,
                *(max(1, self.total_images // n) for n in (samples, *_checks(callbacks)) if n),
            ],
        )
        self.alarms = Alarms(data, self.total_images)
        self.telemetry = Telemetry(every, self.total_images, heartbeat, max_skipped, self.alarms)
        self.checkpoints = Checkpoints(directory / "checkpoints", checkpoint_minutes)
        self.stopping = Stopping(self.checkpoints, self.telemetry, budget.seconds)
        self.waiting = Waiting(self.telemetry, self.alarms)
        self.samples = Samples(directory / "samples", data, samples, self.total_images, self.alarms)
        self.trainer = Trainer(
            accelerator="cpu" if self.device.type == "cpu" else "gpu",
            devices=devices,
            num_nodes=num_nodes,
            strategy=_strategy(strategy, model, self.world_size),
            **_precision(self.precision, self.device),
            max_epochs=1,  # the loader's one epoch is the whole budget
            logger=list(loggers),
            callbacks=[
                self.telemetry,
                self.samples,
                *([ProgressBar(self.total_images)] if progress and self.steps else []),
                *callbacks,
                self.checkpoints,
                self.stopping,
                self.waiting,
            ],
            use_distributed_sampler=False,
            sync_batchnorm=self.world_size > 1 and self.device.type == "cuda",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=directory,
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
            with self._watched(), compiling(self.model, self._compile):
                self.trainer.fit(self.model, self.data, ckpt_path=ckpt_path)
        elif self.trainer.is_global_zero:
            self.trainer.strategy.connect(self.model)
            self.samples.draw(self.trainer, self.model)
            self.checkpoints.save(self.trainer, "final.ckpt")
        if self.stopping.asked:  # too late to stop the training
            raise Interrupted(
                f"stopped by {self.stopping.asked} before it was scored; `genbench resume` does that"
            )

    def _load(self, path: Path) -> None:
        """Take weights, position and time from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["state_dict"])
        self.model.on_load_checkpoint(state)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if callback.state_key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.state_key])
            if isinstance(callback, Averaging):
                callback.on_fit_start(self.trainer, self.model)
        # no step follows: what trained it is what it was trained with
        self.checkpoints.method = state["callbacks"][self.checkpoints.state_key]["method"]

    def _watched(self) -> AbstractContextManager[None]:
        """The first of several ranks watches over the others."""
        if self.world_size == 1 or self._heartbeat is None:
            return nullcontext()
        launcher = self.trainer.strategy.launcher
        return Watch(
            self._directory,
            lambda: getattr(launcher, "procs", []),
            partial(self._heartbeat.finish, "failed"),
        )

    @property
    def images_per_second(self) -> float | None:
        """Images shown to the decoder per second of training."""
        seconds = self.telemetry.seconds
        return self.model.images_shown / seconds if seconds else None

    @property
    def generator_steps(self) -> int:
        """Steps of the decoder's player."""
        return self.model.steps if self.model.players() else 0

    @property
    def discriminator_steps(self) -> int:
        """Steps of the discriminator; 0 for a model without one."""
        plays = "discriminator" in self.model.players()
        return self.model.steps * self.model.discriminator_steps if plays else 0


def _strategy(strategy: str, model: GenerativeModel, world_size: int) -> str:
    if strategy != "auto":
        return strategy
    if world_size == 1:
        return "auto"
    # one player's backward leaves the parameters of the others untouched
    return "ddp_find_unused_parameters_true" if len(model.players()) > 1 else "ddp"


def _precision(precision: str, device: torch.device) -> dict[str, Any]:
    """Say it to a Trainer: 16-mixed with a loss scale for each player."""
    if precision == "16-mixed":
        return {"plugins": [PlayerScaling(device.type)]}
    return {"precision": precision}


def _checks(callbacks: Sequence[Callback]) -> list[int]:
    """How often over the budget the best weights are looked for."""
    return [callback.checks for callback in callbacks if isinstance(callback, Selection)]


def _steps_per_batch(requested: int | str, data: ImageData, batch_size: int) -> int:
    """Spread the loop's own cost over several steps, as many as are small."""
    if requested != "auto":
        return int(requested)
    values = batch_size * data.channels * data.image_size**2
    return max(1, min(16, SHORT_STEPS // values))
