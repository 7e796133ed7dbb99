"""Check of a GPU: a step that is captured in a CUDA graph and replayed is the step.

A step's rounding may differ between the two, since other kernels of convolutions can be chosen, and
training games with Adam hides what that means: Adam moves a weight by its rate however small its gradient
is. In the first such run weights of a wgan-gp were 0.19 apart, which is what 200 moves of 1e-3 can make;
on a CPU a change of the first weights by 1e-7 moves those of the three games by 0.05 in bf16. So networks
that differ are compared once more where rounding stays small: with an eps that makes Adam proportional to
the gradient. There, on a CPU, bf16 and a change by 1e-4 are 0.1 to 1.6 % of the way that the weights go,
and a single step left out is 3.5 % and more.
"""

from pathlib import Path

import torch

from benchmarks.gpu_checks import common
from benchmarks.gpu_checks.common import (
    EXACT,
    NETWORKS,
    Fitted,
    apart,
    check,
    demand,
    fit,
    need_gpu,
)
from genbench.training.cuda_graph import WARM_UP

STEPS = 40
OPTIMIZERS = {"vae": "optimizer", "vae-gan": "autoencoder_optimizer"}
ALLOWED = {"32-true": 1e-3, "bf16-mixed": 0.02}  # of the way of the weights


@check()
def graph(folder: Path) -> str:
    """Captured runs: the mlp bit for bit, others by `off_the_way`; all memory is given back."""
    need_gpu()
    wrong, told = [], []
    for network, settings in NETWORKS.items():
        for model in ("vae", "gan", "wgan-gp", "vae-gan"):
            for taken in ("32-true", "bf16-mixed"):
                what = [f"model={model}", *settings]
                with common.memory_given_back():
                    eager, captured = (run(folder, taken, *what, graph=g) for g in (False, True))
                off = apart(eager.state, captured.state)
                steps = [one.engine.trainer.global_step for one in (eager, captured)]
                words = f"{model} {network} {taken} {off:.1e}, {_farthest(eager, captured)}"
                del eager, captured
                if steps != [STEPS, STEPS] or (network == "mlp" and off > 0):
                    wrong.append(f"{words}, steps {steps}")
                elif off > 0:
                    share = off_the_way(folder, taken, model, *settings)
                    words += f"; in proportion {share:.1e} of the way"
                    (told if share <= ALLOWED[taken] else wrong).append(words)
    with common.memory_given_back():
        pass
    kept = torch.cuda.memory_reserved()
    if kept >= 1 << 30:
        wrong.append(f"{kept >> 20} MiB stay reserved")
    demand(not wrong, f"{'; '.join(wrong)} (and as allowed: {'; '.join(told)})")
    return "; ".join([f"{kept >> 20} MiB stay reserved", *(told or ["all equal bit for bit"])])


def run(folder: Path, taken: str, *overrides: str, graph: bool, steps: int = STEPS) -> Fitted:
    """Train with or without a graph, in a precision."""
    how = [*EXACT, f"trainer.precision={taken}", "gradient_clip=1.0", "schedule=constant"]
    how += [f"trainer.cuda_graph={str(graph).lower()}"]
    return fit(folder, *overrides, *how, steps=steps)


def off_the_way(
    folder: Path, taken: str, model: str, *settings: str, graph: bool = True, steps: int = STEPS
) -> float:
    """How far `steps` captured steps end from as many eager ones, as a share of the weights' way.

    The way is from the end of the warm-up on, in which both are eager. All players have an Adam that is
    proportional to the gradient.
    """
    name = f"model.{OPTIMIZERS.get(model, 'generator_optimizer')}"
    what = [f"model={model}", *settings, f"+{name}.eps=1.0", f"{name}.lr=0.01"]
    with common.memory_given_back():
        start = run(folder, taken, *what, graph=False, steps=WARM_UP).state
        eager = run(folder, taken, *what, graph=False).state
        other = run(folder, taken, *what, graph=graph, steps=steps).state
    return _distance(eager, other) / _distance(eager, start)


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean, of weights; norms' statistics and counts are none."""
    names = [n for n in one if "running_" not in n and "num_batches" not in n]
    return sum((one[n].double() - other[n].double()).square().sum().item() for n in names) ** 0.5


def _farthest(one: Fitted, other: Fitted) -> str:
    """The tensor that differs most."""
    gaps = {n: (t.double() - other.state[n].double()).abs().max() for n, t in one.state.items()}
    return max(gaps, key=lambda name: gaps[name].item())
