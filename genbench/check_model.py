"""What every model must pass: `python -m genbench.work check_model CONFIG`, for `genbench check-model`."""

import sys
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.data.contract import ImageData
from genbench.errors import DONE, FAILED, UserMistake
from genbench.models.contract import GenerativeModel
from genbench.runs.config import read_yaml
from genbench.training import trainer
from genbench.training.conditioning import make_model
from genbench.training.loading import made_of, seeded
from genbench.training.model_checks import verdicts


def main(argv: list[str]) -> int:
    """Check the model of a config file, a line per check; returns 1 if one failed."""
    trainer.quieten_lightning()
    cfg = OmegaConf.create(read_yaml(Path(argv[0])))
    with made_of(cfg):
        data: ImageData = instantiate(cfg.dataset)

    def make(seed: int) -> GenerativeModel:
        with seeded(seed), made_of(cfg):
            model = make_model(cfg, data)
        if not isinstance(model, GenerativeModel):
            raise UserMistake(
                f"{type(model).__name__} is no model: derive it from genbench.models.contract.GenerativeModel"
            )
        return model

    name = cfg.choices.model
    if not make(0).players():
        raise UserMistake(f"{name} has no players, so there is no training to check")
    faults = 0
    for check, fault in verdicts(make, data):
        print(f"  {check:<22} {fault or 'passed'}", flush=True)
        faults += bool(fault)
    print(f"{name}: {f'{faults} failed' if faults else 'all passed'}")
    return FAILED if faults else DONE


if __name__ == "__main__":
    sys.exit("genbench: start this as `genbench check-model NAME`")
