"""Trains models for 50 steps, on one process or as the ranks of torchrun; see test_ranks.py.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/two_ranks.py OUTPUTS CACHE
"""

import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.launch import task
from genbench.runs import paths
from genbench.training import loading, trainer


# With Adam two of these games are chaotic: a change of 1e-7 in the weights is one of 2e-3 (vae) or
# 2e-2 (wgan-gp) after 50 steps, on one device. Plain descent shows whether the gradients are equal.
def descent(optimizer: str) -> list[str]:
    kind = f"model.{optimizer}"
    return [f"{kind}._target_=torch.optim.SGD", f"{kind}.lr=1e-4", f"~{kind}.betas"]


CASES = {
    "vae": ["model=vae", *descent("optimizer")],
    "gan": ["model=gan"],
    "wgan-gp": ["model=wgan-gp", *descent("generator_optimizer")],
    "vae-gan": ["model=vae-gan"],
    "conv": ["model=gan", "network=conv", "network.width=4", "network.decoder_norm=group"],
    "in-parts": ["model=wgan-gp", *descent("generator_optimizer"), "trainer.accumulate=2"],
    "several-steps": ["model=gan", "trainer.steps_per_batch=7"],
}
STEPS, BATCH = 50, 16


def config(outputs: Path, cache: Path, devices: int, overrides: list[str]) -> OmegaConf:
    settings = [
        "trainer=smoke",
        f"trainer.devices={devices}",
        f"budget.batch_size={BATCH}",
        f"budget.images={STEPS * BATCH}",
        f"paths.outputs={outputs}",
        f"paths.cache={cache}",
        "logger=csv",
        "run_id=x",
    ]
    with initialize_config_dir(str(paths.config_root()), version_base="1.3"):
        cfg = compose("train", [*settings, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    del cfg.hydra
    return OmegaConf.create(task.resolve(cfg))


def train(outputs: Path, cache: Path, devices: int, case: str) -> dict[str, torch.Tensor]:
    """Train a case; its final parameters, which every rank also saves as CASE-RANK.pt."""
    trainer.quieten_lightning()
    cfg = config(outputs, cache, devices, CASES[case])
    model, data = loading.build(cfg)
    budget = instantiate(cfg.budget)
    folder = outputs / f"{case}-{devices}"
    machine = instantiate(cfg.trainer)(model, data, folder, [], budget, None, [])
    machine.fit(resume=False)
    rank = machine.trainer.global_rank
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(state, outputs / f"{case}-{rank}.pt")
    return state


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[3:] or CASES:
        train(Path(sys.argv[1]), Path(sys.argv[2]), 2, case)
    torch.distributed.destroy_process_group()
