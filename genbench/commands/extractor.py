"""`genbench extractor`: list feature networks, or train one for a dataset."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from genbench.commands.doctor import extractors_found
from genbench.errors import DONE, GenbenchError, UserMistake
from genbench.metrics.extractors.training import write


def list_extractors() -> int:
    """Print every feature network and where its weights are."""
    for finding in extractors_found():
        print(f"{finding.topic.removeprefix('extractor '):<28} {finding.state:<8} {finding.found}")
    return DONE


def train_extractor(argv: Sequence[str]) -> int:
    """Train the classifier of a dataset, or the one that a shipped name asks for; the exit code."""
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
    path = write(arguments.name, dataset, overrides, arguments.out, arguments.epochs)
    card = json.loads(path.with_suffix(".json").read_text())
    print(f"{path}: test accuracy {card['accuracy']['test']:.2%}, goldens {card['goldens']}")
    return DONE


if __name__ == "__main__":
    try:
        sys.exit(train_extractor(sys.argv[1:]))
    except GenbenchError as error:
        print(f"genbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
