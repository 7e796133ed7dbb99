"""The sides of `training.py`: what genbench trains, and the loops that its users would write or call.

A side is a function of the folder of MNIST (None: digits made here) that prepares its networks and images and returns a lap:
`STEPS` steps in batches of `BATCH`, answered by the seconds of CPU and of the wall that they took.
"""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

BATCH = 64
CACHE = Path(os.environ.get("GENBENCH_BENCH", tempfile.gettempdir())) / "genbench-benchmarks"
GAN = ["model=gan", "model.r1_gamma=0", "dataset=mnist", "network.width=512", "network.depth=3"]
VAE = [
    "model=vae",
    "likelihood=gaussian-fixed",
    "dataset=mnist",
    "network=conv",
    "network.width=32",
]
DCGAN = ["model=gan", "model.r1_gamma=0", "dataset=cifar10", "network.trunk_norm=batch"]
SETTINGS = {"gan": GAN, "vae": VAE, "dcgan": DCGAN}
STEPS = {"gan": 96, "vae": 96, "dcgan": 10, "empty": 1000}
Lap = Callable[[], tuple[float, float]]  # seconds of CPU and of the wall, for STEPS steps


# --- what is trained ----------------------------------------------------------------------------


def config(kind: str, *more: str) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from genbench.launch import task
    from genbench.runs import paths

    settings = [
        *SETTINGS[kind],
        f"budget.batch_size={BATCH}",
        f"budget.images={STEPS[kind] * BATCH}",
        "logger=csv",
        "trainer.accelerator=cpu",
        "trainer.samples=0",
        f"trainer.log_every_images={50 * BATCH}",
        "extractor=lenet-mnist-v1",
    ]
    with initialize_config_dir(str(paths.config_root()), version_base="1.3"):
        cfg = compose("train", [*settings, *more], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    del cfg.hydra
    return OmegaConf.create(task.resolve(cfg))


def pictures(kind: str, data: Path | None) -> Any:
    """28 x 28 digits, or 32 x 32 colour JPEGs made here."""
    from benchmarks.input import images_of, make_idx, make_jpegs
    from genbench.data.folders import Folder
    from genbench.data.sources import Idx

    if kind == "dcgan":
        if not (CACHE / "jpeg").exists():
            make_jpegs(CACHE / "jpeg", 2_000)
        shape = {"image_size": 32, "channels": 3, "validation": 64, "test": 64, "flip": True}
        images = images_of(Folder, CACHE / "jpeg", CACHE / "cache", **shape)
    else:
        if data is None and not (CACHE / "idx").exists():
            make_idx(CACHE / "idx", 20_000)
        source = partial(Idx, torchvision_class="MNIST", title="MNIST", megabytes=11)
        shape = {"image_size": 28, "channels": 1, "validation": 64, "flip": False}
        images = images_of(source, data or CACHE / "idx", CACHE / "cache", **shape)
    images.prepare_data()
    return images


def networks(kind: str) -> Any:
    """The model as genbench builds it, for its networks."""
    import torch
    from hydra.utils import instantiate

    torch.manual_seed(0)
    return instantiate(config(kind).model)


def ready(kind: str, data: Path | None) -> list[Any]:
    """Float batches, made before the clock runs."""
    import torch

    images = pictures(kind, data)
    pixels = torch.from_numpy(images.pixels("train")[: 16 * BATCH].copy())
    return [*images.to_images(pixels).split(BATCH)]


# --- the sides ----------------------------------------------------------------------------------


def no_real() -> Any:
    """Logits of real images, for which the loss of these loops has no use."""
    raise AssertionError("the non-saturating loss asked for real images")


def without_lightning() -> None:
    """Undo what importing Lightning does to every later step of an optimizer (0.2 ms)."""
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def genbench(kind: str, precision: str, data: Path | None) -> Lap:
    import torch
    from hydra.utils import instantiate
    from pytorch_lightning import Callback

    from genbench import device
    from genbench.runs.heartbeat import Heartbeat
    from genbench.training import loggers
    from genbench.training.trainer import Brief, quieten_lightning

    device.keep_freed_memory()
    quieten_lightning()
    cfg = config(kind, f"trainer.precision={precision}")
    images = pictures(kind, data)

    class Clock(Callback):
        def on_train_start(self, *_: Any) -> None:
            self.began = time.process_time(), time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            now = time.process_time(), time.perf_counter()
            self.spent = now[0] - self.began[0], now[1] - self.began[1]

    def lap() -> tuple[float, float]:
        torch.manual_seed(0)
        model, clock = instantiate(cfg.model), Clock()
        with tempfile.TemporaryDirectory() as name, Heartbeat(Path(name)) as heartbeat:
            sinks = loggers.build(cfg.logger, Path(name), {}, "bench")
            brief = Brief(
                model,
                images,
                Path(name),
                instantiate(cfg.budget),
                seed=0,
                method=lambda taken: {"precision": taken},
                trainer={},
                callbacks=[clock],
                loggers=sinks,
                heartbeat=heartbeat,
            )
            engine = instantiate(cfg.trainer)(brief)
            engine.fit(resume=False)
        assert engine.training.steps == STEPS[kind]
        return clock.spent

    return lap


def timed(work: Callable[[], None]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def bare_gan(data: Path | None) -> Lap:
    """One fake, a frozen discriminator, fused Adam, bytes in memory, no page faults."""
    import torch

    from genbench import device

    device.keep_freed_memory()
    without_lightning()
    model = networks("gan")
    images = pictures("gan", data)
    pixels = torch.from_numpy(images.pixels("train").copy())
    generator, discriminator, loss = model.decoder, model.discriminator, model.adversarial_loss

    def work() -> None:
        adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99), fused=True)
        of_generator, of_discriminator = (
            adam(generator.parameters()),
            adam(discriminator.parameters()),
        )
        order = torch.randperm(len(pixels))
        for step in range(STEPS["gan"]):
            real = images.to_images(pixels[order[step * BATCH : (step + 1) * BATCH]])
            fake = torch.tanh(generator(torch.randn(BATCH, model.latent_dim)))
            value = loss.discriminator(discriminator(real), discriminator(fake.detach()))
            of_discriminator.zero_grad()
            value.backward()
            of_discriminator.step()
            discriminator.requires_grad_(False)
            value = loss.generator(discriminator(fake), no_real)
            of_generator.zero_grad()
            value.backward()
            discriminator.requires_grad_(True)
            of_generator.step()

    return partial(timed, work)


