"""Features of one evaluation, extracted by several processes; what they find goes through files.

Every process takes a run of whole batches, the very ones that a single process would have, and the
first puts the features together in order: so the scores are those of one device.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from genbench.errors import GenbenchError
from genbench.metrics.contract import Features

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Share:
    """Which part of the batches is this process's: that of `rank` out of `world`."""

    rank: int = 0
    world: int = 1
    folder: Path = Path()
    helpers: tuple["subprocess.Popen[bytes]", ...] = ()

    def of(self, batches: int) -> range:
        """Numbers of this process's batches."""
        return range(self.rank * batches // self.world, (self.rank + 1) * batches // self.world)

    def gather(self, role: str, own: Features) -> Features:
        """All processes' features in order; in a helper, which hands its own over, those alone."""
        if self.rank:
            target = self._file(role, self.rank)
            partial = target.with_suffix(".partial")
            save_file({k: v.contiguous() for k, v in own._asdict().items()}, partial)
            os.replace(partial, target)
            return own
        found = [own]
        for rank in range(1, self.world):
            self._wait_for(role, rank)
            tensors = load_file(self._file(role, rank))
            found.append(Features(tensors["features"], tensors["logits"]))
        found = [part for part in found if len(part.features)]  # more devices than batches
        if len(found) == 1:
            return found[0]
        return Features(
            torch.cat([part.features for part in found]), torch.cat([part.logits for part in found])
        )

    def _file(self, role: str, rank: int) -> Path:
        return self.folder / f"{role}-{rank}.safetensors"

    def _wait_for(self, role: str, rank: int) -> None:
        while not self._file(role, rank).exists():
            code = self.helpers[rank - 1].poll()
            if code is not None and not self._file(role, rank).exists():
                raise GenbenchError(
                    f"the evaluation's process {rank} of {self.world} ended with code {code}: see "
                    "its message above, or set evaluation.devices=1"
                )
            time.sleep(POLL_SECONDS)


@contextmanager
def helped(
    devices: int, directory: Path | None, protocol: Path | None, roles: Sequence[str]
) -> Iterator[Share]:
    """Start `devices - 1` processes that extract their shares of `roles` of a run's last weights."""
    if devices == 1 or directory is None:
        yield Share()
        return
    with tempfile.TemporaryDirectory(prefix="genbench-shares-") as name:
        config = protocol or directory / "config.yaml"
        command = [sys.executable, "-m", "genbench.evaluate", str(directory), str(config)]
        helpers = tuple(
            subprocess.Popen([*command, "--share", f"{rank}/{devices}", name, *roles])
            for rank in range(1, devices)
        )
        try:
            yield Share(0, devices, Path(name), helpers)
        finally:
            for helper in helpers:
                helper.kill()
                helper.wait()
