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
        "extractor takes a word first: genbench extractor list, or extractor train ..."
    )


def list_extractors() -> int:
    """Print every feature network, whether its weights are here, and where; the exit code."""
    for finding in extractors_found():
        print(f"{finding.topic.removeprefix('extractor '):<28} {finding.state:<8} {finding.found}")
    return DONE


def train_extractor(argv: Sequence[str]) -> int:
    """Train the classifier of a dataset, given as --dataset or in a shipped name; the exit code."""
    parser = argparse.ArgumentParser(prog="genbench extractor train")
    parser.add_argument(
        "name", nargs="?", help="a name as genbench ships them: lenet-<dataset>-v<n>"
    )
    parser.add_argument("--dataset", help="the dataset of a classifier of your own")
    parser.add_argument("--data", help="the folder that holds the dataset; as paths.data=...")
    parser.add_argument("--out", type=Path, help="where the two files go; the cache if not given")
    parser.add_argument("--epochs", type=int, help="passes over the images; enough, if not given")
    parser.add_argument("settings", nargs="*", help="as in genbench train: dataset.root=..., ...")
    arguments = parser.parse_intermixed_args(list(argv))
    overrides = list(arguments.settings)
    if arguments.name and "=" in arguments.name:
        overrides, arguments.name = [arguments.name, *overrides], None
    named = re.fullmatch(r"lenet-(.+)-v\d+", arguments.name or "")
    if bool(arguments.name) == bool(arguments.dataset) or (arguments.name and not named):
        raise UserMistake(
            f"{arguments.name or 'nothing'} is no name like lenet-mnist-v1: give one, or --dataset NAME"
        )
    if arguments.data:
        overrides.append(f"paths.data={arguments.data}")
    dataset = named[1] if named else arguments.dataset
    from genbench.metrics.extractors.training import write  # torch: only who trains waits for it

    data, cache = compose_data(dataset, overrides)
    folder = arguments.out or cache / "extractors"
    path = write(arguments.name, dataset, data, folder, arguments.epochs)
    card = json.loads(path.with_suffix(".json").read_text())
    print(f"{path}: test accuracy {card['accuracy']['test']:.2%}, goldens {card['goldens']}")
    return DONE


def compose_data(dataset: str, overrides: Sequence[str]) -> tuple[Any, Path]:
    """The prepared data of `dataset`, as a run would see it, and the cache folder of runs.

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
