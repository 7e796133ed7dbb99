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
    """Look at every extractor; `cache` is `paths.cache`. Reads no weights, imports no torch."""
    found = [
        Status(path.stem, path.with_suffix(".safetensors").is_file(), "shipped")
        for path in sorted(SHIPPED.glob("*.json"))
    ]
    fetched = Path(cache).expanduser() / "extractors" / INCEPTION_FILE
    there = fetched.is_file()
    where = str(fetched) if there else f"fetched on first use ({INCEPTION_BYTES >> 20} MiB)"
    return [*found, Status("inception-2015", there, where)]
