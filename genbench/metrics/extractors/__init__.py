"""Feature networks with fixed weights, identified by their sha256.

Each module has a network's class. Its weights are shipped beside it (`<name>-v<k>.safetensors` with a
card `<name>-v<k>.json`), drawn from a seed, trained into the cache, given by a path, or downloaded on
first use.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

SHIPPED = Path(__file__).parent
UNTRAINED = "random-conv-v1"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"

INCEPTION_BYTES = 95_628_359

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Availability(NamedTuple):
    """Whether the weights of an extractor are there, and where, or how to get them."""

    name: str
    present: bool
    where: str


def sha256_of(path: Path) -> str:
    """sha256 of a file: 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(weights: Path) -> dict[str, Any]:
    """The card beside a file of weights. Raises OSError or ValueError if there is none."""
    card: dict[str, Any] = json.loads(weights.with_suffix(".json").read_text())
    return card


def status(cache: str | Path) -> list[Availability]:
    """Availability of every extractor; `cache` is `paths.cache`. Without torch or any network."""
    folder = Path(cache).expanduser() / "extractors"
    found = [_classifier(path, "shipped") for path in sorted(SHIPPED.glob("*.json"))]
    found.append(Availability(UNTRAINED, True, "drawn from a seed: nothing to fetch"))
    found += [
        _classifier(path, f"trained here, {path.parent}") for path in sorted(folder.glob("*.json"))
    ]
    fetched = folder / INCEPTION_FILE
    there = fetched.is_file() and fetched.stat().st_size == INCEPTION_BYTES
    if there:
        where = str(fetched)
    elif fetched.is_file():
        where = f"{fetched} is not whole: delete it, and it is fetched on first use"
    else:
        where = f"fetched on first use ({INCEPTION_BYTES >> 20} MiB), to {fetched}"
    return [*found, Availability("inception-2015", there, where)]


def fitting(image_size: int, channels: int) -> list[str]:
    """Names of the shipped classifiers that read such images, the latest version of one first."""
    files = sorted(SHIPPED.glob("*.json"), reverse=True)
    cards = [(path.stem, read_card(path)) for path in files]
    cards = [(name, card) for name, card in cards if card.get("architecture") != "factors"]
    wanted = (image_size, channels)
    return [name for name, card in cards if (card["image_size"], card["channels"]) == wanted]


def alternatives(image_size: int, channels: int, trained: bool = False) -> str:
    """What to choose for such images where weights are missing: the best fit first, as one clause.

    A model that is `trained` already is not offered to be scored later.
    """
    classifiers = [
        f"extractor={name} (shipped, for this size)" for name in fitting(image_size, channels)
    ]
    offers = [
        *classifiers,
        f"extractor={UNTRAINED} (an untrained network: any images, nothing to fetch)",
        "evaluation=none (train now, and `genbench evaluate` the run where the weights are)",
    ]
    return ", ".join(offers[:-1] if trained else offers)


def _classifier(card: Path, where: str) -> Availability:
    weights = card.with_suffix(".safetensors")
    try:
        whole = sha256_of(weights) == read_card(weights)["sha256"]
    except (OSError, ValueError, KeyError):
        whole = False
    problem = f"{weights} is missing or not what its card describes: install or train it again"
    return Availability(card.stem, whole, where if whole else problem)
