"""A run in the wandb dashboard."""

import atexit
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.dataset_name import dataset_name
from genbench.runs.files import UNSENT, first_line
from genbench.runs.priors import score_address
from genbench.runs.score import Score
from genbench.training.loggers.sink import RemoteDashboard

FINISH_SECONDS = 60.0  # that a dashboard may take for its last upload
TAG_LETTERS = 64  # wandb refuses a run with a longer tag
ARTIFACTS = ("code", "checkpoints")  # that a run can leave with wandb


def known_as(directory: Path) -> str | None:
    """Id of a run in wandb, which a sweep's agent may have chosen; None before its first piece."""
    pieces = sorted((directory / "wandb").glob("*run-*-*"))
    names = [piece.name.removeprefix("offline-") for piece in pieces]  # run-<time>-<id>
    return names[0].split("-", 2)[2] if names else None


class Wandb(RemoteDashboard):
    """A run in the wandb dashboard: seeds of one method in one group, models side by side.

    A thread of its own talks to wandb, so that training waits neither for its start nor for its
    network. Where the server fails at the start, the run is logged offline. `artifacts` are those of
    ARTIFACTS to be sent too; UserMistake for another name.
    """

    def __init__(
        self,
        directory: Path,
        run_config: Mapping[str, Any],
        group: str,
        mode: str,
        project: str,
        entity: str | None,
        only_if_logged_in: bool = False,
        init_seconds: float = 20.0,
        artifacts: Sequence[str] = (),
    ) -> None:
        super().__init__(directory)
        unknown = [name for name in artifacts if name not in ARTIFACTS]
        if unknown:
            raise UserMistake(
                f"logger.wandb.artifacts names {unknown[0]}: there are {', '.join(ARTIFACTS)}"
            )
        self._artifacts = tuple(artifacts)
        self._exit_code, self._left = 0, False
        about = {"project": project, "entity": entity} | self._about(run_config, group)
        self._thread = threading.Thread(
            target=self._work, args=(about, mode, init_seconds), name="wandb", daemon=True
        )
        self._thread.start()

    def _about(self, config: Mapping[str, Any], group: str) -> dict[str, Any]:
        """What groups seeds and compares models without a click."""
        choices = {**config["choices"], "dataset": dataset_name(config)}
        columns = {key: config.get(key) for key in ("seed", "study")}
        study = [config["study"]] if config.get("study") else []
        tags = [choices["model"], choices["dataset"], *study, *(config.get("tags") or [])]
        return {
            "name": f"{choices['model']}-{choices['dataset']}-{config['seed']}",
            "id": known_as(self.directory) or self.directory.name,
            "dir": self.directory,
            "group": f"{choices['model']}-{choices['dataset']}-{group}",
            "job_type": "train",
            "tags": list(dict.fromkeys(str(tag)[:TAG_LETTERS] for tag in tags)),
            "config": choices | columns | {"fingerprint": group, "cfg": dict(config)},
        }

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log at `step` images."""
        point = {**metrics, "images": step}
        self._submit(lambda run: run.log(point))

    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Log a PNG as media."""

        def log(run: Any) -> None:
            import wandb

            run.log({key: wandb.Image(str(path)), "images": images})

        self._submit(log)

    def log_final(self, scores: Sequence[Score]) -> None:
        """Put scores and cards in the summary, both in a table, and send what was asked for."""

        def log(run: Any) -> None:
            import wandb

            cards = [json.dumps(dict(s.card), sort_keys=True) for s in scores]
            pairs = list(zip(scores, cards, strict=True))
            run.summary.update({score_address(s): s.value for s in scores})
            run.summary.update({f"card/{score_address(s)}": card for s, card in pairs})
            rows = [
                [
                    score_address(s).partition("/")[2],
                    s.value,
                    s.unit,
                    s.checkpoint,
                    s.protocol,
                    s.status,
                    card,
                ]
                for s, card in pairs
            ]
            heads: list[str | int] = [
                *("score", "value", "unit", "checkpoint", "protocol", "status", "card")
            ]
            run.log({"scores": wandb.Table(columns=heads, data=rows)})
            if "checkpoints" in self._artifacts:
                self._send_checkpoints(run)

        self._submit(log)

    def _send_checkpoints(self, run: Any) -> None:
        """Send the weights that were scored; of a run without any, those that it would go on from."""
        import wandb

        folder = self.directory / "checkpoints"
        scored = [path for name in ("final", "best") if (path := folder / f"{name}.ckpt").exists()]
        for path in scored or folder.glob("last.ckpt"):
            artifact = wandb.Artifact(f"{path.stem}-{run.id}", type="model")
            artifact.add_file(str(path))
            run.log_artifact(artifact)

    def close(self, status: str) -> None:
        """Upload what is left, for a minute at most."""
        atexit.unregister(self.finalize)
        self._exit_code = 0 if status == "finished" else 1
        self._tasks.put(None)
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self._leave_rest()
        self._warn()

    def _leave_rest(self) -> None:
        if not self._left:
            self._left = True
            self._warnings.put(
                "wandb: its last upload takes too long; "
                f"`genbench wandb sync {self.directory}` sends the rest"
            )

    def _work(self, about: Mapping[str, Any], mode: str, init_seconds: float) -> None:
        """Do what is asked, in order, until the end is; runs in the thread."""
        try:
            run = self._open(about, mode, init_seconds)
            atexit.register(self.finalize, "failed")  # a run that ends without another word
            for task in iter(self._tasks.get, None):
                task(run)
            run.finish(exit_code=self._exit_code)
            (_folder(run) / UNSENT).unlink(missing_ok=True)
        except TimeoutError:
            self._leave_rest()
        except Exception as error:
            self._broken = True
            self._warnings.put(f"wandb: {first_line(error)}; training goes on without it")
        finally:
            with suppress(Exception):
                _let_go()

    def _open(self, about: Mapping[str, Any], mode: str, init_seconds: float) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=init_seconds,
            finish_timeout=FINISH_SECONDS / 2,  # of its exit handler too, which is a second wait
            finish_timeout_raises=True,
            console="off",
            silent=True,
        )

        def start(how: Any) -> Any:
            return wandb.init(mode=how, resume="allow", settings=settings, **about)

        try:
            run = start(mode)
        except Exception as error:
            if mode != "online":
                raise
            self._warnings.put(f"wandb: {first_line(error)}; logging offline")
            _let_go()  # or it holds this run's id
            run = start("offline")
        if not run.offline:
            (_folder(run) / UNSENT).touch()
        run.define_metric("images")
        run.define_metric("*", step_metric="images")
        if "code" in self._artifacts:
            run.log_code(str(Path(__file__).parents[2]), name=f"code-{run.id}", include_fn=_is_code)
        return run


def _folder(run: Any) -> Path:
    """What wandb keeps of a run here; `run.dir` is a folder in it."""
    return Path(run.dir).parent


def _is_code(path: str) -> bool:
    return path.endswith((".py", ".yaml"))


def _let_go() -> None:
    """End wandb's service, which returns when everything is written; `finish` alone may not wait.

    It has been seen to wait for ever, so only in a thread; it takes wandb's exit handler away first.
    """
    import wandb

    wandb.teardown()