def bare_vae(data: Path | None) -> Lap:
    import torch

    from genbench import device

    device.keep_freed_memory()
    without_lightning()
    model = networks("vae").to(memory_format=torch.channels_last)
    images = pictures("vae", data)
    pixels = torch.from_numpy(images.pixels("train").copy())

    def work() -> None:
        adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        order = torch.randperm(len(pixels))
        for step in range(STEPS["vae"]):
            real = images.to_images(pixels[order[step * BATCH : (step + 1) * BATCH]])
            rate, distortion = model.elbo(real, torch.randn(BATCH, model.latent_dim))
            adam.zero_grad()
            (rate + distortion).mean().backward()
            adam.step()

    return partial(timed, work)


def naive(kind: str, data: Path | None) -> Lap:
    """The usual module on Lightning: see `naive.py`."""
    import torch
    from pytorch_lightning import Trainer

    from benchmarks.naive import NaiveGAN, NaiveVAE

    model, batches = networks(kind), ready(kind, data)
    feed = [batches[step % len(batches)] for step in range(STEPS[kind])]
    modules = {"gan": NaiveGAN, "vae": NaiveVAE}

    def lap() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as name:
            trainer = Trainer(
                max_epochs=1,
                accelerator="cpu",
                log_every_n_steps=1,
                default_root_dir=name,
                enable_checkpointing=False,
                enable_model_summary=False,
            )
            module = modules[kind](model)
            loader = torch.utils.data.DataLoader(feed, batch_size=None)
            trainer.fit(module, loader)
        return module.spent

    return lap


