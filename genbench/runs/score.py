"""A number and its protocol. Imports no torch: the table reads these too."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# in which people read scores
ORDER = (
    "fid", "fid_clean", "fd", "kid", "is", "precision", "recall", "coverage", "copy_rate", "density",
    "elbo", "iwae", "nll_ais", "ais_gap", "bits_per_dim",
)  # fmt: skip


# first words of names that tell which way is better
HIGHER = ("is", "elbo", "iwae", "coverage", "density", "precision", "recall", "psnr", "ssim")
LOWER = ("fid", "fd", "kid", "nll", "ais", "bits", "copy", "rmse", "mse", "lpips")


def higher_is_better(name: str) -> bool | None:
    """Which way the quantity `name` is better, for what has no card: `fd_lenet` is better low."""
    word = name.split("_")[0]
    return None if word not in (*HIGHER, *LOWER) else word in HIGHER


def digest(content: Any, length: int = 12) -> str:
    """First `length` hex digits of the sha256 of `content` as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Score:
    """One number of one checkpoint, with the card that says how it was taken.

    `name` tells the extractor (`fd_lenet-digits-v1`, `fid`) or the likelihood
    (`elbo_discretized-logistic`). `value` is None when `status` says why there is no number; a status
    beside a value says why it is not to be compared.
    `low` and `high` bound the number itself (None where no interval is known), not its spread over seeds.
    """

    name: str
    value: float | None
    unit: str
    higher_is_better: bool | None
    card: Mapping[str, Any]
    low: float | None = None
    high: float | None = None
    checkpoint: str = "final"
    status: str = "ok"
    protocol: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Derive `protocol` from the card; only scores with equal protocols are comparable."""
        object.__setattr__(self, "protocol", digest(self.card))

    @property
    def quantity(self) -> str:
        """What is measured, without by what: `fd` of `fd_lenet-digits-v1`."""
        return str(self.card.get("quantity", self.name))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Score":
        """Read what `to_dict` wrote."""
        return cls(**{key: value for key, value in content.items() if key != "protocol"})
