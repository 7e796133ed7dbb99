"""Images per second of DCGAN's step on a GPU: eager, compiled and captured in a CUDA graph.

    python benchmarks/gpu.py [ROW...] [--rounds 5] [--images 500k] [--json]

G1  DCGAN 64 x 64, batches of 128, against the bare eager loop in float32; 35 000 images/s are the
    demand on an H200, 104 000 the floor that its operations set
G2  DCGAN 32 x 32, batches of 64, captured, against the usual Lightning module (`naive.py`) in float32
G3  four runs packed on one GPU by `genbench train -m hydra.launcher.jobs_per_gpu=4`, against the same
    four one after the other: wall times, start-up included

Data lies on the device as bytes. Without a GPU all run their code at a toy size, except for the graph, G3
with runs on the CPU, and the table says that the figures are missing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.startup import METRICS
from genbench.networks.conv import ConvDecoder, ConvTrunk
from genbench.networks.heads import Discriminator

ROOT = Path(__file__).parent.parent
LATENT = 128
IMAGES, TOY = "500k", "640"
Step = Callable[[], None]


def step_of(size: int, batch: int, width: int, device: torch.device, **how: bool) -> Step:
    """Build one training step; `how`: fast (bf16, channels-last, fused), compile, graph."""
    torch.manual_seed(0)
    fast = how.get("fast", False)
    generator = ConvDecoder(size, 3, LATENT, width, "batch", position_bias=True).to(device)
    discriminator = Discriminator(ConvTrunk(size, 3, width, "batch")).to(device)
    layout = torch.channels_last if fast else torch.contiguous_format
    generator, discriminator = (
        generator.to(memory_format=layout),
        discriminator.to(memory_format=layout),
    )
    # fused=False would take torch's slowest loop, None takes what everybody gets
    adam = partial(
        torch.optim.Adam,
        lr=2e-4,
        betas=(0.5, 0.999),
        fused=fast or None,
        capturable=how.get("graph", False),
    )
    of_generator, of_discriminator = adam(generator.parameters()), adam(discriminator.parameters())
    pixels = torch.randint(256, (16 * batch, 3, size, size), dtype=torch.uint8, device=device)
    if how.get("compile"):
        generator.compile()
        discriminator.compile()

    def step() -> None:
        chosen = torch.randint(len(pixels), (batch,), device=device)
        real = pixels[chosen].float() / 127.5 - 1
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
            fake = torch.tanh(generator(torch.randn(batch, LATENT, device=device)))
            loss: Tensor = F.softplus(-discriminator(real)).mean()
            loss = loss + F.softplus(discriminator(fake.detach())).mean()
        of_discriminator.zero_grad()
        loss.backward()
        of_discriminator.step()
        discriminator.requires_grad_(False)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
            loss = F.softplus(-discriminator(fake)).mean()
        of_generator.zero_grad()
        loss.backward()
        discriminator.requires_grad_(True)
        of_generator.step()

    return captured(step) if how.get("graph") else step


def captured(step: Step) -> Step:
    """Record the step's kernels once; replaying them costs the host one launch."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(11):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def images_per_second(step: Step, batch: int, steps: int, device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return batch * steps / (time.perf_counter() - began)


def naive_speed(size: int, batch: int, width: int, steps: int, device: torch.device) -> float:
    """Images per second of the usual Lightning module, its fit without the set-up."""
    from types import SimpleNamespace

    from pytorch_lightning import Trainer

    from benchmarks.naive import NaiveGAN

    torch.manual_seed(0)
    networks = SimpleNamespace(
        decoder=ConvDecoder(size, 3, LATENT, width, "batch", position_bias=True),
        discriminator=Discriminator(ConvTrunk(size, 3, width, "batch")),
        latent_dim=LATENT,
    )
    module = NaiveGAN(networks)
    feed = [torch.rand(batch, 3, size, size, device=device) * 2 - 1 for _ in range(min(steps, 16))]
    batches = [feed[step % len(feed)] for step in range(steps)]
    # its progress bar is drawn on stdout, where the rows are to be read
    with tempfile.TemporaryDirectory() as name, redirect_stdout(sys.stderr):
        Trainer(
            max_epochs=1,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            log_every_n_steps=1,
            default_root_dir=name,
            enable_checkpointing=False,
            enable_model_summary=False,
        ).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return batch * steps / module.spent[1]