def naive_dcgan(data: Path | None) -> Lap:
    """Two forward passes of the generator, a discriminator that keeps its gradients, default Adam."""
    import torch

    without_lightning()
    model, batches = networks("dcgan"), ready("dcgan", data)
    generator, discriminator, loss = model.decoder, model.discriminator, model.adversarial_loss

    def work() -> None:
        adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))
        of_generator, of_discriminator = (
            adam(generator.parameters()),
            adam(discriminator.parameters()),
        )
        for step in range(STEPS["dcgan"]):
            real = batches[step % len(batches)]
            with torch.no_grad():
                fake = torch.tanh(generator(torch.randn(BATCH, model.latent_dim)))
            value = loss.discriminator(discriminator(real), discriminator(fake))
            of_discriminator.zero_grad()
            value.backward()
            of_discriminator.step()
            fake = torch.tanh(generator(torch.randn(BATCH, model.latent_dim)))
            value = loss.generator(discriminator(fake), no_real)
            of_generator.zero_grad()
            value.backward()
            of_generator.step()

    return partial(timed, work)


def pythae(data: Path | None) -> Lap:
    """One epoch of pythae's trainer over the same networks and images; its loss is the same."""
    import torch

    from benchmarks.naive import pythae_trainer

    without_lightning()
    images = pictures("vae", data)
    pixels = torch.from_numpy(images.pixels("train")[: STEPS["vae"] * BATCH].copy())
    trainer = pythae_trainer(networks("vae"), images.to_images(pixels), BATCH)
    trainer.set_optimizer()
    return partial(timed, lambda: trainer.train_step(1))


def empty(barebones: bool) -> Lap:  # noqa: C901  (a class with six hooks)
    """A Trainer whose step does nothing."""
    import torch
    from pytorch_lightning import Callback, LightningModule, Trainer

    from genbench.training.module import Pace

    class Nothing(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.images_shown, self.pace, self.spent = 0, Pace(BATCH), (0.0, 0.0)

        def skipped(self) -> dict[str, Any]:
            return {}

        def means(self) -> dict[str, float]:
            return {}

        def configure_optimizers(self) -> None:
            return None

        def on_train_start(self) -> None:
            self.began = time.process_time(), time.perf_counter()

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.images_shown += BATCH

        def on_train_end(self) -> None:
            now = time.process_time(), time.perf_counter()
            self.spent = now[0] - self.began[0], now[1] - self.began[1]

    feed = [torch.zeros(1)] * STEPS["empty"]

    def lap() -> tuple[float, float]:
        from genbench.training.callbacks.checkpoints import Checkpoints
        from genbench.training.callbacks.progress import ProgressBar
        from genbench.training.callbacks.stopping import Stopping
        from genbench.training.callbacks.telemetry import Telemetry

        module, total = Nothing(), BATCH * STEPS["empty"]
        loader = torch.utils.data.DataLoader(feed, batch_size=None)
        with tempfile.TemporaryDirectory() as name:
            own: list[Callback] = []
            if not barebones:
                method = {"precision": "32-true"}
                checkpoints = Checkpoints(Path(name), 10, method, {}, precision_asked=False)
                checkpoints.on_train_end = lambda *_: None  # type: ignore[method-assign]
                telemetry = Telemetry(total // 200, total, None, max_skipped=50)
                own = [telemetry, ProgressBar(total), checkpoints]
                own.append(Stopping(checkpoints, telemetry, None))
            common = {"max_epochs": 1, "accelerator": "cpu", "callbacks": own}
            quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
            quiet |= {"enable_model_summary": False, "logger": False, "default_root_dir": name}
            settings = common | ({"barebones": True, "callbacks": None} if barebones else quiet)
            Trainer(**settings).fit(module, loader)
        return module.spent

    return lap


SIDES: dict[str, Callable[[Path | None], Lap]] = {
    "gan/genbench": partial(genbench, "gan", "32-true"),
    "gan/bare": bare_gan,
    "gan/naive": partial(naive, "gan"),
    "vae/genbench": partial(genbench, "vae", "32-true"),
    "vae/genbench-bf16": partial(genbench, "vae", "bf16-mixed"),
    "vae/bare": bare_vae,
    "vae/naive": partial(naive, "vae"),
    "vae/pythae": pythae,
    "dcgan/genbench": partial(genbench, "dcgan", "32-true"),
    "dcgan/genbench-bf16": partial(genbench, "dcgan", "bf16-mixed"),
    "dcgan/naive": naive_dcgan,
    "empty/genbench": lambda data: empty(barebones=False),
    "empty/barebones": lambda data: empty(barebones=True),
}
