"""One run on one page: build, fit, evaluate, record. In a worker: `python -m genbench.train RUN`."""

from genbench import work  # the first of all imports

# isort: split

import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from genbench.data.contract import ImageData
from genbench.device import spare_page_faults, training_memory
from genbench.errors import DONE, FAILED, GenbenchError, Interrupted, UserMistake, heard
from genbench.metrics.evaluation import Evaluation
from genbench.models.contract import HasLikelihood
from genbench.runs.budget import Budget
from genbench.runs.config import read_config
from genbench.runs.files import write_json
from genbench.runs.heartbeat import Heartbeat
from genbench.runs.history import read_history
from genbench.runs.method import fingerprint, method
from genbench.runs.result import FILENAME, Result, write_result
from genbench.runs.stops import STOPS, stop_name
from genbench.training import loading, loggers, ranks, trainer
from genbench.training.callbacks.averaging import Averaging
from genbench.training.callbacks.selection import Selection
from genbench.training.environment import describe, describe_device, peak_memory
from genbench.training.pictures import save_curves
from genbench.training.trainer import Engine

log = logging.getLogger("genbench")


def run(
    directory: Path,
    cfg: DictConfig,
    heartbeat: Heartbeat | None,
    resume: bool,
    sinks: list[Logger],
) -> None:
    """Train and score what `cfg` describes; only the process with a heartbeat writes the record.

    The loggers that it makes are added to `sinks`, for whoever has to close them.
    """
    if resume and (directory / FILENAME).exists():  # killed between its result and its last word
        return
    model, data = loading.build(cfg)
    evaluation: Evaluation = instantiate(cfg.evaluation)
    evaluation.prepare(data)
    budget: Budget = instantiate(cfg.budget)
    config: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    averaging: Averaging | None = instantiate(cfg.ema) if cfg.ema else None
    selection = choose(cfg, evaluation, data, directory)
    if heartbeat:
        sinks += loggers.build(cfg.logger, directory, config, fingerprint(config))
    extra = [callback for callback in (averaging, selection) if callback]
    callbacks = [*instantiate(cfg.callbacks).values(), *extra]
    schedule = instantiate(cfg.get("schedule"))  # runs of before had none
    clip = config.get("gradient_clip")
    machine: Engine = instantiate(cfg.trainer)(
        model, data, directory, sinks, budget, heartbeat, callbacks, schedule, clip
    )
    machine.checkpoints.precision_asked = config["trainer"]["precision"] != "auto"
    config["trainer"]["precision"] = machine.precision
    machine.checkpoints.method = method(config)
    machine.checkpoints.trainer = trainer_card(config, machine)
    if heartbeat:
        machine.alarms.say = say
        announce(config, machine)

    with training_memory(budget.batch_size, config["trainer"].get("accumulate", 1)):
        machine.fit(resume)
    if torch.distributed.is_initialized():  # the ranks part here; nothing below may synchronise
        torch.distributed.destroy_process_group()
    if not heartbeat:
        return

    config["trainer"]["precision"] = machine.checkpoints.method["precision"]  # of all its trainers
    scores = evaluation(model.to(machine.device), data, machine.device, directory)
    if averaging and machine.steps:
        with averaging.applied(model):
            scores += evaluation(model, data, machine.device, directory, averaging.card())
    if selection and selection.path.exists():
        loading.load_weights(model, selection.path)
        best = evaluation(model, data, machine.device)  # no directory: not the final weights
        own = [score for score in best if "fake" in score.card or "likelihood" in score.card]
        scores += [replace(score, checkpoint="best") for score in own]
    hold_signals()
    result = Result(
        run_id=directory.name,
        study=cfg.study,
        tags=list(cfg.tags),
        status="finished",
        model=cfg.choices.model,
        dataset=cfg.choices.dataset,
        seed=cfg.seed,
        fingerprint=fingerprint(config),
        config=config,
        budget={
            "images": model.images_shown,
            "generator_steps": machine.generator_steps,
            "discriminator_steps": machine.discriminator_steps,
            "epochs": model.images_shown / len(data.pixels("train")),
            "seconds": machine.telemetry.seconds,
            "skipped_steps": {k: s.total for k, s in model.skipped().items() if s.total},
        },
        cost={
            "parameters": model.parameter_counts(),
            "peak_memory_bytes": peak_memory(machine.device),
            "train_images_per_second": machine.images_per_second,
            "sample_images_per_second": evaluation.sample_images_per_second,
            "data_wait_seconds": machine.waiting.seconds,
            "device": describe_device(machine.device),
        },
        scores=scores,
        environment=describe(machine.device)
        | {"precision": machine.resolved.card(), "trainers": machine.checkpoints.trainers},
        warnings=list(machine.alarms.warnings.values()),
    )
    curves = save_curves(read_history(directory), directory / "samples" / "curves.png")
    loggers.log_images(sinks, "curves", curves, model.images_shown)
    write_json(directory / "environment.json", dict(result.environment))
    write_result(directory, result)
    loggers.finish(sinks, scores, "finished")
    sinks.clear()
    report(result, directory)


def choose(
    cfg: DictConfig, evaluation: Evaluation, data: ImageData, directory: Path
) -> Selection | None:
    """Make what keeps the best weights, if they are wanted."""
    if not cfg.selection:
        return None
    evaluation.check_seed(cfg.selection.seed)
    measure = partial(evaluation.validation_distance, data)
    selection: Selection = instantiate(cfg.selection)(measure, directory)
    return selection


