"""Checks of a GPU by programs of this folder in processes of their own: ranks, compiled networks.

python -m benchmarks.gpu_checks.processes WORK DEVICE FOLDER
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from benchmarks.gpu_checks import common
from benchmarks.gpu_checks.common import (
    EXACT,
    NETWORKS,
    ROOT,
    Skipped,
    apart,
    check,
    choose,
    command,
    demand,
    environment,
    final_state,
    fit,
    on_gpu,
    plain_descent,
)

FEW = 4  # of one rank with collectives, for the same reason
BF16 = "trainer.precision=bf16-mixed"
STEPS = 10  # of two ranks and of one: few, because the conv VAE-GAN amplifies rounding


def work(name: str, folder: Path, *launcher: str) -> None:
    """Do a work of `WORKS` in another process, or in several."""
    device = "cuda" if on_gpu() else "cpu"
    program = ["-m", "benchmarks.gpu_checks.processes", name, device, str(folder)]
    done = subprocess.run(
        [sys.executable, *launcher, *program],
        cwd=ROOT,
        env=environment(folder, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    (folder / f"{name}.txt").write_text(done.stdout + done.stderr)
    demand(done.returncode == 0, f"code {done.returncode}: {done.stderr[-2500:]}")


# --- compiled networks ----------------------------------------------------------------------------


@check(aside=True)
def compiled(folder: Path) -> str:
    """Compiled networks: after 8 steps of plain descent within 1e-3 (relative) of written ones."""
    work("compiled", folder)
    return (folder / "found.txt").read_text()


def _compiled(folder: Path) -> None:
    said = []
    for model, network in (("vae", "conv"), ("gan", "mlp")):
        penalty = [] if model == "vae" else ["model.r1_gamma=0"]
        what = [f"model={model}", *penalty, *NETWORKS[network], *plain_descent(model), *EXACT]
        a, b = (
            fit(folder, *what, f"trainer.compile={c}", steps=8).state for c in ("false", "true")
        )
        worst = max(
            ((a[k].double() - b[k].double()).abs() / (1e-2 + a[k].double().abs())).max().item()
            for k in a
        )
        demand(worst < 1e-3, f"{model} {network}: {worst:.1e}")
        said.append(f"{model} {network} {worst:.1e}")
        (folder / "found.txt").write_text("; ".join(said))


# --- ranks ----------------------------------------------------------------------------------------


def _cases() -> dict[str, list[str]]:
    cases = {m: [f"model={m}", *plain_descent(m)] for m in ("vae", "gan", "wgan-gp", "vae-gan")}
    for model in ("vae", "gan", "vae-gan"):
        cases[f"{model}-conv"] = [f"model={model}", *NETWORKS["conv"], *plain_descent(model)]
    return cases


@check(aside=True)
def two_ranks_on_one_device(folder: Path) -> str:
    """Two ranks over gloo on this one GPU, each with half of the batch: the weights of one."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    failure = None
    try:
        work("ranks", folder, *torchrun)
    except Exception as error:
        failure = error
    work("alone", folder)
    found, wrong = {}, []
    for case in _cases():
        paths = [folder / f"{case}-{who}.pt" for who in ("0", "1", "alone")]
        if not all(path.exists() for path in paths):
            wrong.append(f"{case} did not end")
            continue
        first, second, alone = (torch.load(path) for path in paths)
        found[case] = apart(first, alone)
        if apart(first, second) != 0:
            wrong.append(f"{case}: ranks are {apart(first, second):.1e} apart")
        if not found[case] < 5e-5:
            wrong.append(f"{case}: {found[case]:.1e} from one device")
    said = ", ".join(f"{name} {value:.0e}" for name, value in found.items())
    demand(not wrong and failure is None, f"{'; '.join(wrong)} (found: {said}) {failure or ''}")
    return said


def _alone(folder: Path) -> None:
    for case, overrides in _cases().items():
        state = fit(folder / "alone", *overrides, *EXACT, steps=STEPS).state
        torch.save(state, folder / f"{case}-alone.pt")


