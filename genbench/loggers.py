"""Where the numbers and pictures of a run go while it trains: history.csv, wandb, TensorBoard.

The x-axis of everything is the number of images shown to the decoder. No logger can end a training:
one that fails says so once and is left alone from then on.
"""

import csv
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from hydra.utils import instantiate
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from genbench.dashboard import decide
from genbench.score import Score

FILENAME = "history.csv"
FINISH_SECONDS = 60.0  # that a dashboard may take for its last upload
P = ParamSpec("P")


def build(
    loggers: Mapping[str, Any], directory: Path, config: Mapping[str, Any], fingerprint: str
) -> list[Logger]:
    """Make the loggers of a run: history.csv always, the others as configured."""
    mode = os.environ.get("GENBENCH_LOGGER") or decide(loggers)
    sinks: list[Logger] = [History(directory)]
    for name, entry in loggers.items():
        if name == "wandb" and mode == "none":
            continue
        extra = {"mode": mode, "run_config": dict(config), "group": fingerprint}
        extra = extra if name == "wandb" else {}
        sinks.append(instantiate(entry, directory=directory, _convert_="all", **extra))
    return sinks


def rewind(loggers: Iterable[Logger], images: int) -> None:
    """Forget what was logged beyond `images`: a resumed run will log it again."""
    for logger in loggers:
        if isinstance(logger, History):
            logger.rewind(images)


def log_images(loggers: Iterable[Logger], key: str, path: Path, images: int) -> None:
    """Send a picture, a PNG file, to every logger that shows pictures."""
    for logger in loggers:
        if isinstance(logger, Wandb | TensorBoard):
            logger.log_picture(key, path, images)


def finish(loggers: Iterable[Logger], scores: Sequence[Score], status: str) -> None:
    """Send the final scores as `final/<name>` and close the loggers."""
    for logger in loggers:
        if isinstance(logger, Wandb | TensorBoard):
            logger.log_final(scores)
        logger.finalize(status)


def read_history(directory: Path) -> dict[str, list[tuple[float, float]]]:
    """Points (images, value) of everything in history.csv; empty where there is none."""
    path, points = directory / FILENAME, dict[str, list[tuple[float, float]]]()
    if not path.exists():
        return points
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            images = float(row.pop("images"))
            for name, value in row.items():
                if value:
                    points.setdefault(name, []).append((images, float(value)))
    return points


class _Sink(Logger):
    """What Lightning asks of a logger and genbench does not use."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    @property
    def name(self) -> str:
        """The run's id."""
        return self.directory.name

    @property
    def version(self) -> str:
        """There is one of each run."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in config.yaml."""


class History(_Sink):
    """`history.csv`: a row per step of the clock; a column that comes later is blank before."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.path = directory / FILENAME
        self.rows: list[dict[str, Any]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = [dict(row) for row in csv.DictReader(file)]
        self.columns = list(self.rows[0]) if self.rows else ["images"]

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row at `step` images."""
        row = {"images": step, **metrics}
        new = [name for name in row if name not in self.columns]
        self.rows.append(row)
        if new or not self.path.exists():
            self.columns += new
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def rewind(self, images: int) -> None:
        """Cut the rows beyond `images`."""
        kept = [row for row in self.rows if float(row["images"]) <= images]
        if len(kept) < len(self.rows):
            self.rows = kept
            self._rewrite()

    def _rewrite(self) -> None:
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)


def _never_raises(method: Callable[P, None]) -> Callable[P, None]:
    """Turn the first exception of a dashboard into one warning, and its later calls into nothing."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        self: Any = args[0]
        if self.broken:
            return
        try:
            method(*args, **kwargs)
        except Exception as error:
            self.broken = True
            warnings.warn(
                f"{type(self).__name__}: {type(error).__name__}: {error}; training goes on without it",
                stacklevel=2,
            )

    return guarded


class Wandb(_Sink):
    """A run in the wandb dashboard: seeds of one method in one group, models side by side."""

    def __init__(
        self,
        directory: Path,
        run_config: Mapping[str, Any],
        group: str,
        mode: str,
        project: str,
        entity: str | None,
        only_if_logged_in: bool = False,
    ) -> None:
        super().__init__(directory)
        self.broken = False
        self._run: Any = None
        self._start(run_config, group, mode, project, entity)

    @_never_raises
    def _start(
        self, config: Mapping[str, Any], group: str, mode: str, project: str, entity: str | None
    ) -> None:
        import wandb
        from pytorch_lightning.loggers import WandbLogger

        choices = config["choices"]
        columns = {key: config.get(key) for key in ("seed", "study")}
        logger = WandbLogger(
            project=project,
            entity=entity,
            name=f"{choices['model']}-{choices['dataset']}-{config['seed']}",
            id=os.environ.get("WANDB_RUN_ID") or self.directory.name,  # an agent's own comes first
            resume="allow",
            save_dir=self.directory,
            mode=mode,
            group=f"{choices['model']}-{choices['dataset']}-{group}",
            job_type="train",
            tags=[choices["model"], choices["dataset"], *(config.get("tags") or [])],
            config=dict(choices) | columns | {"fingerprint": group, "cfg": dict(config)},
            settings=wandb.Settings(init_timeout=FINISH_SECONDS, console="off", silent=True),
        )
        self._run = logger.experiment
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images")

    @_never_raises
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at `step` images."""
        self._run.log({**metrics, "images": step})

    @_never_raises
    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Log a PNG as media."""
        import wandb

        self._run.log({key: wandb.Image(str(path)), "images": images})

    @_never_raises
    def log_final(self, scores: Sequence[Score]) -> None:
        """Put the scores in the summary as columns, and with their protocols in a table."""
        import wandb

        self._run.summary.update({f"final/{s.name}": s.value for s in scores})
        rows = [[s.name, s.value, s.unit, s.checkpoint, s.protocol, s.status] for s in scores]
        columns: list[str | int] = ["score", "value", "unit", "checkpoint", "protocol", "status"]
        self._run.log({"scores": wandb.Table(columns=columns, data=rows)})

    @_never_raises
    def finalize(self, status: str) -> None:
        """Upload what is left, for a minute at most."""
        if status != "finished" and status != "failed":
            return  # Lightning says "success" after the fit; the scores are still to come
        ending = threading.Thread(target=self._end, args=(status,), daemon=True)
        ending.start()
        ending.join(FINISH_SECONDS)

    def _end(self, status: str) -> None:
        import wandb

        self._run.finish(exit_code=0 if status == "finished" else 1)
        wandb.teardown()  # returns when everything is written; `finish` alone may not wait


class TensorBoard(_Sink):
    """Event files in the run directory's `tensorboard` folder."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.broken = False
        self._logger = TensorBoardLogger(directory, name="", version="tensorboard")

    @_never_raises
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at `step` images."""
        self._logger.log_metrics(dict(metrics), step)

    @_never_raises
    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Log a PNG."""
        import numpy as np
        from PIL import Image

        picture = np.asarray(Image.open(path).convert("RGB"))
        self._logger.experiment.add_image(key, picture, images, dataformats="HWC")

    @_never_raises
    def log_final(self, scores: Sequence[Score]) -> None:
        """Log the scores as scalars `final/<name>`."""
        self._logger.log_metrics(
            {f"final/{s.name}": s.value for s in scores if s.value is not None}
        )

    @_never_raises
    def finalize(self, status: str) -> None:
        """Flush; close after the last word."""
        self._logger.experiment.flush()
        if status in ("finished", "failed"):
            self._logger.experiment.close()
