"""How a run meets the machine: seeds, precision, devices, the Lightning Trainer, the checkpoint.

Nothing here knows an algorithm, a dataset or a metric.
"""

import ctypes
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.loggers import Logger
from torch.utils.flop_counter import FlopCounterMode

from genbench.acceleration import check_compile, check_graph, compiling
from genbench.accumulation import Accumulation
from genbench.budget import Budget, parse_images
from genbench.callbacks.alarms import Alarms
from genbench.callbacks.averaging import Averaging, recalibrate
from genbench.callbacks.checkpoints import Checkpoints
from genbench.callbacks.progress import ProgressBar
from genbench.callbacks.samples import Samples, evaluating
from genbench.callbacks.selection import Selection
from genbench.callbacks.stopping import Stopping
from genbench.callbacks.telemetry import Telemetry
from genbench.callbacks.waiting import Waiting
from genbench.capture import Capture
from genbench.environment import MALLOC
from genbench.errors import GenbenchError, Interrupted, UserMistake
from genbench.heartbeat import Heartbeat
from genbench.interfaces import GenerativeModel, ImageData, Reconstructs
from genbench.precision import resolve
from genbench.ranks import Watch
from genbench.runs import read_config
from genbench.scaling import PlayerScaling
from genbench.schedule import Schedule

SHORT_STEPS = 16 * 64 * 28 * 28  # values in the images of the steps that are taken at once
SHARED_WORK = 150_000_000  # operations of a decoder's batch from which a second thread pays
MALLOPT = {  # glibc's numbers for its parameters, and their values in bytes
    "mmap_threshold": (-3, 1 << 30),
    "trim_threshold": (-1, 2**31 - 1),
    "top_pad": (-2, 64 << 20),
}
LOG_ROWS = 200  # of a history that covers the whole budget


def is_first_rank() -> bool:
    """Tell whether this process is the one that writes the record, before any process group."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def spare_page_faults() -> None:
    """Keep glibc from handing memory back after every step (1.07x to 1.2x, bit-identical)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only
        for name, (parameter, value) in MALLOPT.items():
            if libc.mallopt(parameter, value):
                MALLOC[name] = value


def meet_again(device: torch.device) -> None:
    """Under a torchrun that has restarted its ranks: let them meet under names of this attempt.

    The agent's store keeps the addresses of the ranks that died, and a rank that is quick to ask
    is given one of those. Lightning leaves a process group alone that is there already.
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


def quieten_lightning() -> None:
    """Leave the terminal to genbench; Lightning's hints go against what is done on purpose."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torchmetrics)\.")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def device_of(accelerator: str) -> torch.device:
    """Say where a single process of this accelerator works."""
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserMistake(
            "trainer.accelerator=gpu, but PyTorch sees no GPU here: choose trainer=cpu, or look at "
            "`genbench doctor`"
        )
    use_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if use_gpu else torch.device("cpu")


def resolve_devices(devices: int, device: torch.device) -> int:
    """Turn -1 into all devices, and refuse more than there are."""
    if device.type == "cpu":
        return max(1, devices)
    there = torch.cuda.device_count()
    if devices > there:
        raise UserMistake(
            f"trainer.devices={devices}, but this machine has {there}: "
            f"choose trainer.devices={there} or -1 for all"
        )
    return there if devices == -1 else devices


def another_gpu(rank: int) -> int:
    """Number of the GPU for the process `rank`; UserMistake if there are fewer."""
    if rank >= torch.cuda.device_count():
        raise UserMistake(
            f"evaluation.devices is above the {torch.cuda.device_count()} that this machine has"
        )
    return rank


def build(cfg: Any) -> tuple[GenerativeModel, ImageData]:
    """Make data and model as configured, the model's weights drawn from the run's seed."""
    data: ImageData = instantiate(cfg["dataset"])
    data.prepare_data()
    seed_everything(cfg["seed"], workers=True, verbose=False)
    model: GenerativeModel = instantiate(cfg["model"])
    model.seed = cfg["seed"]
    model.observe(data)
    check_fit(model, data)
    return model, data


def load_average(
    directory: Path, model: GenerativeModel, checkpoint: str = "final"
) -> Mapping[str, Any] | None:
    """Put a run's averaged weights into the decoder and return their card; None without any."""
    state = torch.load(
        directory / "checkpoints" / f"{checkpoint}.ckpt", map_location="cpu", weights_only=True
    )
    averaging = state.get("callbacks", {}).get(Averaging.__qualname__)
    if not averaging:
        return None
    model.decoder.load_state_dict(averaging["average"])
    with evaluating(model):
        recalibrate(model)
    card: Mapping[str, Any] = averaging["card"]
    return card


def check_fit(model: GenerativeModel, data: ImageData) -> None:
    """Refuse networks that were configured for other images, or other latents, than these."""
    shape = (data.channels, data.image_size, data.image_size)
    images = torch.zeros(2, *shape)
    try:
        with evaluating(model):
            made = model.sample(model.latents(2, torch.Generator().manual_seed(0)))
            if isinstance(model, Reconstructs):
                model.reconstruct(images)
            if isinstance(discriminator := getattr(model, "discriminator", None), torch.nn.Module):
                discriminator(images)
    except RuntimeError as error:
        raise UserMistake(
            f"the networks do not fit {data.name}'s images {shape} or each other's latents: leave "
            f"image_size, channels and latent_dim to the network group ({error})"
        ) from error
    if made.shape[1:] != shape:
        raise UserMistake(
            f"the decoder makes images {tuple(made.shape[1:])}, but {data.name} has {shape}: leave "
            "image_size and channels to the network group"
        )


