"""Images per second of DCGAN's step on a GPU: eager, compiled and captured in a CUDA graph.

    python benchmarks/gpu.py [--rounds 5] [--json]

G1  DCGAN 64 x 64, batches of 128, against the bare eager loop in float32; 35 000 images/s are the
    demand on an H200, 104 000 the floor that its operations set
G2  DCGAN 32 x 32, batches of 64, captured against eager

Data lies on the device as bytes. Without a GPU the same code runs at a toy size, except for the
graph, and the table says that the figures are missing.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from genbench.networks.conv import ConvDecoder, ConvTrunk
from genbench.networks.heads import Discriminator

LATENT = 128
Step = Callable[[], None]


def step_of(size: int, batch: int, width: int, device: torch.device, **how: bool) -> Step:
    """Build one training step; `how`: fast (bf16, channels-last, fused), compile, graph."""
    torch.manual_seed(0)
    fast, cuda = how.get("fast", False), device.type == "cuda"
    generator = ConvDecoder(size, 3, LATENT, width, "batch").to(device)
    discriminator = Discriminator(ConvTrunk(size, 3, width, "batch")).to(device)
    layout = torch.channels_last if fast else torch.contiguous_format
    generator, discriminator = (
        generator.to(memory_format=layout),
        discriminator.to(memory_format=layout),
    )
    adam = partial(
        torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999), fused=fast, capturable=fast and cuda
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


def measure(rounds: int) -> list[dict[str, Any]]:
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    steps, width = (200, 64) if cuda else (1, 4)
    variants: dict[str, dict[str, bool]] = {"bf16": {"fast": True}}
    if cuda:
        variants |= {
            "bf16, compiled": {"fast": True, "compile": True},
            "bf16, graph": {"fast": True, "graph": True},
        }
    rows = []
    for name, size, batch, demand in (("G1", 64, 128, 2), ("G2", 32, 64, 5)):
        batch = batch if cuda else 4
        sides = {"eager": step_of(size, batch, width, device)}
        sides |= {k: step_of(size, batch, width, device, **how) for k, how in variants.items()}
        for step in sides.values():
            step()
        laps = [
            {k: images_per_second(step, batch, steps, device) for k, step in sides.items()}
            for _ in range(rounds)
        ]
        for side in variants:
            ratios = [lap[side] / lap["eager"] for lap in laps]
            speed = statistics.median(lap[side] for lap in laps)
            row = {
                "id": name,
                "what": f"DCGAN {size}, {side}: {speed:,.0f} images/s",
                "at_least": True,
            }
            row |= {"demand": demand, "low": min(ratios), "high": max(ratios)}
            row |= {"ratio": statistics.median(ratios), "images_per_second": speed}
            if not cuda:
                note = "missing: no GPU here; the code ran at a toy size"
                row |= {"what": f"DCGAN {size}", "ratio": None, "note": note}
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    if arguments.json:
        json.dump({"rounds": arguments.rounds, "rows": rows}, sys.stdout)
        return
    for row in rows:
        print(row["id"], row["what"], row.get("note", f"{row['ratio'] or 0:.2f}x"))


if __name__ == "__main__":
    main()
