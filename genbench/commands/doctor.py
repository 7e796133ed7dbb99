"""`genbench doctor`: what is installed on this machine and what is missing, a line for each finding.

Packages that are slow to import, such as torch, are imported inside the checks that need them.
"""

import argparse
import importlib
import io
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from genbench import __version__
from genbench.errors import DONE, FAILED
from genbench.launch import wandb_access
from genbench.launch.host import physical_cores, visible_gpus
from genbench.runs.files import explain_os_error, first_line
from genbench.runs.paths import cache_folder, default_outputs

USAGE = """\
genbench doctor                  what is installed here, and what is missing
genbench doctor --format json    the same for scripts

Exit code 0 if training on the embedded digits works here, 1 if not."""
ROOM_FOR_A_RUN = 1 << 30  # bytes of free disk


@dataclass(frozen=True)
class Finding:
    """One line: `ok`, `missing` (something optional is absent) or `broken` (training fails)."""

    topic: str
    state: Literal["ok", "missing", "broken"]
    found: str
    remedy: str = ""


def main(argv: Sequence[str]) -> int:
    """Run `genbench doctor ARGV`; returns the exit code."""
    parser = argparse.ArgumentParser("genbench doctor", usage=USAGE)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args(list(argv))
    findings = [finding for check in CHECKS for finding in _findings(check)]
    if arguments.format == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _print(findings)
    return FAILED if any(finding.state == "broken" for finding in findings) else DONE