def packed(jobs_per_gpu: int, images: str) -> float:
    """Seconds of a sweep of four seeds on one GPU."""
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "-m", "genbench", *packed_arguments(jobs_per_gpu, images)]
        # packages may come from there too
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        one_gpu = {
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        }
        began = time.perf_counter()
        subprocess.run(
            command,
            env=os.environ | one_gpu | {"GENBENCH_OUTPUTS": outputs, "PYTHONPATH": path},
            check=True,
            stdout=sys.stderr,
        )
        return time.perf_counter() - began


def packed_arguments(jobs_per_gpu: int, images: str) -> list[str]:
    """What G3 asks genbench for: a small convolutional GAN on digits, without scores.

    Without a GPU two short runs on the CPU.
    """
    cuda = torch.cuda.is_available()
    settings = ["model=gan", "model.r1_gamma=0", "network=conv"]
    settings += [f"~evaluation.metrics.{name}" for name in METRICS]
    settings += ["evaluation.num_samples=64", "trainer.samples=0", "logger=csv"]
    settings += [f"budget.images={images}", f"trainer={'gpu' if cuda else 'cpu'}"]
    slots = "auto" if cuda else min(2, jobs_per_gpu)
    launcher = [f"hydra.launcher.jobs_per_gpu={jobs_per_gpu}", f"hydra.launcher.slots={slots}"]
    return ["train", "-m", *settings, f"seed={'0,1,2,3' if cuda else '0,1'}", *launcher]


def missing(identity: str, what: str, demand: float, note: str = "") -> dict[str, Any]:
    """A row without its figure."""
    note = note or "missing: no GPU here; the code ran at a toy size"
    return {"id": identity, "what": what, "demand": demand, "ratio": None, "note": note}


def row_of(
    identity: str, what: str, demand: float, ratios: list[float], **more: Any
) -> dict[str, Any]:
    spread = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {"id": identity, "what": what, "demand": demand, "at_least": True} | spread | more


def measure_steps(name: str, rounds: int) -> list[dict[str, Any]]:
    """G1 and G2: every way to take the step, in turns."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    steps, width = (200, 64) if cuda else (1, 4)
    size, batch, demand = {"G1": (64, 128, 2.0), "G2": (32, 64, 5.0)}[name]
    batch = batch if cuda else 4
    variants: dict[str, dict[str, bool]] = {"bf16": {"fast": True}}
    if cuda:
        variants |= {"bf16, graph": {"fast": True, "graph": True}}
    if cuda and name == "G1":  # compiling takes a minute
        variants |= {"bf16, compiled": {"fast": True, "compile": True}}
    sides = {"eager": step_of(size, batch, width, device)}
    sides |= {k: step_of(size, batch, width, device, **how) for k, how in variants.items()}
    for step in sides.values():
        step()
    laps = []
    for _ in range(rounds):
        lap = {k: images_per_second(step, batch, steps, device) for k, step in sides.items()}
        if name == "G2":
            lap["naive Lightning"] = naive_speed(size, batch, width, steps, device)
        laps.append(lap)
    peer = "naive Lightning" if name == "G2" else "eager"
    rows = []
    for side in variants:
        if not cuda:
            rows.append(missing(name, f"DCGAN {size} against {peer}", demand))
            continue
        speed = statistics.median(lap[side] for lap in laps)
        what = f"DCGAN {size}, {side}: {speed:,.0f} images/s, against {peer}"
        ratios = [lap[side] / lap[peer] for lap in laps]
        rows.append(row_of(name, what, demand, ratios, images_per_second=speed))
    return rows


def measure_packing(rounds: int, images: str = IMAGES) -> list[dict[str, Any]]:
    """G3."""
    what = f"four runs of {images} images on one GPU at once, speed / one after the other"
    if not torch.cuda.is_available():
        packed(1, TOY), packed(4, TOY)
        return [missing("G3", what, 3.0)]
    laps = [(packed(1, images), packed(4, images)) for _ in range(rounds)]
    return [row_of("G3", what, 3.0, [alone / together for alone, together in laps])]


def measure(wanted: list[str], rounds: int, images: str = IMAGES) -> list[dict[str, Any]]:
    rows = []
    for name in wanted or ["G1", "G2", "G3"]:
        rows += measure_packing(rounds, images) if name == "G3" else measure_steps(name, rounds)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="G1, G2, G3")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", default=IMAGES, help="of each of G3's runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - {"G1", "G2", "G3"}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: choose from G1, G2, G3")
    rows = measure(arguments.rows, arguments.rounds, arguments.images)
    if arguments.json:
        json.dump({"rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    for row in rows:
        print(row["id"], row["what"], row.get("note", f"{row['ratio'] or 0:.2f}x"))


if __name__ == "__main__":
    main()
