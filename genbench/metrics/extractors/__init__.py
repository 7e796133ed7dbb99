"""Feature networks: fixed weights, known by their sha256, outside of every model.

`status` says which are at hand. A network's file holds its class, its weights lie beside it
(`<name>-v<k>.safetensors` with a card `<name>-v<k>.json`) or are fetched on first use.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

SHIPPED = Path(__file__).parent


INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


INCEPTION_BYTES = 95_628_359


INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Status(NamedTuple):
    """Whether the weights of an extractor are at hand, and where, or how to get them."""

    name: str
    present: bool
    where: str


def sha256_of(path: Path) -> str:
    """Hash a file: 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(weights: Path) -> dict[str, Any]:
    """Read the card that lies beside a file of weights."""
    card: dict[str, Any] = json.loads(weights.with_suffix(".json").read_text())
    return card


def status(cache: str | Path) -> list[Status]:
    """Look at every extractor; `cache` is `paths.cache`. Imports no torch, loads no network."""
    folder = Path(cache).expanduser() / "extractors"
    found = [_classifier(path, "shipped") for path in sorted(SHIPPED.glob("*.json"))]
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
    return [*found, Status("inception-2015", there, where)]


def _classifier(card: Path, where: str) -> Status:
    weights = card.with_suffix(".safetensors")
    try:
        whole = sha256_of(weights) == read_card(weights)["sha256"]
    except (OSError, ValueError, KeyError):
        whole = False
    problem = f"{weights} is missing or not what its card describes: install or train it again"
    return Status(card.stem, whole, where if whole else problem)