def _findings(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Findings of a check. If it raises, the error is a finding, and the other checks still run."""
    try:
        yield from check()
    except Exception as error:
        topic = check.__name__.strip("_").replace("_", " ")
        yield Finding(topic, "missing", f"could not be found out: {first_line(error)}")


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        found = finding.found + (f"\n→ {finding.remedy}" if finding.remedy else "")
        table.add_row(finding.topic, state, found.replace("[", "\\["))
    Console().print(table)


# --- checks -------------------------------------------------------------------------------------
def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Finding("genbench", "ok", f"{__version__}, {Path(__file__).parents[1]}")


def _packages() -> Iterator[Finding]:
    for name in ("pytorch-lightning", "torchmetrics", "hydra-core"):
        yield _package(name)
    yield _package("tensorboard", "for logger=tensorboard: pip install 'genbench[tensorboard]'")


def _package(name: str, remedy: str = "") -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        state: Literal["missing", "broken"] = "missing" if remedy else "broken"
        return Finding(name, state, "not installed", remedy or f"pip install {name}")


def _torch() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        yield Finding("torch", "broken", first_line(error), "pip install torch torchvision")
        return
    yield Finding("torch", "ok", str(torch.__version__))
    try:
        torchvision = importlib.import_module("torchvision")
        importlib.import_module("torchvision.ops").nms(
            torch.zeros(1, 4), torch.zeros(1), 0.5
        )  # its compiled extension loads with this torch
        yield Finding("torchvision", "ok", f"{torchvision.__version__}, fits this torch")
    except Exception as error:
        yield Finding(
            "torchvision",
            "broken",
            f"does not fit torch {torch.__version__}: {first_line(error)}",
            "install the pair together: pip install --force-reinstall torch torchvision",
        )


def _devices() -> Iterator[Finding]:
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count and (gpus := visible_gpus()):
        built = torch.version.cuda or torch.version.hip or "CPUs alone"
        yield Finding(
            "devices",
            "missing",
            f"cpu; PyTorch {torch.__version__}, built for {built}, sees none of the GPUs {', '.join(gpus)}",
            "install the PyTorch for this driver (https://pytorch.org), or set CUDA_VISIBLE_DEVICES",
        )
    elif not count:
        yield Finding("devices", "ok", "cpu; no CUDA device, trainer=auto uses the CPU")
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        yield Finding("devices", "ok", f"cuda:{index} {properties.name}, {memory:.0f} GiB")
    if count:
        resolve = importlib.import_module("genbench.training.precision").resolve
        found = resolve("auto", torch.device("cuda", 0))
        tried = "; ".join(f"{probe.precision}: {probe.why}" for probe in found.probes)
        yield Finding("precision", "ok", f"auto takes {found.taken} ({tried})")
    else:
        yield Finding("precision", "ok", f"32-true; bfloat16 {_bf16_on_cpu(torch)}")


def _bf16_on_cpu(torch: Any) -> str:
    """Time a small matrix product in both types: many CPUs emulate bfloat16 and are slower with it."""
    import time

    def seconds(dtype: Any) -> float:
        a = torch.ones(384, 384, dtype=dtype)
        a @ a
        times = []
        for _ in range(3):
            began = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - began)
        return min(times)

    gain = seconds(torch.float32) / seconds(torch.bfloat16)
    return f"is {gain:.1f} times as fast ({'trainer.precision=bf16-mixed pays' if gain >= 1.5 else 'does not pay'})"


def _threads() -> Iterator[Finding]:
    set_by_user = {
        n: os.environ[n] for n in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY") if n in os.environ
    }
    chosen = ", ".join(f"{k}={v}" for k, v in set_by_user.items())
    cores = physical_cores()
    yield Finding(
        "cores",
        "ok",
        f"{cores} for this process, {os.cpu_count()} in the machine"
        + (f"; {chosen} set by you" if chosen else "; threads are set for each run"),
    )


def extractors_found() -> Iterator[Finding]:
    """A finding for every feature network: whether its weights are present, and where."""
    extractors = importlib.import_module("genbench.metrics.extractors")
    for name, present, where in extractors.status(cache_folder()):
        yield Finding(f"extractor {name}", "ok" if present else "missing", str(where))


def _datasets() -> Iterator[Finding]:
    importlib.import_module("sklearn.datasets").load_digits()
    yield Finding("dataset digits", "ok", "embedded")
    data = Path(os.environ.get("GENBENCH_DATA", "data")).expanduser().resolve()
    found = sorted(entry.name for entry in data.iterdir()) if data.is_dir() else []
    listed = ", ".join(found) or "nothing"
    yield Finding(
        "datasets", "ok", f"{listed} in {data} (paths.data; `genbench data list` looks inside)"
    )


def _wandb() -> Iterator[Finding]:
    """Whether runs would log to wandb; does not prompt for a login."""
    installed = version("wandb")
    with redirect_stderr(io.StringIO()):
        access = wandb_access.check_access()
    later = "optional: runs are logged offline, `genbench wandb sync` sends them later"
    state, remedy = {
        "online": ("logged in", ""),
        "disabled": ("switched off by WANDB_MODE", "optional: unset WANDB_MODE"),
        "offline": ("kept offline by WANDB_MODE", later),
        "logged out": ("nobody is logged in", "optional: wandb login"),
        "unreachable": (f"there is a key, but {access.server} does not answer", later),
    }[access.state]
    yield Finding(
        "wandb", "ok" if access.state == "online" else "missing", f"{installed}, {state}", remedy
    )


def _disk() -> Iterator[Finding]:
    outputs = default_outputs().resolve()
    existing = next(path for path in (outputs, *outputs.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Finding(
            "outputs",
            "broken",
            f"{outputs} cannot be written: {explain_os_error(error)}",
            "set GENBENCH_OUTPUTS or paths.outputs=...",
        )
        return
    free = shutil.disk_usage(existing).free
    enough = free >= ROOM_FOR_A_RUN
    yield Finding(
        "outputs",
        "ok" if enough else "missing",
        f"{outputs}, {free / 2**30:.1f} GiB free",
        "" if enough else "make room before long runs",
    )


CHECKS = (
    _python,
    _torch,
    _packages,
    _devices,
    _threads,
    extractors_found,
    _datasets,
    _wandb,
    _disk,
)
