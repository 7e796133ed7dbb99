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
       genbench extractor train --dataset NAME [key=value ...] [--architecture lenet|convnet|factors]
                                [--epochs N] [--seed N] [--device auto|cpu|cuda] [--out FOLDER]
                                [--precision auto|32-true|bf16-mixed]

Distances between images are taken in the features of a fixed network. For digits, MNIST and CIFAR-10 a
small classifier is shipped; for another dataset of small images train one here, once: it goes to the
cache under the hash of its weights, and that hash is part of every score's name and card. A lenet suits
digits and clothes, a convnet photographs: it takes a minute on a GPU.

  genbench extractor train --dataset fashion-mnist
  genbench train dataset=fashion-mnist extractor=lenet extractor.path=FILE.safetensors
  genbench extractor train --architecture convnet --dataset image-folder dataset.root=~/pictures \\
      dataset.image_size=32 dataset.flip=true
  genbench train dataset=image-folder dataset.root=~/pictures dataset.image_size=32 \\
      extractor=convnet extractor.path=FILE.safetensors"""


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
    parser.add_argument("--dataset", help="the dataset to train on (default: the name's)")
    parser.add_argument("--data", help="the folder that holds the dataset; as paths.data=...")
    parser.add_argument("--out", type=Path, help="folder of weights and card (default: the cache)")
    parser.add_argument(
        "--architecture",
        choices=("lenet", "convnet", "factors"),
        help="lenet for digits and the like, convnet for photographs, factors for a reader of the "
        "factors of a world (default: the name's, or lenet)",
    )
    parser.add_argument(
        "--epochs", type=int, help="passes over the images (default: by their number)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="of a convnet's training"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "32-true", "bf16-mixed"),
        help="of a convnet's training (default: bf16-mixed on a GPU)",
    )
    parser.add_argument("settings", nargs="*", help="as in genbench train: dataset.root=..., ...")
    arguments = parser.parse_intermixed_args(list(argv))
    overrides = list(arguments.settings)
    if arguments.name and "=" in arguments.name:
        overrides, arguments.name = [arguments.name, *overrides], None
    architecture, dataset = _what(arguments)
    if arguments.data:
        overrides.append(f"paths.data={arguments.data}")
    from genbench.metrics.extractors.training import Training, write  # slow: imports torch

    training = Training(
        architecture, arguments.epochs, arguments.device, arguments.seed, arguments.precision
    )
    training.device_for()
    data, cache = compose_data(dataset, overrides)
    path = write(arguments.name, data, arguments.out or cache / "extractors", training)
    card = json.loads(path.with_suffix(".json").read_text())
    also = f"errors {card['errors']['test']}" if "errors" in card else f"goldens {card['goldens']}"
    print(f"{path}: test accuracy {card['accuracy']['test']:.2%}, {also}")
    return DONE


def _what(arguments: argparse.Namespace) -> tuple[str, str]:
    """Architecture and dataset, from a name or the options. Raises UserMistake."""
    named = re.fullmatch(r"(lenet|convnet|factors)-(.+)-v\d+", arguments.name or "")
    if arguments.name and not named or not (arguments.name or arguments.dataset):
        raise UserMistake(
            f"{arguments.name or 'nothing'} is not a name like lenet-mnist-v1: give one, or --dataset NAME"
        )
    of_name = named[1] if named else None
    if of_name and arguments.architecture not in (None, of_name):
        raise UserMistake(
            f"{arguments.name} names a {of_name}, not --architecture {arguments.architecture}: give "
            "one of the two"
        )
    dataset = arguments.dataset or (named[2] if named else "")
    return of_name or arguments.architecture or "lenet", dataset


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
