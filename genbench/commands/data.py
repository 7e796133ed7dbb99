"""`genbench data`: list datasets, prepare one, or check one for problems that would stop a training."""

import hashlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from genbench.data import cache
from genbench.data.contract import Split
from genbench.data.folders import Folder
from genbench.data.images import Images
from genbench.data.splits import SPLITS
from genbench.errors import DONE, MISTAKE, GenbenchError, Notice, UserMistake
from genbench.launch.hydra_internals import group_options
from genbench.launch.mistakes import explained

USAGE = """\
genbench data list                           every dataset: shape, splits, where its files are expected
genbench data check NAME [key=value ...]     decode every picture, print each problem
genbench data prepare NAME [key=value ...]   download it if possible, decode it into the cache

genbench data check image-folder dataset.root=photos.zip     your own pictures: a folder, or a zip as it is

NAME is a dataset of the list; keys are as in `genbench train`: dataset.root=..., paths.data=...
"""
SHOWN = 20  # problems printed in full


def main(argv: Sequence[str]) -> int:
    """Run `genbench data ARGV`; returns the exit code."""
    verb, *rest = argv or ["--help"]
    verbs = {"check": check, "prepare": prepare}
    try:
        if verb in ("-h", "--help", "help"):
            print(USAGE, end="")
            return DONE
        if verb == "list":
            return show_list(rest)
        if verb not in verbs:
            raise UserMistake(f"genbench data {verb}: choose one of list, check, prepare")
        if not rest or "=" in rest[0]:
            raise UserMistake(
                f"genbench data {verb} needs a dataset: `genbench data list` has them"
            )
        with explained([f"dataset={rest[0]}", *rest[1:]]):
            data = build(rest[0], rest[1:])
        return verbs[verb](data)
    except GenbenchError as error:
        print(f"genbench data: {error}", file=sys.stderr)
        return error.exit_code


def build(name: str, overrides: Sequence[str]) -> Images:
    """The dataset that `genbench train dataset=NAME` trains on. Call inside `explained`."""
    node = compose("train", overrides=[f"dataset={name}", *overrides]).dataset
    data: Images = instantiate(OmegaConf.to_container(node, resolve=True))
    return data


def show_list(overrides: Sequence[str]) -> int:
    """Print a line for every dataset with a config; returns the exit code."""
    table = Table("dataset", "image", "splits", "state", box=None, pad_edge=False)
    table.add_column("where", overflow="fold")
    with explained(overrides):
        for name in group_options("dataset"):
            data = build(name, overrides)
            state, splits = _state(data)
            shape = f"{data.channels} x {data.image_size} x {data.image_size}"
            table.add_row(name, shape, splits, state, data.source.place)
    Console().print(table)
    return DONE


def _state(data: Images) -> tuple[str, str]:
    """(state of the files, sizes of the splits), as far as they are known without decoding."""
    if data.source.given_root is None:
        return "needs dataset.root", "by config"
    if data.source.missing() is not None:
        return ("fetched when used" if data.source.download else "missing"), "not known yet"
    try:
        folders = [data.folder(split) for split in SPLITS]
        cached = [cache.read(folder, verify=False) for folder in folders]
        if all(cached):
            counts = [len(found[0]) for found in cached if found is not None]
            return "decoded", " / ".join(f"{count:,}" for count in counts)
        counts = [len(data.source.split(split)) for split in SPLITS]
        return "present", " / ".join(f"{count:,}" for count in counts)
    except (GenbenchError, cache.Damaged):
        return "damaged: see `check`", "not known yet"


def prepare(data: Images) -> int:
    """Download and decode the dataset, print its splits; returns the exit code."""
    data.prepare_data()
    for split in SPLITS:
        card = data.card(split)
        where = data.folder(split) if card["fingerprint"] else "decoded while training"
        print(f"{data.name} {split}: {card['n']:,} images, {where}")
    return DONE


def check(data: Images) -> int:
    """Decode every image, verify the cache, print each problem with its remedy; the exit code."""
    problem = data.source.missing()
    if problem is not None:
        print(f"genbench data: {problem}", file=sys.stderr)
        return MISTAKE
    count = 0
    seen: dict[Split, set[bytes]] = {split: set() for split in SPLITS}
    for problem in problems(data, seen):
        count += 1
        if count <= SHOWN:
            print(f"genbench data: {problem}", file=sys.stderr)
    if count > SHOWN:
        print(f"genbench data: ... and {count - SHOWN:,} more", file=sys.stderr)
    if count:
        return MISTAKE
    sizes = ", ".join(f"{len(data.source.split(split)):,} {split}" for split in SPLITS)
    for split in ("validation", "test") if isinstance(data.source, Folder) else ():
        if again := len(seen[split] & seen["train"]):
            warnings.warn(
                f"{again:,} of the {len(seen[split]):,} {split} pictures of {data.name} are training "
                "pictures too, pixel for pixel: scores on held-out images are too good by them; remove "
                "the copies",
                Notice,
                stacklevel=2,
            )
    print(f"{data.name} is in order: {sizes} in {data.source.place}{_classes(data)}")
    return DONE


def _classes(data: Images) -> str:
    names = data.class_names
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"; {len(names):,} classes: {shown}" if len(names) > 1 else ""


def problems(data: Images, seen: Mapping[Split, set[bytes]]) -> Iterator[str]:
    """A sentence for each problem that would stop a training on `data`, or the use of its classes.

    Digests of all pictures as they are decoded are added to `seen`.
    """
    try:
        data.source.classes()
    except UserMistake as error:
        yield str(error)
    for split in SPLITS:
        count = len(data.source.split(split))
        if not count:
            yield f"there are no {split} pictures: set dataset.{split} to set some aside"
            continue
        yield from _bad_pictures(data, split, count, seen[split])
        yield from _bad_cache(data, split)


def _bad_pictures(data: Images, split: Split, count: int, seen: set[bytes]) -> Iterator[str]:
    decode = data.decode(split)

    def problem(i: int) -> str | None:
        try:
            seen.add(hashlib.sha256(decode(i).tobytes()).digest())
        except GenbenchError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool, cache.progress() as bar:
        task = bar.add_task(f"decoding {data.name} ({split})", total=count)
        for start in range(0, count, cache.BLOCK):
            rows = range(start, min(start + cache.BLOCK, count))
            yield from filter(None, pool.map(problem, rows))
            bar.advance(task, len(rows))


def _bad_cache(data: Images, split: Split) -> Iterator[str]:
    try:
        folder = data.folder(split)
    except UserMistake:  # of a file that is not there any more, which was named among the pictures
        return
    try:
        cache.read(folder, verify=True)
    except cache.Damaged as error:
        yield f"the cache is damaged ({error}): delete {folder}, it is built again when needed"