def check_ranks(model: GenerativeModel, device: torch.device) -> None:
    """Refuse networks whose steps depend on the number of ranks."""
    if device.type == "cuda":  # SyncBatchNorm sees all ranks' images
        return
    if name := normalises_over_batch(model):
        raise UserMistake(
            f"the {name} normalises over its batch, which several CPU ranks would split "
            "(SyncBatchNorm exists for GPUs alone): choose network.decoder_norm=group and "
            "network.trunk_norm=none, or trainer.devices=1"
        )


def check_parts(model: GenerativeModel) -> None:
    """Refuse networks that see more in a whole batch than in its parts."""
    if name := normalises_over_batch(model):
        raise UserMistake(
            f"the {name} normalises over its batch, which trainer.accumulate would split: choose "
            "network.decoder_norm=group and network.trunk_norm=none, or trainer.accumulate=1"
        )


def normalises_over_batch(model: GenerativeModel) -> str | None:
    """Name of a network with BatchNorm; None if there is none."""
    for name, network in model.named_children():
        if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in network.modules()):
            return name
    return None


def check_batch(batch_size: int, ranks: int, parts: int) -> None:
    """Refuse a batch that ranks and parts do not divide."""
    if not isinstance(parts, int) or parts < 1:
        raise UserMistake(f"trainer.accumulate={parts} is not a number of parts: give 1 or more")
    if batch_size % (ranks * parts):
        over = f"{ranks} devices" + (f" in {parts} parts each" if parts > 1 else "")
        raise UserMistake(
            f"budget.batch_size={batch_size} cannot be split over {over}: choose a multiple"
        )


def clip_of_players(
    clip: float | Mapping[str, float] | None, model: GenerativeModel
) -> dict[str, float]:
    """Largest gradient norm of each player: one number for all, or some by name."""
    players = list(model.players())
    if clip is None:
        return {}
    named = dict(clip) if isinstance(clip, Mapping) else dict.fromkeys(players, clip)
    for player, norm in named.items():
        if player not in players:
            raise UserMistake(
                f"gradient_clip names {player!r}, but the players of this model are "
                f"{', '.join(players)}"
            )
        if not isinstance(norm, int | float) or norm <= 0:
            raise UserMistake(
                f"gradient_clip={norm!r} for {player} is not a norm: give a number above 0, or null"
            )
    return named


def load_run(
    directory: Path, checkpoint: str = "final"
) -> tuple[GenerativeModel, ImageData, dict[str, Any]]:
    """Build a run's model and data from its directory alone, with the weights of a checkpoint.

    Returns model, data and the plain config; raises UserMistake if the checkpoint is not there.
    """
    config = read_config(directory)
    path = directory / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.exists():
        there = sorted(p.stem for p in path.parent.glob("*.ckpt"))
        raise UserMistake(
            f"{directory.name} has no checkpoint {checkpoint!r}: "
            + (f"it has {', '.join(there)}" if there else "it has not been trained yet")
        )
    model, data = build(OmegaConf.create(config))
    model.on_load_checkpoint(load_weights(model, path))
    return model.eval(), data, config


def load_weights(model: GenerativeModel, path: Path) -> dict[str, Any]:
    """Give a model the weights of a checkpoint; returns all that the checkpoint holds."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["state_dict"])
    return state


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
        _choose_threads(model, budget.batch_size)
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


def _choose_threads(model: GenerativeModel, batch_size: int) -> None:
    """Take one thread where a step is too small to share: sharing doubles its time (docs/log.md).

    The work of the decoder decides, not a clock, so that equal configs compute in equal order.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is None or torch.get_num_threads() == 1:
        return
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(1, model.latent_dim))
    if counter.get_total_flops() * batch_size < SHARED_WORK:
        torch.set_num_threads(1)


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


@contextmanager
def memory_for(doing: str, remedy: str) -> Iterator[None]:
    """Turn running out of memory, of a GPU or of the machine, into a sentence with the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and (
            "DefaultCPUAllocator" not in str(error)  # PyTorch has no class of its own for it
        ):
            raise
        raise GenbenchError(f"out of memory while {doing}: {remedy}") from error


def training_memory(batch_size: int, parts: int) -> AbstractContextManager[None]:
    """`memory_for` training on batches of `batch_size` images in `parts` parts."""
    return memory_for(
        f"training on batches of {batch_size} images" + (f" in {parts} parts" if parts > 1 else ""),
        f"try trainer.accumulate={2 * parts}, which keeps the gradients of the whole batch, "
        f"arena.batch_size={max(1, batch_size // 2)}, or trainer.precision=bf16-mixed",
    )


def scoring_memory(batch_size: int) -> AbstractContextManager[None]:
    """`memory_for` an evaluation on batches of `batch_size` images."""
    return memory_for(
        f"scoring on batches of {batch_size} images",
        f"try evaluation.batch_size={max(1, batch_size // 2)}, which changes no score beyond "
        "rounding; what has been trained is kept, and `genbench evaluate` scores it",
    )
