"""What belongs to each latent of a run's encoder: its folder `latents`, a file per protocol. No torch."""

import json
from collections.abc import Sequence
from pathlib import Path

BY_UNIT = "by_unit"  # key of the lists: `rate` in nats and `variance` of the posterior's mean


def latents_file(protocol: str) -> str:
    """Where a run has them, by the protocol of its `active_units`."""
    return f"latents/{protocol}.json"


def rates_by_unit(run: Path, protocol: str) -> Sequence[float] | None:
    """The rate of each latent in nats; None where there is none, or where the file is damaged."""
    try:
        content = json.loads((run / latents_file(protocol)).read_text(encoding="utf-8"))
        return [float(rate) for rate in content[BY_UNIT]["rate"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