def trainer_card(config: dict[str, Any], machine: Engine) -> dict[str, Any]:
    """Say what trains, as it was asked for and as it is here."""
    asked = {k: v for k, v in config["trainer"].items() if not k.startswith("_")}
    return asked | {
        "processes": machine.world_size,
        "device": describe_device(machine.device),
        "host": platform.node(),
    }


def announce(config: dict[str, Any], machine: Engine) -> None:
    """Say what is about to happen, in three lines."""
    choices, parameters = config["choices"], machine.model.parameter_counts()
    players = " · ".join(f"{name} {count:,}" for name, count in parameters.items())
    say(f"{choices['model']} on {choices['dataset']}, seed {config['seed']}")
    say(f"  parameters: {players or 'none'}")
    say(
        f"  {machine.total_images:,} images in {machine.steps:,} steps · {machine.precision} on "
        f"{describe_device(machine.device)}"
        + (f" x {machine.world_size}" if machine.world_size > 1 else "")
    )
    if isinstance(machine.model, HasLikelihood):
        say(
            f"  minimises distortion + {config['model']['beta']:g} * rate, in nats per image "
            f"({machine.model.likelihood.tag})"
        )


def report(result: Result, directory: Path) -> None:
    """Say what came out."""
    for score in result.scores:
        value = score.status if score.value is None else f"{score.value:.4g}"
        weights = score.card.get("fake", {}).get("weights", "raw")
        marks = [mark for mark in (weights, score.checkpoint) if mark not in ("raw", "final")]
        name = f"{score.name} ({', '.join(marks)})" if marks else score.name
        say(f"  {name:<42} {value} {score.unit}".rstrip())
    say(f"  {directory}")


def say(line: str) -> None:
    """Write to the terminal and to log.txt."""
    print(line, flush=True)
    log.info(line)


@contextmanager
def open_log(directory: Path) -> Iterator[None]:
    """Send what is logged by genbench, Lightning and Python's warnings to log.txt.

    Notices reach the terminal too.
    """
    handler = logging.FileHandler(directory / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not hide the error that says so
    sources = [logging.getLogger(n) for n in ("genbench", "pytorch_lightning", "py.warnings")]
    for logger in sources:
        logger.addHandler(handler)
        logger.propagate = False
    log.setLevel(logging.INFO)
    try:
        with heard(lambda notice: say(f"warning: {notice}")):
            yield
    finally:
        for logger in sources:
            logger.removeHandler(handler)
            logger.propagate = True
        logging.captureWarnings(False)
        with suppress(OSError):
            handler.close()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals of a stop end what is not training, at once: nothing of it would be lost."""

    def stop(number: int, frame: Any) -> None:
        hold_signals()  # once is enough
        raise Interrupted(
            f"stopped by {stop_name(number)} outside training; `genbench resume` goes on "
            "from the last checkpoint"
        )

    if threading.current_thread() is not threading.main_thread():  # Python allows it only there
        yield
        return
    before = {n: signal.signal(n, stop) for n in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hold_signals() -> None:
    """Let nothing come between a run and its last words."""
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)


def explain(error: BaseException, cfg: DictConfig) -> GenbenchError:
    """Turn any end of a run into an error with a sentence, a status and an exit code."""
    if isinstance(error, GenbenchError):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, GenbenchError) else None
    if cause:
        return cause
    if isinstance(error, OSError) and error.errno is not None:
        return GenbenchError(
            f"{os.strerror(error.errno).lower()} while writing to {cfg.paths.outputs}. What was "
            "recorded before is kept; make room or permit writing, then `genbench resume`"
        )
    return GenbenchError(
        f"{type(error).__name__}: {error} (the trace is in log.txt; GENBENCH_DEBUG=1 prints it)"
    )


def leave_word(
    heartbeat: Heartbeat, status: str, error: GenbenchError, raised: BaseException
) -> None:
    """Record how a run ended, even on a full disk: a write that was cut off makes room for it."""
    for unfinished in heartbeat.directory.rglob("*.partial"):
        unfinished.unlink(missing_ok=True)
    with suppress(OSError):  # if nothing can be written, the parent has the exit code
        heartbeat.finish(status, str(error))
    log.error(str(error), exc_info=raised)


def main(argv: list[str]) -> int:
    """Run what a run directory describes; returns the exit code."""
    work.search()
    directory, resume = Path(argv[0]), "--resume" in argv
    spare_page_faults()
    trainer.quieten_lightning()
    cfg = OmegaConf.create(read_config(directory))
    if not ranks.is_first_rank():
        return ranks.follow(
            directory, partial(run, directory, cfg, None, resume, []), partial(explain, cfg=cfg)
        )
    sinks: list[Logger] = []
    with stoppable(), open_log(directory), Heartbeat(directory) as heartbeat:
        try:
            run(directory, cfg, heartbeat, resume, sinks)
        except BaseException as raised:
            hold_signals()
            error = explain(raised, cfg)
            refused = resume and isinstance(error, UserMistake)  # it can still be resumed
            status = "interrupted" if refused else error.status
            leave_word(heartbeat, status, error, raised)
            loggers.finish(sinks, [], status)  # after the record, for a dashboard may take a while
            if os.environ.get("GENBENCH_DEBUG"):
                raise
            print(f"genbench: {error}", file=sys.stderr)
            return error.exit_code or FAILED
        heartbeat.finish("finished")
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
