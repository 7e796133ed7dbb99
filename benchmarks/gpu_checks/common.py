"""What the checks of a GPU share: how one is declared, trainings in this process, commands in others."""

import atexit
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from omegaconf import OmegaConf

from fixtures.trainers import BATCH, config, descent, engine_for
from genbench.training import loading
from genbench.training.trainer import Engine, quieten_lightning

ROOT = Path(__file__).resolve().parents[2]
MODELS = ["vae", "gan", "wgan-gp", "gan-hinge", "lsgan", "vae-gan"]
CONV = ["network=conv", "network.width=16", "dataset.image_size=16", "dataset.upscale=true"]
NETWORKS: dict[str, list[str]] = {"mlp": [], "conv": CONV}
# for comparisons of a GPU with something else: float32 as it is written, convolutions that repeat
EXACT = ["trainer.precision=32-true", "trainer.tf32=false", "trainer.deterministic=true"]
RARELY = ["trainer.samples=0", "trainer.log_every_images=100M"]


class Failed(Exception):
    """A check has found what it must not find."""


class Skipped(Exception):
    """A check cannot be made here."""


class Check(NamedTuple):
    """A check and whether it only starts other processes, so that others can go on beside it."""

    name: str
    work: Callable[[Path], str]  # (an empty folder) -> what was found
    aside: bool


CHECKS: dict[str, Check] = {}
DEVICE = torch.device("cuda")  # see `choose`


def check(aside: bool = False) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Declare a check; its docstring says what is demanded."""

    def declare(work: Callable[[Path], str]) -> Callable[[Path], str]:
        CHECKS[work.__name__] = Check(work.__name__, work, aside)
        return work

    return declare


def choose(device: str) -> None:
    """Make the checks on `cuda`, or try them on `cpu`."""
    global DEVICE
    DEVICE = torch.device(device)
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def on_gpu() -> bool:
    return DEVICE.type == "cuda"


def need_gpu() -> None:
    if not on_gpu():
        raise Skipped("no GPU")


def demand(holds: bool, words: str) -> None:
    """Fail with `words` unless it holds."""
    if not holds:
        raise Failed(words)


class Fitted(NamedTuple):
    """A training that is over: the model's state on the CPU, what was tracked, its engine."""

    state: dict[str, torch.Tensor]
    means: dict[str, float]
    engine: Engine

    @property
    def speed(self) -> float:
        """Images per second."""
        return self.engine.images_per_second or 0.0


@cache
def scratch() -> Path:
    """A folder of this process, with the cache of all its trainings."""
    folder = tempfile.mkdtemp(prefix="genbench-gpu-check-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _composed(overrides: Sequence[str]) -> Any:
    return config(scratch(), scratch() / "cache", 1, [*RARELY, *overrides])


def configured(*overrides: str, steps: int, device: str) -> Any:
    """A config of so many steps. Composing is slow: what only trains is changed afterwards."""

    def is_late(override: str) -> bool:
        return override.startswith(("trainer.", "gradient_clip="))

    cfg = _composed(tuple(o for o in overrides if not is_late(o))).copy()
    for override in [f"trainer.accelerator={device}", *filter(is_late, overrides)]:
        name, _, value = override.partition("=")
        OmegaConf.update(cfg, name, yaml.safe_load(value))
    cfg.budget.images = steps * cfg.budget.batch_size
    return cfg


def fit(
    folder: Path, *overrides: str, steps: int = 20, device: str = "", watch: bool = False
) -> Fitted:
    """Train here; with `watch` a step after the first batch that waits for the GPU is an error."""
    quieten_lightning()
    place = device or ("gpu" if on_gpu() else "cpu")
    cfg = configured(*overrides, steps=steps, device=place)
    model, data = loading.build(cfg)
    # nobody expects good pictures here
    engine = engine_for(cfg, model, data, folder / "run", say=lambda sentence: None)
    means: dict[str, float] = {}
    flush = engine.training.means
    engine.training.means = lambda: means.update(flush()) or means
    if watch and on_gpu():
        _forbid_waiting(engine)
    engine.fit(resume=False)
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return Fitted(state, means, engine)


def _forbid_waiting(engine: Engine) -> None:
    step, batches = engine.training.training_step, 0

    def training_step(batch: Any, batch_idx: int) -> None:
        nonlocal batches
        batches += 1
        torch.cuda.set_sync_debug_mode("error" if batches > 1 else "default")  # the first sets up
        try:
            step(batch, batch_idx)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    engine.training.training_step = training_step


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of two states."""
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def plain_descent(model: str) -> list[str]:
    """Plain descent for the player that has the decoder: Adam would amplify what rounding does."""
    names = {"vae": "optimizer", "vae-gan": "autoencoder_optimizer"}
    return descent(names.get(model, "generator_optimizer"))


@contextmanager
def memory_given_back() -> Iterator[None]:
    """Around trainings whose memory must not be in the way of the next."""
    try:
        yield
    finally:
        gc.collect()
        if on_gpu():
            torch.cuda.empty_cache()


# --- other processes ------------------------------------------------------------------------------


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a command that runs in a folder of its own; packages may come from PYTHONPATH."""
    path = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    own = {
        "GENBENCH_CACHE": str(folder / "cache"),
        "GENBENCH_OUTPUTS": str(folder / "outputs"),
        "WANDB_MODE": "disabled",
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
    }
    return os.environ | own | more


def command(folder: Path, *arguments: str, code: int = 0, **more: str) -> str:
    """Run `genbench ARGUMENTS` to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "genbench", *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=300,
    )
    words = f"genbench {' '.join(arguments)[:100]}: code {done.returncode}"
    demand(done.returncode == code, f"{words}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout


def trainer() -> str:
    return "trainer=gpu" if on_gpu() else "trainer=cpu"


def result(folder: Path, run: str) -> dict[str, Any]:
    """The record of a run."""
    text = (folder / "outputs" / run / "result.json").read_text()
    return dict(json.loads(text))


def final_state(folder: Path, run: str) -> dict[str, torch.Tensor]:
    """The final weights of a run."""
    path = folder / "outputs" / run / "checkpoints" / "final.ckpt"
    return dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


__all__ = ["BATCH"]
