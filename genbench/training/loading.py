"""A model and its data from a config, or from a run's directory and a checkpoint."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import seed_everything

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel
from genbench.priors.contract import Prior
from genbench.ranges import whole
from genbench.runs.config import read_config
from genbench.runs.files import first_line
from genbench.runs.result import FILENAME
from genbench.training import targets
from genbench.training.callbacks.averaging import Averaging
from genbench.training.checks import check_fit
from genbench.training.conditioning import make_model
from genbench.training.endings import explain


def build(cfg: Any) -> tuple[GenerativeModel, ImageData]:
    """Make data and model as configured, the model's weights drawn from the run's seed."""
    data: ImageData = instantiate(cfg["dataset"])
    data.prepare_data()
    whole("seed", cfg["seed"], 0, 2**32 - 1)
    seed_everything(cfg["seed"], workers=True, verbose=False)
    model = make_model(cfg, data)
    model.observe(data)
    check_fit(model, data)
    if model.condition is not None:
        data.hand_out(model.condition.training)
    return model, data


def build_priors(config: Any) -> list[Prior]:
    """The priors of a config, which may be a curve of several each; none for `normal` and old configs."""
    made: list[Prior] = []
    for one in (config or {}).values():
        prior = instantiate(one) if one else []
        made += prior if isinstance(prior, list) else [prior]
    return made


@contextmanager
def made_of(cfg: Any) -> Iterator[None]:
    """Within: a class of `cfg` that cannot be made, or not be imported, is a UserMistake with a sentence."""
    try:
        yield
    except InstantiationException as error:
        raise explain(error, cfg) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within: torch's generator of the CPU begins at `seed`; afterwards it is where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_average(
    directory: Path, model: GenerativeModel, checkpoint: str = "final"
) -> Mapping[str, Any] | None:
    """Put a run's averaged weights into the decoder and return their card; None without any."""
    state = _content(directory / "checkpoints" / f"{checkpoint}.ckpt")
    averaging = state.get("callbacks", {}).get(Averaging.__qualname__)
    if not averaging:
        return None
    model.decoder.load_state_dict(averaging["average"])
    card: Mapping[str, Any] = averaging["card"]
    return card


def load_run(
    directory: Path, checkpoint: str = "final", checked: bool = False
) -> tuple[GenerativeModel, ImageData, dict[str, Any]]:
    """Build a run's model and data from its directory alone, with the weights of a checkpoint.

    Returns model, data and the plain config; raises UserMistake if the checkpoint is not there, and for a
    config that names what a run may not (`targets`), unless that was `checked` before.
    """
    config = read_config(directory) if checked else targets.check(directory)
    path = _checkpoint(directory, checkpoint)
    cfg = OmegaConf.create(config)
    with made_of(cfg):
        model, data = build(cfg)
    load_weights(model, path)
    return model.eval(), data, config


def load_model(
    directory: Path, checkpoint: str = "final"
) -> tuple[GenerativeModel, ImageData, dict[str, Any]]:
    """As `load_run`, without reading the dataset, except for a model that looks at it or knows its labels.

    The data can convert images; its pixels are read when they are asked for. The global generators stay
    as they are.
    """
    config = targets.check(directory)
    path = _checkpoint(directory, checkpoint)
    cfg = OmegaConf.create(config)
    with made_of(cfg), seeded(0):  # the weights that are drawn are not the run's
        data: ImageData = instantiate(cfg.dataset)
        model = make_model(cfg, data)
    if type(model).observe is not GenerativeModel.observe:
        data.prepare_data()
        model.observe(data)
    load_weights(model, path)
    return model.eval(), data, config


def _checkpoint(directory: Path, checkpoint: str) -> Path:
    path = directory / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.exists():
        there = sorted(p.stem for p in path.parent.glob("*.ckpt"))
        lacking = "it has not been trained yet"
        if (directory / FILENAME).exists():
            lacking = "its weights are not here, as after `genbench pull` of a run pushed without --weights"
        raise UserMistake(
            f"{directory.name} has no checkpoint {checkpoint!r}: "
            + (f"it has {', '.join(there)}" if there else lacking)
        )
    return path


def load_weights(model: GenerativeModel, path: Path) -> None:
    """Give a model the weights of a checkpoint."""
    model.load_state_dict(_weights(path))


def has_weights(model: GenerativeModel, path: Path) -> bool:
    """Whether a model has the weights of a checkpoint, every value and buffer of them."""
    own, other = model.state_dict(), _weights(path)
    return own.keys() == other.keys() and all(
        torch.equal(value.cpu(), other[name]) for name, value in own.items()
    )


def _weights(path: Path) -> dict[str, Any]:
    weights: dict[str, Any] = _content(path)["state_dict"]
    return weights


def _content(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. UserMistake if it is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserMistake(
            f"{path} is damaged or half copied ({first_line(error).partition('.')[0]}): copy it again, or train anew"
        ) from error
    return state