def _ranks(folder: Path) -> None:
    from pytorch_lightning.accelerators import CUDAAccelerator

    from genbench.training.exchange import Ranks

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    if on_gpu():  # Lightning would give each rank a GPU of its own, and take NCCL
        both = [torch.device("cuda", 0)] * 2

        def gloo(*_: object) -> Ranks:
            return Ranks(process_group_backend="gloo")

        trainer = "genbench.training.trainer"
        for patch in (
            mock.patch.object(CUDAAccelerator, "parse_devices", staticmethod(lambda d: [0, 0])),
            mock.patch.object(
                CUDAAccelerator, "get_parallel_devices", staticmethod(lambda d: both)
            ),
            mock.patch(f"{trainer}.resolve_devices", lambda devices, device: 2),
            mock.patch(f"{trainer}._strategy", gloo),
        ):
            patch.start()
    for case, overrides in _cases().items():
        own = [*overrides, "trainer.devices=2", *EXACT]
        state = fit(folder / f"r{rank}", *own, steps=STEPS).state
        torch.save(state, folder / f"{case}-{rank}.pt")
    torch.distributed.destroy_process_group()


@check(aside=True)
def one_rank_over_nccl(folder: Path) -> str:
    """The collectives of a training, of a single rank: the weights of one without, within 5e-5."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    work("one-rank", folder, *torchrun)
    return (folder / "found.txt").read_text()


def _one_rank(folder: Path) -> None:
    from genbench.training import module, seat, trainer
    from genbench.training.exchange import Exchange, Ranks, Votes

    cases = {name: _cases()[name] for name in ("wgan-gp", "vae-gan-conv")}
    cases |= {"vae-gan-conv bf16": [*cases["vae-gan-conv"], BF16]}
    plain = {
        name: fit(folder / "plain", *EXACT, *what, steps=FEW).state for name, what in cases.items()
    }
    torch.distributed.init_process_group("nccl" if on_gpu() else "gloo")
    votes, plugins = Votes(common.DEVICE), trainer._precision_and_plugins
    answers = [[*votes.ask(number == 1, True)] for number in range(3)]
    demand(answers == [[False, False], [False, True], [True, True]], f"votes: {answers}")
    said = []
    with (
        mock.patch.object(trainer, "_strategy", lambda *_: Ranks()),
        mock.patch.object(trainer, "_precision_and_plugins", lambda p, d, _: plugins(p, d, 2)),
        mock.patch.object(module, "take_seats", lambda *a, together: seat.take_seats(*a, True)),
        mock.patch.object(seat, "Exchange", partial(Exchange, size=20_000)),  # in portions
    ):
        for name, what in cases.items():
            off = apart(plain[name], fit(folder / "ranks", *EXACT, *what, steps=FEW).state)
            demand(off < (1e-3 if BF16 in what else 5e-5), f"{name}: {off:.1e}")
            said.append(f"{name} {off:.0e}")
    torch.distributed.destroy_process_group()
    (folder / "found.txt").write_text(", ".join(said))


@check(aside=True)
def several_gpus(folder: Path) -> str:
    """NCCL: `trainer=ddp` trains, agrees with one GPU, and scores with two."""
    if not on_gpu() or torch.cuda.device_count() < 2:
        raise Skipped("fewer than two GPUs")
    few = ["budget.images=32k", "evaluation.num_samples=512", "logger=csv"]
    few += ["model=gan", *plain_descent("gan"), "trainer.progress=false", *EXACT]
    two = ["trainer=ddp", "trainer.devices=2", "evaluation.devices=2"]
    command(folder, "train", *two, *few, "run_id=two")
    command(folder, "train", "trainer=gpu", *few, "run_id=one")
    off = apart(final_state(folder, "two"), final_state(folder, "one"))
    demand(off < 1e-3, f"{off:.1e}")
    conv = ["model=vae-gan", "network=conv", "network.width=16", "ema=standard", "budget=smoke"]
    command(folder, "train", *two, *conv, "evaluation.num_samples=64", "logger=csv")
    return f"{off:.1e} from one GPU"


WORKS: dict[str, Callable[[Path], None]] = {
    "compiled": _compiled,
    "alone": _alone,
    "ranks": _ranks,
    "one-rank": _one_rank,
}


if __name__ == "__main__":
    choose(sys.argv[2])
    torch.set_num_threads(1)
    try:
        WORKS[sys.argv[1]](Path(sys.argv[3]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the other rank may be in a collective that never returns
