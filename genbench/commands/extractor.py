"""`genbench extractor`: list feature networks, or train one for a dataset."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.commands.arguments import wants_help
from genbench.commands.doctor import extractors_found
from genbench.errors import DONE, UserMistake
from genbench.launch.mistakes import compose_checked, explained

USAGE = """\
usage: genbench extractor list
       genbench extractor train --dataset NAME [key=value ...] [--epochs N] [--out FOLDER]

Distances between images are taken in the features of a fixed network. For digits and MNIST a small
classifier is shipped; for another dataset of small images train one here, once: it goes to the cache
under the hash of its weights, and that hash is part of every score's name and card.

  genbench extractor train --dataset fashion-mnist
  genbench train dataset=fashion-mnist extractor=lenet extractor.path=FILE.safetensors"""


def main(argv: Sequence[str]) -> int:
    """Run `list` or `train`, as the first word says; returns the exit code."""
    if wants_help(argv):
        print(USAGE)
        return DONE
    if argv and argv[0] == "train":
        return train_extractor(argv[1:])
    if list(argv) == ["list"]:
        return list_extractors()
    raise UserMistake(
        "extractor needs a subcommand: genbench extractor list, or genbench extractor train ..."
    )


def list_extractors() -> int:
    """Print every feature network, whether its weights are present, and where; returns the exit code."""
    for finding in extractors_found():
        print(f"{finding.topic.removeprefix('extractor '):<28} {finding.state:<8} {finding.found}")
    return DONE


def train_extractor(argv: Sequence[str]) -> int:
    """Train the classifier of a dataset, given by --dataset or a shipped name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="genbench extractor train")
    parser.add_argument("name", nargs="?", help="name of a shipped network: lenet-<dataset>-v<n>")
    parser.add_argument("--dataset", help="the dataset to train on")
    parser.add_argument("--data", help="the folder that holds the dataset; as paths.data=...")
    parser.add_argument("--out", type=Path, help="folder of weights and card (default: the cache)")
    parser.add_argument(
        "--epochs", type=int, help="passes over the images (default: by their number)"
    )
    parser.add_argument("settings", nargs="*", help="as in genbench train: dataset.root=..., ...")
    arguments = parser.parse_intermixed_args(list(argv))
    overrides = list(arguments.settings)
    if arguments.name and "=" in arguments.name:
        overrides, arguments.name = [arguments.name, *overrides], None
    named = re.fullmatch(r"lenet-(.+)-v\d+", arguments.name or "")
    if bool(arguments.name) == bool(arguments.dataset) or (arguments.name and not named):
        raise UserMistake(
            f"{arguments.name or 'nothing'} is not a name like lenet-mnist-v1: give one, or --dataset NAME"
        )
    if arguments.data:
        overrides.append(f"paths.data={arguments.data}")
    dataset = named[1] if named else arguments.dataset
    from genbench.metrics.extractors.training import write  # slow: imports torch

    data, cache = compose_data(dataset, overrides)
    folder = arguments.out or cache / "extractors"
    path = write(arguments.name, dataset, data, folder, arguments.epochs)
    card = json.loads(path.with_suffix(".json").read_text())
    print(f"{path}: test accuracy {card['accuracy']['test']:.2%}, goldens {card['goldens']}")
    return DONE


def compose_data(dataset: str, overrides: Sequence[str]) -> tuple[Any, Path]:
    """The data of `dataset`, prepared as for a run, and the cache folder.

    Raises UserMistake for overrides that do not fit.
    """
    composed = [f"dataset={dataset}", *overrides]
    cfg = compose_checked(composed)
    with explained(composed):
        OmegaConf.resolve(cfg.dataset)
        cache = Path(cfg.paths.cache).expanduser()
    data: Any = instantiate(cfg.dataset)
    data.prepare_data()
    return data, cache
