"""Checks of a GPU by whole commands, as a user gives them: each runs in processes of its own."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_checks.common import (
    apart,
    check,
    command,
    demand,
    environment,
    final_state,
    on_gpu,
    result,
    trainer,
)


def _scores(record: dict[str, Any]) -> dict[str, float]:
    """Of the final weights as trained, those that are numbers, by name."""
    return {
        score["name"]: score["value"]
        for score in record["scores"]
        if score.get("checkpoint", "final") == "final"
        and score["card"].get("fake", {}).get("weights", "raw") == "raw"
        and score["value"] is not None
    }


def _scored_again(folder: Path, *arguments: str) -> dict[str, float]:
    command(folder, "evaluate", "all", *arguments)
    files = (folder / "outputs" / "all" / "evaluations").glob("*.json")
    return _scores(json.loads(max(files, key=os.path.getmtime).read_text()))


def _off(one: dict[str, float], other: dict[str, float], tolerance: float) -> dict[str, Any]:
    pairs = {name: (one[name], other.get(name, math.nan)) for name in one}
    return {
        name: pair
        for name, pair in pairs.items()
        if not math.isclose(*pair, rel_tol=tolerance, abs_tol=tolerance)
    }


@check(aside=True)
def whole_run(folder: Path) -> str:
    """Train with everything, score, score again here and on the CPU, sample: the scores agree."""
    few = ["budget.images=64k", "evaluation.num_samples=1000", "logger=csv"]
    few += ["trainer.progress=false", "selection=fd", "selection.num_samples=500"]
    more = ["model=vae-gan", "network=conv", "network.width=16", "ema=standard"]
    command(
        folder,
        "train",
        trainer(),
        *few,
        *more,
        "gradient_clip=5.0",
        "schedule=cosine",
        "run_id=all",
    )
    record = result(folder, "all")
    bad = [s["name"] for s in record["scores"] if s["status"] == "nonfinite"]
    demand(not bad, f"no number: {bad}")
    cost, skipped = record["cost"], record["budget"]["skipped_steps"]
    demand(not on_gpu() or torch.cuda.get_device_name() in cost["device"], cost["device"])
    demand(skipped == {}, f"skipped {skipped}")
    here = _scores(record)
    demand(len(here) >= 8, f"only {len(here)} scores")
    again = _off(here, _scored_again(folder), 1e-4)
    demand(not again, f"scored again: {again}")
    on_cpu = _off(here, _scored_again(folder, "--device", "cpu"), 1e-2)
    demand(not on_cpu, f"on the CPU: {on_cpu}")
    command(folder, "sample", "all", "--num", "16", "--weights", "ema")
    command(folder, "sample", "all", "--num", "16", "--device", "cpu")
    seen = record["environment"]["gpu"]
    demand(not on_gpu() or bool(seen["cudnn"] and seen["driver"]), f"the record has {seen}")
    return (
        f"{len(here)} scores, {cost['train_images_per_second']:,.0f} images/s, training took "
        f"{cost['peak_memory_bytes'] >> 20} MiB; {seen}"
    )


@check(aside=True)
def stop_and_resume(folder: Path) -> str:
    """SIGTERM in the middle, resume: the weights of the undisturbed run, bit for bit (mlp)."""
    common = [trainer(), "trainer.precision=32-true", "model=gan", "budget.images=200k"]
    common += ["evaluation.num_samples=64", "logger=csv", "trainer.progress=false"]
    common += ["trainer.samples=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "genbench", "train", *common, "run_id=cut"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    history, end = folder / "outputs" / "cut" / "history.csv", time.monotonic() + 120
    while not (history.exists() and len(history.read_text().splitlines()) > 20):
        demand(process.poll() is None and time.monotonic() < end, "it did not train")
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1].decode()
    demand(process.returncode == 75, f"code {process.returncode}: {said[-600:]}")
    command(folder, "train", *common, "run_id=whole")
    command(folder, "resume", "cut")
    off = apart(final_state(folder, "whole"), final_state(folder, "cut"))
    demand(off == 0, f"{off:.1e} apart")
    return "equal bit for bit"


@check(aside=True)
def packed(folder: Path) -> str:
    """Two runs share the GPU through the launcher."""
    slots = "hydra.launcher.jobs_per_gpu=2" if on_gpu() else "hydra.launcher.slots=2"
    few = ["budget=smoke", "evaluation.num_samples=64", "logger=csv", "study=packed"]
    command(folder, "train", "-m", trainer(), slots, "seed=0,1", "model=vae", *few)
    found = [json.loads(p.read_text()) for p in (folder / "outputs").glob("*/result.json")]
    found = [record for record in found if record["study"] == "packed"]
    demand(len(found) == 2, f"{len(found)} results")
    return "2 runs"


@check(aside=True)
def trained_here_used_there(folder: Path) -> str:
    """A run of trainer=gpu is sampled and scored by a process that sees no GPU, with a word."""
    few = ["budget=smoke", "evaluation.num_samples=64", "logger=csv", "run_id=moved"]
    command(folder, "train", trainer(), "model=gan", *few)
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    command(folder, "sample", "moved", "--num", "4", **hidden)
    command(folder, "evaluate", "moved", **hidden)
    if on_gpu():
        said = subprocess.run(
            [sys.executable, "-m", "genbench", "sample", "moved", "--num", "4"],
            cwd=folder,
            env=environment(folder, **hidden),
            capture_output=True,
            text=True,
        ).stderr
        demand("was trained on a GPU" in said, f"not said: {said[-300:]!r}")
    return "sampled and scored"
