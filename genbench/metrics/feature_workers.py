"""Features of one evaluation extracted by several processes, which exchange them through files.

Each process takes consecutive whole batches, the same ones that a single process would make, and the
first process joins the results in order: the scores are bit for bit those of one process.
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
from genbench.runs.files import atomic_write

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class FeatureWorkers:
    """The processes of an evaluation, as process `rank` of `world` sees them.

    Rank 0 computes the scores; it alone has `processes`, the handles of the ranks 1 .. world - 1,
    which it started. Features travel through `folder`.
    """

    rank: int = 0
    world: int = 1
    folder: Path = Path()
    processes: tuple["subprocess.Popen[bytes]", ...] = ()

    def own(self, batches: int) -> range:
        """Numbers of this process's batches, out of 0 .. batches - 1."""
        return range(self.rank * batches // self.world, (self.rank + 1) * batches // self.world)

    def gather(self, name: str, own: Features) -> Features:
        """On rank 0: the features `name` of all ranks, in order. Elsewhere: write `own` for rank 0.

        Raises GenbenchError if a process has ended without writing its features.
        """
        if self.rank:
            tensors = {name: part.contiguous() for name, part in own._asdict().items()}
            with atomic_write(self._file(name, self.rank), sync=False) as temporary:
                save_file(tensors, temporary)
            return own
        found = [own]
        for rank in range(1, self.world):
            self._wait_for(name, rank)
            tensors = load_file(self._file(name, rank))
            found.append(Features(tensors["features"], tensors["logits"]))
        found = [part for part in found if len(part.features)]  # more processes than batches
        if len(found) == 1:
            return found[0]
        return Features(
            torch.cat([part.features for part in found]), torch.cat([part.logits for part in found])
        )

    def _file(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}-{rank}.safetensors"

    def _wait_for(self, name: str, rank: int) -> None:
        while not self._file(name, rank).exists():
            code = self.processes[rank - 1].poll()
            if code is not None and not self._file(name, rank).exists():
                raise GenbenchError(
                    f"the evaluation's process {rank} of {self.world} ended with code {code}: see "
                    "its message above, or set evaluation.devices=1"
                )
            time.sleep(POLL_SECONDS)


ALONE = FeatureWorkers()


@contextmanager
def start_workers(
    devices: int,
    directory: Path | None,
    protocol: Path | None,
    device: str,
    arguments: Sequence[str],
) -> Iterator[FeatureWorkers]:
    """Start `devices - 1` processes of `genbench.evaluate` for the final weights of a run.

    They compute on the same kind of `device`, cpu or cuda. `arguments` are the splits to extract and
    other words that `genbench.evaluate` knows. Without a run directory there are no weights to load, so this process works alone. On leaving, the
    processes are killed: what they had to do is done, or is not wanted any more.
    """
    if devices == 1 or directory is None:
        yield ALONE
        return
    with tempfile.TemporaryDirectory(prefix="genbench-shares-") as name:
        config = protocol or directory / "config.yaml"
        command = [sys.executable, "-m", "genbench.work", "evaluate", str(directory), str(config)]
        command += ["--device", device]
        processes = tuple(
            subprocess.Popen(
                [*command, "--share", f"{rank}/{devices}", name, *arguments],
                env=os.environ | {"LOCAL_RANK": str(rank)},  # each has its GPU from the start
            )
            for rank in range(1, devices)
        )
        try:
            yield FeatureWorkers(0, devices, Path(name), processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
