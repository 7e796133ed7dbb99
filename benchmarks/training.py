"""CPU time of training: genbench against loops that its users would write or call.

    python benchmarks/training.py [ROW...] [--data FOLDER] [--rounds 5] [--json]

L1  against a bare loop over the same networks with the same tricks (MLP GAN, convolutional VAE)
L2  against the usual Lightning module: toggled optimizers, fakes made twice, a log in every step
L3  an empty step: the Trainer as genbench sets it up against a barebones Trainer
T1  a VAE on 28 x 28 images against pythae's trainer; T2 the same in bf16
T3  DCGAN on 32 x 32 colour images against a plain loop that makes its fakes twice; again in bf16
T4  wall time of T3's step with two threads against one while two other processes are busy: above 1
    is faster

Every side is a process of its own in every round, with one thread and batches of 64; they take turns, and
the ratio is the median over the rounds of CPU times (T4: of wall times). Peak memory is the process's. The
peers get batches that are ready to use; genbench reads, moves and scales its own.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
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
# row, what, genbench's side, its peer, the demand
ROWS = [
    ("L1", "MLP GAN", "gan/genbench", "gan/bare", 1.03),
    ("L1", "conv VAE", "vae/genbench", "vae/bare", 1.03),
    ("L2", "MLP GAN", "gan/genbench", "gan/naive", 0.80),
    ("L2", "conv VAE", "vae/genbench", "vae/naive", 0.92),
    ("L3", "empty step", "empty/genbench", "empty/barebones", 2.0),
    ("T1", "conv VAE", "vae/genbench", "vae/pythae", 0.85),
    ("T2", "conv VAE, bf16", "vae/genbench-bf16", "vae/pythae", 0.60),
    ("T3", "DCGAN 32 x 32", "dcgan/genbench", "dcgan/naive", 0.72),
    ("T3", "DCGAN 32 x 32, bf16", "dcgan/genbench-bf16", "dcgan/naive", 0.46),
]


# --- taking turns -------------------------------------------------------------------------------


def serve(side: str, data: Path | None) -> None:
    """Run a lap for every line on stdin; answer with its times and the peak memory so far."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    lap = SIDES[side](data)
    lap()  # warms up
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        cpu, wall = lap()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps([cpu, wall, memory]), file=answers, flush=True)


class Side:
    """A process that waits for its turn."""

    def __init__(self, side: str, data: Path | None, threads: int = 1) -> None:
        arguments = ["--serve", side, *(["--data", str(data)] if data else [])]
        self.steps = STEPS[side.split("/")[0]]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended: run it alone to see why")
        return line

    def lap(self) -> tuple[float, float, int]:
        """Seconds per step of CPU and of the wall, peak bytes."""
        assert self.process.stdin
        print("go", file=self.process.stdin, flush=True)
        cpu, wall, memory = json.loads(self._answer())
        return cpu / self.steps, wall / self.steps, memory

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def take_turns(names: list[str], data: Path | None) -> dict[str, tuple[float, float, int]]:
    """Two laps of every side, each in a new process: how memory falls out makes 5 % for its life."""
    sides = {name: Side(name, data) for name in names}
    laps = [{name: side.lap() for name, side in sides.items()} for _ in range(2)]
    for side in sides.values():
        side.close()
    return {
        name: ((one[0] + two[0]) / 2, (one[1] + two[1]) / 2, two[2])
        for name, one, two in ((name, *(lap[name] for lap in laps)) for name in names)
    }


def measure(wanted: list[str], data: Path | None, rounds: int) -> list[dict[str, Any]]:
    rows = [row for row in ROWS if not wanted or row[0] in wanted]
    found: list[dict[str, Any]] = []
    for kind in dict.fromkeys(row[2].split("/")[0] for row in rows):  # few processes at a time
        here = [row for row in rows if row[2].startswith(kind)]
        names = dict.fromkeys(name for row in here for name in row[2:4])
        laps = [take_turns(list(names), data) for _ in range(rounds)]
        for identity, what, own, peer, demand in here:
            ratios = [lap[own][0] / lap[peer][0] for lap in laps]
            found.append(
                {
                    "id": identity,
                    "what": f"{what}, {own.split('/')[1]} / {peer.split('/')[1]}",
                    "peer_ms": 1e3 * statistics.median(lap[peer][0] for lap in laps),
                    "genbench_ms": 1e3 * statistics.median(lap[own][0] for lap in laps),
                    "ratio": statistics.median(ratios),
                    "low": min(ratios),
                    "high": max(ratios),
                    "demand": demand,
                    "peak_mb": laps[-1][own][2] / 1e6,
                    "peer_peak_mb": laps[-1][peer][2] / 1e6,
                }
            )
    if not wanted or "T4" in wanted:
        found.append(crowded(data, rounds))
    return found


def crowded(data: Path | None, rounds: int) -> dict[str, Any]:
    """T4: the step of T3 with two threads and with one, beside two busy processes."""
    sides = [Side("dcgan/genbench", data, threads) for threads in (1, 2)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        walls = [[side.lap() for side in sides] for _ in range(rounds)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    for side in sides:
        side.close()
    ratios = [one[1] / two[1] for one, two in walls]
    return {
        "id": "T4",
        "what": "DCGAN 32 x 32, speed with 2 threads / with 1",
        "peer_ms": 1e3 * statistics.median(one[1] for one, _ in walls),
        "genbench_ms": 1e3 * statistics.median(two[1] for _, two in walls),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "demand": 0.8,
        "at_least": True,
        "peak_mb": walls[-1][1][2] / 1e6,
        "peer_peak_mb": walls[-1][0][2] / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.data)
        return
    pictures_once(arguments.data)
    rows = measure(arguments.rows, arguments.data, arguments.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if arguments.json:
        json.dump({"machine": machine, "rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    for row in rows:
        sign = ">=" if row.get("at_least") else "<="
        print(
            f"{row['id']}  {row['what']:<48} {row['peer_ms']:9.2f} {row['genbench_ms']:9.2f} ms"
            f"  {row['ratio']:.3f} ({row['low']:.3f} - {row['high']:.3f}) {sign} {row['demand']}"
            f"  {row['peak_mb']:.0f} / {row['peer_peak_mb']:.0f} MB"
        )


def pictures_once(data: Path | None) -> None:
    """Make the images before two processes would at once."""
    for kind in ("gan", "dcgan"):
        pictures(kind, data)


if __name__ == "__main__":
    main()
