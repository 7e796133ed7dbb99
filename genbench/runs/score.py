"""A score: a number and the card that says how it was measured. Imports no torch."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# order of columns, by quantity
ORDER = (
    "fid", "fid_clean", "fd", "kid", "is", "precision", "recall", "coverage", "copy_rate", "density",
    "label_accuracy", "fd_by_class", "kid_by_class", "coverage_by_class", "cas",
    "modes", "mode_kl", "combinations_covered", "invented", "factor_tv", "pair_tv", "unread",
    "rfd", "psnr", "ssim", "lpips", "elbo", "elbo_subset", "iwae", "nll_ais", "ais_gap", "bits_per_dim",
)  # fmt: skip

# first words of the names of quantities of which more is better, and of which less is better
HIGHER = (
    "is", "elbo", "iwae", "coverage", "density", "precision", "recall", "psnr", "ssim", "modes", "combinations",
    "mig", "dci", "label", "cas",
)  # fmt: skip
LOWER = (
    "fid", "fd", "rfid", "rfd", "kid", "nll", "ais", "bits", "copy", "rmse", "mse", "lpips", "mode", "factor",
    "pair", "unread",
)  # fmt: skip


NEAR = 0.95  # share of a bound from which an estimate tells nothing but the bound
# in cards of scores of a model's weights, and in no others: what it generates, encodes, gives back or bounds
OF_WEIGHTS = ("fake", "reconstructed", "encoded", "inverted", "likelihood", "codes")


def higher_is_better(name: str) -> bool | None:
    """Whether more of the quantity `name` is better, for values without a card; None if unknown."""
    word = name.split("_")[0]
    return None if word not in (*HIGHER, *LOWER) else word in HIGHER


def digest(content: Any, length: int = 12) -> str:
    """First `length` hex digits of the sha256 of `content` as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Score:
    """One number measured on one checkpoint, with the card that says how.

    `name` contains the extractor (`fd_lenet-digits-v1`, `fid`) or the likelihood
    (`elbo_discretized-logistic`). `value` is None if it could not be computed; `status` is `ok`, or the
    reason why there is no value or why it must not be compared.
    `low` and `high` are a confidence interval of the value for these weights, not its spread over
    seeds (None if no interval is known); `interval` says what it covers.
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
    interval: str = ""  # scores of earlier versions do not say it
    protocol: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Set `protocol` to the hash of the card; only scores with equal protocols are comparable."""
        object.__setattr__(self, "protocol", digest(self.card))

    @classmethod
    def with_protocol(cls, values: Mapping[str, Any]) -> "Score":
        """Make a score from all its fields, `protocol` too: hashing a card takes 10 us."""
        score = object.__new__(cls)
        score.__dict__.update(values)
        return score

    @property
    def quantity(self) -> str:
        """What is measured, without the extractor: `fd` of `fd_lenet-digits-v1`."""
        return str(self.card.get("quantity", self.name))

    @property
    def split(self) -> str:
        """The split that the evaluation held out: `test`, or `validation` for what a search may see."""
        return str(self.card.get("split", "test"))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Score":
        """Inverse of `to_dict`; `protocol` is computed again, fields of a later version are ignored."""
        known = {f.name for f in fields(cls) if f.init}
        given = {key: value for key, value in content.items() if key in known}
        return cls(**given | {"card": _as_now(given["card"])})


def _as_now(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The card as it is written now, where an earlier version wrote the same protocol otherwise."""
    fake, estimator = card.get("fake", {}), card.get("estimator", {})
    if "latents" in fake and "pixels" not in fake:  # there was no choice
        card = {**card, "fake": {**fake, "pixels": "mean"}}
    plain = card.get("quantity") in ("fd", "fd_heldout")
    if plain and "bootstrap" in estimator:  # which changes the interval alone
        own = {k: v for k, v in estimator.items() if not k.startswith("bootstrap")}
        card = {**card, "estimator": own}
    return card


def interval_notes(scores: Collection[Score]) -> list[str]:
    """A line for each kind of interval: the scores that have it, and what it covers."""
    quantities: dict[str, dict[str, None]] = {}
    for score in scores:
        if score.interval and score.low is not None:
            quantities.setdefault(score.interval, {})[score.quantity] = None
    said = [f"[] of {', '.join(names)}: {words}" for words, names in quantities.items()]
    return said + bound_notes(scores)


def bound_notes(scores: Iterable[Score]) -> list[str]:
    """A line for each bound of an estimate that its value has reached: log N of N images, for information."""
    found = {}
    for score in scores:
        bound = str(score.card.get("estimator", {}).get("bound", ""))
        number = re.search(r"= ([\d.]+) nats", bound)
        if number and score.value is not None and score.value > NEAR * float(number[1]):
            found[score.quantity] = (
                f"{score.quantity} is at the bound of its estimate, {bound}: the information is larger, and "
                "marginal_kl too large by as much"
            )
    return list(found.values())
